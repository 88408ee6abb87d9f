"""Statistics of the echoes of each container to each target, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maceproc.echoes import (
    COMPLETE,
    STATUSES,
    UNANSWERED,
    address_text,
    durations,
    judge,
)
from maceproc.pairing import Rows
from maceproc.watching.histograms import CumulativeHistogram, RecentHistogram

MAX_SERIES = 1000
HALF_WINDOW_NS = 30 * 10**9
FORGET_AFTER_NS = 600 * 10**9  # a series without echoes is dropped then, if there is no room

QUANTITIES = {
    "rtt": "from the container's device and back to it: the kernel's part of an RTT",
    "corrected_rtt": "without the container: from the outer device's queue back to that device",
    "container": "what the container adds: outbound and inbound",
    "outbound": "from the container's device to the outer device",
    "inbound": "from the outer device to the container's device",
}
"""What is measured of an echo, and its meaning."""
SHOWN = ("rtt", "corrected_rtt", "container")
MORE_TARGETS = "(more targets)"


class Key(NamedTuple):
    """A container, by the number that the tracer has for it, and a target."""

    container: int
    target: str


@dataclass
class Series:
    """The echoes of one container to one target."""

    statuses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(STATUSES), np.int64))
    recent: dict[str, RecentHistogram] = field(
        default_factory=lambda: {name: RecentHistogram() for name in SHOWN}
    )
    total: dict[str, CumulativeHistogram] = field(
        default_factory=lambda: {name: CumulativeHistogram() for name in QUANTITIES}
    )
    recent_echoes: list[int] = field(default_factory=lambda: [0, 0])  # in each half
    last_ns: int = 0

    @property
    def echoes(self) -> int:
        """How many there were."""
        return int(self.statuses.sum())

    @property
    def unanswered(self) -> int:
        """How many had no reply."""
        return int(self.statuses[UNANSWERED])

    @property
    def not_certain(self) -> int:
        """How many had a reply that is ambiguous, or that did not arrive."""
        return self.echoes - self.unanswered - int(self.statuses[COMPLETE])


class AllSeries:
    """Every series; those beyond `MAX_SERIES` share one for each container."""

    def __init__(self, limit: int = MAX_SERIES) -> None:
        self.series: dict[Key, Series] = {}
        self.shared_targets = 0  # echoes whose target has no series of its own
        self.limit = limit
        self._texts: dict[bytes, str] = {}
        self._half_began_ns = 0
        self._began_ns = 0

    def add(self, rows: Rows, now_ns: int) -> None:
        """Count the echoes of rows, which came until now."""
        self._age(now_ns)
        if not len(rows):
            return
        status, _ = judge(rows)
        spans = durations(rows)
        values = {
            "rtt": spans.kernel_rtt,
            "corrected_rtt": spans.corrected,
            "container": spans.outbound + spans.inbound,
            "outbound": spans.outbound,
            "inbound": spans.inbound,
        }
        places = np.empty(len(rows), _PLACE)
        for name in ("container", "family", "target"):
            places[name] = rows[name]
        kinds, kind_of = np.unique(places.view(f"V{_PLACE.itemsize}"), return_inverse=True)
        for number, kind in enumerate(kinds.view(_PLACE)):
            chosen = kind_of == number
            self._count(self._key(kind), status[chosen], _only(values, chosen), now_ns)

    def rate(self, series: Series, now_ns: int) -> float:
        """Return the echoes a second of about the last minute."""
        window_ns = now_ns - max(self._half_began_ns - HALF_WINDOW_NS, self._began_ns)
        return sum(series.recent_echoes) / max(window_ns / 1e9, 1e-9)

    def forget(self, container: int) -> None:
        """Drop the series of a container that has left."""
        for key in [key for key in self.series if key.container == container]:
            del self.series[key]

    def _count(
        self,
        key: Key,
        status: NDArray[np.int8],
        values: dict[str, NDArray[np.int64]],
        now_ns: int,
    ) -> None:
        series = self._find(key, len(status), now_ns)
        series.last_ns = now_ns
        series.statuses += np.bincount(status, minlength=len(STATUSES))
        series.recent_echoes[0] += len(status)
        complete = status == COMPLETE
        if complete.any():
            for name, histogram in series.total.items():
                histogram.add(values[name][complete])
            for name, recent in series.recent.items():
                recent.add(values[name][complete])

    def _find(self, key: Key, echoes: int, now_ns: int) -> Series:
        """Return a key's series; one is made if there is room, or the container's shared one."""
        found = self.series.get(key)
        if found is None and len(self.series) >= self.limit:
            self._forget_idle(now_ns)
        if found is None and len(self.series) >= self.limit:
            self.shared_targets += echoes
            key = Key(key.container, MORE_TARGETS)
            found = self.series.get(key)
        if found is None:
            found = self.series[key] = Series()
        return found

    def _forget_idle(self, now_ns: int) -> None:
        idle = [key for key, s in self.series.items() if now_ns - s.last_ns > FORGET_AFTER_NS]
        for key in idle:
            del self.series[key]

    def _key(self, kind: np.void) -> Key:
        packed = kind.tobytes()
        text = self._texts.get(packed)
        if text is None:
            if len(self._texts) > 4 * self.limit:
                self._texts.clear()
            words = (int(kind["target"][0]), int(kind["target"][1]))
            text = self._texts[packed] = address_text(int(kind["family"]), words)
        return Key(int(kind["container"]), text)

    def _age(self, now_ns: int) -> None:
        self._began_ns = self._began_ns or now_ns
        self._half_began_ns = self._half_began_ns or now_ns
        if now_ns - self._half_began_ns < HALF_WINDOW_NS:
            return
        self._half_began_ns = now_ns
        for series in self.series.values():
            series.recent_echoes = [0, series.recent_echoes[0]]
            for recent in series.recent.values():
                recent.age()


_PLACE = np.dtype([("target", "<u8", (2,)), ("container", "<u4"), ("family", "<u4")])


def _only(
    values: dict[str, NDArray[np.int64]], chosen: NDArray[np.bool_]
) -> dict[str, NDArray[np.int64]]:
    return {name: value[chosen] for name, value in values.items()}
