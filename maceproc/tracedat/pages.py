"""The pages of every buffer and CPU, in memory: memory-mapped or unpacked."""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from maceproc.tracedat.formats import PageLayout
from maceproc.tracedat.ringbuffer import (
    COMMIT_MASK,
    Bytes,
    Int64s,
    Stream,
    in_parallel,
    read_commits,
    word_view,
)
from maceproc.tracedat.timing import Clock
from maceproc.tracedat.tracefile import Buffer, Chunk, CpuData, TraceFile

PAGES_LOOKED_AT = 4096  # at the begin and at the end of a CPU's data, to tell their size
CHUNKS_AT_ONCE = 256  # unpacked by one thread in one go


@dataclass(frozen=True)
class PageSpan:
    """A span of time [ns], and the clock that pages are to be compared on; None is no limit."""

    clock: Clock
    start_ns: int | None
    end_ns: int | None

    def pages(self, number: int, time_of: Callable[[int], int]) -> slice:
        """Return which of a CPU's pages can hold events of the span, or tell of a gap in it.

        `time_of` gives the raw time a page begins at. A CPU's pages are in the order of time, so a
        few of them are looked at.
        """

        def time_ns(page: int) -> int:
            return int(self.clock.convert(np.array([time_of(page)], np.uint64))[0])

        first, end = 0, number
        if self.start_ns is not None:
            # The span can begin in the page before; what was lost before that, in the one before.
            first = max(bisect_left(range(number), self.start_ns, key=time_ns) - 2, 0)
        if self.end_ns is not None:
            end = bisect_left(range(number), self.end_ns, key=time_ns) + 1
        return slice(first, end)


def load_pages(
    trace: TraceFile, buffers: list[Buffer], layout: PageLayout, span: PageSpan | None = None
) -> tuple[Bytes, list[Stream]]:
    """Bring the pages of some buffers into one array of bytes; one stream per buffer and CPU.

    Uncompressed pages stay in the memory-mapped file. Pages that the file's end cuts are left
    out, with a note; and those outside of the span of time, without one.
    """
    streams = [(buffer, cpu) for buffer in buffers for cpu in buffer.cpus]
    if any(buffer.compressed for buffer in buffers):
        return _unpack_all(trace, streams, span)
    data = np.frombuffer(trace.data, np.uint8)
    sizes = {b.name: _find_page_size(trace, data, b, layout) for b in buffers}
    found = []
    for buffer, cpu in streams:
        starts = _whole_pages(trace, cpu, sizes[buffer.name])
        if span is not None:
            times = partial(page_time, trace, starts)
            starts = starts[span.pages(len(starts), times)]
        found.append(Stream(buffer, cpu.cpu, sizes[buffer.name], starts))
    return data, found


def page_time(trace: TraceFile, starts: Int64s, page: int) -> int:
    """Return the raw time that a page begins at, which is not compressed."""
    time: int = struct.unpack_from(trace.order + "Q", trace.data, int(starts[page]))[0]
    return time


def whole_pages_of(
    trace: TraceFile, buffer: Buffer, cpu: CpuData, layout: PageLayout
) -> tuple[Int64s, int]:
    """Return where the pages of a CPU begin, which are not compressed, and their size [bytes]."""
    data = np.frombuffer(trace.data, np.uint8)
    size = _find_page_size(trace, data, buffer, layout)
    return _whole_pages(trace, cpu, size, quiet=True), size


def _whole_pages(trace: TraceFile, cpu: CpuData, page_size: int, quiet: bool = False) -> Int64s:
    start = min(cpu.offset, len(trace.data))
    present = min(cpu.size, len(trace.data) - start)
    if present < cpu.size and not quiet:
        trace.notes.append(
            f"the file ends at byte {len(trace.data)}: {cpu.size - present} of {cpu.size} bytes "
            f"of CPU {cpu.cpu} are missing"
        )
    return start + page_size * np.arange(present // page_size, dtype=np.int64)


def _find_page_size(trace: TraceFile, data: Bytes, buffer: Buffer, layout: PageLayout) -> int:
    """Return the page size with which every page of the buffer can be one.

    Version 6 stores the top buffer's size alone, and an instance may have larger pages.
    """
    if buffer.page_size_certain:
        return buffer.page_size
    for factor in (1, 2, 4, 8, 16, 32, 64, 128):
        size = buffer.page_size * factor
        if all(_can_be_pages(trace, data, cpu, size, layout) for cpu in buffer.cpus):
            return size
    return buffer.page_size


def _can_be_pages(
    trace: TraceFile, data: Bytes, cpu: CpuData, page_size: int, layout: PageLayout
) -> bool:
    if cpu.size % page_size:
        return False
    starts = _whole_pages(trace, cpu, page_size, quiet=True)
    if len(starts) > 2 * PAGES_LOOKED_AT:  # all would bring the whole of a large file into memory
        starts = np.concatenate([starts[:PAGES_LOOKED_AT], starts[-PAGES_LOOKED_AT:]])
    commits = read_commits(data, starts, layout, trace.order)
    used = commits & COMMIT_MASK
    times = word_view(data, 8, trace.order)[starts][used > 0]
    unknown_flags = commits & 0x3800_0000
    return bool(
        (used <= page_size - layout.data_offset).all()
        and not unknown_flags.any()
        and (times[1:] >= times[:-1]).all()
    )


def _unpack_all(
    trace: TraceFile, streams: list[tuple[Buffer, CpuData]], span: PageSpan | None
) -> tuple[Bytes, list[Stream]]:
    """Unpack every chunk into one array; chunks are independent, so on all cores."""
    found: list[Stream] = []
    chunks: list[Chunk] = []
    total = 0
    for buffer, cpu in streams:
        own = list(trace.chunks(buffer, cpu))
        if span is not None:
            own = own[span.pages(len(own), partial(chunk_time, trace, own))]
        size = sum(chunk.unpacked for chunk in own)
        starts = total + np.arange(0, size, buffer.page_size, dtype=np.int64)
        found.append(Stream(buffer, cpu.cpu, buffer.page_size, starts))
        chunks += own
        total += size
    data = _room(total)

    def unpack(first: int, place: int) -> None:
        unpack_one = trace.unpacker()
        for chunk in chunks[first : first + CHUNKS_AT_ONCE]:
            packed = trace.data[chunk.offset : chunk.offset + chunk.packed]
            unpacked = unpack_one(packed, chunk.unpacked)
            data[place : place + chunk.unpacked] = np.frombuffer(unpacked, np.uint8)
            place += chunk.unpacked

    begins = np.cumsum([0, *(chunk.unpacked for chunk in chunks)])
    firsts = range(0, len(chunks), CHUNKS_AT_ONCE)
    in_parallel([partial(unpack, first, int(begins[first])) for first in firsts], size=total)
    return data, found


def _room(size: int) -> Bytes:
    """Make room for so many bytes, that go back to the system with the array's end.

    What malloc(3) gives may stay with the process after free(3), up to M_MMAP_THRESHOLD: 32 MiB.
    """
    return np.frombuffer(mmap.mmap(-1, size), np.uint8) if size else np.empty(0, np.uint8)


def chunk_time(trace: TraceFile, chunks: list[Chunk], number: int) -> int:
    """Return the raw time that the first page of a chunk begins at."""
    chunk = chunks[number]
    packed = trace.data[chunk.offset : chunk.offset + chunk.packed]
    unpacked = trace.unpacker()(packed, chunk.unpacked)
    time: int = struct.unpack_from(trace.order + "Q", unpacked)[0]
    return time
