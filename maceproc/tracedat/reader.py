"""From a trace.dat to tables: the steps of reading, one after the other."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import TraceFormatError
from maceproc.schema import EVENTS, LOST, Trace
from maceproc.tracedat.columns import Column, Payloads, categorical_of, read_column, recoded
from maceproc.tracedat.container import (
    CPUSTAT,
    DATE,
    OFFSET,
    TIME_SHIFT,
    TSC2NSEC,
    TSC_CONVERTED,
    UNAME,
    VERSION,
    Buffer,
    TraceFile,
    open_trace,
)
from maceproc.tracedat.formats import (
    EventFormat,
    Field,
    read_comms,
    read_formats,
    read_layout,
    require_formats,
)
from maceproc.tracedat.pages import Stream, load_pages
from maceproc.tracedat.ringbuffer import Bytes, Int64s, Records, walk

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
        return _read(trace, Selection.of(events, fields, start_ns, end_ns, buffer=buffer))


def merge_events(trace: Trace, fields: Iterable[str] | None = None) -> pd.DataFrame:
    """Merge the tables of a trace into one, in the order of time.

    At equal times the lowest CPU comes first, then the order of recording. A column ``event``
    names the row's event; a field that an event does not have is missing there (<NA>), so
    integers come as nullable integers of the same width.
    """
    frames = {name: frame for name, frame in trace.events.items() if len(frame)}
    # The index orders rows; it has gaps when the caller has dropped some.
    present = np.sort(
        np.concatenate([f.index.to_numpy() for f in frames.values()] or [np.empty(0)])
    )
    places = {name: np.searchsorted(present, f.index.to_numpy()) for name, f in frames.items()}
    own = None if fields is None else set(fields)
    names = dict.fromkeys(COMMON_COLUMNS)
    names |= dict.fromkeys(column for frame in frames.values() for column in frame.columns)
    columns: dict[str, Any] = {}
    for column in names:
        parts = [(places[n], frame[column]) for n, frame in frames.items() if column in frame]
        if parts and (own is None or column in own or column in COMMON_COLUMNS):
            columns[column] = _merged_column(parts, len(present))
        if column == COMMON_COLUMNS[-1]:
            columns["event"] = _merged_event(places, len(present))
    return pd.DataFrame(columns, copy=False)


COMMON_COLUMNS = (*EVENTS.names, "buffer")

Part = tuple[npt.NDArray[np.intp], "pd.Series[Any]"]  # places in the merged table, and values


def _merged_event(places: dict[str, npt.NDArray[np.intp]], total: int) -> Column:
    codes = np.zeros(total, np.int16)
    for number, place in enumerate(places.values()):
        codes[place] = number
    return categorical_of(codes, list(places))


def _merged_column(parts: list[Part], total: int) -> Any:
    if all(isinstance(values.dtype, pd.CategoricalDtype) for _, values in parts):
        return _merged_categories(parts, total)
    dtype = np.result_type(*{np.asarray(values.iloc[:0]).dtype for _, values in parts})
    if dtype.kind not in "iub":  # uint64 with int64 would pass through float64
        dtype = np.dtype(object)
    merged: npt.NDArray[Any] = np.full(total, None if dtype.kind == "O" else 0, dtype)
    missing = np.ones(total, bool)
    for place, values in parts:
        merged[place] = values.to_numpy()
        missing[place] = False
    if dtype.kind == "O" or not missing.any():
        return merged
    nullable = pd.arrays.BooleanArray if dtype.kind == "b" else pd.arrays.IntegerArray
    return nullable(merged, missing)


def _merged_categories(parts: list[Part], total: int) -> Column:
    categories = list(dict.fromkeys(c for _, values in parts for c in values.cat.categories))
    number = {category: code for code, category in enumerate(categories)}
    codes = np.full(total, -1, np.int32)
    for place, values in parts:
        table = np.array([*(number[c] for c in values.cat.categories), -1], np.int32)
        codes[place] = table[values.cat.codes]
    return categorical_of(codes, categories)


# --- the steps ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock:
    """From the ring buffer's times to nanoseconds."""

    mult: int = 1
    shift: int = 0
    offset_ns: int = 0

    def convert(self, raw: npt.NDArray[np.uint64]) -> Int64s:
        """Convert raw times to [ns]: ``(raw * mult >> shift) + offset_ns``, in 128 bits."""
        if (self.mult, self.shift) == (1, 0):
            scaled = raw
        else:
            # mul_u64_u32_shr (include/linux/math64.h): the halves separately.
            mult, shift = np.uint64(self.mult), np.uint64(self.shift)
            low, high = (raw & np.uint64(0xFFFF_FFFF)) * mult, (raw >> np.uint64(32)) * mult
            scaled = low >> shift
            scaled += (
                high << np.uint64(32 - self.shift)
                if self.shift <= 32
                else high >> np.uint64(self.shift - 32)
            )
        times: Int64s = scaled.view(np.int64)
        return times + np.int64(self.offset_ns) if self.offset_ns else times


def read_clock(trace: TraceFile) -> Clock:
    """Read how times are to be converted from the options DATE, OFFSET and TSC2NSEC."""
    mult, shift = 1, 0
    stored = trace.option(TSC2NSEC)
    if stored is not None and len(stored) >= 8 and trace.clock == TSC_CONVERTED:
        mult, shift = struct.unpack_from(trace.order + "II", stored)
        shift = min(shift, 63)
    # DATE is in microseconds, OFFSET in nanoseconds (trace-cmd 3.4, lib/trace-cmd/trace-input.c).
    offset = _option_number(trace, DATE) * 1000 + _option_number(trace, OFFSET)
    if trace.option(TIME_SHIFT) is not None:
        trace.notes.append("a guest's file: its times are the guest's, not shifted to the host's")
    return Clock(mult, shift, (offset + 2**63) % 2**64 - 2**63)


def _option_number(trace: TraceFile, number: int) -> int:
    text = trace.option_text(number).strip()
    try:
        return int(text, 0) if text else 0
    except ValueError:
        return 0


@dataclass(frozen=True)
class Selection:
    """What to read of a file; None means all."""

    events: tuple[str, ...] | None = None  # names, system:name, or shell patterns of either
    fields: frozenset[str] | None = None
    start_ns: int | None = None
    end_ns: int | None = None  # the first moment not wanted
    buffer: str | None = None

    @classmethod
    def of(
        cls,
        events: Iterable[str] | None,
        fields: Iterable[str] | None,
        start_ns: int | None,
        end_ns: int | None,
        *,
        buffer: str | None,
    ) -> Selection:
        """Build from what a caller gives: a single name counts as a list of one."""
        if isinstance(events, str):
            events = (events,)
        if isinstance(fields, str):
            fields = (fields,)
        return cls(
            None if events is None else tuple(events),
            None if fields is None else frozenset(fields),
            start_ns,
            end_ns,
            buffer,
        )

    def names(self, form: EventFormat) -> bool:
        """Whether the event is named without a pattern: it gets a table even when empty."""
        return bool({form.name, f"{form.system}:{form.name}"} & set(self.events or ()))

    def takes(self, form: EventFormat) -> bool:
        """Whether the event is wanted."""
        return self.events is None or any(_matches(form, name) for name in self.events)

    def in_time(self, times: Int64s) -> npt.NDArray[np.bool_]:
        """Whether each time [ns] is wanted."""
        inside = np.ones(len(times), bool)
        if self.start_ns is not None:
            inside &= times >= self.start_ns
        if self.end_ns is not None:
            inside &= times < self.end_ns
        return inside


def _matches(form: EventFormat, pattern: str) -> bool:
    return fnmatchcase(form.name if ":" not in pattern else f"{form.system}:{form.name}", pattern)


def _read(trace: TraceFile, selection: Selection) -> Trace:
    layout = read_layout(trace)
    formats = read_formats(trace, layout.commit_size)
    require_formats(trace, formats)
    clock = read_clock(trace)
    data, streams = load_pages(trace, _choose_buffers(trace, selection), layout)
    streams.sort(key=lambda stream: stream.cpu)
    wanted = np.full(1 << 16, selection.events is None)
    wanted[[number for number, form in formats.items() if selection.takes(form)]] = True
    walked = [walk(data, s.starts, s.page_size, layout, trace.order, wanted) for s in streams]
    _note_damage(trace, streams, walked)
    rows = _Rows.build(data, streams, walked, clock, selection)
    frames = _frames(trace, rows, formats, selection)
    gaps = [_gaps(s, r, clock) for s, r in zip(streams, walked, strict=True)]
    return Trace(
        events=frames,
        lost=_lost_table(gaps, selection),
        clock=trace.clock,
        info=read_info(trace),
        notes=tuple(trace.notes),
    )


def _choose_buffers(trace: TraceFile, selection: Selection) -> list[Buffer]:
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


@dataclass(frozen=True)
class _Rows:
    """All records chosen, in the order of time."""

    data: Bytes
    streams: list[Stream]
    times: Int64s
    positions: Int64s
    lengths: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint16]
    stream: npt.NDArray[np.int32]

    @classmethod
    def build(
        cls,
        data: Bytes,
        streams: list[Stream],
        walked: list[Records],
        clock: Clock,
        selection: Selection,
    ) -> _Rows:
        """Put the records of all streams into the order of time."""
        times = clock.convert(_joined([r.times for r in walked], np.uint64))
        # Streams stand in the order of CPUs, so a stable sort puts the lowest CPU first.
        order = np.argsort(times, kind="stable")
        order = order[selection.in_time(times[order])]
        counts = [len(r.times) for r in walked]
        stream = np.repeat(np.arange(len(streams), dtype=np.int32), counts)
        return cls(
            data,
            streams,
            times=times[order],
            positions=_joined([r.positions for r in walked], np.int64)[order],
            lengths=_joined([r.lengths for r in walked], np.int32)[order],
            types=_joined([r.types for r in walked], np.uint16)[order],
            stream=stream[order],
        )


def _joined(parts: list[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _frames(
    trace: TraceFile, rows: _Rows, formats: dict[int, EventFormat], selection: Selection
) -> dict[str, pd.DataFrame]:
    counts = np.bincount(rows.types, minlength=1 << 16)
    ends = np.cumsum(counts)
    by_type = np.argsort(rows.types, kind="stable")
    unknown = [number for number in np.flatnonzero(counts).tolist() if number not in formats]
    if unknown:
        total = int(counts[unknown].sum())
        trace.notes.append(f"{total} records of types without a format left out: ids {unknown[:5]}")
    comms = read_comms(trace)
    frames: dict[str, pd.DataFrame] = {}
    for number, form in formats.items():
        if counts[number] or selection.names(form):
            own = by_type[ends[number] - counts[number] : ends[number]]
            key = form.name if form.name not in frames else f"{form.system}:{form.name}"
            frames[key] = _frame(trace, rows, own, form, selection, comms=comms)
    return frames


def _frame(
    trace: TraceFile,
    rows: _Rows,
    own: Int64s,
    form: EventFormat,
    selection: Selection,
    *,
    comms: dict[int, str],
) -> pd.DataFrame:
    whole = rows.lengths[own] >= form.size
    if not whole.all():
        trace.notes.append(f"{(~whole).sum()} records of {form.name} too short, left out")
        own = own[whole]
    payloads = Payloads(rows.data, trace.order, rows.positions[own], rows.lengths[own])
    stream = rows.stream[own]
    pid = _common(payloads, form, "common_pid", np.dtype(np.int32))
    columns: dict[str, Column] = {
        "time_ns": rows.times[own],
        "cpu": np.array([s.cpu for s in rows.streams], np.int32)[stream],
        "pid": pid,
        "flags": _common(payloads, form, "common_flags", np.dtype(np.uint8)),
        "comm": comm_column(pid, comms),
    }
    names = list(dict.fromkeys(s.buffer.name for s in rows.streams))
    if len(names) > 1:
        codes = np.array([names.index(s.buffer.name) for s in rows.streams], np.int32)
        columns["buffer"] = categorical_of(codes[stream], names)
    for field in form.fields:
        if selection.fields is None or field.name in selection.fields:
            columns[_column_name(field, columns)] = read_column(payloads, field)
    return pd.DataFrame(columns, index=pd.Index(own), copy=False)


def _column_name(field: Field, columns: dict[str, Column]) -> str:
    """Return the field's name; with an underscore where it would hide a column before it.

    sched_wakeup has a pid and a comm of its own.
    """
    return field.name if field.name not in columns else f"{field.name}_"


def _common(
    payloads: Payloads, form: EventFormat, name: str, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    field = form.common_field(name)
    if field is None or not field.is_number:
        return np.zeros(len(payloads.positions), dtype)
    return np.asarray(read_column(payloads, field)).astype(dtype, copy=False)


def comm_column(pid: npt.NDArray[np.int32], comms: dict[int, str]) -> Column:
    """Return the command name of every pid; ``<...>`` where the file does not have it."""
    codes, pids = pd.factorize(pid)
    return recoded(codes, [comms.get(number, UNKNOWN_COMM) for number in pids.tolist()])


@dataclass(frozen=True)
class _Gaps:
    """Where one stream lost events."""

    stream: Stream
    after_ns: Int64s
    before_ns: Int64s
    count: Int64s
    at_start: npt.NDArray[np.bool_]


def _gaps(stream: Stream, records: Records, clock: Clock) -> _Gaps:
    gaps = np.flatnonzero(records.lost)
    first, last = clock.convert(records.first[gaps]), clock.convert(records.last[gaps - 1])
    return _Gaps(stream, last, first, records.lost[gaps], gaps == 0)


def _lost_table(lost: list[_Gaps], selection: Selection) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for gaps in lost:
        for after, before, count, at_start in zip(
            gaps.after_ns, gaps.before_ns, gaps.count, gaps.at_start, strict=True
        ):
            rows.append(
                {
                    "buffer": gaps.stream.buffer.name,
                    "cpu": gaps.stream.cpu,
                    "after_ns": None if at_start else int(after),
                    "before_ns": int(before),
                    "count": None if count < 0 else int(count),
                }
            )
    rows.sort(key=lambda row: row["before_ns"])
    inside = [
        row
        for row in rows
        if (selection.start_ns is None or row["before_ns"] >= selection.start_ns)
        and (selection.end_ns is None or (row["after_ns"] or 0) < selection.end_ns)
    ]
    return LOST.frame({name: [row[name] for row in inside] for name in LOST.names})


def _note_damage(trace: TraceFile, streams: list[Stream], walked: list[Records]) -> None:
    for stream, records in zip(streams, walked, strict=True):
        if records.damaged.any():
            where = f"CPU {stream.cpu}" + (
                f" of buffer {stream.buffer.name}" if stream.buffer.name else ""
            )
            trace.notes.append(
                f"{records.damaged.sum()} of {len(records.damaged)} pages of {where} are damaged; "
                "their events after the damage are left out"
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
