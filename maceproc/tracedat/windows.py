"""A trace.dat cut into windows of time, each of which can be read in a bounded amount of memory.

The windows follow one another without a gap or an overlap, so every event is in one of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import PageLayout, read_layout
from maceproc.tracedat.pages import chunk_time, whole_pages_of
from maceproc.tracedat.ringbuffer import Int64s
from maceproc.tracedat.timing import read_clock
from maceproc.tracedat.tracefile import Buffer, CpuData, TraceFile

LOOKS_PER_WINDOW = 16  # at the times of pages, in each of which a CPU's part of a window is counted


class Window(NamedTuple):
    """A span of time on the trace clock [ns], the end not included; None is no limit."""

    start_ns: int | None
    end_ns: int | None


WHOLE = Window(None, None)


def windows_of(path: str | os.PathLike[str], window_bytes: int) -> list[Window]:
    """Return windows of a trace.dat whose pages, unpacked, are about `window_bytes` each.

    A file that is smaller is one window without limits. Raises TraceFormatError.
    """
    with open_trace(path) as trace:
        return _cut(trace, read_layout(trace), window_bytes)


def unpacked_bytes(path: str | os.PathLike[str]) -> int:
    """Return how large all pages of a trace.dat are, unpacked [bytes]; raises TraceFormatError."""
    with open_trace(path) as trace:
        return sum(_size(trace, buffer, cpu) for buffer in trace.buffers for cpu in buffer.cpus)


def _size(trace: TraceFile, buffer: Buffer, cpu: CpuData) -> int:
    if not buffer.compressed:
        return cpu.size
    return sum(chunk.unpacked for chunk in trace.chunks(buffer, cpu))


def _cut(trace: TraceFile, layout: PageLayout, window_bytes: int) -> list[Window]:
    streams = [(buffer, cpu) for buffer in trace.buffers for cpu in buffer.cpus]
    step = max(window_bytes // (LOOKS_PER_WINDOW * max(len(streams), 1)), 1)
    looks = [look for stream in streams for look in _looks(trace, layout, *stream, step)]
    raw = np.array([time for time, _ in looks], np.uint64)
    sizes = np.array([size for _, size in looks], np.int64)
    times_ns = read_clock(trace).convert(raw)
    order = np.argsort(times_ns, kind="stable")
    # A window is full when one look more would be too much.
    number = (np.cumsum(sizes[order]) - 1) // max(window_bytes, 1)
    begins = np.flatnonzero(np.diff(number)) + 1
    ends: list[int | None] = list(dict.fromkeys(times_ns[order][begins].tolist()))
    return [Window(*pair) for pair in zip([None, *ends], [*ends, None], strict=True)]


def _looks(
    trace: TraceFile, layout: PageLayout, buffer: Buffer, cpu: CpuData, step: int
) -> Iterator[tuple[int, int]]:
    """Yield raw times within a CPU's data, and how much data follows each of them [bytes]."""
    if buffer.compressed:
        chunks = list(trace.chunks(buffer, cpu))
        sizes = [chunk.unpacked for chunk in chunks]
        time_of = partial(chunk_time, trace, chunks)
    else:
        starts, page_size = whole_pages_of(trace, buffer, cpu, layout)
        sizes = [page_size] * len(starts)
        time_of = partial(_time_at, trace, starts)
    first, size = 0, 0
    for place, own in enumerate(sizes):
        size += own
        if size >= step or place == len(sizes) - 1:
            yield time_of(first), size
            first, size = place + 1, 0


def _time_at(trace: TraceFile, starts: Int64s, page: int) -> int:
    """Return the raw time that a page begins at, read from the file.

    A look into the mapped file would bring in more of it: the kernel maps what is around a page.
    """
    with trace.path.open("rb", buffering=0) as file:
        file.seek(int(starts[page]))
        time: int = struct.unpack(trace.order + "Q", file.read(8))[0]
    return time
