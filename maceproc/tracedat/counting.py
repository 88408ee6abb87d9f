"""How many events a trace.dat holds, per buffer and CPU, without building any table.

The recorder compares this with the kernel's own counts. It walks the records of every page and
looks at nothing but their lengths, so it needs no NumPy.

Source: include/linux/ring_buffer.h, enum ring_buffer_type, v6.8.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from maceproc.errors import TraceFormatError
from maceproc.tracedat.container import Buffer, CpuData, TraceFile, open_trace
from maceproc.tracedat.formats import PageLayout, read_layout

NATIVE_ORDER = "<" if sys.byteorder == "little" else ">"

# The lower bits of a page's commit word: bytes of data in it. RB_MISSED_MASK is above them.
_USED_MASK = (1 << 27) - 1
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31


def count_events(path: str | os.PathLike[str]) -> dict[str, dict[int, int]]:
    """Count the events of a trace.dat: buffer name -> CPU -> events in its whole pages.

    Raises TraceFormatError when the file cannot be read, or was recorded in the other byte order.
    """
    with open_trace(path) as trace:
        if trace.order != NATIVE_ORDER:
            raise TraceFormatError(
                trace.path,
                offset=None,
                found="the other byte order",
                expected="a trace of this machine",
            )
        layout = read_layout(trace)
        counts: dict[str, dict[int, int]] = {}
        for buffer in trace.buffers:
            of_buffer = counts.setdefault(buffer.name, {})
            for cpu in buffer.cpus:
                pages = pages_of_cpu(trace, buffer, cpu)
                found = sum(events_in_page(page, layout) for page in pages)
                of_buffer[cpu.cpu] = of_buffer.get(cpu.cpu, 0) + found
        return counts


def pages_of_cpu(trace: TraceFile, buffer: Buffer, cpu: CpuData) -> Iterator[memoryview]:
    """Yield the whole pages that a file holds of one CPU, unpacked, one after the other."""
    size = buffer.page_size
    if not buffer.compressed:
        end = min(cpu.offset + cpu.size, len(trace.data))
        for start in range(cpu.offset, end - size + 1, size):
            yield trace.data[start : start + size]
        return
    unpack = trace.unpacker()
    for chunk in trace.chunks(buffer, cpu):
        packed = trace.data[chunk.offset : chunk.offset + chunk.packed]
        unpacked = memoryview(unpack(packed, chunk.unpacked))
        for start in range(0, chunk.unpacked, size):
            yield unpacked[start : start + size]


def events_in_page(page: memoryview, layout: PageLayout) -> int:
    """Count the data records of one page, as the kernel counts them."""
    commit = page[layout.commit_offset : layout.commit_offset + layout.commit_size]
    used = int.from_bytes(commit, sys.byteorder) & _USED_MASK
    data = page[layout.data_offset : layout.data_offset + used]
    words = data[: len(data) & ~3].cast("I")
    at, end, count = 0, len(words), 0
    while at < end:
        header = words[at]
        # Bit fields follow the byte order: type_len comes first in memory.
        kind, delta = (
            (header & 31, header >> 5)
            if NATIVE_ORDER == "<"
            else (header >> 27, header & _USED_MASK)
        )
        if 0 < kind < _PADDING:  # the length of the payload in words
            count += 1
            at += 1 + kind
        elif kind in (_TIME_EXTEND, _TIME_STAMP):
            at += 2
        elif (kind == _PADDING and not delta) or at + 1 >= end:  # padding to the end of the page
            break
        else:  # the length stands in the next word, in bytes
            count += kind == 0
            at += 1 + (words[at + 1] + 3 >> 2)
    return count
