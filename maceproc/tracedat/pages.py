"""The pages of every buffer and CPU, in memory: memory-mapped or unpacked."""

from __future__ import annotations

from functools import partial

import numpy as np

from maceproc.tracedat.container import Buffer, Chunk, CpuData, TraceFile
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

CHUNKS_AT_ONCE = 256  # unpacked by one thread in one go


def load_pages(
    trace: TraceFile, buffers: list[Buffer], layout: PageLayout
) -> tuple[Bytes, list[Stream]]:
    """Bring the pages of some buffers into one array of bytes; one stream per buffer and CPU.

    Uncompressed pages stay in the memory-mapped file. Pages that the file's end cuts are left
    out, with a note.
    """
    streams = [(buffer, cpu) for buffer in buffers for cpu in buffer.cpus]
    if any(buffer.compressed for buffer in buffers):
        return _unpack_all(trace, streams)
    data = np.frombuffer(trace.data, np.uint8)
    sizes = {b.name: _find_page_size(trace, data, b, layout) for b in buffers}
    return data, [
        Stream(b, cpu.cpu, sizes[b.name], _whole_pages(trace, cpu, sizes[b.name]))
        for b, cpu in streams
    ]


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
    trace: TraceFile, streams: list[tuple[Buffer, CpuData]]
) -> tuple[Bytes, list[Stream]]:
    """Unpack every chunk into one array; chunks are independent, so on all cores."""
    found: list[Stream] = []
    chunks: list[Chunk] = []
    total = 0
    for buffer, cpu in streams:
        own = list(trace.chunks(buffer, cpu))
        size = sum(chunk.unpacked for chunk in own)
        starts = total + np.arange(0, size, buffer.page_size, dtype=np.int64)
        found.append(Stream(buffer, cpu.cpu, buffer.page_size, starts))
        chunks += own
        total += size
    data = np.empty(total, np.uint8)

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
