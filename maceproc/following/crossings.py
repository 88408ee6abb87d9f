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
from typing import NamedTuple

import numpy as np
import pandas as pd

from maceproc.following.hop_arrays import Kind
from maceproc.following.journeys import Links
from maceproc.following.positions import Bools, Indices
from maceproc.following.side_by_side import side_by_side
from maceproc.following.topology import Way
from maceproc.following.walk import NOWHERE, RECEIVED, Walk
from maceproc.schema import CROSSINGS

OUTBOUND, INBOUND = DIRECTIONS = ("outbound", "inbound")


def find_crossings(
    hops: pd.DataFrame, way: Way, recorded: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the CROSSINGS of all packets between the ends of a way, in order of time.

    `recorded` names the events that were enabled; by default those that occur.
    """
    walk = Walk(hops, recorded)
    out, back = side_by_side(lambda found: found(walk, way), (_outbound, _inbound), len(hops))
    both, is_inbound = _stacked(out, back)
    order = np.argsort(both.first, kind="stable")
    return _rows(walk, is_inbound[order], both.take(order), way.added_bytes)


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
    walk = Walk(hops, recorded)
    queued = walk.find(walk.are([way.outer], Kind.QUEUE))
    queued = queued[~walk.softirq[queued]]
    received, sent_on = _by_the_host(walk, walk.first_receptions(*way.cards), way, links)
    is_sent_on = np.append(np.zeros(len(queued), dtype=np.bool_), sent_on != NOWHERE)
    at_once = is_sent_on.copy()
    at_once[len(queued) :] &= walk.in_same_context(received, sent_on)
    uses_netif_rx = _outer_uses_netif_rx(walk, way, crossings)
    entered = walk.if_stamped(received, uses_netif_rx)
    both, is_inbound = _stacked(
        _Places(queued, queued, queued, _on_wire(walk, queued, way), queued),
        _Places(received, entered, received, received, received),
    )
    passages = _rows(walk, is_inbound, both)
    return passages.assign(
        latency_ns=pd.array([None] * len(passages), dtype="Int64"),
        sent_on=is_sent_on,
        at_once=at_once,
    )


def _by_the_host(walk: Walk, received: Indices, way: Way, links: Links) -> tuple[Indices, Indices]:
    """Return the receptions without those of containers, and where they were sent to a container.

    A journey may continue with the next packet that got the same address. So only the hops before
    the next reception are considered, and only packets of the same length. Even so it may be
    another packet that was sent: the host's own answer to a container can begin in softirq, as what
    is forwarded does.
    """
    inwards = {sender for sender, _ in links.dead_ends}
    namesakes = {sender for sender, receiver in links.dead_ends if receiver in way.cards}
    before = walk.step(received, -1)
    to_container = walk.find(walk.are(inwards, Kind.QUEUE, Kind.XMIT))
    sent_on = walk.nth(to_container, np.searchsorted(to_container, received), received)
    again = walk.nth(received, np.arange(len(received)) + 1, received)
    sent_on_at_once = (sent_on != NOWHERE) & ((again == NOWHERE) | (sent_on < again))
    sent_on_at_once &= walk.same_length(received, sent_on, way.added_bytes)
    by_container = walk.where(before, walk.are(namesakes, *Kind)) != NOWHERE
    by_container |= _from_a_namesakes_peer(walk, before, received, way, links)
    sent_on = np.where(sent_on_at_once, sent_on, NOWHERE)
    return received[~by_container], sent_on[~by_container]


def _from_a_namesakes_peer(
    walk: Walk, before: Indices, received: Indices, way: Way, links: Links
) -> Bools:
    """Tell which receptions followed a send call of a veth that the outer device is not linked to.

    A veth hands a packet to its peer in the call that sends it (drivers/net/veth.c, veth_xmit(),
    v6.8). Such a pair may belong to containers that no survey has seen.
    """
    if not set(way.cards) <= links.known:
        return np.zeros(len(received), dtype=np.bool_)
    linked = {sender for sender, receiver in links.pairs if receiver in way.cards}
    elsewhere = walk.are(None, walk.sending[-1]) & ~walk.are(linked, *Kind)
    handed = walk.where(before, elsewhere) != NOWHERE
    same_call = walk.softirq[before] == walk.softirq[received]
    return handed & same_call & walk.in_same_context(before, received)


def _outer_uses_netif_rx(walk: Walk, way: Way, crossings: pd.DataFrame) -> bool | None:
    """Tell how the outer device receives; None where neither topology nor crossings show it."""
    if way.outer_uses_netif_rx is not None:
        return way.outer_uses_netif_rx
    came_in = (crossings["direction"] == INBOUND) & (crossings["status"] == "complete")
    return walk.mostly_netif_rx(crossings.loc[came_in, "first_hop"].to_numpy())


def _on_wire(walk: Walk, queued: Indices, way: Way) -> Indices:
    """Return where what was queued on the outer device was handed to a card's driver.

    On the way down to the card, a packet is on no other devices than those of the stack.
    """
    if not way.below:
        return walk.driver(queued)
    by_card = walk.find(walk.are(way.cards, walk.sending[-1]))
    sent = walk.nth(by_card, np.searchsorted(by_card, queued), queued)
    elsewhere = walk.find(~walk.are((way.outer, *way.below), Kind.QUEUE, Kind.XMIT))
    straight = np.searchsorted(elsewhere, sent) == np.searchsorted(elsewhere, queued)
    return np.where((sent != NOWHERE) & straight, sent, NOWHERE)


def _outbound(walk: Walk, way: Way) -> _Places:
    """Return the packets queued on the container's device and received by its peer."""
    queued = walk.find(walk.are([way.inner], Kind.QUEUE))
    at_peer = walk.are([way.peer] if way.peer else None, *RECEIVED)
    arrived = walk.step(queued, len(walk.sending), at_peer)
    queued, arrived = _where(arrived != NOWHERE, queued, arrived)
    out = walk.find(walk.are([way.outer], Kind.QUEUE))
    left = walk.nth(out, np.searchsorted(out, arrived) + way.outer_again - 1, arrived)
    return _Places(queued, queued, left, _on_wire(walk, left, way), arrived)


def _inbound(walk: Walk, way: Way) -> _Places:
    """Return the packets sent by the peer of the container's device and received there."""
    delivered, sent = _delivered(walk, way)
    came = walk.first_receptions(*way.cards)
    entered = walk.nth(came, np.searchsorted(came, sent) - way.card_again, sent)
    uses_netif_rx = way.outer_uses_netif_rx
    if uses_netif_rx is None:  # few, if any, were received on another device with the same name
        uses_netif_rx = walk.mostly_netif_rx(entered[entered != NOWHERE])
    entered = walk.if_stamped(entered, uses_netif_rx)
    return _Places(delivered, entered, delivered, entered, sent)


def _from_peer(walk: Walk, way: Way) -> tuple[Indices, Indices]:
    """Return where the container's device received what its peer sent, and where that was sent."""
    received = walk.first_receptions(way.inner)
    by_peer = walk.are([way.peer] if way.peer else None, walk.sending[-1])
    sent = walk.step(received, -1, by_peer)
    received, sent = _where(sent != NOWHERE, received, sent)
    return received, sent


def _delivered(walk: Walk, way: Way) -> tuple[Indices, Indices]:
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
    walk = Walk(hops, recorded)
    _, sent = _delivered(walk, replace(way, inner_uses_netif_rx=inner_uses_netif_rx))
    came = walk.first_receptions(*way.cards)
    entered = walk.nth(came, np.searchsorted(came, sent) - way.card_again, sent)
    entered = entered[entered != NOWHERE]
    return int(walk.is_kind(entered, Kind.RX).sum()), len(entered)


def any_by_netif_rx(hops: pd.DataFrame, way: Way, recorded: Collection[str]) -> bool:
    """Tell whether the container's device received anything of its peer's by `netif_rx`."""
    walk = Walk(hops, recorded)
    received, _ = _from_peer(walk, way)
    return bool(walk.is_kind(received, Kind.RX).any())


NOT_SEEN = "not seen on the outer device"
CHANGED = "it left with another length: fragments were put together on the way"
STATUSES = ["incomplete", "complete"]


class _Places(NamedTuple):
    """Positions in HOPS, one for every crossing; only `seen` and `peer` are always known."""

    seen: Indices
    entered: Indices
    left: Indices
    wire: Indices
    peer: Indices

    @property
    def first(self) -> Indices:
        """The first position that is known."""
        return np.where(self.entered != NOWHERE, self.entered, self.seen)

    def take(self, order: Indices) -> _Places:
        """Return the places in another order."""
        return _Places(*(positions[order] for positions in self))


def _stacked(out: _Places, back: _Places) -> tuple[_Places, Bools]:
    """Return outbound and inbound places one after the other, and which are inbound."""
    both = _Places(*map(np.concatenate, zip(out, back, strict=True)))
    return both, np.arange(len(both.seen)) >= len(out.seen)


def _rows(
    walk: Walk, is_inbound: Bools, places: _Places, added_bytes: Collection[int] = (0,)
) -> pd.DataFrame:
    """Build CROSSINGS, a row for each of the places."""
    seen, entered, left, wire, peer = places
    first = places.first
    seen_at_both = (entered != NOWHERE) & (left != NOWHERE) & (wire != NOWHERE)
    complete = seen_at_both & walk.same_length(entered, left, added_bytes)
    # The length of a packet in a tunnel, or with a VLAN's tag in it, is not the ping's.
    measured = first if tuple(added_bytes) == (0,) else seen
    entered_ns, left_ns = walk.times(entered), walk.times(left)
    return CROSSINGS.frame(
        {
            "journey": walk.journey[seen],
            "direction": pd.Categorical.from_codes(is_inbound.astype(np.int8), DIRECTIONS),
            "entered_ns": entered_ns,
            "left_ns": left_ns,
            "latency_ns": left_ns - entered_ns,
            "wire_ns": walk.times(wire),
            "peer": walk.devices[peer],
            "len": walk.length[measured],
            "pid": walk.pid[first],
            "softirq": walk.softirq[first],
            "first_hop": first,
            "last_hop": np.maximum(np.maximum(left, wire), seen),
            "status": pd.Categorical.from_codes(complete.astype(np.int8), STATUSES),
            "reason": pd.array(["", CHANGED, NOT_SEEN], dtype="str")[
                np.where(complete, 0, np.where(seen_at_both, 1, 2))
            ],
        }
    )


def _where(mask: Bools, *arrays: Indices) -> list[Indices]:
    return [array[mask] for array in arrays]
