"""Packets followed window by window, in memory that does not grow with the trace.

What is still on its way at the end of a window is carried into the next one: the last life of every
skb address, unless its packet was freed. So memory grows with the number of addresses that the
kernel uses for packets, and with the packets that are kept; not with the packets that pass.

Journeys are numbered as `journeys.follow_packets` numbers those of the whole trace, in order of
address and time: for this, the journeys of every address are counted, also those that are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following.hop_arrays import (
    HOP_DTYPES,
    HOP_EVENTS,
    Hops,
    Kind,
)
from maceproc.following.hop_order import ordered_hops
from maceproc.following.journeys import Links, kinds_of, number_lives
from maceproc.schema import HOPS

Bools = npt.NDArray[np.bool_]
Columns = dict[str, npt.NDArray[Any]]
Keep = Callable[[Hops], Bools]
"""Tells for every hop whether it makes its journey one to keep; one such hop is enough."""

Sift = Callable[[pd.DataFrame], Bools]
"""Takes the HOPS of whole journeys, and tells for every hop whether its journey is still kept."""

NAMES = tuple(HOP_EVENTS)


class Kept(Protocol):
    """Takes the columns of the hops that are kept of a window, in order of address and time."""

    def append(self, columns: Columns, /) -> None:
        """Take the columns of some hops."""


class SoftirqIsTold(Exception):  # noqa: N818  named after what was found
    """The first hop in softirq came after lives were cut as if the trace did not tell softirq."""


class PacketFollower:
    """Follows the packets of a trace whose windows it is fed one after the other.

    Parameters
    ----------
    recorded
        Names of the events that were enabled.
    links
        What is known of the topology.
    keep
        Which journeys are kept.
    sift
        Is called after every window with the journeys that have ended; tells which of them stay.
    tells_softirq
        Whether the trace tells what ran in softirq; None: what the first window says. If a later
        one says otherwise, `feed` raises SoftirqIsTold, and all must be fed again with True.
    shelf
        Takes what is kept of every window instead of `finish`: see `every_packet`.
    """

    def __init__(
        self,
        recorded: Collection[str],
        links: Links,
        keep: Keep,
        sift: Sift | None = None,
        *,
        tells_softirq: bool | None = None,
        shelf: Kept | None = None,
    ) -> None:
        self._kinds, self._links, self._keep = kinds_of(recorded), links, keep
        self._sift = sift
        self.tells_softirq = tells_softirq
        self._devices: list[str] = []
        self._events: set[str] = set()
        self._open = _nothing()
        self._kept: list[Columns] = []
        self._shelf: Kept = self._kept if shelf is None else shelf
        self._addresses = np.empty(0, np.uint64)  # sorted
        self._journeys = np.empty(0, np.int64)  # complete ones, of each address

    def feed(self, events: Mapping[str, pd.DataFrame]) -> None:
        """Follow the packets of the next window, given its tables."""
        window = ordered_hops(events)
        self._events |= set(window.events)
        any_softirq = bool(window["softirq"].any())
        if self.tells_softirq is None and len(window["kind"]):
            self.tells_softirq = any_softirq
        if any_softirq and not self.tells_softirq:
            raise SoftirqIsTold
        self._cut(self._joined(window), last=False)

    def finish(self) -> pd.DataFrame:
        """Return the HOPS of the journeys that are kept, in the order of the whole trace's."""
        addresses, before = self.end()
        kept = {name: np.concatenate([c[name] for c in (*self._kept, _nothing())]) for name in NEED}
        journey = before[np.searchsorted(addresses, kept["skbaddr"])] + kept["nth"]
        order = np.lexsort((kept["hop"], journey))
        return self.frame({name: c[order] for name, c in kept.items()}, journey[order])

    def end(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """End all packets; return the addresses, and how many journeys are before those of each."""
        self._cut(self._hops(self._open), last=True)
        return self._addresses, np.append(0, np.cumsum(self._journeys))

    def frame(self, kept: Columns, journey: npt.NDArray[np.int64]) -> pd.DataFrame:
        """Return HOPS of columns that were kept, and the number of every hop's journey."""
        names = [name for name in NAMES if name in self._events]
        codes = np.array([names.index(n) if n in names else -1 for n in NAMES], np.int8)
        devices = pd.Index(sorted(self._devices), dtype="str")
        recoded = np.append(devices.get_indexer(pd.Index(self._devices, dtype="str")), -1)
        return HOPS.frame(
            {
                **{name: kept[name] for name in COPIED},
                "journey": journey,
                "event": pd.Categorical.from_codes(codes[kept["event"]], names),
                "dev": pd.Categorical.from_codes(recoded[kept["dev"]], devices),
                "netns": pd.Categorical.from_codes(np.full(len(journey), -1, np.int8), []),
            }
        )

    def _joined(self, window: Hops) -> Hops:
        """Return the hops that were carried, and those of a window, in order."""
        own = [self._device(name) for name in window.devices]
        events = np.array([NAMES.index(name) for name in window.events] or [0], np.int8)
        ordered = dict(window.columns)
        ordered["dev"] = np.append(np.array(own, np.int16), -1).astype(np.int16)[ordered["dev"]]
        ordered["event"] = events[ordered["event"]]
        both = {name: np.concatenate([self._open[name], ordered[name]]) for name in ordered}
        # Both are in order of address and time, and all that was carried is earlier.
        order = np.argsort(both["skbaddr"], kind="stable")
        return self._hops({name: values[order] for name, values in both.items()})

    def _hops(self, columns: Columns) -> Hops:
        devices = pd.Index(self._devices, dtype="str")
        return Hops(columns, list(NAMES), devices, self.tells_softirq)

    def _device(self, name: str) -> int:
        if name not in self._devices:
            self._devices.append(name)
        return self._devices.index(name)

    def _cut(self, hops: Hops, *, last: bool) -> None:
        """Cut the lives, count and keep those that have ended, and carry the others."""
        total = len(hops["kind"])
        if not total:
            return
        life, number = number_lives(hops, self._kinds, self._links)
        first = np.flatnonzero(number == 0)
        ends = np.append(first[1:], total) - 1
        address = hops["skbaddr"]
        # The last life of an address continues in the next window, unless its packet was freed.
        goes_on = np.append(address[ends[:-1]] != address[first[1:]], True)
        goes_on &= (hops["kind"][ends] != Kind.FREE) & (not last)
        nth = self._count(address[first], ~goes_on)
        kept = np.zeros(len(first), np.bool_)
        kept[life[self._keep(hops)]] = True
        kept &= ~goes_on
        rows = kept[life]
        columns = {
            **{name: hops[name][rows] for name in NEED if name in hops.columns},
            "hop": number[rows],
            "nth": nth[life][rows],
        }
        if self._sift is not None:
            stays = self._sift(self.frame(columns, life[rows]))
            columns = {name: values[stays] for name, values in columns.items()}
        self._shelf.append(columns)
        carried = goes_on[life]
        self._open = {name: hops[name][carried] for name in hops.columns}

    def _count(self, address: npt.NDArray[np.uint64], ended: Bools) -> npt.NDArray[np.int64]:
        """Count the lives that ended; return the number of each life within its address, from 0."""
        new = np.setdiff1d(address, self._addresses, assume_unique=False)
        if len(new):
            places = np.searchsorted(self._addresses, new)
            self._addresses = np.insert(self._addresses, places, new)
            self._journeys = np.insert(self._journeys, places, 0)
        place = np.searchsorted(self._addresses, address)
        # Lives are in order of address and time: the first of an address begins its count.
        run = np.arange(len(address))
        run -= np.maximum.accumulate(np.where(np.append(True, place[1:] != place[:-1]), run, 0))
        nth = self._journeys[place] + run
        np.add.at(self._journeys, place[ended], 1)
        return np.asarray(nth)


COPIED = ("hop", "skbaddr", "time_ns", "cpu", "pid", "softirq", "len")
NEED = (*COPIED, "event", "dev", "nth")


def _nothing() -> Columns:
    dtypes = {**HOP_DTYPES, "hop": np.int32, "nth": np.int64}
    return {name: np.empty(0, dtype) for name, dtype in dtypes.items() if name != "rank"}


def all_packets(hops: Hops) -> Bools:
    """Keep every journey."""
    return np.ones(len(hops["kind"]), np.bool_)


def packets_on(devices: Collection[str]) -> Keep:
    """Return a function that keeps the journeys with a hop on one of these devices."""

    def keep(hops: Hops) -> Bools:
        return np.append(hops.devices.isin(list(devices)), False)[hops["dev"]]

    return keep


def journeys_with(hops: pd.DataFrame, here: Bools) -> Bools:
    """Tell for every hop whether its journey has a hop where `here` is true."""
    number = np.cumsum(hops["hop"].to_numpy() == 0) - 1
    met = np.zeros(number[-1] + 1 if len(number) else 0, np.bool_)
    met[number[here]] = True
    return np.asarray(met[number])
