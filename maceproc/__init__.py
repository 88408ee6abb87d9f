"""Corrected ping RTTs for containers.

A ping in a container reports a larger RTT than on the bare machine. maceproc records raw net
tracepoints beside the ping, follows every packet by its skb address from the container's device to
the outer one and back, and takes the time of those crossings out of the RTT, ping by ping.

    maceproc record --lab --rounds 5 -- ping -i 0.01 -c 200
    maceproc analyze trace.dat

    >>> import maceproc
    >>> analysis = maceproc.analyze("trace.dat")                          # doctest: +SKIP
    >>> analysis.rtts[["seq", "rtt_ns", "bare_metal_rtt_ns", "status"]]   # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from maceproc.capture_files import Capture as Capture
    from maceproc.capture_files import open_capture as open_capture
    from maceproc.comparison import Comparison as Comparison
    from maceproc.comparison import compare as compare
    from maceproc.errors import MaceprocError as MaceprocError
    from maceproc.fleet.collect import collect as collect
    from maceproc.fleet.dataset import Dataset as Dataset
    from maceproc.fleet.dataset import open_dataset as open_dataset
    from maceproc.many import analyze_many as analyze_many
    from maceproc.pipeline import Analysis as Analysis
    from maceproc.pipeline import analyze as analyze
    from maceproc.recording.by_name import record as record
    from maceproc.recording.lab import Lab as Lab
    from maceproc.shortcuts import explain as explain
    from maceproc.shortcuts import export as export
    from maceproc.traces import read_events as read_events

# Public names and where they are. They are imported when asked for: recording runs beside a
# measurement and must not wait for pandas.
_PUBLIC = {
    "Analysis": "maceproc.pipeline",
    "Capture": "maceproc.capture_files",
    "Comparison": "maceproc.comparison",
    "Dataset": "maceproc.fleet.dataset",
    "Lab": "maceproc.recording.lab",
    "MaceprocError": "maceproc.errors",
    "analyze": "maceproc.pipeline",
    "analyze_many": "maceproc.many",
    "collect": "maceproc.fleet.collect",
    "compare": "maceproc.comparison",
    "explain": "maceproc.shortcuts",
    "export": "maceproc.shortcuts",
    "open_capture": "maceproc.capture_files",
    "open_dataset": "maceproc.fleet.dataset",
    "read_events": "maceproc.traces",
    "record": "maceproc.recording.by_name",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604  the names above


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
