"""Read the points that the programs in the kernel write to one ring.

Points are numbered in the order in which their places were taken. Point n is at place n modulo the
ring's length.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import NamedTuple

from maceproc.recording.bpf.memory import Point, Ring

POINT_BYTES = ctypes.sizeof(Point)


class Looked(NamedTuple):
    """What a look at a ring gave: points, how many were lost, and how many had come meanwhile."""

    data: bytes
    lost: int
    came: int


class RingReader:
    """Reads a ring of `room` places, which begin at an offset [bytes] of the shared memory."""

    def __init__(self, shared: mmap.mmap | bytearray, ring: Ring, offset: int, room: int) -> None:
        self._shared, self._ring = shared, ring
        self._offset, self._room = offset, room
        self._next = 0  # the first number that was not read
        self._there = 0  # how many were taken at the last look

    def look(self, *, at_end: bool) -> Looked:
        """Return the points that were taken before the last look: all of them are written by now.

        With `at_end` nobody writes any more, and all that is there is returned.
        """
        there = int(self._ring.taken)
        came = there - self._there
        data, lost = self._read(there if at_end else self._there)
        self._there = there
        return Looked(bytes(data), lost, came)

    def _read(self, end: int) -> tuple[bytearray, int]:
        """Copy the points up to before number `end`; tell how many were lost."""
        first, self._next = self._next, end
        start = max(first, min(end, int(self._ring.taken) - self._room))
        data = self._copy(start, end - start)
        # What was overwritten while it was copied is the oldest of it.
        torn = min(max(0, int(self._ring.taken) - self._room - start), end - start)
        return data[torn * POINT_BYTES :], start - first + torn

    def _copy(self, place: int, count: int) -> bytearray:
        data = bytearray()
        while count > 0:
            place %= self._room
            taken = min(count, self._room - place)
            at = self._offset + place * POINT_BYTES
            data += self._shared[at : at + taken * POINT_BYTES]
            place, count = place + taken, count - taken
        return data
