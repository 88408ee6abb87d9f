"""All pages into all tables in one pass, CPUs merged: the compiled way, on all cores.

The recording is cut into spans of time. Of every span the records are counted by type, so that each
knows its rows in the tables; then every span is dealt out into them. The loops are in _native.c.
stepwise.py gives the same with NumPy, and where this one's conditions are not met.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from maceproc.tracedat import native
from maceproc.tracedat.columns import FIELD_LAYOUTS, Block, Numbered, RawTable, TableSpec, dtype_of
from maceproc.tracedat.formats import Field
from maceproc.tracedat.ringbuffer import TYPES, Int64s, Pages, Stream, in_parallel
from maceproc.tracedat.stepwise import Recording, Tables

SPANS_PER_WORKER = 4  # they are not equally long
PAGES_PER_SPAN = 256  # at least: fewer are done before a thread has started
LAST_TIME = (1 << 63) - 1
MAX_ROWS = (1 << 31) - 1
NO_TABLE = (1 << 31) - 1  # a size that no payload has


@dataclass(frozen=True)
class EventSpan:
    """A span of raw time, both ends included, and what was counted in it."""

    start: int
    end: int
    pages: list[tuple[int, int]]  # per stream: those that begin in it, from the first to before
    rows: Int64s  # per type, what goes into its table
    others: Int64s  # per type, what has no table or is too short for its fields


def read_compiled(loops: ModuleType, recording: Recording) -> Tables | None:
    """Read a recording's tables; None where the times do not allow it.

    That is where a CPU's time goes back, as in damaged pages, and where times are scaled.
    """
    spans = _spans(recording)
    if recording.clock.scales or not spans:
        return None
    pages = [Pages.empty(len(stream.starts)) for stream in recording.streams]
    tasks = [partial(_tally, loops, recording, span, pages) for span in spans]
    size = sum(stream.page_size * len(stream.starts) for stream in recording.streams)
    if not all(in_parallel(tasks, size=size)) or not _in_order(recording, spans, pages):
        return None
    tables: dict[int, RawTable] | None = {}
    if not recording.count_only:
        tables = _deal(loops, recording, spans, size=size, wide=False)
    if tables is None:
        tables = _deal(loops, recording, spans, size=size, wide=True)
    assert tables is not None
    rows = np.sum([span.rows for span in spans], axis=0)
    return Tables(tables, pages, rows, np.sum([span.others for span in spans], axis=0))


def _spans(recording: Recording) -> list[EventSpan]:
    """Cut the recording at the times of some pages; no spans when a cut shows that time goes back.

    Every page begins in one span, and the loops look at the page before, too. So they see all
    others whose time goes back.
    """
    streams = recording.streams
    cuts = sorted({0, *_cuts(recording)})
    bounds = [
        [0, *(_first_page(recording, stream, cut) for cut in cuts[1:]), len(stream.starts)]
        for stream in streams
    ]
    if any(first > second for own in bounds for first, second in pairwise(own)):
        return []
    ends = [*(cut - 1 for cut in cuts[1:]), (1 << 64) - 1]
    spans = []
    for place, (start, end) in enumerate(zip(cuts, ends, strict=True)):
        pages = [(own[place], own[place + 1]) for own in bounds]
        spans.append(EventSpan(start, end, pages, *np.zeros((2, TYPES), np.int64)))
    return spans


def _cuts(recording: Recording) -> list[int]:
    """Return the times of some pages of the longest stream, with about as many between them."""
    longest = max(recording.streams, key=lambda stream: len(stream.starts), default=None)
    pages = sum(len(stream.starts) for stream in recording.streams)
    most = native.WORKERS * SPANS_PER_WORKER if native.WORKERS > 1 else 1
    number = max(min(most, pages // PAGES_PER_SPAN), 1)
    if longest is None:
        return []
    return [
        _page_time(recording, longest, len(longest.starts) * place // number)
        for place in range(1, number)
    ]


def _first_page(recording: Recording, stream: Stream, time: int) -> int:
    """Return the first page of a stream that begins at a time or later."""
    pages = range(len(stream.starts))
    return bisect_left(pages, time, key=partial(_page_time, recording, stream))


def _page_time(recording: Recording, stream: Stream, page: int) -> int:
    """Return the raw time that a page begins at."""
    start = int(stream.starts[page])
    time: int = np.frombuffer(recording.data, f"{recording.order}u8", 1, start)[0].item()
    return time


def _in_order(recording: Recording, spans: list[EventSpan], pages: list[Pages]) -> bool:
    """Whether all times are nanoseconds in 63 bits, and all rows can be numbered."""
    last = max((int(own.last.max()) for own in pages if len(own.last)), default=0)
    total = sum(int(span.rows.sum() + span.others.sum()) for span in spans)
    return max(last, last + recording.clock.offset_ns) <= LAST_TIME and total <= MAX_ROWS


def _given(recording: Recording, span: EventSpan) -> tuple[Any, ...]:
    sizes = np.full(TYPES, NO_TABLE, np.int32)
    for number, spec in recording.specs.items():
        sizes[number] = spec.form.size
    layout = recording.layout
    offset = recording.clock.offset_ns
    start, end = span.start, span.end
    if recording.start_ns is not None:
        start = max(start, recording.start_ns - offset)
    if recording.end_ns is not None:
        end = min(end, recording.end_ns - 1 - offset)
    if end < start:
        start, end = 1, 0
    return (
        recording.data,
        layout.data_offset,
        layout.commit_offset,
        layout.commit_size,
        recording.order,
        recording.wanted,
        sizes,
        start,
        end,
    )


def _tally(loops: ModuleType, recording: Recording, span: EventSpan, pages: list[Pages]) -> bool:
    """Count a span's records, and describe the pages that begin in it."""
    streams = [
        (s.starts, s.page_size, max(first - 1, 0), first, end, own.counts, own.first, own.last,
         own.lost, own.damaged)
        for s, (first, end), own in zip(recording.streams, span.pages, pages, strict=True)
    ]  # fmt: skip
    in_order: bool = loops.tally(_given(recording, span), streams, span.rows, span.others)
    return in_order


def _deal(
    loops: ModuleType,
    recording: Recording,
    spans: list[EventSpan],
    *,
    size: int,
    wide: bool,
) -> dict[int, RawTable] | None:
    """Deal the records out; None when there are more distinct values than short codes."""
    counts = sum((span.rows for span in spans), np.zeros(TYPES, np.int64))
    specs = {number: spec for number, spec in recording.specs.items() if counts[number]}
    code = np.int32 if wide else np.int16
    tables = {
        number: _room(spec, int(counts[number]), recording.several_buffers, code)
        for number, spec in specs.items()
    }
    first = dict.fromkeys(specs, 0)
    rank = 0
    tasks, slices = [], []
    for span in spans:
        tasks.append(
            partial(_deal_span, loops, recording, span, tables, dict(first), rank, wide=wide)
        )
        following = {number: row + int(span.rows[number]) for number, row in first.items()}
        slices.append({number: slice(first[number], following[number]) for number in specs})
        first, rank = following, rank + int(span.rows.sum() + span.others.sum())
    found = in_parallel(tasks, size=size)
    if any(values is None for values in found):
        return None
    finish = [
        partial(
            _finish,
            table,
            [own[number] for own in slices],
            [own[place] for own in found],
            recording.clock.offset_ns,
        )
        for place, (number, table) in enumerate(tables.items())
    ]
    in_parallel(finish, size=size)
    return tables


def _finish(
    table: RawTable, rows: list[slice], values: list[list[list[bytes]]], offset_ns: int
) -> None:
    """Give equal values the same number in all spans, and shift the times."""
    for field, (codes, _) in enumerate(table.values):
        table.values[field] = _unified(codes, rows, [own[field] for own in values])
    if offset_ns:
        table.times += offset_ns


def _room(spec: TableSpec, rows: int, streams: bool, code: type[np.integer[Any]]) -> RawTable:
    """Make room for a table."""
    common = [np.int64, np.int32, np.int32, *[np.int16] * streams]
    block = Block(rows, [*common, *map(dtype_of, spec.numbers)])
    return RawTable(
        times=block.column(np.int64),
        cpus=block.column(np.int32),
        ranks=block.column(np.int32),
        streams=block.column(np.int16) if streams else None,
        numbers=[block.column(dtype_of(field)) for field in spec.numbers],
        values=[(np.empty(rows, code), []) for _ in spec.values],
    )


def _deal_span(
    loops: ModuleType,
    recording: Recording,
    span: EventSpan,
    tables: dict[int, RawTable],
    first: dict[int, int],
    rank: int,
    *,
    wide: bool,
) -> list[list[list[bytes]]] | None:
    """Write a span's records into their rows; return the distinct values of fields."""
    streams = [
        (stream.starts, stream.page_size, max(first - 1, 0), end, stream.cpu, place)
        for place, (stream, (first, end)) in enumerate(
            zip(recording.streams, span.pages, strict=True)
        )
    ]
    targets = []
    for number, table in tables.items():
        spec = recording.specs[number]
        numbers = [
            (f.offset, f.size, column)
            for f, column in zip(spec.numbers, table.numbers, strict=True)
        ]
        values = [
            (f.offset, f.size, _place(f), f.is_string, codes)
            for f, (codes, _) in zip(spec.values, table.values, strict=True)
        ]
        common = (table.times, table.cpus, table.ranks, table.streams)
        targets.append((number, first[number], *common, numbers, values))
    found: list[list[list[bytes]]] | None = loops.deal(
        _given(recording, span), streams, targets, rank, wide
    )
    return found


def _place(field: Field) -> int:
    return FIELD_LAYOUTS["to end" if field.to_end else "open" if field.is_open else field.place]


def _unified(codes: npt.NDArray[Any], rows: list[slice], values: list[list[bytes]]) -> Numbered:
    """Return one numbering for the values of all spans, in the order they occur."""
    number: dict[bytes, int] = {}
    maps = [[number.setdefault(value, len(number)) for value in own] for own in values]
    if len(number) > np.iinfo(codes.dtype).max:
        codes = codes.astype(np.int32)
    for part, own in zip(rows, maps, strict=True):
        if own != list(range(len(own))):
            codes[part] = np.array(own, codes.dtype)[codes[part]]
    return codes, list(number)
