"""From a trace.dat to tables: the steps of reading, one after the other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import TraceFormatError
from maceproc.schema import Trace
from maceproc.tracedat.columns import (
    Block,
    Column,
    Numbered,
    Payloads,
    categorical_of,
    copy_fields,
    dtype_of,
    recoded,
    typed_column,
    value_column,
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
from maceproc.tracedat.pages import Span, load_pages
from maceproc.tracedat.ringbuffer import (
    TYPES,
    Bytes,
    Int64s,
    Order,
    Pages,
    Records,
    Stream,
    in_parallel,
    order_records,
    pick_records,
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
    reader: Literal["maceproc", "tracecmd"] = "maceproc",
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
    reader
        Who reads: this package, or, as a second opinion, trace-cmd's own Python module
        ``tracecmd`` (3.3 or newer; docs/reading-trace-dat.md says where it is to be had).

    Returns
    -------
    Trace
        The index of a table is each row's place among all rows read, in the order of time; at
        equal times the lowest CPU first, then in the order of recording.

    Raises
    ------
    TraceFormatError
        The file is not a trace.dat, or damaged beyond reading.
    MaceprocError
        The module ``tracecmd`` is asked for and not there.
    """
    selection = Selection.of(events, fields, start_ns, end_ns, buffer=buffer)
    with open_trace(path) as trace:
        if reader == "maceproc":
            return read_trace(trace, selection)
        from maceproc.tracedat.bindings import read_with_tracecmd

        read = read_with_tracecmd(trace, choose_buffers(trace, selection), selection)
        return replace(read, info=read_info(trace))


def read_trace(trace: TraceFile, selection: Selection) -> Trace:
    """Read what is selected of an open file; as `read_events`."""
    layout = read_layout(trace)
    formats = read_formats(trace, layout.commit_size)
    require_formats(trace, formats)
    clock = read_clock(trace)
    data, streams = load_pages(
        trace, choose_buffers(trace, selection), layout, _span(selection, clock)
    )
    # In the order of CPUs, because at equal times the lowest CPU comes first.
    streams.sort(key=lambda stream: stream.cpu)
    wanted = wanted_types(formats, selection)
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


def _span(selection: Selection, clock: Clock) -> Span | None:
    if not selection.limits_time:
        return None
    return Span(clock, selection.start_ns, selection.end_ns)


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
    """The records chosen, stream after stream, and their order."""

    data: Bytes
    streams: list[Stream]
    times: Int64s  # [ns]
    positions: Int64s
    lengths: npt.NDArray[np.int32]
    bounds: Int64s  # of the streams, as in Records
    order: Order

    @property
    def cpus(self) -> npt.NDArray[np.int32]:
        """The CPUs of the streams."""
        return np.array([stream.cpu for stream in self.streams], np.int32)


def _arrange(
    data: Bytes, streams: list[Stream], records: Records, clock: Clock, selection: Selection
) -> _Rows:
    times = clock.convert(records.times)
    if selection.limits_time:
        inside = selection.in_time(times)
        records, times = records.where(inside), times[inside]
    order = order_records(times, records.types, records.bounds)
    return _Rows(data, streams, times, records.positions, records.lengths, records.bounds, order)


def _frames(
    trace: TraceFile, rows: _Rows, formats: dict[int, EventFormat], selection: Selection
) -> dict[str, pd.DataFrame]:
    counts = np.diff(rows.order.ends, prepend=0)
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
    group = rows.order.of(form.id)
    chosen, ranks = rows.order.numbers[group], rows.order.ranks[group]
    whole = rows.lengths[chosen] >= form.size
    if not whole.all():
        trace.notes.append(f"{(~whole).sum()} records of {form.name} too short, left out")
        chosen, ranks = chosen[whole], ranks[whole]
    payloads = Payloads(rows.data, trace.order, chosen, rows.positions, rows.lengths)
    fields = selection.fields_of(form)
    plain = [form.common_field("common_pid"), form.common_field("common_flags")]
    plain += [field for field in fields if field.is_number]
    others = [replace(form.common_field("common_pid"), array=True)]
    others += [field for field in fields if not field.is_number]
    block = Block(len(chosen), [np.int64, np.int32, *map(dtype_of, plain)])
    times, cpus = block.column(np.int64), block.column(np.int32)
    pick_records(chosen, rows.times, rows.bounds, rows.cpus, out=(times, cpus))
    (pid, flags, *numbers), (pids, *values) = copy_fields(payloads, plain, others, block)
    columns: dict[str, Column] = {
        "time_ns": times,
        "cpu": cpus,
        "pid": pid,
        "flags": flags,
        "comm": _comm_column(pids, trace.order, comms),
        **_buffer_column(rows, chosen),
    }
    for field in fields:
        # sched_wakeup has a pid and a comm of its own: pid_ and comm_.
        name = f"{field.name}_" if field.name in columns else field.name
        if field.is_number:
            columns[name] = typed_column(numbers.pop(0), field)
        else:
            columns[name] = value_column(values.pop(0), field, trace.order)
    return pd.DataFrame(columns, index=pd.Index(ranks), copy=False)


def _buffer_column(rows: _Rows, numbers: npt.NDArray[np.int32]) -> dict[str, Column]:
    """Return the column buffer where there are several."""
    names = list(dict.fromkeys(stream.buffer.name for stream in rows.streams))
    if len(names) < 2:
        return {}
    codes = np.array([names.index(stream.buffer.name) for stream in rows.streams], np.int16)
    stream = np.searchsorted(rows.bounds[1:], numbers, side="right")
    return {"buffer": categorical_of(codes[stream], names)}


def _comm_column(numbered: Numbered, order: str, comms: dict[int, str]) -> Column:
    """Return the command name of every pid; ``<...>`` where the file does not have it."""
    codes, values = numbered
    byteorder: Literal["little", "big"] = "little" if order == "<" else "big"
    pids = [int.from_bytes(value, byteorder, signed=True) for value in values]
    return recoded(codes, [comms.get(pid, UNKNOWN_COMM) for pid in pids])


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
