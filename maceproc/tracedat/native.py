"""The compiled loops, where the installation could build them.

`loops` is None without them: everything then goes through NumPy, with the same results, in about
ten times the time. docs/reading-trace-dat.md has the figures behind this choice.
"""

from __future__ import annotations

import os
from types import ModuleType

loops: ModuleType | None
try:
    from maceproc.tracedat import _native as loops
except ImportError:
    loops = None
else:
    if not hasattr(loops, "kernel_records"):
        loops = None  # built from an older source: an editable installation that was not repeated

WORKERS = len(os.sched_getaffinity(0))
"""Threads that unpack, walk and copy: one per CPU this process may use."""
