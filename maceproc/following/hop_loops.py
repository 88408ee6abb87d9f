"""The compiled loops of following packets, where the installation could build them.

`loops` is None without them: everything then goes through NumPy, with the same results, in several
times the time and memory. So it is with loops that were built from an older source: an editable
installation that was not repeated.
"""

from __future__ import annotations

from types import ModuleType

INTERFACE = "Interface 4"
"""What the loops of this source say of themselves, in _hops.c."""

loops: ModuleType | None
try:
    from maceproc.following import _hops as loops
except ImportError:
    loops = None
else:
    if not (loops.__doc__ or "").endswith(INTERFACE):
        loops = None
