"""Any trace into tables: what kind of file it is gets decided here, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maceproc.errors import TraceFormatError
from maceproc.perfdata.container import is_perf_data
from maceproc.schema import EVENTS, Trace
from maceproc.tracedat.container import is_trace_dat
from maceproc.tracedat.selection import Selection

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.tracedat.summary import Summary


class Kind(Enum):
    """What a trace file is."""

    TRACE_DAT = "trace.dat"
    PERF_DATA = "perf.data"
    TEXT = "text"


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """Tell what a file is by its first bytes; text when it cannot be read, whose reader says so."""
    if is_trace_dat(path):
        return Kind.TRACE_DAT
    return Kind.PERF_DATA if is_perf_data(path) else Kind.TEXT


def read_events(
    path: str | os.PathLike[str],
    events: Iterable[str] | None = None,
    fields: Iterable[str] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    *,
    buffer: str | None = None,
    reader: Literal["maceproc", "tracecmd"] = "maceproc",
) -> Trace:
    """Read a trace.dat, a perf.data, or their text, into one typed table per event.

    The parameters and what is returned are those of `maceproc.tracedat.read_events`, whatever the
    file is. Of text, everything is read before it is selected.

    Raises
    ------
    TraceFormatError
        The file cannot be read as what it is, or has no such buffer.
    ValueError
        There is no such reader.
    """
    kind = kind_of(path)
    if kind is Kind.TRACE_DAT or reader not in ("maceproc", "tracecmd"):
        from maceproc.tracedat.reader import read_events as read_trace_dat

        return read_trace_dat(path, events, fields, start_ns, end_ns, buffer=buffer, reader=reader)
    if reader == "tracecmd":
        found, expected = f"{kind.value}, which trace-cmd's module cannot read", "a trace.dat"
        raise TraceFormatError(Path(path), offset=None, found=found, expected=expected)
    if kind is Kind.PERF_DATA:
        from maceproc.perfdata.reader import read_perf

        return read_perf(path, events, fields, start_ns, end_ns, buffer=buffer)
    from maceproc.tracetext import read_text

    selection = Selection.of(events, fields, start_ns, end_ns, buffer=buffer)
    return _selected(path, read_text(path, events), selection)


def read_times(path: str | os.PathLike[str]) -> Mapping[str, pd.DataFrame]:
    """Read time, CPU and task of every event, without the events' own fields."""
    return read_events(path, fields=()).events


def summarize(path: str | os.PathLike[str]) -> Summary:
    """Count the events of a file; raises as `read_events`."""
    from maceproc.tracedat import summary

    if kind_of(path) is Kind.TRACE_DAT:
        return summary.summarize(path)
    return summary.summarize_tables(read_events(path))


def _selected(path: str | os.PathLike[str], trace: Trace, selection: Selection) -> Trace:
    """Leave out of the tables of a text what is not wanted; the tables' index keeps its gaps."""
    buffers = {str(name) for frame in trace.events.values() for name in _buffers(frame).unique()}
    if selection.buffer is not None and trace.events and selection.buffer not in buffers:
        raise TraceFormatError(
            Path(path),
            offset=None,
            found=f"no buffer {selection.buffer!r}",
            expected="one of " + ", ".join(map(repr, sorted(buffers))),
        )
    tables = {}
    for name, frame in trace.events.items():
        rows = frame[_wanted_rows(frame, selection)]
        own = [column for column in rows if _is_wanted(str(column), selection)]
        if len(rows) or name in (selection.events or ()):
            tables[name] = rows[own]
    return replace(trace, events=tables)


def _buffers(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return the buffer of every row; without such a column that is the top one, named ''."""
    import pandas as pd

    return frame["buffer"] if "buffer" in frame else pd.Series("", index=frame.index, dtype=str)


def _wanted_rows(frame: pd.DataFrame, selection: Selection) -> pd.Series[Any]:
    import pandas as pd

    times = frame["time_ns"]
    rows = pd.Series(True, index=frame.index)
    if selection.buffer is not None:
        rows &= _buffers(frame) == selection.buffer
    if selection.start_ns is not None:
        rows &= times >= selection.start_ns
    if selection.end_ns is not None:
        rows &= times < selection.end_ns
    return rows


def _is_wanted(column: str, selection: Selection) -> bool:
    """Whether a column is wanted; pid_ is the event's own field pid."""
    if column in (*EVENTS.names, "buffer") or selection.fields is None:
        return True
    return column in selection.fields or column.removesuffix("_") in selection.fields
