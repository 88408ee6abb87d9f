"""Pages of a ring buffer into records: when, where in memory, how long, of which type.

Sources: Linux kernel/trace/ring_buffer.c and include/linux/ring_buffer.h (6.18), libtraceevent
1.8.4 src/kbuffer-parse.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maceproc.tracedat.formats import PageLayout

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]

# The commit word of a page: bytes of data, and whether events were lost before it.
COMMIT_MASK = (1 << 27) - 1
MISSED_EVENTS = 1 << 31  # RB_MISSED_EVENTS: something is missing
MISSED_STORED = 1 << 30  # RB_MISSED_STORED: and how much stands after the data

# Event types, enum ring_buffer_type. 1 to 28 are the payload's size in words.
LONG_DATA, PADDING, TIME_EXTEND, TIME_STAMP = 0, 29, 30, 31
DELTA_BITS = 27
# A time stamp has 59 bits; the page's own time stamp gives the upper five.
STAMP_TOP = np.uint64(0xF8 << 56)


@dataclass(frozen=True)
class Records:
    """The records of some pages, in the order of the pages; and what the pages themselves say.

    Positions count from the first byte of the data that was walked. Times are the clock's own.
    """

    times: npt.NDArray[np.uint64]
    positions: Int64s  # of the payload
    lengths: npt.NDArray[np.int32]  # of the payload [bytes]
    types: npt.NDArray[np.uint16]  # common_type: the event's id
    # One entry per page:
    counts: Int64s  # records taken from it
    first: npt.NDArray[np.uint64]  # time of its first and last record of any type;
    last: npt.NDArray[np.uint64]  # the page's own time when it has none
    lost: Int64s  # events lost before the page: 0 none, -1 an unknown number
    damaged: npt.NDArray[np.bool_]  # the walk met something impossible and left the rest out


def word_view(data: Bytes, size: int, order: str, signed: bool = False) -> npt.NDArray[Any]:
    """View bytes as overlapping integers: element k is the integer at byte k."""
    dtype = np.dtype(f"{order}{'i' if signed else 'u'}{size}")
    return np.ndarray((max(len(data) - size + 1, 0),), dtype, buffer=data, strides=(1,))


def split_type(words: npt.NDArray[Any], order: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Split event headers into type_len and time delta: bit fields follow the byte order."""
    if order == "<":
        return words & 31, words >> 5
    return words >> 27, words & COMMIT_MASK


def walk(  # noqa: PLR0915  one loop, as the format is one grammar
    data: Bytes,
    starts: Int64s,
    page_size: int,
    layout: PageLayout,
    order: str,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> Records:
    """Walk all pages at once, event k of every page in step k.

    `starts` are the positions of the pages in `data`, `wanted` says for each of 65536 event ids
    whether its records are taken. All pages must lie inside the data.
    """
    word = word_view(data, 4, order)
    half = word_view(data, 2, order)
    header = _read_headers(data, starts, page_size, layout, order)
    pos, end, ts = starts + layout.data_offset, header.end.copy(), header.time.copy()
    damaged = header.damaged.copy()
    taken = np.zeros(len(starts), np.int64)
    seen = np.zeros(len(starts), bool)
    first, last = ts.copy(), ts.copy()
    steps: list[tuple[npt.NDArray[Any], ...]] = []
    page = np.flatnonzero(~damaged & (pos < end))
    while len(page):
        room = end[page] - pos[page]
        fits = room >= 4
        damaged[page[~fits]] = True
        page, room = page[fits], room[fits]
        kind, delta = split_type(word[pos[page]].astype(np.int64), order)
        # Padding to the end of the page.
        more = (kind != PADDING) | (delta != 0)
        page, room, kind, delta = page[more], room[more], kind[more], delta[more]
        short = (kind >= 1) & (kind <= 28)
        fits = short | (room >= 8)
        damaged[page[~fits]] = True
        page, room, short = page[fits], room[fits], short[fits]
        kind, delta = kind[fits], delta[fits]
        here = pos[page]
        extra = word[np.where(short, here, here + 4)].astype(np.int64)
        size = np.select(
            [short, kind == LONG_DATA, kind == PADDING],
            [4 + 4 * kind, 4 + (extra + 3 & ~3), 4 + extra],
            8,
        )
        length = np.where(short, 4 * kind, extra - 4)
        is_data = kind <= 28
        payload = here + np.where(short, 4, 8)
        fits = (size <= room) & (~is_data | (length >= 4))
        damaged[page[~fits]] = True
        step = delta.astype(np.uint64)
        long_step = step + (extra.astype(np.uint64) << np.uint64(DELTA_BITS))
        now = ts[page]
        now = np.select(
            [kind == TIME_EXTEND, kind == TIME_STAMP],
            [now + long_step, (now & STAMP_TOP) | long_step],
            now + step,
        )
        page, now, size = page[fits], now[fits], size[fits]
        is_data, payload, length = is_data[fits], payload[fits], length[fits]
        ts[page] = now
        pos[page] += size
        hit, at, when = page[is_data], payload[is_data], now[is_data]
        first[hit] = np.where(seen[hit], first[hit], when)
        last[hit] = when
        seen[hit] = True
        ids = half[at]
        length = length[is_data]
        if wanted is not None:
            chosen = wanted[ids]
            hit, at, when, ids, length = (x[chosen] for x in (hit, at, when, ids, length))
        steps.append((hit, taken[hit], when, at, length, ids))
        taken[hit] += 1
        page = page[pos[page] < end[page]]
    return _in_page_order(steps, taken, first, last, header.lost, damaged)


@dataclass(frozen=True)
class _Headers:
    time: npt.NDArray[np.uint64]
    end: Int64s  # position after the data
    lost: Int64s
    damaged: npt.NDArray[np.bool_]


def _read_headers(
    data: Bytes, starts: Int64s, page_size: int, layout: PageLayout, order: str
) -> _Headers:
    commit = read_commits(data, starts, layout, order)
    size = commit & COMMIT_MASK
    end = starts + layout.data_offset + size
    room = starts + page_size - end
    lost = np.where(commit & MISSED_EVENTS, -1, 0)
    stored = (lost < 0) & (commit & MISSED_STORED > 0) & (room >= layout.commit_size)
    longs = word_view(data, layout.commit_size, order)
    lost[stored] = longs[end[stored]].astype(np.int64) & np.int64((1 << 62) - 1)
    time = word_view(data, 8, order)[starts].astype(np.uint64)
    return _Headers(time, end, lost, room < 0)


def read_commits(data: Bytes, starts: Int64s, layout: PageLayout, order: str) -> Int64s:
    """Read the lower 32 bits of the pages' commit words."""
    longs = word_view(data, layout.commit_size, order)
    commits: Int64s = longs[starts + layout.commit_offset].astype(np.int64) & 0xFFFF_FFFF
    return commits


def _in_page_order(
    steps: list[tuple[npt.NDArray[Any], ...]],
    taken: Int64s,
    first: npt.NDArray[np.uint64],
    last: npt.NDArray[np.uint64],
    lost: Int64s,
    damaged: npt.NDArray[np.bool_],
) -> Records:
    """Bring records from the order of the steps into that of the pages."""
    base = np.cumsum(taken) - taken
    total = int(taken.sum())
    times, positions = np.empty(total, np.uint64), np.empty(total, np.int64)
    lengths, types = np.empty(total, np.int32), np.empty(total, np.uint16)
    for page, number, when, at, length, ids in steps:
        slot = base[page] + number
        times[slot], positions[slot], lengths[slot], types[slot] = when, at, length, ids
    return Records(times, positions, lengths, types, taken, first, last, lost, damaged)
