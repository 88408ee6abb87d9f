"""Where journeys cross namespaces, and how long that took.

A crossing runs from one point of the network stack on the container's device to the same point on
the outer device, so that the rest of an RTT is exactly the native path:

* outbound from `net_dev_queue` to `net_dev_queue`: a wait in the outer device's queue is the native
  ping's wait too, and stays in the RTT;
* inbound from the first receive event to the first receive event, where the kernel takes the
  receive time stamp (net/core/dev.c, netif_rx_internal() and netif_receive_skb_internal(), v6.8).

Where the outer device is on top of others, such as a VLAN on a bond on a card, a native packet
takes the same way through all of them. So the outbound crossing ends at the top, where a native
packet begins, and the inbound one begins at the card, where the kernel takes the stamp. The wire
begins and ends at the card. See `maceproc.uplinks`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following.hop_arrays import HOP_EVENTS, Kind, hop_kinds
from maceproc.following.journeys import Links
from maceproc.following.lengths import same_packet
from maceproc.following.positions import Bools, Indices
from maceproc.following.side_by_side import side_by_side
from maceproc.following.topology import Way
from maceproc.schema import CROSSINGS

OUTBOUND, INBOUND = DIRECTIONS = ("outbound", "inbound")


def find_crossings(
    hops: pd.DataFrame, way: Way, recorded: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the CROSSINGS of all packets between the ends of a way, in order of time.

    `recorded` names the events that were enabled; by default those that occur.
    """
    walk = _Walk(hops, recorded)
    both = side_by_side(lambda found: found(walk, way), (_outbound, _inbound), len(hops))
    crossings = pd.concat(both, ignore_index=True)
    return crossings.sort_values("first_hop", kind="stable", ignore_index=True)


def find_passages(
    hops: pd.DataFrame,
    way: Way,
    crossings: pd.DataFrame,
    links: Links,
    recorded: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return the packets of native pings on the outer device, as CROSSINGS without a latency.

    Outbound are the packets that a task of the host queued there, inbound those that were first
    received there. Two kinds of received packets are left out: those that a container received on
    a device of the same name, as far as `links` shows it; and those received by another function
    than the packets of the `crossings` were on the outer device. The additional column `sent_on`
    tells which of the received packets the host seems to have sent on to a container, and
    `at_once` which of these in the same softirq, as far as its CPU and the task below it tell.
    """
    walk = _Walk(hops, recorded)
    queued = walk.find(walk.on(way.outer), Kind.QUEUE)
    queued = queued[~walk.softirq[queued]]
    received, sent_on = _by_the_host(walk, walk.first_receptions(*way.cards), way, links)
    is_sent_on = np.append(np.zeros(len(queued), dtype=np.bool_), sent_on != NOWHERE)
    at_once = is_sent_on.copy()
    at_once[len(queued) :] &= walk.in_same_context(received, sent_on)
    uses_netif_rx = _outer_uses_netif_rx(walk, way, crossings)
    passages = pd.concat(
        [
            walk.rows(OUTBOUND, queued, queued, queued, walk.on_wire(queued, way)),
            walk.rows(
                INBOUND,
                received,
                walk.if_stamped(received, uses_netif_rx),
                received,
                received,
            ),
        ],
        ignore_index=True,
    )
    return passages.assign(
        latency_ns=pd.array([None] * len(passages), dtype="Int64"),
        sent_on=is_sent_on,
        at_once=at_once,
    )


def _by_the_host(walk: _Walk, received: Indices, way: Way, links: Links) -> tuple[Indices, Indices]:
    """Return the receptions without those of containers, and where they were sent to a container.

    A journey may continue with the next packet that got the same address. So only the hops before
    the next reception are considered, and only packets of the same length. Even so it may be
    another packet that was sent: the host's own answer to a container can begin in softirq, as what
    is forwarded does.
    """
    inwards = np.zeros(len(walk.kind), dtype=np.bool_)
    namesakes = inwards.copy()
    for sender, receiver in links.dead_ends:
        inwards |= walk.on(sender)
        namesakes |= walk.on(sender) & (receiver in way.cards)
    before = walk.step(received, -1)
    to_container = np.flatnonzero(inwards & ((walk.kind == Kind.QUEUE) | (walk.kind == Kind.XMIT)))
    sent_on = walk.nth(to_container, np.searchsorted(to_container, received), received)
    again = walk.nth(received, np.arange(len(received)) + 1, received)
    sent_on_at_once = (sent_on != NOWHERE) & ((again == NOWHERE) | (sent_on < again))
    sent_on_at_once &= walk.same_length(received, sent_on, way.added_bytes)
    by_container = namesakes[before] & (before != NOWHERE)
    by_container |= _from_a_namesakes_peer(walk, before, received, way, links)
    sent_on = np.where(sent_on_at_once, sent_on, NOWHERE)
    return received[~by_container], sent_on[~by_container]


def _from_a_namesakes_peer(
    walk: _Walk, before: Indices, received: Indices, way: Way, links: Links
) -> Bools:
    """Tell which receptions followed a send call of a veth that the outer device is not linked to.

    A veth hands a packet to its peer in the call that sends it (drivers/net/veth.c, veth_xmit(),
    v6.8). Such a pair may belong to containers that no survey has seen.
    """
    if not set(way.cards) <= links.known:
        return np.zeros(len(received), dtype=np.bool_)
    linked = {sender for sender, receiver in links.pairs if receiver in way.cards}
    handed = (before != NOWHERE) & walk.handed_over[before] & ~walk.on(*linked)[before]
    same_call = walk.softirq[before] == walk.softirq[received]
    return handed & same_call & walk.in_same_context(before, received)


def _outer_uses_netif_rx(walk: _Walk, way: Way, crossings: pd.DataFrame) -> bool | None:
    """Tell how the outer device receives; None where neither topology nor crossings show it."""
    if way.outer_uses_netif_rx is not None:
        return way.outer_uses_netif_rx
    came_in = (crossings["direction"] == INBOUND) & (crossings["status"] == "complete")
    return walk.mostly_netif_rx(crossings.loc[came_in, "first_hop"].to_numpy())


def _outbound(walk: _Walk, way: Way) -> pd.DataFrame:
    """Return the packets queued on the container's device and received by its peer."""
    queued = walk.find(walk.on(way.inner), Kind.QUEUE)
    arrived = walk.step(queued, len(walk.sending))
    received = (walk.kind == Kind.RX) | (walk.kind == Kind.RECEIVE)
    at_peer = received & (walk.on(way.peer) if way.peer else True)
    queued, arrived = _where(at_peer[arrived] & (arrived != NOWHERE), queued, arrived)
    out = walk.find(walk.on(way.outer), Kind.QUEUE)
    left = walk.nth(out, np.searchsorted(out, arrived) + way.outer_again - 1, arrived)
    return walk.rows(
        OUTBOUND,
        queued,
        queued,
        left,
        walk.on_wire(left, way),
        peer=arrived,
        added_bytes=way.added_bytes,
    )


def _inbound(walk: _Walk, way: Way) -> pd.DataFrame:
    """Return the packets sent by the peer of the container's device and received there."""
    delivered, sent = _delivered(walk, way)
    came = walk.first_receptions(*way.cards)
    entered = walk.nth(came, np.searchsorted(came, sent) - way.card_again, sent)
    uses_netif_rx = way.outer_uses_netif_rx
    if uses_netif_rx is None:  # few, if any, were received on another device with the same name
        uses_netif_rx = walk.mostly_netif_rx(entered[entered != NOWHERE])
    entered = walk.if_stamped(entered, uses_netif_rx)
    return walk.rows(
        INBOUND, delivered, entered, delivered, entered, peer=sent, added_bytes=way.added_bytes
    )


def _from_peer(walk: _Walk, way: Way) -> tuple[Indices, Indices]:
    """Return where the container's device received what its peer sent, and where that was sent."""
    received = walk.first_receptions(way.inner)
    sent = walk.step(received, -1)
    by_peer = walk.handed_over & (walk.on(way.peer) if way.peer else True)
    received, sent = _where(by_peer[sent] & (sent != NOWHERE), received, sent)
    return received, sent


def _delivered(walk: _Walk, way: Way) -> tuple[Indices, Indices]:
    """Return those of `_from_peer` that were seen where the device receives first."""
    received, sent = _from_peer(walk, way)
    delivered = walk.if_stamped(received, way.inner_uses_netif_rx)
    delivered, sent = _where(delivered != NOWHERE, delivered, sent)
    return delivered, sent


def count_receptions(
    hops: pd.DataFrame, way: Way, recorded: Collection[str], inner_uses_netif_rx: bool
) -> tuple[int, int]:
    """Count how the outer device received what crossed inwards: by `netif_rx`, and in all.

    From the counts of all parts of a trace follows what `find_crossings` concludes from the whole,
    where no topology says how the outer device receives.
    """
    walk = _Walk(hops, recorded)
    _, sent = _delivered(walk, replace(way, inner_uses_netif_rx=inner_uses_netif_rx))
    came = walk.first_receptions(*way.cards)
    entered = walk.nth(came, np.searchsorted(came, sent) - way.card_again, sent)
    entered = entered[entered != NOWHERE]
    return int((walk.kind[entered] == Kind.RX).sum()), len(entered)


def any_by_netif_rx(hops: pd.DataFrame, way: Way, recorded: Collection[str]) -> bool:
    """Tell whether the container's device received anything of its peer's by `netif_rx`."""
    walk = _Walk(hops, recorded)
    received, _ = _from_peer(walk, way)
    return bool(np.any(walk.kind[received] == Kind.RX))


NOT_SEEN = "not seen on the outer device"
CHANGED = "it left with another length: fragments were put together on the way"

NOWHERE = -1
"""Position of a hop that was not seen."""


class _Walk:
    """The columns of HOPS as arrays, and steps along a journey.

    A position is a row of HOPS, or `NOWHERE`.
    """

    def __init__(self, hops: pd.DataFrame, recorded: Collection[str] | None) -> None:
        self.kind = hop_kinds(hops)
        self.journey = hops["journey"].to_numpy()
        self.time_ns = hops["time_ns"].to_numpy()
        self.softirq = hops["softirq"].to_numpy()
        self._hops = hops
        names = hops["event"].cat.categories if recorded is None else recorded
        self.recorded = {HOP_EVENTS[name] for name in names if name in HOP_EVENTS}
        # The events of one sending. Without net_dev_start_xmit recorded, the device must be one
        # without a queue, whose driver gets the packet in the call that queues it
        # (net/core/dev.c, __dev_queue_xmit(), v6.8).
        # With neither recorded, no hop is of that kind, and nothing is found.
        sending = [kind for kind in (Kind.QUEUE, Kind.XMIT) if kind in self.recorded]
        self.sending = sending or [Kind.XMIT]

    def on(self, *names: str) -> Bools:
        """Tell which hops are on devices of one of these names."""
        devices = self._hops["dev"].cat
        wanted = np.append(devices.categories.isin(names), False)  # code -1: no device
        return np.asarray(wanted[devices.codes.to_numpy()])

    def find(self, where: Bools, kind: Kind) -> Indices:
        """Return the positions of one kind of hop."""
        return np.flatnonzero(where & (self.kind == kind))

    def step(self, positions: Indices, steps: int) -> Indices:
        """Return the positions `steps` hops further along the journeys."""
        return self._same_journey(positions + steps, positions)

    def nth(self, of: Indices, index: Indices, journey_of: Indices) -> Indices:
        """Return `of[index]` where that exists and is in the same journey."""
        padded: Indices = np.append(of, NOWHERE)
        index = np.where((index >= 0) & (index < len(of)), index, len(of))
        return self._same_journey(padded[index], journey_of)

    def driver(self, queued: Indices) -> Indices:
        """Return the positions at which queued packets were handed to the driver."""
        sent: Indices = self.step(queued, max(0, len(self.sending) - 1))
        return np.asarray(np.where(self.handed_over[sent], sent, NOWHERE))

    def on_wire(self, queued: Indices, way: Way) -> Indices:
        """Return where what was queued on the outer device was handed to a card's driver.

        On the way down to the card, a packet is on no other devices than those of the stack.
        """
        if not way.below:
            return self.driver(queued)
        by_card = np.flatnonzero(self.handed_over & self.on(*way.cards))
        sent = self.nth(by_card, np.searchsorted(by_card, queued), queued)
        elsewhere = ~self.on(way.outer, *way.below) | (self.kind > Kind.XMIT)
        before = np.append(0, np.cumsum(elsewhere))
        straight = before[sent] == before[np.where(queued == NOWHERE, 0, queued)]
        return np.asarray(np.where((sent != NOWHERE) & straight, sent, NOWHERE))

    @cached_property
    def handed_over(self) -> Bools:
        """Whether a hop is the last event of a sending that is recorded."""
        return np.asarray(self.kind == self.sending[-1])

    def first_receptions(self, *names: str) -> Indices:
        """Return where packets were first received on a device of one of these names."""
        here = self.on(*names) & ((self.kind == Kind.RX) | (self.kind == Kind.RECEIVE))
        positions = np.flatnonzero(here)
        before = self.step(positions, -1)
        continued = here[before] & (before != NOWHERE) & (self.kind[positions] == Kind.RECEIVE)
        return positions[~continued]

    def mostly_netif_rx(self, receptions: Indices) -> bool | None:
        """Tell whether most packets were received by `netif_rx`; None without receptions."""
        if not len(receptions):
            return None
        return bool(np.mean(self.kind[receptions] == Kind.RX) >= 0.5)

    def if_stamped(self, receptions: Indices, uses_netif_rx: bool | None) -> Indices:
        """Keep the receptions that were seen at the first receive event of their device.

        That is `netif_rx` for a device that uses it. If that is not known (None), the devices use
        it if one of the receptions shows it.
        """
        kinds: npt.NDArray[np.int8] = self.kind[receptions]
        seen = receptions != NOWHERE
        if uses_netif_rx is None:
            uses_netif_rx = bool(np.any(kinds[seen] == Kind.RX))
        first = Kind.RX if uses_netif_rx and Kind.RX in self.recorded else Kind.RECEIVE
        return np.where(seen & (kinds == first), receptions, NOWHERE)

    def same_length(
        self, entered: Indices, left: Indices, added_bytes: Collection[int] = (0,)
    ) -> Bools:
        """Tell where two hops have the length of one packet, but for headers of devices.

        `added_bytes` is what tunnels and VLANs on the way may add.
        """
        length = self._hops["len"].to_numpy()
        return same_packet(length[entered], length[left], added_bytes)

    def in_same_context(self, one: Indices, two: Indices) -> Bools:
        """Tell which pairs of hops happened on the same CPU, in or above the same task."""
        pid, cpu = self._hops["pid"].to_numpy(), self._hops["cpu"].to_numpy()
        return np.asarray((pid[one] == pid[two]) & (cpu[one] == cpu[two]))

    def rows(
        self,
        direction: str,
        seen: Indices,
        entered: Indices,
        left: Indices,
        wire: Indices,
        *,
        peer: Indices | None = None,
        added_bytes: Collection[int] = (0,),
    ) -> pd.DataFrame:
        """Build CROSSINGS from positions; only `seen` is known for every row."""
        seen_at_both = (entered != NOWHERE) & (left != NOWHERE) & (wire != NOWHERE)
        same = self.same_length(entered, left, added_bytes)
        complete = seen_at_both & same
        first = np.where(entered != NOWHERE, entered, seen)
        # The length of a packet in a tunnel, or with a VLAN's tag in it, is not the ping's.
        measured = first if tuple(added_bytes) == (0,) else seen
        length = self._hops["len"].to_numpy()
        entered_ns, left_ns = self._times(entered), self._times(left)
        devices = self._hops["dev"].array
        return CROSSINGS.frame(
            {
                "journey": self.journey[seen],
                "direction": pd.Categorical.from_codes(
                    np.full(len(seen), DIRECTIONS.index(direction), np.int8), DIRECTIONS
                ),
                "entered_ns": entered_ns,
                "left_ns": left_ns,
                "latency_ns": left_ns - entered_ns,
                "wire_ns": self._times(wire),
                "peer": devices[seen if peer is None else peer],
                "len": length[measured],
                "pid": self._hops["pid"].to_numpy()[first],
                "softirq": self.softirq[first],
                "first_hop": first,
                "last_hop": np.maximum(np.maximum(left, wire), seen),
                "status": pd.Categorical.from_codes(complete.astype(int), STATUSES),
                "reason": pd.array(["", CHANGED, NOT_SEEN], dtype="str")[
                    np.where(complete, 0, np.where(seen_at_both, 1, 2))
                ],
            }
        )

    def _times(self, positions: Indices) -> pd.arrays.IntegerArray:
        unknown = positions == NOWHERE
        return pd.arrays.IntegerArray(self.time_ns[positions], unknown)

    def _same_journey(self, positions: Indices, journey_of: Indices) -> Indices:
        inside = (positions >= 0) & (positions < len(self.journey)) & (journey_of != NOWHERE)
        checked = np.where(inside, positions, 0)
        same = inside & (self.journey[checked] == self.journey[journey_of])
        return np.asarray(np.where(same, positions, NOWHERE))


STATUSES = ["incomplete", "complete"]


def _where(mask: Bools, *arrays: Indices) -> list[Indices]:
    return [array[mask] for array in arrays]
