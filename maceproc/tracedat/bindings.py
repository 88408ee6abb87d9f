"""The same tables through trace-cmd's own Python module: a second opinion.

Records, their times, the values of their fields, command names and lost events are libtracecmd's
and libtraceevent's; here they are only put into columns. That takes much longer, and is wrong where
trace-cmd is: for compressed sub-buffers larger than a page.

Source: trace-cmd 3.3.3, python/tracecmd.py and python/ctracecmd.i.
"""

from __future__ import annotations

import ctypes
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as default
from heapq import merge
from operator import itemgetter
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import MaceprocError, TraceFormatError
from maceproc.schema import Trace
from maceproc.tracedat.columns import (
    PADDING_END,
    ColumnData,
    categorical_of,
    dtype_of,
    recoded,
    typed_column,
    value_column,
)
from maceproc.tracedat.formats import EventFormat, Field, read_formats, read_layout, require_formats
from maceproc.tracedat.lost import Gap, gaps_table
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.tracefile import Buffer, TraceFile


def read_with_tracecmd(trace: TraceFile, buffers: list[Buffer], selection: Selection) -> Trace:
    """Read what is selected of an open file through the module ``tracecmd``.

    Raises MaceprocError when the module is not there, TraceFormatError when it cannot open the
    file.
    """
    library = Library.load()
    formats = read_formats(trace, read_layout(trace).commit_size)
    require_formats(trace, formats)
    handles = library.open(trace)
    # In the order of CPUs, because at equal times the lowest CPU comes first.
    places = sorted(((b, c.cpu) for b in buffers for c in b.cpus), key=itemgetter(1))
    gaps: list[Gap] = []
    streams = [
        _read_stream(library, handles[buffer.name], buffer.name, cpu, gaps)
        for buffer, cpu in places
    ]
    names = list(dict.fromkeys(buffer.name for buffer, _ in places))
    tables = {form.id: Rows(form, selection) for form in formats.values() if selection.takes(form)}
    unknown = _fill(library, merge(*streams, key=itemgetter(0)), tables, selection)
    for handle in reversed(handles.values()):
        library.c.tracecmd_close(handle._handle)
    if unknown:
        trace.notes.append(f"{unknown.total()} records left out: no format for type {min(unknown)}")
    return Trace(
        events=_frames(trace, tables, names, selection),
        lost=gaps_table(gaps, selection),
        clock=trace.clock,
        notes=tuple(trace.notes),
    )


@dataclass(frozen=True)
class Library:
    """trace-cmd's Python modules: what applications are to use, and what is below it."""

    py: ModuleType
    c: ModuleType

    @classmethod
    def load(cls) -> Library:
        """Import the modules; MaceprocError when they are not there."""
        try:
            import ctracecmd
            import tracecmd
        except ImportError as error:
            raise MaceprocError(
                f"trace-cmd's Python module cannot be used: {error}",
                hint="install the package trace-cmd-python3 (Fedora, RHEL 10, openSUSE) and set "
                "PYTHONPATH=/usr/lib64/trace-cmd/python, or read without reader='tracecmd'",
            ) from error
        return cls(tracecmd, ctracecmd)

    def open(self, trace: TraceFile) -> dict[str, Any]:
        """Open a file: a ``tracecmd.Trace`` for the top buffer and for every instance."""
        try:
            top = self.py.Trace(str(trace.path))
        except (TypeError, ValueError) as error:  # the library gave NULL
            raise TraceFormatError(
                trace.path, offset=None, found="a file libtracecmd refuses", expected="a trace.dat"
            ) from error
        handles = {"": top}
        for number in range(self.c.tracecmd_buffer_instances(top._handle)):
            # tracecmd.Trace knows no instances: one is a handle of its own.
            instance = object.__new__(self.py.Trace)
            name = self.c.tracecmd_buffer_instance_name(top._handle, number)
            instance._handle = self.c.tracecmd_buffer_instance_handle(top._handle, number)
            if not instance._handle:  # NULL: libtracecmd could not read the instance's pages
                raise TraceFormatError(
                    trace.path,
                    offset=None,
                    found=f"buffer {name!r}, which libtracecmd cannot open",
                    expected="pages that trace-cmd can read",
                    hint="read it without reader='tracecmd'",
                )
            instance._pevent = self.c.tracecmd_get_tep(instance._handle)
            handles[name] = instance
        return handles

    def size(self, event: Any) -> int:
        """Return the size of an event's payload [bytes]."""
        size: int = self.c.tep_record_size_get(event._record)
        return size

    def bytes_of(self, event: Any, field: Field) -> bytes:
        """Return the bytes of an array field; none when it points outside its record."""
        left = self.size(event) - field.offset
        start, length = field.offset, left
        if field.place:
            word = int(event[field.name])
            start, length = word & 0xFFFF, word >> 16
            if field.place == "__rel_loc":
                start += field.offset + 4
            if start + length > self.size(event):
                return b""
        elif field.is_open and field.size <= left < field.size + PADDING_END:
            length = field.size
        # The bindings know no __rel_loc, and nothing of an array whose size is the record's.
        if field.to_end or field.is_open or field.place == "__rel_loc":
            return ctypes.string_at(int(self.c.tep_record_data_get(event._record)) + start, length)
        return bytes(event[field.name].data)


@dataclass
class FieldValues:
    """A column of bytes or names: distinct values, numbered in the order they occur."""

    codes: array[int] = default(default_factory=lambda: array("i"))
    numbers: dict[Any, int] = default(default_factory=dict)

    def append(self, value: Any) -> None:
        """Add a row."""
        self.codes.append(self.numbers.setdefault(value, len(self.numbers)))

    @property
    def numbered(self) -> tuple[npt.NDArray[np.int32], list[Any]]:
        """The column, as the rest of the reader has it."""
        return np.array(self.codes, np.int32), list(self.numbers)


class Rows:
    """The rows of one event type, column by column."""

    def __init__(self, form: EventFormat, selection: Selection) -> None:
        self.form = form
        self.fields = selection.fields_of(form)
        self.common = {name: array("q") for name in ("rank", "time_ns", "cpu", "pid", "flags")}
        self.comms, self.buffers = FieldValues(), FieldValues()
        self.cells: list[array[int] | FieldValues] = [
            array("Q") if field.is_number else FieldValues() for field in self.fields
        ]
        self.short = 0

    def append(self, library: Library, rank: int, buffer: str, event: Any) -> None:
        """Add an event; one too short for its fields is counted only."""
        if library.size(event) < self.form.size:
            self.short += 1
            return
        common = (rank, event.ts, event.cpu, event.pid, int(event["common_flags"]))
        for column, number in zip(self.common.values(), common, strict=True):
            column.append(number)
        self.comms.append(event.comm)
        self.buffers.append(buffer)
        for cell, field in zip(self.cells, self.fields, strict=True):
            if isinstance(cell, FieldValues):
                value = library.bytes_of(event, field)
                cell.append(value.partition(b"\0")[0] if field.is_string else value)
            else:
                cell.append(int(event[field.name]))

    def frame(self, order: str, buffers: list[str]) -> pd.DataFrame:
        """Return the table."""
        rank, time_ns, cpu, pid, flags = (np.array(c, np.int64) for c in self.common.values())
        columns: dict[str, ColumnData] = {
            "time_ns": time_ns,
            "cpu": cpu.astype(np.int32),
            "pid": pid.astype(np.int32),
            "flags": flags.astype(np.uint8),
            "comm": recoded(*self.comms.numbered),
        }
        if len(buffers) > 1:
            codes, names = self.buffers.numbered
            place = np.array([buffers.index(name) for name in names], np.int16)
            columns["buffer"] = categorical_of(place[codes], buffers)
        for cell, field in zip(self.cells, self.fields, strict=True):
            name = f"{field.name}_" if field.name in columns else field.name
            if isinstance(cell, FieldValues):
                columns[name] = value_column(cell.numbered, field, order)
            else:  # the library gives 64 bits without a sign, of any number
                numbers = np.array(cell, np.uint64).astype(dtype_of(field))
                columns[name] = typed_column(numbers, field)
        return pd.DataFrame(columns, index=pd.Index(rank.astype(np.int32)), copy=False)


def _read_stream(
    library: Library, handle: Any, buffer: str, cpu: int, gaps: list[Gap]
) -> Iterator[tuple[int, str, Any]]:
    """Yield time, buffer and event of a CPU's records; add the places where some were lost."""
    before: int | None = None
    # Not `while event:`, which asks for the event's length and so for the names of its fields.
    while (event := handle.read_event(cpu)) is not None:
        now: int = event.ts
        if missed := library.c.tep_record_missed_events_get(event._record):
            gaps.append(Gap(buffer, cpu, before, now, missed if missed > 0 else None))
        before = now
        yield now, buffer, event


def _fill(
    library: Library,
    records: Iterator[tuple[int, str, Any]],
    tables: dict[int, Rows],
    selection: Selection,
) -> Counter[int]:
    """Add records to their tables; return how many of which type have none."""
    unknown: Counter[int] = Counter()
    rank = 0
    for time_ns, buffer, event in records:
        if not selection.has_moment(time_ns):
            continue
        if (rows := tables.get(event.type)) is not None:
            rows.append(library, rank, buffer, event)
        elif selection.events is None:
            unknown[event.type] += 1
        else:
            continue
        rank += 1
    return unknown


def _frames(
    trace: TraceFile, tables: dict[int, Rows], buffers: list[str], selection: Selection
) -> dict[str, pd.DataFrame]:
    frames: dict[str, pd.DataFrame] = {}
    for rows in tables.values():
        form = rows.form
        if rows.short:
            trace.notes.append(f"{rows.short} records of {form.name} too short, left out")
        if len(rows.common["rank"]) or rows.short or selection.names(form):
            key = form.name if form.name not in frames else f"{form.system}:{form.name}"
            frames[key] = rows.frame(trace.order, buffers)
    return frames
