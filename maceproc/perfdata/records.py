"""Bytes into records: their places, types and sizes; compressed ones unpacked.

`perf record -z` puts one zstd stream over all its compressed records. A record can begin in one of
them and end in the next (tools/perf/util/session.c, perf_session__process_compressed_event(),
v6.18).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maceproc.perfdata.container import PerfFile
from maceproc.perfdata.structures import (
    LAST_RECORD,
    RECORD_COMPRESSED,
    RECORD_COMPRESSED2,
    RECORD_HEADER,
)
from maceproc.perfdata.walking import kernel_records, records_of
from maceproc.tracedat.ringbuffer import Bytes, Int64s, word_view
from maceproc.tracedat.tracefile import UNPACKED_RATIO, UNPACKED_SLACK

SIZE_LIMIT = 1 << 16  # a record's size has 16 bits
COMPRESSED_RECORDS = (RECORD_COMPRESSED, RECORD_COMPRESSED2)


@dataclass(frozen=True)
class Records:
    """Records in the order of the file."""

    data: Bytes
    positions: Int64s
    types: npt.NDArray[np.uint32]
    sizes: Int64s

    def of(self, kind: int) -> Int64s:
        """Return the positions of the records of a type."""
        return self.positions[self.types == kind]


def read_records(perf: PerfFile) -> Records:
    """Read all records of all streams; those of a single stream without compression in place."""
    parts: list[bytes | memoryview] = []
    positions: list[Int64s] = []
    before = 0
    for stream in perf.streams:
        own, places = _stream(perf, stream)
        positions.append(places + before)
        parts += own
        before += sum(map(len, own))
    joined = parts[0] if len(parts) == 1 else b"".join(parts)
    data = np.frombuffer(joined, np.uint8)
    places = np.concatenate(positions) if positions else np.empty(0, np.int64)
    types, sizes = np.empty(0, np.uint32), np.empty(0, np.int64)
    if len(places):
        types = word_view(data, 4, perf.order)[places].astype(np.uint32)
        sizes = word_view(data, 2, perf.order)[places + 6].astype(np.int64)
    return Records(data, places, types, sizes)


def _stream(perf: PerfFile, stream: memoryview) -> tuple[list[bytes | memoryview], Int64s]:
    """Return a stream's bytes in parts, compressed records unpacked, and the records' places."""
    places, end, is_compressed = walk(stream, perf.order)
    if not is_compressed:
        if end < len(stream):
            perf.notes.append(
                f"no whole record is at byte {end} of the records: the last {len(stream) - end} of "
                f"{len(stream)} bytes are left out"
            )
        return [stream], places
    parts = _unpacked(perf, stream, end)
    joined = b"".join(parts)
    places, _, _ = walk(memoryview(joined), perf.order)
    return [joined], places


def walk(data: memoryview, order: str) -> tuple[Int64s, int, bool]:
    """Return the records' positions, where the last one ends, and if a compressed one follows.

    It stops at a compressed record, and at what cannot be a record.
    """
    parts: list[Int64s] = [np.empty(0, np.int64)]
    header = struct.Struct(order + RECORD_HEADER.form).unpack_from
    position, is_compressed = 0, False
    while True:
        own, end = kernel_records(data[position:], order)
        parts.append(own + position)
        position += end
        if position + RECORD_HEADER.size > len(data):
            break
        is_compressed = header(data, position)[0] in COMPRESSED_RECORDS
        first = None if is_compressed else next(records_of(data[position:], order), None)
        if first is None:
            break
        parts.append(np.array([position], np.int64))
        position += first[2] + first[3]
    return np.concatenate(parts), position, is_compressed


# --- compressed records ---------------------------------------------------------------------------


def _unpacked(perf: PerfFile, stream: memoryview, position: int) -> list[bytes | memoryview]:
    """Return a stream's bytes in parts, the content of compressed records in their place.

    The first compressed record is at `position`. Records that are not compressed stay whole between
    the pieces of one that is split.
    """
    parts: list[bytes | memoryview] = [stream[:position]]
    unpack = _Unpacker(perf, len(stream))
    overflows = 0
    header = struct.Struct(perf.order + RECORD_HEADER.form)
    while position + header.size <= len(stream):
        kind, _, size = header.unpack_from(stream, position)
        if kind in COMPRESSED_RECORDS:
            end = _end_of_compressed(perf, stream, position, size)
            overflows += end - position > SIZE_LIMIT - 1
            start, stop = _content(perf, stream, position, kind, end)
            parts.append(unpack(stream[start:stop], position))
        else:
            first = next(records_of(stream[position:], perf.order), None)
            if first is None:
                break
            end = position + first[2] + first[3]
            parts.append(stream[position:end])
        position = end
    if position < len(stream):
        perf.notes.append(
            f"no whole record is at byte {position} of the records: the last "
            f"{len(stream) - position} of {len(stream)} bytes are left out"
        )
    unpack.finish()
    if overflows:
        perf.notes.append(
            f"{overflows} compressed records are longer than the 65535 bytes that their size can "
            "say (an error of perf record -z): read up to the record behind them"
        )
    return parts


def _content(
    perf: PerfFile, stream: memoryview, position: int, kind: int, end: int
) -> tuple[int, int]:
    """Return where a compressed record's zstd data is.

    COMPRESSED2 (since v6.16) says how long it is, and pads the record to 8 bytes.
    """
    start = position + RECORD_HEADER.size
    if kind == RECORD_COMPRESSED or end - start < 8:
        return start, end
    (size,) = struct.unpack_from(perf.order + "Q", stream, start)
    return start + 8, min(start + 8 + size, end)


def _end_of_compressed(perf: PerfFile, stream: memoryview, position: int, size: int) -> int:
    """Return where a compressed record ends, also where its size did not fit into 16 bits.

    perf can write a record that is longer than 65535 bytes, whose size has lost its upper bits. It
    shows by what follows: no record there, but one at the size that fits.
    """
    for carry in range(4):
        end = position + size + carry * SIZE_LIMIT
        if size + carry * SIZE_LIMIT >= RECORD_HEADER.size and _can_be_record(perf, stream, end):
            return end
    return min(position + max(size, RECORD_HEADER.size), len(stream))


def _can_be_record(perf: PerfFile, stream: memoryview, position: int) -> bool:
    """Whether a record can begin at a position, or the stream ends there."""
    if position == len(stream):
        return True
    if position + RECORD_HEADER.size > len(stream):
        return False
    kind, _, size = struct.unpack_from(perf.order + RECORD_HEADER.form, stream, position)
    return 0 < kind <= LAST_RECORD and size >= RECORD_HEADER.size


class _Unpacker:
    """The zstd stream over the compressed records of one stream of records."""

    def __init__(self, perf: PerfFile, size: int) -> None:
        import zstandard

        self.perf = perf
        self.left = UNPACKED_SLACK + UNPACKED_RATIO * size
        self.stream = zstandard.ZstdDecompressor().decompressobj()
        self.error = zstandard.ZstdError
        self.failed = False
        self.rest = b""  # the start of a record that continues in the next piece

    def __call__(self, data: memoryview, position: int) -> bytes:
        """Unpack the next piece into whole records; what is left begins the next piece's first.

        Returns nothing where the stream is damaged and from there on; a note says so.
        """
        if self.failed:
            return b""
        try:
            piece = self.rest + self.stream.decompress(data)
        except self.error as error:
            return self._fail(f"damaged zstd data ({error})", position)
        self.left -= len(piece) - len(self.rest)
        if self.left < 0:
            return self._fail("more bytes than a file of this size can hold", position)
        _, end, nested = walk(memoryview(piece), self.perf.order)
        self.rest = piece[end:]
        if nested or len(self.rest) >= SIZE_LIMIT:
            self.rest = b""
            self._fail("something that is no record", position)
        return piece[:end]

    def _fail(self, found: str, position: int) -> bytes:
        self.failed = True
        self.perf.notes.append(
            f"the compressed record at byte {position} of the records has {found}: the compressed "
            "records from there on are left out"
        )
        return b""

    def finish(self) -> None:
        """Note what is left of a record whose end is missing."""
        if self.rest and not self.failed:
            self.perf.notes.append(
                f"the compressed records end within a record: {len(self.rest)} bytes are left out"
            )
