"""From a trace.dat to tables: the steps of reading, one after the other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import TraceFormatError
from maceproc.schema import EVENTS, Trace
from maceproc.tracedat.columns import (
    Column,
    Payloads,
    categorical_of,
    read_columns,
    recoded,
)
from maceproc.tracedat.container import CPUSTAT, UNAME, VERSION, Buffer, TraceFile, open_trace
from maceproc.tracedat.formats import (
    EventFormat,
    read_comms,
    read_formats,
    read_layout,
    require_formats,
)
from maceproc.tracedat.lost import lost_table
from maceproc.tracedat.pages import load_pages
from maceproc.tracedat.ringbuffer import (
    TYPES,
    Bytes,
    Int64s,
    Pages,
    Records,
    Stream,
    in_parallel,
    order_records,
    walk,
)
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.timing import Clock, read_clock

UNKNOWN_COMM = "<...>"  # as trace-cmd and the kernel print it


def read_events(
    path: str | os.PathLike[str],
    events: Iterable[str] | None = None,
    fields: Iterable[str] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    *,
    buffer: str | None = None,
) -> Trace:
    """Read a trace.dat into one typed table per event.

    Parameters
    ----------
    path
        A trace.dat of version 6 or 7, not compressed, or with zstd or zlib.
    events
        Which events: names (``net_dev_queue``), with their system (``net:net_dev_queue``), or
        shell patterns (``net:*``). All when None. A name the file does not know gives no table;
        one that it knows and that never occurred gives an empty one, if named without a pattern.
    fields
        Which of the events' own fields; the columns of `EVENTS` are always there. All when None.
    start_ns, end_ns
        Only events from `start_ns` to before `end_ns`, on the trace clock [ns].
    buffer
        Only this buffer instance; empty for the top one. All when None, and then a file with
        events in several buffers gets a column ``buffer``.

    Returns
    -------
    Trace
        The index of a table is each row's place among all rows read, in the order of time; at
        equal times the lowest CPU first, then in the order of recording.

    Raises
    ------
    TraceFormatError
        The file is not a trace.dat, or damaged beyond reading.
    """
    with open_trace(path) as trace:
        return read_trace(trace, Selection.of(events, fields, start_ns, end_ns, buffer=buffer))


def read_trace(trace: TraceFile, selection: Selection) -> Trace:
    """Read what is selected of an open file; as `read_events`."""
    layout = read_layout(trace)
    formats = read_formats(trace, layout.commit_size)
    require_formats(trace, formats)
    data, streams = load_pages(trace, choose_buffers(trace, selection), layout)
    # In the order of CPUs, because at equal times the lowest CPU comes first.
    streams.sort(key=lambda stream: stream.cpu)
    wanted = wanted_types(formats, selection)
    clock = read_clock(trace)
    records, pages = walk(data, streams, layout, trace.order, wanted)
    note_damage(trace, streams, pages)
    rows = _arrange(data, streams, records, clock, selection)
    del records  # or it would stay until all columns are made
    return Trace(
        events=_frames(trace, rows, formats, selection),
        lost=lost_table(streams, pages, clock, selection),
        clock=trace.clock,
        info=read_info(trace),
        notes=tuple(trace.notes),
    )


def choose_buffers(trace: TraceFile, selection: Selection) -> list[Buffer]:
    """Return the buffers wanted; TraceFormatError when the one named is not there."""
    if selection.buffer is None:
        return list(trace.buffers)
    chosen = [b for b in trace.buffers if b.name == selection.buffer]
    if not chosen:
        raise TraceFormatError(
            trace.path,
            offset=None,
            found=f"no buffer {selection.buffer!r}",
            expected="one of " + ", ".join(repr(b.name) for b in trace.buffers),
        )
    return chosen


def wanted_types(formats: dict[int, EventFormat], selection: Selection) -> npt.NDArray[np.bool_]:
    """Say for every event id whether its records are wanted."""
    wanted = np.full(TYPES, selection.events is None)
    wanted[[number for number, form in formats.items() if selection.takes(form)]] = True
    return wanted


@dataclass(frozen=True)
class _Rows:
    """The records chosen, type after type, and within a type in the order of time."""

    data: Bytes
    streams: list[Stream]
    times: Int64s  # [ns]
    positions: Int64s
    lengths: npt.NDArray[np.int32]
    stream: npt.NDArray[np.uint16]
    ranks: Int64s  # places in the order of time among all rows
    ends: Int64s  # where each type ends

    def of(self, number: int) -> slice:
        """Return the rows of one type."""
        return slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))


def _arrange(
    data: Bytes, streams: list[Stream], records: Records, clock: Clock, selection: Selection
) -> _Rows:
    times = clock.convert(records.times)
    if selection.limits_time:
        inside = selection.in_time(times)
        records, times = records.where(inside), times[inside]
    numbers, ranks, ends = order_records(times, records.types, records.bounds)
    stream = np.repeat(np.arange(len(streams), dtype=np.uint16), np.diff(records.bounds))
    return _Rows(
        data,
        streams,
        times=times[numbers],
        positions=records.positions[numbers],
        lengths=records.lengths[numbers],
        stream=stream[numbers],
        ranks=ranks,
        ends=ends,
    )


def _frames(
    trace: TraceFile, rows: _Rows, formats: dict[int, EventFormat], selection: Selection
) -> dict[str, pd.DataFrame]:
    counts = np.diff(rows.ends, prepend=0)
    if unknown := set(np.flatnonzero(counts).tolist()) - formats.keys():
        total = int(counts[list(unknown)].sum())
        trace.notes.append(f"{total} records left out: no format for type {min(unknown)}")
    comms = read_comms(trace)
    there = [form for form in formats.values() if counts[form.id] or selection.names(form)]
    tasks = [partial(_frame, trace, rows, form, selection, comms) for form in there]
    size = int(rows.lengths.sum(dtype=np.int64))
    frames: dict[str, pd.DataFrame] = {}
    for form, frame in zip(there, in_parallel(tasks, size=size), strict=True):
        key = form.name if form.name not in frames else f"{form.system}:{form.name}"
        frames[key] = frame
    return frames


def _frame(
    trace: TraceFile,
    rows: _Rows,
    form: EventFormat,
    selection: Selection,
    comms: dict[int, str],
) -> pd.DataFrame:
    """Build the table of one event type."""
    own: slice | Int64s = rows.of(form.id)
    whole = rows.lengths[own] >= form.size
    if not whole.all():
        trace.notes.append(f"{(~whole).sum()} records of {form.name} too short, left out")
        own = rows.of(form.id).start + np.flatnonzero(whole)
    payloads = Payloads(rows.data, trace.order, rows.positions[own], rows.lengths[own])
    columns = {
        "time_ns": rows.times[own],
        **_origin_columns(rows, rows.stream[own]),
        **_common_columns(payloads, form, comms),
    }
    columns = {name: columns[name] for name in COLUMN_ORDER if name in columns}
    fields = [f for f in form.fields if selection.fields is None or f.name in selection.fields]
    for field, column in zip(fields, read_columns(payloads, fields), strict=True):
        # sched_wakeup has a pid and a comm of its own: pid_ and comm_.
        columns[f"{field.name}_" if field.name in columns else field.name] = column
    return pd.DataFrame(columns, index=pd.Index(rows.ranks[own]), copy=False)


COLUMN_ORDER = (*EVENTS.names, "buffer")


def _origin_columns(rows: _Rows, stream: npt.NDArray[np.uint16]) -> dict[str, Column]:
    """Return cpu, and buffer where there are several."""
    columns: dict[str, Column] = {
        "cpu": np.array([s.cpu for s in rows.streams], np.int32)[stream],
    }
    names = list(dict.fromkeys(s.buffer.name for s in rows.streams))
    if len(names) > 1:
        codes = np.array([names.index(s.buffer.name) for s in rows.streams], np.int16)
        columns["buffer"] = categorical_of(codes[stream], names)
    return columns


def _common_columns(
    payloads: Payloads, form: EventFormat, comms: dict[int, str]
) -> dict[str, Column]:
    """Return pid, flags and comm; zeros where the kernel has no such field."""
    columns: dict[str, Column] = {}
    for name, dtype in (("pid", np.int32), ("flags", np.uint8)):
        field = form.common_field(f"common_{name}")
        if field is None or not field.is_number:
            columns[name] = np.zeros(len(payloads.positions), dtype)
        else:
            (column,) = read_columns(payloads, [field])
            columns[name] = np.asarray(column).astype(dtype, copy=False)
    columns["comm"] = comm_column(np.asarray(columns["pid"]), comms)
    return columns


def comm_column(pid: npt.NDArray[Any], comms: dict[int, str]) -> Column:
    """Return the command name of every pid; ``<...>`` where the file does not have it."""
    codes, pids = pd.factorize(pid)
    return recoded(codes, [comms.get(number, UNKNOWN_COMM) for number in pids.tolist()])


def note_damage(trace: TraceFile, streams: list[Stream], pages: list[Pages]) -> None:
    """Note the pages that could not be walked to their end."""
    for stream, own in zip(streams, pages, strict=True):
        if own.damaged.any():
            of = f" of buffer {stream.buffer.name!r}" if stream.buffer.name else ""
            trace.notes.append(
                f"{own.damaged.sum()} of {len(own.damaged)} pages of CPU {stream.cpu}{of} are "
                "damaged: their events after the damage are left out"
            )


def read_info(trace: TraceFile) -> dict[str, Any]:
    """Return what the file says about itself and the machine it was recorded on."""
    return {
        "version": trace.version,
        "compression": trace.compression,
        "byte_order": "little" if trace.order == "<" else "big",
        "cpus": len({cpu.cpu for buffer in trace.buffers for cpu in buffer.cpus}),
        "buffers": [
            {"buffer": b.name, "clock": b.clock, "cpus": len(b.cpus)} for b in trace.buffers
        ],
        "uname": trace.option_text(UNAME).strip(),
        "tracecmd_version": trace.option_text(VERSION).strip(),
        "cpustat": [_cpustat(data) for number, data in trace.options if number == CPUSTAT],
    }


def _cpustat(data: bytes) -> dict[str, str]:
    """Parse one CPU's statistics: ``overrun: 0`` and so on, values as text."""
    text = data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    return {m[1].strip(): m[2].strip() for m in re.finditer(r"^([^:\n]+):(.*)$", text, re.M)}
