"""Positions in HOPS: where a kind of hop is, and steps along a journey.

A position is a row of HOPS, or `NOWHERE`. Only `Walk.find` looks at every hop; everything else
looks at the hops that it found. Both do so in a compiled loop where there is one.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following import hop_loops
from maceproc.following.hop_arrays import HOP_EVENTS, Kind
from maceproc.following.lengths import same_packet
from maceproc.following.positions import Bools, Indices

NOWHERE = -1
"""Position of a hop that was not seen."""

RECEIVED = (Kind.RX, Kind.RECEIVE)


class Walk:
    """The columns of HOPS as arrays, and steps along a journey.

    `recorded` names the events that were enabled; by default those that occur.
    """

    def __init__(self, hops: pd.DataFrame, recorded: Collection[str] | None = None) -> None:
        events, devices = hops["event"].array, hops["dev"].array
        self._kinds = np.array([HOP_EVENTS[name] for name in events.categories], dtype=np.int8)
        self._events = np.ascontiguousarray(events.codes, np.int8)
        self._codes = np.ascontiguousarray(devices.codes)
        self._hops = self._events, self._codes, self._codes.dtype.itemsize
        self._names, self._width = devices.categories, len(devices.categories) + 1
        self.devices = devices
        self.journey = np.ascontiguousarray(hops["journey"].to_numpy())
        self.time_ns = hops["time_ns"].to_numpy()
        self.length = hops["len"].to_numpy()
        self.softirq = hops["softirq"].to_numpy()
        self.pid, self.cpu = hops["pid"].to_numpy(), hops["cpu"].to_numpy()
        names = events.categories if recorded is None else recorded
        self.recorded = {HOP_EVENTS[name] for name in names if name in HOP_EVENTS}
        # The events of one sending. Without net_dev_start_xmit recorded, the device must be one
        # without a queue, whose driver gets the packet in the call that queues it
        # (net/core/dev.c, __dev_queue_xmit(), v6.8).
        # With neither recorded, no hop is of that kind, and nothing is found.
        sending = [kind for kind in (Kind.QUEUE, Kind.XMIT) if kind in self.recorded]
        self.sending = sending or [Kind.XMIT]

    def are(self, names: Collection[str] | None, *kinds: Kind) -> Bools:
        """Tell which events on which devices are of these kinds, on devices of these names.

        Shape [events, devices + 1]; the last one is for no device. None: on any device, or on none.
        """
        named = np.append(self._names.isin(list(names)), False) if names is not None else True
        table = np.isin(self._kinds, kinds)[:, np.newaxis] & named
        return np.ascontiguousarray(np.broadcast_to(table, (len(self._kinds), self._width)))

    def find(self, wanted: Bools) -> Indices:
        """Return the positions of the hops whose event and device are wanted, as `are` tells."""
        if hop_loops.loops is None:
            return np.flatnonzero(wanted[self._events, self._codes])
        found = np.empty(len(self._events), np.int64)
        count: int = hop_loops.loops.find_hops(*self._hops, wanted, self._width, found)
        return found[:count].copy()

    def step(self, positions: Indices, steps: int, wanted: Bools | None = None) -> Indices:
        """Return the positions `steps` hops further along the journeys.

        With `wanted`, as `are` tells, only those of the hops that are wanted.
        """
        return self._same_journey(positions, positions, steps, wanted)

    def nth(self, of: Indices, index: Indices, journey_of: Indices) -> Indices:
        """Return `of[index]` where that exists and is in the same journey."""
        padded: Indices = np.append(of, NOWHERE)
        index = np.where((index >= 0) & (index < len(of)), index, len(of))
        return self._same_journey(journey_of, padded[index])

    def is_kind(self, positions: Indices, *kinds: Kind) -> Bools:
        """Tell which of the hops are of these kinds; none is `NOWHERE`."""
        return self.where(positions, self.are(None, *kinds)) != NOWHERE

    def where(self, positions: Indices, wanted: Bools) -> Indices:
        """Keep the positions of the hops that are wanted, as `are` tells; `NOWHERE` for others."""
        return self._same_journey(positions, positions, 0, wanted)

    def driver(self, queued: Indices) -> Indices:
        """Return the positions at which queued packets were handed to the driver."""
        return self.step(queued, max(0, len(self.sending) - 1), self.are(None, self.sending[-1]))

    def first_receptions(self, *names: str) -> Indices:
        """Return where packets were first received on a device of one of these names."""
        here = self.are(names, *RECEIVED)
        positions = self.find(here)
        continued = self.step(positions, -1, here) != NOWHERE
        return positions[~(continued & self.is_kind(positions, Kind.RECEIVE))]

    def mostly_netif_rx(self, receptions: Indices) -> bool | None:
        """Tell whether most packets were received by `netif_rx`; None without receptions."""
        if not len(receptions):
            return None
        return bool(np.mean(self.is_kind(receptions, Kind.RX)) >= 0.5)

    def if_stamped(self, receptions: Indices, uses_netif_rx: bool | None) -> Indices:
        """Keep the receptions that were seen at the first receive event of their device.

        That is `netif_rx` for a device that uses it. If that is not known (None), the devices use
        it if one of the receptions shows it.
        """
        if uses_netif_rx is None:
            uses_netif_rx = bool(self.is_kind(receptions, Kind.RX).any())
        first = Kind.RX if uses_netif_rx and Kind.RX in self.recorded else Kind.RECEIVE
        return self.where(receptions, self.are(None, first))

    def same_length(
        self, entered: Indices, left: Indices, added_bytes: Collection[int] = (0,)
    ) -> Bools:
        """Tell where two hops have the length of one packet, but for headers of devices.

        `added_bytes` is what tunnels and VLANs on the way may add.
        """
        return same_packet(self.length[entered], self.length[left], added_bytes)

    def in_same_context(self, one: Indices, two: Indices) -> Bools:
        """Tell which pairs of hops happened on the same CPU, in or above the same task."""
        return np.asarray((self.pid[one] == self.pid[two]) & (self.cpu[one] == self.cpu[two]))

    def times(self, positions: Indices) -> pd.arrays.IntegerArray:
        """Return when the hops happened [ns]; missing for `NOWHERE`."""
        times: npt.NDArray[np.int64] = self.time_ns[positions]
        return pd.arrays.IntegerArray(times, positions == NOWHERE)

    def _same_journey(
        self, journey_of: Indices, positions: Indices, steps: int = 0, wanted: Bools | None = None
    ) -> Indices:
        """Return `positions + steps` where that is in the journey of the hop at `journey_of`.

        With `wanted`, as `are` tells, only those of the hops that are wanted.
        """
        if wanted is None:
            wanted = np.ones((len(self._kinds), self._width), np.bool_)
        if hop_loops.loops is not None:
            found = np.empty(len(positions), np.int64)
            hop_loops.loops.keep_hops(
                *self._hops, wanted, self._width, self.journey, journey_of, positions, steps, found
            )
            return found
        at = positions + steps
        inside = (at >= 0) & (at < len(self.journey)) & (journey_of != NOWHERE)
        at = np.where(inside, at, 0)
        kept = inside & (self.journey[at] == self.journey[journey_of])
        kept &= wanted[self._events[at], self._codes[at]]
        return np.where(kept, at, NOWHERE)
