"""trace.dat, as trace-cmd writes it, into typed tables.

>>> from maceproc.tracedat import read_events
>>> trace = read_events("trace.dat")                      # doctest: +SKIP
>>> trace.events["net_dev_queue"]                         # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maceproc.tracedat.merge import merge_events as merge_events
    from maceproc.tracedat.reader import read_events as read_events

# Imported when asked for: what only counts or copies pages does not wait for pandas.
_PUBLIC = {"merge_events": "maceproc.tracedat.merge", "read_events": "maceproc.tracedat.reader"}

__all__ = ["merge_events", "read_events"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
