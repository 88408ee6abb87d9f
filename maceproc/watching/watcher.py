"""Follow the echoes of the places that are wanted, as they come and go."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from maceproc.echo_rows import COUNTS, NATIVE
from maceproc.echoes import points_from
from maceproc.errors import TargetError
from maceproc.pairing import POINT_DTYPE, Paired, Rows, pair
from maceproc.recording.bpf.devices import outer_devices
from maceproc.recording.bpf.echo_tracer import EchoTracer, Watched
from maceproc.watching.columns import targets_of
from maceproc.watching.devices import Surroundings, look_around
from maceproc.watching.places import Place, Places, Wanted
from maceproc.watching.series import MAX_SERIES, MORE_TARGETS

PLACES_EVERY_S = 1.0
DEVICES_EVERY_S = (
    10.0  # interval between two looks at the hosts' devices, even if no container comes
)
TRY_AT_LEAST_EVERY_S = 60.0  # a place without devices
TRIES_BEFORE_IT_IS_TOLD = 3
PAIR_EVERY_S = 0.5  # many points at once cost less than a few at a time
PAIR_AT_ONCE = 50_000  # points, before that
MOST_WAITING = 600_000  # points of echoes that are not complete: 58 MB


@dataclass(frozen=True)
class Losses:
    """What was not followed since the beginning.

    Attributes
    ----------
    points_lost
        Points of echoes that the kernel overwrote before they were read.
    counts
        Packets that could not be followed, by reason (`maceproc.echo_rows.COUNTS`).
    stayed_inside
        Requests that left by no outer device: to this host, to a neighbour, or dropped.
    inside
        The same by the container's number and the target, of those that are watched now.
    """

    points_lost: int
    counts: dict[str, int]
    stayed_inside: int
    inside: Mapping[tuple[int, str], int] = field(default_factory=dict)


class Watcher:
    """A tracer in the kernel and the places it watches; use it as a context manager.

    Raises TracingError where BPF cannot be used, TargetError when `outer` is no device.
    """

    def __init__(self, wanted: Wanted, *, timeout_ns: int, outer: tuple[str, ...] = ()) -> None:
        self._places = Places(wanted)
        self._outer = outer
        self._timeout_ns = timeout_ns
        self._around: dict[int, Surroundings] = {}  # by the namespace's inode
        self._watched: set[Watched] = set()
        self._names: dict[int, str] = {}
        self._left: deque[tuple[int, int]] = deque()  # when it left [ns], its number
        self._next_number = 1
        self._tried: dict[int, tuple[int, float]] = {}  # inode: how often, when again [s]
        self._next_s = {"places": 0.0, "devices": 0.0}
        self.notes: list[str] = []
        self.gone: list[int] = []  # places that have left for good; taken away by whoever reads
        self._waiting = np.empty(0, POINT_DTYPE)  # points of echoes that are not complete
        self._read = bytearray()  # points since the last pairing
        self._until_ns = 0  # every point up to then was read
        self._paired_s = time.monotonic()
        self._points_lost = 0
        self._not_followed = Counter[str]()
        self._stayed_inside = 0
        self._inside = Counter[tuple[int, str]]()
        self._told: set[str] = set()
        self.waiting = 0  # echoes without a reply when it ended
        self.tracer = EchoTracer()

    def __enter__(self) -> Watcher:
        self.poll_places()
        if not self._around and not self.notes:
            self.notes.append(
                "nothing is there to watch yet; it is followed as soon as it is there"
            )
        self.tracer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.tracer.__exit__(kind, error, traceback)

    def poll(self) -> Rows | None:
        """Read what the kernel has written; return the rows since the last time, if that is due.

        Places are looked after where that is due.
        """
        now_s = time.monotonic()
        if now_s >= self._next_s["places"]:
            self._next_s["places"] = now_s + PLACES_EVERY_S
            self.poll_places()
        self._read_points()
        due = now_s - self._paired_s >= PAIR_EVERY_S
        if not due and len(self._read) < PAIR_AT_ONCE * POINT_DTYPE.itemsize:
            return None
        self._paired_s = now_s
        return self._take()

    def finish(self) -> Rows:
        """Stop following; return the last rows. Echoes that still wait for a reply are counted."""
        self.tracer.stop()
        self._read_points()
        rows = self._take()
        left = pair(self._waiting)
        self._count(left)
        left_rows = left.rows[(left.rows["flags"] & NATIVE) == 0]
        received = left_rows["received_ns"] > 0
        self.waiting = int((~received).sum())
        return np.concatenate([rows, left_rows[received]])

    def _read_points(self) -> None:
        read = self.tracer.read_points()
        self._read += read.data
        self._points_lost += read.lost
        self._until_ns = read.until_ns

    def name(self, number: int) -> str:
        """Return the name of a place by its number."""
        return self._names.get(number, f"#{number}")

    @property
    def places(self) -> list[Surroundings]:
        """The places that are watched now."""
        return list(self._around.values())

    def losses(self) -> Losses:
        """Return what was not followed."""
        counts = {**self._not_followed, **self.tracer.counts()}
        return Losses(
            self._points_lost,
            {name: counts.get(name, 0) for name in COUNTS},
            self._stayed_inside,
            dict(self._inside),
        )

    def poll_places(self) -> None:
        """Begin to watch the places that have come, and stop watching those that have gone."""
        there = self._places.find()
        self.notes += self._places.notes
        self._places.notes.clear()
        for inode, around in list(self._around.items()):
            if inode not in there or there[inode].life != around.place.life:
                self._leave(inode)
        self._tried = {inode: tried for inode, tried in self._tried.items() if inode in there}
        came = [self._come(place) for inode, place in there.items() if inode not in self._around]
        now_s = time.monotonic()
        if any(came) or now_s >= self._next_s["devices"]:
            self._next_s["devices"] = now_s + DEVICES_EVERY_S
            self._watch()
        self._forget_names()

    def _come(self, place: Place) -> bool:
        """Look for a place's devices; tell whether there are some that can be followed.

        A place that is just being made has no devices yet: it is tried again, at growing intervals.
        """
        tries, next_s = self._tried.get(place.inode, (0, 0.0))
        now_s = time.monotonic()
        if now_s < next_s:
            return False
        self._tried[place.inode] = (tries + 1, now_s + min(2.0**tries, TRY_AT_LEAST_EVERY_S))
        try:
            around = look_around(place, self._number(place))
        except TargetError:
            return False  # it has ended meanwhile
        if not around.inner:
            if tries + 1 == TRIES_BEFORE_IT_IS_TOLD:
                self.notes.append(f"{place.name}: not followed: {around.note}")
            return False
        del self._tried[place.inode]
        self._around[place.inode] = around
        self._left = deque(left for left in self._left if left[1] != around.number)
        self.notes.append(f"{self.name(around.number)}: followed, {around.route}")
        return True

    def _number(self, place: Place) -> int:
        """Return a place's number; a place that came back under its name keeps its number."""
        here = {around.number for around in self._around.values()}
        name, copies = place.name, 1
        for number, known in self._names.items():
            if known == name and number not in here:
                return number
        while name in self._names.values():
            copies += 1
            name = f"{place.name} ({copies})"
        number, self._next_number = self._next_number, self._next_number + 1
        self._names[number] = name
        return number

    def _leave(self, inode: int) -> None:
        around = self._around.pop(inode)
        self._left.append((time.monotonic_ns(), around.number))
        self.notes.append(f"{self.name(around.number)}: has left")

    def _watch(self) -> None:
        """Let the tracer watch the devices of every place and of their hosts."""
        devices = {device for place in self._around.values() for device in place.inner}
        hosts = {inode: host for place in self._around.values() for inode, host in place.hosts}
        for inode, host in hosts.items():
            inwards = {
                name
                for place in self._around.values()
                if inode in dict(place.hosts)
                for name in place.not_outer
            }
            try:
                devices |= outer_devices(host, inwards, self._outer)
            except TargetError as error:
                if self._outer and not self._watched:
                    raise
                self.notes.append(str(error))
        if devices != self._watched:
            self.tracer.watch(devices)
            self._watched = devices

    def _forget_names(self) -> None:
        """Forget places that have left, when their last echoes have been given."""
        before_ns = time.monotonic_ns() - self._timeout_ns - 60 * 10**9
        while self._left and self._left[0][0] < before_ns:
            number = self._left.popleft()[1]
            self.gone.append(number)
            for key in [key for key in self._inside if key[0] == number]:
                del self._inside[key]
            self._names.pop(number, None)

    def _take(self) -> Rows:
        """Return the echoes that are complete or given up, without those of the host itself."""
        until_ns = self._until_ns
        points = np.concatenate([self._waiting, points_from(bytes(self._read))])
        self._read.clear()
        found = pair(points, until_ns, self._timeout_ns)
        if len(found.rest) > MOST_WAITING:
            # Memory is bounded: the oldest echoes are given up before their timeout.
            times = np.sort(found.rest["time_ns"].astype(np.int64))
            found = pair(points, until_ns, max(0, until_ns - int(times[-MOST_WAITING // 2])))
            self._note_once(
                f"more than {MOST_WAITING // 3} echoes wait for their replies: the oldest are "
                "given up before the timeout"
            )
        self._waiting = found.rest
        self._count(found)
        return found.rows[(found.rows["flags"] & NATIVE) == 0]

    def _count(self, found: Paired) -> None:
        self._not_followed.update(found.counts)
        self._stayed_inside += found.stayed_inside
        for container, target in targets_of(found.inside):
            key = container, target
            if key not in self._inside and len(self._inside) >= MAX_SERIES:
                key = container, MORE_TARGETS
            self._inside[key] += 1

    def _note_once(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self.notes.append(note)
