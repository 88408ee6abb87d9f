"""From a trace.dat to tables: the steps of reading, one after the other."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from maceproc.errors import TraceFormatError
from maceproc.schema import Trace
from maceproc.tracedat import native
from maceproc.tracedat.columns import (
    ColumnData,
    Numbered,
    RawTable,
    TableSpec,
    categorical_of,
    dtype_of,
    recoded,
    typed_column,
    value_column,
)
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import (
    EventFormat,
    read_comms,
    read_formats,
    read_layout,
    read_printk,
    require_formats,
)
from maceproc.tracedat.lost import lost_table
from maceproc.tracedat.onepass import read_compiled
from maceproc.tracedat.pages import PageSpan, load_pages
from maceproc.tracedat.ringbuffer import TYPES, Int64s, Pages, Stream, in_parallel
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.stepwise import Recording, Tables, read_stepwise
from maceproc.tracedat.timing import Clock, read_clock
from maceproc.tracedat.tracefile import CPUSTAT, UNAME, VERSION, Buffer, TraceFile

if TYPE_CHECKING:
    import pandas as pd

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
    ValueError
        There is no such reader.
    """
    if reader not in ("maceproc", "tracecmd"):
        raise ValueError(f"reader is 'maceproc' or 'tracecmd', not {reader!r}")
    # pandas is needed last of all, and what is before that needs little of Python: a program that
    # has not imported it yet does so meanwhile, on another core.
    Thread(target=_import_pandas).start()
    selection = Selection.of(events, fields, start_ns, end_ns, buffer=buffer)
    with open_trace(path) as trace:
        if reader == "maceproc":
            return read_trace(trace, selection)
        from maceproc.tracedat.bindings import read_with_tracecmd

        read = read_with_tracecmd(trace, choose_buffers(trace, selection), selection)
        return replace(read, info=_info_of(trace, read.events))


def _import_pandas() -> None:
    """Import pandas, and spare the collector its modules' many objects: they stay to the end.

    Looking at them again and again, and once more at exit, takes longer than to read a million
    events.
    """
    if "pandas" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        import pandas  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def read_trace(trace: TraceFile, selection: Selection) -> Trace:
    """Read what is selected of an open file; as `read_events`."""
    layout = read_layout(trace)
    formats = read_formats(trace, layout.commit_size)
    require_formats(trace, formats)
    clock = read_clock(trace)
    data, streams = load_pages(
        trace, choose_buffers(trace, selection), layout, _span(selection, clock)
    )
    recording = Recording(
        data=data,
        streams=sorted(streams, key=lambda stream: stream.cpu),
        layout=layout,
        order=trace.order,
        clock=clock,
        wanted=wanted_types(formats, selection),
        specs=specs_of(formats, selection),
        start_ns=selection.start_ns,
        end_ns=selection.end_ns,
    )
    read = read_tables(recording)
    note_damage(trace, recording.streams, read.pages)
    note_others(trace, formats, read.others)
    events = _frames(trace, recording, read.tables, formats, selection)
    return Trace(
        events=events,
        lost=lost_table(recording.streams, read.pages, clock, selection),
        clock=trace.clock,
        info=_info_of(trace, events),
        notes=tuple(trace.notes),
    )


def read_tables(recording: Recording) -> Tables:
    """Read a recording's tables, compiled where that is possible."""
    if native.loops is not None and (read := read_compiled(native.loops, recording)) is not None:
        return read
    return read_stepwise(recording)


def specs_of(formats: dict[int, EventFormat], selection: Selection) -> dict[int, TableSpec]:
    """Return the tables wanted: event id -> its table."""
    return {
        number: TableSpec(form, selection.fields_of(form))
        for number, form in formats.items()
        if selection.takes(form)
    }


def note_others(trace: TraceFile, formats: dict[int, EventFormat], others: Int64s) -> None:
    """Note the records that are in no table."""
    found = np.flatnonzero(others).tolist()
    if unknown := [number for number in found if number not in formats]:
        total = int(others[unknown].sum())
        trace.notes.append(f"{total} records left out: no format for type {min(unknown)}")
    trace.notes += [
        f"{others[number]} records of {form.name} too short, left out"
        for number, form in formats.items()
        if others[number]
    ]


def _span(selection: Selection, clock: Clock) -> PageSpan | None:
    if not selection.limits_time:
        return None
    return PageSpan(clock, selection.start_ns, selection.end_ns)


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


def _frames(
    trace: TraceFile,
    recording: Recording,
    tables: dict[int, RawTable],
    formats: dict[int, EventFormat],
    selection: Selection,
) -> dict[str, pd.DataFrame]:
    comms = read_comms(trace)
    there = [form for number, form in formats.items() if number in tables or selection.names(form)]
    tasks = []
    for form in there:
        spec = recording.specs[form.id]
        table = tables.get(form.id) or _empty_table(spec, recording)
        tasks.append(partial(_frame, spec, table, recording, comms))
    size = sum(table.times.nbytes for table in tables.values())
    frames: dict[str, pd.DataFrame] = {}
    for form, frame in zip(there, in_parallel(tasks, size=size), strict=True):
        key = form.name if form.name not in frames else f"{form.system}:{form.name}"
        frames[key] = frame
    return frames


def _empty_table(spec: TableSpec, recording: Recording) -> RawTable:
    return RawTable(
        times=np.empty(0, np.int64),
        cpus=np.empty(0, np.int32),
        ranks=np.empty(0, np.int32),
        streams=np.empty(0, np.int16) if recording.several_buffers else None,
        numbers=[np.empty(0, dtype_of(field)) for field in spec.numbers],
        values=[(np.empty(0, np.int16), []) for _ in spec.values],
    )


def _frame(
    spec: TableSpec, table: RawTable, recording: Recording, comms: dict[int, str]
) -> pd.DataFrame:
    """Build the table of one event type."""
    import pandas as pd

    (pid, flags, *numbers), (pids, *values) = table.numbers, table.values
    columns: dict[str, ColumnData] = {
        "time_ns": table.times,
        "cpu": table.cpus,
        "pid": pid,
        "flags": flags,
        "comm": _comm_column(pids, recording.order, comms),
    }
    if table.streams is not None:
        columns["buffer"] = _buffer_column(table.streams, recording.streams)
    for field in spec.fields:
        # sched_wakeup has a pid and a comm of its own: pid_ and comm_.
        name = f"{field.name}_" if field.name in columns else field.name
        if field.is_number:
            columns[name] = typed_column(numbers.pop(0), field)
        else:
            columns[name] = value_column(values.pop(0), field, recording.order)
    return pd.DataFrame(columns, index=pd.Index(table.ranks), copy=False)


def _buffer_column(rows: npt.NDArray[np.int16], streams: list[Stream]) -> ColumnData:
    names = list(dict.fromkeys(stream.buffer.name for stream in streams))
    codes = np.array([names.index(stream.buffer.name) for stream in streams], np.int16)
    return categorical_of(codes[rows], names)


def _comm_column(numbered: Numbered, order: str, comms: dict[int, str]) -> ColumnData:
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


def _info_of(trace: TraceFile, events: Iterable[str]) -> dict[str, Any]:
    """Return what the file says about itself, and about what these events point to."""
    info = read_info(trace)
    if {"bprint", "bputs"} & set(events):
        info["printk_formats"] = read_printk(trace)
    return info


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
