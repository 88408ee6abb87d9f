"""Read the points that the programs in the kernel write to one ring.

Points are numbered in the order in which their places were taken. Point n is at place (n - base)
modulo the ring's length. Where few points come, the reader moves the base at each look, so that the
same few places are used again: they stay in the CPU's caches.

A program that has read the base before it was moved, and takes its number afterwards, writes to
where the point would have been before. So both places are looked at, and the point's own number
tells. What is at neither is counted as lost.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass
from typing import NamedTuple

from maceproc.recording.bpf.memory import Point, Ring

POINT_BYTES = ctypes.sizeof(Point)
FEW = 2048
"""Points between two looks up to which the base is moved."""

_NUMBER = struct.Struct(f"<{Point.number.offset}xI{POINT_BYTES - Point.number.offset - 4}x")
_MODULUS = 1 << 32  # of the number in a point


class Looked(NamedTuple):
    """What a look at a ring gave: points, how many were lost, and how many had come meanwhile."""

    data: bytes
    lost: int
    came: int


@dataclass
class _Span:
    """Points from a number on, their base, and the base of the points before.

    Until the look after the base was moved, points may be where they were before.
    """

    first: int
    base: int
    before: int
    unsure_until: int | None = None


class RingReader:
    """Reads a ring of `room` places, which begin at an offset [bytes] of the shared memory."""

    def __init__(self, shared: mmap.mmap | bytearray, ring: Ring, offset: int, room: int) -> None:
        self._shared, self._ring = shared, ring
        self._offset, self._room = offset, room
        self._next = 0  # the first number that was not read
        self._there = 0  # how many were taken at the last look
        self._spans = [_Span(0, 0, 0)]

    def look(self, *, at_end: bool) -> Looked:
        """Return the points that were taken before the last look: all of them are written by now.

        With `at_end` nobody writes any more, and all that is there is returned.
        """
        there = int(self._ring.taken)
        came = there - self._there
        data, lost = self._read(there if at_end else self._there)
        if self._spans[-1].unsure_until is None:
            self._spans[-1].unsure_until = there
        if 0 < came <= FEW and not at_end:
            self._move_base(there)
        self._there = there
        return Looked(bytes(data), lost, came)

    def _move_base(self, there: int) -> None:
        """Let the next points go to the next quarter of the ring.

        When that quarter is used again, whatever was written to it late has been read.
        """
        old, quarter = self._spans[-1].base, self._room // 4
        start = ((there - old) % self._room + FEW) // quarter * quarter + quarter
        base = (there - start) % (1 << 64)
        self._ring.base = base
        self._spans.append(_Span(there, base, old))

    def _read(self, end: int) -> tuple[bytearray, int]:
        """Copy the points up to before number `end`; tell how many were lost."""
        data, lost = bytearray(), 0
        while self._next < end:
            span = self._spans[0]
            last = len(self._spans) == 1
            stop = end if last else min(end, self._spans[1].first)
            more, lost_here = self._read_span(span, self._next, stop)
            data += more
            lost += lost_here
            self._next = stop
            if not last and stop == self._spans[1].first:
                del self._spans[0]
        return data, lost

    def _read_span(self, span: _Span, first: int, stop: int) -> tuple[bytearray, int]:
        start = max(first, min(stop, int(self._ring.taken) - self._room))
        data = self._copy(start - span.base, stop - start)
        # What was overwritten while it was copied is the oldest of it.
        torn = min(max(0, int(self._ring.taken) - self._room - start), stop - start)
        data, start = data[torn * POINT_BYTES :], start + torn
        lost = start - first
        if span.unsure_until is None or first < span.unsure_until:
            data, missing = self._verified(data, start, span)
            lost += missing
        return data, lost

    def _copy(self, place: int, count: int) -> bytearray:
        data = bytearray()
        while count > 0:
            place %= self._room
            taken = min(count, self._room - place)
            at = self._offset + place * POINT_BYTES
            data += self._shared[at : at + taken * POINT_BYTES]
            place, count = place + taken, count - taken
        return data

    def _verified(self, data: bytearray, start: int, span: _Span) -> tuple[bytearray, int]:
        """Return the points that have their own number, from either place; count the others."""
        numbers = [number for (number,) in _NUMBER.iter_unpack(data)]
        wanted = [number % _MODULUS for number in range(start, start + len(numbers))]
        if numbers == wanted:
            return data, 0
        found, missing = bytearray(), 0
        for place, (number, right) in enumerate(zip(numbers, wanted, strict=True)):
            point = data[place * POINT_BYTES : (place + 1) * POINT_BYTES]
            if number != right:
                point = self._copy(start + place - span.before, 1)
            if _NUMBER.unpack(point)[0] == right:
                found += point
            else:
                missing += 1
        return found, missing
