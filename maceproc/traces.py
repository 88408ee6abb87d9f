"""Any trace into tables: what kind of file it is gets decided here, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maceproc.capture_files import check_is_trace
from maceproc.echoes import is_echo_file
from maceproc.errors import AnalysisError, TraceFormatError
from maceproc.memory import free_memory
from maceproc.perfdata.container import is_perf_data
from maceproc.schema import EVENTS, Trace
from maceproc.tracedat.container import is_trace_dat
from maceproc.tracedat.selection import Selection

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.tracedat.summary import Summary
    from maceproc.tracedat.windows import Window


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
    _refuse_echoes(Path(path))
    kind = kind_of(path)
    if kind is Kind.TRACE_DAT or reader not in ("maceproc", "tracecmd"):
        from maceproc.tracedat.reader import read_events as read_trace_dat

        return read_trace_dat(path, events, fields, start_ns, end_ns, buffer=buffer, reader=reader)
    if reader == "tracecmd":
        found, expected = f"{kind.value}, which trace-cmd's module cannot read", "a trace.dat"
        raise TraceFormatError(Path(path), offset=None, found=found, expected=expected)
    selection = Selection.of(events, fields, start_ns, end_ns, buffer=buffer)
    if kind is Kind.PERF_DATA:
        from maceproc.perfdata.container import open_perf
        from maceproc.perfdata.reader import read_opened

        return read_opened(open_perf(path), selection)
    from maceproc.tracetext import read_text

    return _selected(path, read_text(path, events), selection)


def read_trace(
    path: Path,
    events: Iterable[str] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    *,
    fields: Iterable[str] | None = None,
) -> Trace:
    """Read the events of a capture's trace: all of them, or those named, or of a span of time.

    Raises CaptureError when there is no such file, else as `read_events`.
    """
    check_is_trace(path)
    return read_events(path, events, fields, start_ns, end_ns)


# What one pass takes, and what windows take: their events are read ahead, two windows at a time.
BYTES_PER_PAGE_BYTE, BYTES_PER_WINDOW_BYTE = 3.0, 15.0
OWN_BYTES = 200 << 20  # what the program takes before it reads anything
SMALLEST_WINDOW = 1 << 20


def windows_for(path: Path, memory: int | None = None) -> list[Window]:
    """Return windows of time in which a trace can be read with so much memory [bytes].

    By default half of what is free is taken. None are needed (an empty list) when the whole trace
    can be read at once, or when it is no trace.dat: text and perf.data are read as a whole.
    """
    if not path.is_file() or not is_trace_dat(path):
        return []
    from maceproc.tracedat.windows import unpacked_bytes, windows_of

    allowed = memory if memory is not None else (free_memory() or 1 << 62) // 2
    size = unpacked_bytes(path)
    if OWN_BYTES + BYTES_PER_PAGE_BYTE * size <= allowed:
        return []
    window = max(int((allowed - OWN_BYTES) / BYTES_PER_WINDOW_BYTE), SMALLEST_WINDOW)
    return windows_of(path, window)


def read_other_times(
    path: Path, used: Collection[str], recorded: Sequence[str] | None = None
) -> Mapping[str, pd.DataFrame]:
    """Return the time and CPU of the events of a file that are not among those `used`.

    `recorded` names the events that were recorded (``system:event``), where that is known; where it
    is not, all events are returned. Text is slow to read: it is not read for this, and the tables
    are none.
    """
    if kind_of(path) is Kind.TEXT:
        return {}
    if recorded is None:
        return read_events(path, fields=()).events
    others = [name for name in recorded if name.rpartition(":")[2] not in used]
    return read_events(path, others, fields=()).events if others else {}


def _refuse_echoes(path: Path) -> None:
    """Raise TraceFormatError for a file of echoes by the BPF tracer."""
    if path.is_file() and is_echo_file(path):
        raise TraceFormatError(
            path,
            offset=0,
            found="echoes that `record --tracer bpf` wrote",
            expected="raw events",
            hint="maceproc analyze, explain and export read it",
        )


def require_cpus(path: Path, trace: Trace) -> None:
    """Raise AnalysisError when some samples of a perf.data do not say their CPU."""
    if any((table["cpu"] < 0).any() for table in trace.events.values()):
        raise AnalysisError(
            f"{path}: does not say on which CPU its events were",
            hint="record with `perf record -a` or `--sample-cpu`",
        )


def summarize_trace(path: Path) -> Summary:
    """Count the events of a file; raises as `read_trace`."""
    from maceproc.tracedat import summary

    check_is_trace(path)
    _refuse_echoes(path)
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
