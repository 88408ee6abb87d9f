"""A ring of points is read whole, also where its base moves while a program writes."""

from __future__ import annotations

import ctypes

from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.recording.bpf import rings
from maceproc.recording.bpf.memory import Point, Ring
from maceproc.recording.bpf.rings import FEW, POINT_BYTES, RingReader

ROOM = 16384
AHEAD = 256  # something else is before the ring


class Written:
    """A ring, and what the programs in the kernel do with it."""

    def __init__(self) -> None:
        self.shared = bytearray(AHEAD + ROOM * POINT_BYTES)
        self.ring = Ring()
        self.reader = RingReader(self.shared, self.ring, AHEAD, ROOM)
        self.places: set[int] = set()
        self.read: list[int] = []
        self.lost = 0

    def write(self, count: int, base: int | None = None) -> None:
        """Write points; their writer has read the base, and takes their numbers now."""
        for _ in range(count):
            number = self.ring.taken
            self.ring.taken += 1
            place = (number - (self.ring.base if base is None else base)) % (1 << 64) % ROOM
            self.places.add(place)
            at = AHEAD + place * POINT_BYTES
            self.shared[at : at + POINT_BYTES] = bytes(Point(number=number, time_ns=number + 1))

    def look(self, *, at_end: bool = False) -> None:
        looked = self.reader.look(at_end=at_end)
        data = bytes(looked.data)
        self.read += [
            Point.from_buffer_copy(data, at).number for at in range(0, len(data), POINT_BYTES)
        ]
        self.lost += looked.lost


def test_few_points_use_few_places() -> None:
    ring = Written()
    for _ in range(300):
        ring.write(20)
        ring.look()
    ring.look(at_end=True)
    assert ring.read == list(range(6000))
    assert ring.lost == 0
    assert len(ring.places) == 80  # four times those between two looks


def test_many_points_are_read_once_and_in_order() -> None:
    ring = Written()
    for count in (10, 10, FEW + 1, 5000, 5000, 30, 0, 0, 30, FEW, 8000, 3, 3):
        ring.write(count)
        ring.look()
    ring.look(at_end=True)
    assert ring.read == list(range(ring.ring.taken))
    assert ring.lost == 0


def test_what_was_overwritten_is_counted() -> None:
    ring = Written()
    ring.write(100)
    ring.look()
    ring.write(ROOM + 300)
    ring.look()
    ring.look(at_end=True)
    assert ring.lost + len(ring.read) == ring.ring.taken
    assert ring.read[-ROOM // 2 :] == list(range(ring.ring.taken - ROOM // 2, ring.ring.taken))
    assert ring.lost >= 300


@settings(deadline=None, max_examples=50)
@given(
    looks=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 7, 60, FEW, 3000])), max_size=20
    )
)
def test_a_writer_that_had_read_the_base_before_it_moved_loses_nothing(
    looks: list[tuple[int, int]],
) -> None:
    ring = Written()
    base = 0
    for late, count in looks:
        ring.write(late, base)
        ring.write(count)
        base = ring.ring.base
        ring.look()
    ring.look(at_end=True)
    assert ring.read == list(range(ring.ring.taken))
    assert ring.lost == 0


def test_the_number_is_where_the_program_writes_it() -> None:
    assert rings._NUMBER.size == ctypes.sizeof(Point)
    assert rings._NUMBER.unpack(bytes(Point(number=5)))[0] == 5
