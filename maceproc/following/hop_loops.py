"""The compiled loops of following packets, where the installation could build them.

`loops` is None without them: everything then goes through NumPy, with the same results, in several
times the time and memory.
"""

from __future__ import annotations

from types import ModuleType

loops: ModuleType | None
try:
    from maceproc.following import _hops as loops
except ImportError:
    loops = None
