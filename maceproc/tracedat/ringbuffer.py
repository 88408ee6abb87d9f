"""Pages of a ring buffer into records: when, where in memory, how long, of which type.

Sources: kernel/trace/ring_buffer.c and include/linux/ring_buffer.h, v6.18; libtraceevent 1.8.4,
src/kbuffer-parse.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from maceproc.tracedat import native
from maceproc.tracedat.formats import PageLayout
from maceproc.tracedat.tracefile import Buffer

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

# The commit word of a page: bytes of data, and whether events were lost before it.
COMMIT_MASK = (1 << 27) - 1
MISSED_EVENTS = 1 << 31  # RB_MISSED_EVENTS: something is missing
MISSED_STORED = 1 << 30  # RB_MISSED_STORED: and how much stands after the data
STORED_MASK = (1 << 62) - 1

# Event types, enum ring_buffer_type. 1 to 28 are the payload's size in words.
LONG_DATA, PADDING, TIME_EXTEND, TIME_STAMP = 0, 29, 30, 31
DELTA_BITS = 27
# A time stamp has 59 bits; the page's own time stamp gives the upper five.
STAMP_TOP = np.uint64(0xF8 << 56)

WORTH_A_THREAD = 1 << 21  # [bytes]

TYPES = 1 << 16
"""Number of event ids there can be: common_type has 16 bits."""


@dataclass(frozen=True)
class Stream:
    """One CPU's pages in one buffer, in the order of time."""

    buffer: Buffer
    cpu: int
    page_size: int
    starts: Int64s  # positions of the pages in the data


@dataclass(frozen=True)
class Pages:
    """What the pages of a stream say; one entry per page."""

    counts: Int64s  # records taken
    first: UInt64s  # time of the first and last record of any type;
    last: UInt64s  # the page's own time when it has none
    lost: Int64s  # events lost before the page: 0 none, -1 an unknown number
    damaged: Bools  # the walk met something impossible and left the rest out

    @classmethod
    def empty(cls, number: int) -> Pages:
        """Make room for a number of pages."""
        return cls(
            counts=np.zeros(number, np.int64),
            first=np.zeros(number, np.uint64),
            last=np.zeros(number, np.uint64),
            lost=np.zeros(number, np.int64),
            damaged=np.zeros(number, np.bool_),
        )


@dataclass(frozen=True)
class Records:
    """Records stream after stream, in the order of recording. Times are the clock's own."""

    times: UInt64s
    positions: Int64s  # of the payload in the data
    lengths: npt.NDArray[np.int32]  # of the payload [bytes]
    types: npt.NDArray[np.uint16]  # common_type: the event's id
    bounds: Int64s  # stream k has the records from bounds[k] to before bounds[k + 1]

    @classmethod
    def empty(cls, counts: list[int]) -> Records:
        """Make room for so many records per stream."""
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        total = int(bounds[-1])
        return cls(
            np.empty(total, np.uint64),
            np.empty(total, np.int64),
            np.empty(total, np.int32),
            np.empty(total, np.uint16),
            bounds,
        )

    @property
    def columns(self) -> tuple[UInt64s, Int64s, npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
        """The columns: times, positions, lengths, types."""
        return self.times, self.positions, self.lengths, self.types

    def part(self, start: int, end: int) -> tuple[npt.NDArray[Any], ...]:
        """Return views of the columns from record `start` to before `end`."""
        return tuple(column[start:end] for column in self.columns)

    def where(self, chosen: Bools) -> Records:
        """Return only the chosen records."""
        counts = np.add.reduceat(np.append(chosen, False), self.bounds[:-1], dtype=np.int64)
        counts[np.diff(self.bounds) == 0] = 0  # reduceat gives an element for an empty slice
        bounds = np.concatenate([[0], np.cumsum(counts)])
        times, positions, lengths, types = self.columns
        return Records(times[chosen], positions[chosen], lengths[chosen], types[chosen], bounds)


def walk(
    data: Bytes, streams: list[Stream], layout: PageLayout, order: str, wanted: Bools
) -> tuple[Records, list[Pages]]:
    """Walk the pages of all streams.

    `wanted` says for each of the `TYPES` event ids whether its records are taken. Returns all
    records and, per stream, what its pages say.
    """
    walked = [walk_stream(data, s, layout, order, wanted) for s in streams]
    records = Records.empty([len(columns[0]) for columns, _ in walked])
    for (columns, _), start, end in zip(walked, records.bounds, records.bounds[1:], strict=False):
        for target, column in zip(records.part(start, end), columns, strict=True):
            target[:] = column
    return records, [pages for _, pages in walked]


def in_parallel(tasks: list[partial[Any]], *, size: int) -> list[Any]:
    """Run tasks that release the GIL on all CPUs; return their results in order.

    Where their data is small, `size` [bytes], it is done before threads would have started.
    """
    if size < WORTH_A_THREAD or len(tasks) < 2 or native.WORKERS < 2:
        return [task() for task in tasks]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(native.WORKERS) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def word_view(data: Bytes, size: int, order: str, signed: bool = False) -> npt.NDArray[Any]:
    """View bytes as overlapping integers: element k is the integer at byte k."""
    dtype = np.dtype(f"{order}{'i' if signed else 'u'}{size}")
    return np.ndarray((max(len(data) - size + 1, 0),), dtype, buffer=data, strides=(1,))


def split_type(words: npt.NDArray[Any], order: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Split event headers into type_len and time delta: bit fields follow the byte order."""
    if order == "<":
        return words & 31, words >> 5
    return words >> 27, words & COMMIT_MASK


@dataclass(frozen=True)
class _Events:
    """One event of each of several pages; entry k of every array is about event k."""

    page: Int64s  # number of the page
    at: Int64s  # position of the header in the data
    room: Int64s  # from there to the end of the page's data [bytes]
    kind: Int64s  # type_len
    delta: Int64s  # time_delta

    @property
    def is_data(self) -> Bools:
        """Which events are data records."""
        return self.kind < PADDING

    @property
    def is_short(self) -> Bools:
        """Which events are data records whose length is in the header itself."""
        return (self.kind > LONG_DATA) & (self.kind < PADDING)

    def where(self, chosen: Bools) -> _Events:
        """Return only the chosen events."""
        arrays = (self.page, self.at, self.room, self.kind, self.delta)
        return _Events(*(array[chosen] for array in arrays))


class _Walk:
    """A walk through all pages of a stream at the same time: step k reads event k of every page."""

    def __init__(self, data: Bytes, stream: Stream, layout: PageLayout, order: str) -> None:
        pages = len(stream.starts)
        self._order = order
        self._words = word_view(data, 4, order)
        header = _read_headers(data, stream, layout, order)
        self._at = stream.starts + layout.data_offset  # where the next event is
        self._end = header.end
        self._time = header.time.copy()  # of the last event
        self._has_record = np.zeros(pages, bool)
        self.pages = Pages(
            counts=np.zeros(pages, np.int64),
            first=header.time.copy(),
            last=header.time.copy(),
            lost=header.lost,
            damaged=header.damaged.copy(),
        )

    def unfinished(self) -> Int64s:
        """Return the numbers of the pages that have more events."""
        return np.flatnonzero(~self.pages.damaged & (self._at < self._end))

    def headers(self, page: Int64s) -> _Events:
        """Read the header of the next event of these pages, without pages that end there."""
        at, end = self._at[page], self._end[page]
        unread = np.zeros(len(page), np.int64)
        events = self._sound(_Events(page, at, end - at, unread, unread), end - at >= 4)
        words = self._words[events.at].astype(np.int64)
        kind, delta = split_type(words, self._order)
        events = _Events(events.page, events.at, events.room, kind, delta)
        padding_to_the_end = (kind == PADDING) & (delta == 0)
        self._at[events.page[padding_to_the_end]] = self._end[events.page[padding_to_the_end]]
        events = events.where(~padding_to_the_end)
        return self._sound(events, events.is_short | (events.room >= 8))

    def records(self, events: _Events) -> tuple[Int64s, Int64s, npt.NDArray[Any], UInt64s]:
        """Go past these events; return page, payload, length and time of the records in them."""
        second = np.where(events.is_short, events.at, events.at + 4)
        second = self._words[second].astype(np.int64)  # of the other events: the word after it
        size, length = _sizes(events, second)
        time = _times(events, second, self._time[events.page])
        sound = (size <= events.room) & (~events.is_data | (length >= 4))
        events, size, length, time = (
            self._sound(events, sound),
            size[sound],
            length[sound],
            time[sound],
        )
        self._time[events.page] = time
        self._at[events.page] += size
        is_data = events.is_data
        page, time = events.page[is_data], time[is_data]
        first = self.pages.first
        first[page] = np.where(self._has_record[page], first[page], time)
        self.pages.last[page] = time
        self._has_record[page] = True
        payload = events.at + np.where(events.is_short, 4, 8)
        return page, payload[is_data], length[is_data], time

    def _sound(self, events: _Events, sound: Bools) -> _Events:
        """Return the sound events; the pages of the others are damaged."""
        self.pages.damaged[events.page[~sound]] = True
        return events.where(sound)


def _sizes(events: _Events, second: Int64s) -> tuple[Int64s, Int64s]:
    """Return the size of every event with its header, and of its payload [bytes]."""
    size = np.select(
        [events.is_short, events.kind == LONG_DATA, events.kind == PADDING],
        [4 + 4 * events.kind, 4 + (second + 3 & ~3), 4 + second],
        8,
    )
    return size, np.where(events.is_short, 4 * events.kind, second - 4)


def _times(events: _Events, second: Int64s, before: UInt64s) -> UInt64s:
    """Return the time of every event; `before` is that of the event before it."""
    step = events.delta.astype(np.uint64)
    long_step = step + (second.astype(np.uint64) << np.uint64(DELTA_BITS))
    times: UInt64s = np.select(
        [events.kind == TIME_EXTEND, events.kind == TIME_STAMP],
        [before + long_step, (before & STAMP_TOP) | long_step],
        before + step,
    )
    return times


def walk_stream(
    data: Bytes, stream: Stream, layout: PageLayout, order: str, wanted: Bools
) -> tuple[tuple[npt.NDArray[Any], ...], Pages]:
    """Walk all pages of a stream.

    Returns the columns of `Records` in the order of the pages, and what the pages say.
    """
    walk = _Walk(data, stream, layout, order)
    types = word_view(data, 2, order)
    taken = walk.pages.counts
    steps: list[tuple[npt.NDArray[Any], ...]] = []
    while len(unfinished := walk.unfinished()):
        records = walk.records(walk.headers(unfinished))
        ids = types[records[1]]
        chosen = wanted[ids]
        page, payload, length, time = (column[chosen] for column in records)
        steps.append((page, taken[page], time, payload, length, ids[chosen]))
        taken[page] += 1
    return _in_page_order(steps, taken), walk.pages


@dataclass(frozen=True)
class _Headers:
    time: npt.NDArray[np.uint64]
    end: Int64s  # position after the data
    lost: Int64s
    damaged: Bools


def _read_headers(data: Bytes, stream: Stream, layout: PageLayout, order: str) -> _Headers:
    starts = stream.starts
    commit = read_commits(data, starts, layout, order)
    end = starts + layout.data_offset + (commit & COMMIT_MASK)
    room = starts + stream.page_size - end
    lost = np.where(commit & MISSED_EVENTS, -1, 0)
    stored = (lost < 0) & (commit & MISSED_STORED > 0) & (room >= layout.commit_size)
    longs = word_view(data, layout.commit_size, order)
    lost[stored] = longs[end[stored]].astype(np.uint64) & np.uint64(STORED_MASK)
    time = word_view(data, 8, order)[starts].astype(np.uint64)
    return _Headers(time, end, lost, room < 0)


def read_commits(data: Bytes, starts: Int64s, layout: PageLayout, order: str) -> Int64s:
    """Read the lower 32 bits of the pages' commit words."""
    longs = word_view(data, layout.commit_size, order)
    commits: Int64s = longs[starts + layout.commit_offset].astype(np.int64) & 0xFFFF_FFFF
    return commits


def _in_page_order(
    steps: list[tuple[npt.NDArray[Any], ...]], taken: Int64s
) -> tuple[npt.NDArray[Any], ...]:
    """Bring records from the order of the steps into that of the pages."""
    base = np.cumsum(taken) - taken
    columns: tuple[npt.NDArray[Any], ...] = Records.empty([int(taken.sum())]).columns
    for page, number, *values in steps:
        for column, value in zip(columns, values, strict=True):
            column[base[page] + number] = value
    return columns


Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Order:
    """Records grouped by type, each group in the order of time.

    At equal times the earlier stream comes first, then the order of recording.
    """

    numbers: Int32s  # of the records, group after group
    ranks: Int32s  # their places among all records in the order of time
    ends: Int64s  # per type, where its group ends

    def of(self, number: int) -> slice:
        """Return the group of a type."""
        return slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))


def order_records(times: Int64s, types: npt.NDArray[np.uint16]) -> Order:
    """Group records by type, each group in the order of time."""
    ends = np.cumsum(np.bincount(types, minlength=TYPES))
    order = np.argsort(times, kind="stable").astype(np.int32)
    ranks = np.argsort(types[order], kind="stable").astype(np.int32)
    return Order(order[ranks], ranks, ends)
