"""Any trace into tables: what kind of file it is gets decided here, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

from maceproc.perfdata.container import is_perf_data
from maceproc.schema import EVENTS, Trace
from maceproc.tracedat.container import is_trace_dat

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
        The file cannot be read as what it is.
    """
    kind = kind_of(path)
    if kind is Kind.TRACE_DAT:
        from maceproc.tracedat.reader import read_events as read_trace_dat

        return read_trace_dat(path, events, fields, start_ns, end_ns, buffer=buffer, reader=reader)
    if kind is Kind.PERF_DATA:
        from maceproc.perfdata import read_perf

        return read_perf(path, events, fields, start_ns, end_ns, buffer=buffer)
    from maceproc.tracetext import read_text

    return _selected(read_text(path, events), fields, start_ns, end_ns, buffer)


def read_times(path: str | os.PathLike[str]) -> Mapping[str, pd.DataFrame]:
    """Read time, CPU and task of every event, without the events' own fields."""
    return read_events(path, fields=()).events


def summarize(path: str | os.PathLike[str]) -> Summary:
    """Count the events of a file; raises as `read_events`."""
    from maceproc.tracedat import summary

    if kind_of(path) is Kind.TRACE_DAT:
        return summary.summarize(path)
    return summary.summarize_tables(read_events(path))


def _selected(
    trace: Trace,
    fields: Iterable[str] | None,
    start_ns: int | None,
    end_ns: int | None,
    buffer: str | None,
) -> Trace:
    """Leave out of the tables what is not wanted; the tables' index keeps its gaps."""
    wanted = None if fields is None else {fields} if isinstance(fields, str) else set(fields)
    tables = {}
    for name, frame in trace.events.items():
        rows = frame
        if buffer is not None:
            rows = (
                rows[rows["buffer"] == buffer]
                if "buffer" in rows
                else rows[[buffer == ""] * len(rows)]
            )
        if start_ns is not None:
            rows = rows[rows["time_ns"] >= start_ns]
        if end_ns is not None:
            rows = rows[rows["time_ns"] < end_ns]
        if wanted is not None:
            rows = rows[[c for c in rows if c in wanted or c in (*EVENTS.names, "buffer")]]
        if len(rows) or not len(frame):
            tables[name] = rows
    return replace(trace, events=tables)
