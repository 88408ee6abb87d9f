"""Traces, whatever their format: a trace.dat or ftrace text is told by how the file begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maceproc.capture import check_is_trace
from maceproc.tracedat.container import is_trace_dat
from maceproc.tracedat.reader import read_events
from maceproc.tracedat.summary import Summary, summarize, summarize_tables
from maceproc.tracetext import read_text

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.schema import Trace


def read_trace(path: Path, events: Iterable[str] | None = None) -> Trace:
    """Read a trace.dat or ftrace text: all its events, or those named.

    Raises CaptureError and TraceFormatError as `maceproc.tracedat.read_events` and
    `maceproc.tracetext.read_text` do.
    """
    check_is_trace(path)
    return read_events(path, events) if is_trace_dat(path) else read_text(path, events)


def read_times(
    path: Path, trace: Trace, recorded: Sequence[str] | None = None
) -> Mapping[str, pd.DataFrame]:
    """Return every event of a file with its time and CPU.

    `trace` is what `read_trace` returned for that file. `recorded` names the events that were
    recorded (``system:event``), where that is known: then only those that `trace` lacks are read.
    Text is slow to read: of a text there are only the events of `trace`.
    """
    if not is_trace_dat(path):
        return trace.events
    if recorded is None:
        return read_events(path, fields=()).events
    others = [name for name in recorded if name.rpartition(":")[2] not in trace.events]
    return {**trace.events, **(read_events(path, others, fields=()).events if others else {})}


def summarize_trace(path: Path) -> Summary:
    """Count the events of a trace.dat or of ftrace text."""
    check_is_trace(path)
    return summarize(path) if is_trace_dat(path) else summarize_tables(read_text(path))
