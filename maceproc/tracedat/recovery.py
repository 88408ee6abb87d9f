"""The pages of a version 7 file whose end is missing.

The option that says where a buffer's pages are follows them, so it is what a cut file has lost. The
section that holds the pages is found by walking the sections; in it every CPU's data starts at a
whole page, and CPUs follow each other. trace-cmd 3.4, lib/trace-cmd/trace-output.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from maceproc.tracedat.structures import COMPRESSED, SECTION_HEADER
from maceproc.tracedat.tracefile import BUFFER, Buffer, CpuData, TraceFile

RECOVERED = "recovered"
"""Name of a buffer whose own name is lost."""


def recovered_buffers(trace: TraceFile) -> Iterator[Buffer]:
    """Yield the buffers of `trace` behind its last options, with a note."""
    for start, end, compressed in _sections(trace):
        find = _compressed_cpus if compressed else _plain_cpus
        places = [place for place in find(trace, start, end) if place[1]]
        cpus = tuple(CpuData(cpu, *place) for cpu, place in enumerate(places))
        if cpus:
            trace.notes.append(
                f"the file ends at byte {len(trace.data)}, before it says what its last buffer is: "
                f"shown as {RECOVERED!r}, its CPUs numbered in their order"
            )
            yield Buffer(RECOVERED, "", trace.page_size, compressed, cpus)


def _sections(trace: TraceFile) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of every section with pages behind the last options."""
    position = trace.options_end
    while position + SECTION_HEADER.size <= len(trace.data):
        number, flags, _, size = trace.cursor_at(position).read(SECTION_HEADER)
        start = position + SECTION_HEADER.size
        position = start + size
        if number == BUFFER:
            yield start, min(position, len(trace.data)), bool(flags & COMPRESSED)


def _plain_cpus(trace: TraceFile, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield offset and size of runs of pages: where time goes back, the next CPU begins."""
    first = -(-start // trace.page_size) * trace.page_size
    before = 0
    for page in range(first, end - trace.page_size + 1, trace.page_size):
        (time,) = struct.unpack_from(trace.order + "Q", trace.data, page)
        if time < before:
            yield first, page - first
            first = page
        before = time
    yield first, max((end - first) // trace.page_size * trace.page_size, 0)


def _compressed_cpus(trace: TraceFile, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield offset and size of what each CPU's chunk count announces."""
    position = start
    while (first := -(-position // trace.page_size) * trace.page_size) + 4 <= end:
        (left,) = struct.unpack_from(trace.order + "I", trace.data, first)
        position = first + 4
        while left and position + 8 <= end:
            (packed,) = struct.unpack_from(trace.order + "I", trace.data, position)
            position += 8 + packed
            left -= 1
        yield first, min(position, end) - first
