"""From record to record: where each begins, what it is, and what follows it."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

import numpy as np

from maceproc.perfdata.structures import (
    FIRST_USER_RECORD,
    RECORD_AUXTRACE,
    RECORD_HEADER,
    RECORD_TRACING_DATA,
)
from maceproc.tracedat import native
from maceproc.tracedat.ringbuffer import Int64s


def kernel_records(data: memoryview, order: str) -> tuple[Int64s, int]:
    """Return the positions of the kernel's records from the start of the data on.

    Also where they end: at a record of perf's own, at what cannot be a record, or at the end.
    """
    if native.loops is not None:
        found, end = native.loops.kernel_records(data, order)
        return np.frombuffer(found, np.int64), end
    places = array("q")
    header = struct.Struct(order + RECORD_HEADER.form).unpack_from
    least, size, end = RECORD_HEADER.size, len(data), 0
    while end + least <= size:
        kind, _, length = header(data, end)
        if kind >= FIRST_USER_RECORD or length < least or end + length > size:
            break
        places.append(end)
        end += length
    return np.array(places, np.int64), end


def user_records(data: memoryview, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield the records of perf's own as `records_of`; the kernel's are passed over."""
    position = 0
    while True:
        _, end = kernel_records(data[position:], order)
        position += end
        found = next(records_of(data[position:], order), None)
        if found is None:
            return
        _, kind, size, extra = found
        yield position, kind, size, extra
        position += size + extra


def records_of(data: memoryview, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield position, type and size of every record, and the size of what follows it [bytes].

    It stops at a record that cannot be one.
    """
    header = struct.Struct(order + RECORD_HEADER.form)
    position, end = 0, len(data)
    while position + header.size <= end:
        kind, _, size = header.unpack_from(data, position)
        extra = 0
        if size < header.size or position + size > end:
            return
        if kind == RECORD_TRACING_DATA and size >= header.size + 4:
            (extra,) = struct.unpack_from(order + "I", data, position + header.size)
            extra += -extra % 8
        elif kind == RECORD_AUXTRACE and size >= header.size + 8:
            (extra,) = struct.unpack_from(order + "Q", data, position + header.size)
        extra = min(extra, end - position - size)
        yield position, kind, size, extra
        position += size + extra
