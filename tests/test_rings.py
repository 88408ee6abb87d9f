"""A ring of points is read whole and in order, and what was overwritten is counted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.recording.bpf.memory import Point, Ring
from maceproc.recording.bpf.rings import POINT_BYTES, RingReader

ROOM = 64
AHEAD = 256  # something else is before the ring


class Shared(bytearray):
    """The memory of a ring, in which programs may write between the reader's copies."""

    before_copy: list[tuple[Written, int]]

    def __getitem__(self, where):  # type: ignore[no-untyped-def]
        if self.before_copy:
            ring, count = self.before_copy.pop()
            ring.write(count)
        return super().__getitem__(where)


class Written:
    """A ring, and what the programs in the kernel do with it."""

    def __init__(self) -> None:
        self.shared = Shared(AHEAD + ROOM * POINT_BYTES)
        self.shared.before_copy = []
        self.ring = Ring()
        self.reader = RingReader(self.shared, self.ring, AHEAD, ROOM)
        self.read: list[int] = []
        self.lost = 0

    def write(self, count: int) -> None:
        """Write points; the address tells their number."""
        for _ in range(count):
            number = self.ring.taken
            self.ring.taken += 1
            at = AHEAD + number % ROOM * POINT_BYTES
            self.shared[at : at + POINT_BYTES] = bytes(Point(skb=number, time_ns=number + 1))

    def look(self, *, at_end: bool = False) -> None:
        looked = self.reader.look(at_end=at_end)
        places = range(0, len(looked.data), POINT_BYTES)
        self.read += [Point.from_buffer_copy(looked.data, at).skb for at in places]
        self.lost += looked.lost


def test_what_is_just_written_is_read_at_the_next_look() -> None:
    ring = Written()
    ring.write(10)
    ring.look()
    assert ring.read == []
    ring.write(5)
    ring.look()
    assert ring.read == list(range(10))
    ring.look(at_end=True)
    assert ring.read == list(range(15))
    assert ring.lost == 0


def test_what_is_overwritten_while_it_is_copied_is_lost() -> None:
    ring = Written()
    ring.write(50)
    ring.look()
    ring.shared.before_copy = [(ring, 30)]
    ring.look()
    assert ring.read == list(range(16, 50))
    assert ring.lost == 16


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2 * ROOM), st.integers(0, 2 * ROOM)), max_size=20),
)
def test_every_point_is_read_once_or_counted_as_lost(looks: list[tuple[int, int]]) -> None:
    ring = Written()
    for count, meanwhile in looks:
        ring.write(count)
        handled, lost = len(ring.read) + ring.lost, ring.lost
        ring.shared.before_copy = [(ring, meanwhile)]
        ring.look()
        ring.shared.before_copy.clear()  # where nothing was to copy
        assert ring.lost == lost or ring.ring.taken - handled > ROOM
    ring.look(at_end=True)
    assert ring.read == sorted(set(ring.read))
    assert len(ring.read) + ring.lost == ring.ring.taken
