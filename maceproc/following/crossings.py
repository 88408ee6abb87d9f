"""Where journeys cross namespaces, and how long that took.

A crossing runs from one point of the stack on the container's device to the same point on the
outer device, so that what is left of an RTT is exactly the native path:

* outbound from `net_dev_queue` to `net_dev_queue`: a wait in the outer device's queue is the native
  ping's wait too, and stays in the RTT;
* inbound from the first receive event to the first receive event, where the kernel takes the
  receive time stamp (net/core/dev.c, netif_rx_internal() and netif_receive_skb_internal(), v6.8).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Hop, Sidecar
from maceproc.errors import AnalysisError
from maceproc.following.journeys import HOP_EVENTS, Kind, Links, hop_kinds
from maceproc.schema import CROSSINGS, STEPS

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

OUTBOUND, INBOUND = "outbound", "inbound"


@dataclass(frozen=True)
class Path:
    """The devices a crossing is measured between.

    Attributes
    ----------
    inner, outer
        Names of the container's device and of the outer device.
    peer
        Name of the other end of the container's veth pair; empty when not known.
    outer_again
        How many devices of the outer device's name the packet is sent by, after the container's:
        1 unless a namespace in between uses that name too.
    crosses
        Whether there is a crossing at all: a native ping has none.
    inner_uses_netif_rx, outer_uses_netif_rx
        Whether that device receives by `netif_rx`; where that is not known, its events tell.
    """

    inner: str
    outer: str
    peer: str = ""
    outer_again: int = 1
    crosses: bool = True
    inner_uses_netif_rx: bool | None = None
    outer_uses_netif_rx: bool | None = None

    @classmethod
    def from_hops(cls, hops: Sequence[Hop]) -> Path:
        """Read a sidecar's path, from the container's device to the outer one."""
        if len(hops) == 1:
            return cls(hops[0].dev, hops[0].dev, crosses=False)
        inner, peer, outer = hops[0], hops[1], hops[-1]
        # A device sends outbound when the next one is in another namespace, and the outer one does.
        senders = [a for a, b in pairwise(hops[1:]) if a.netns != b.netns]
        again = sum(hop.dev == outer.dev for hop in (*senders, outer))
        return cls(inner.dev, outer.dev, peer.dev if peer != outer else "", again)


def learn_peer(crossings: pd.DataFrame, inner: str) -> str:
    """Return the device that receives what tasks send out through the container's device.

    For captures that do not say; `crossings` were found without it. Raises AnalysisError when
    there is none, or more than one: then several containers have a device of that name.
    """
    whole = (crossings["direction"] == OUTBOUND) & (crossings["status"] == "complete")
    peers = sorted(crossings["peer"][whole & ~crossings["softirq"]].astype(str).unique())
    if len(peers) == 1:
        return peers[0]
    raise AnalysisError(
        f"what is sent out on {inner} is received by {', '.join(peers) or 'no other device'}",
        hint="name the other end of the container's veth pair with --peer",
    )


def links_of(sidecar: Sidecar | None) -> Links:
    """Return what a sidecar knows of the links between devices."""
    if sidecar is None:
        return Links()
    names = {(n.name, link.ifindex): link.name for n in sidecar.namespaces for link in n.links}
    forwarding = {hop.netns for hop in sidecar.target.path[1:]}
    pairs, into_dead_end, others, unknown = set(), set(), set(), set()
    for namespace in sidecar.namespaces:
        for link in namespace.links:
            far = names.get((link.peer_netns or "", link.peer_ifindex or 0))
            if link.name == "lo" or link.kind not in ("", "veth"):
                others.add(link.name)
            elif link.kind and not far:
                unknown.add(link.name)
            elif far:
                pairs.add((link.name, far))
                if namespace.name in forwarding and link.peer_netns not in forwarding:
                    into_dead_end.add((link.name, far))
    ports = {link.name for n in sidecar.namespaces for link in n.links} - others
    # Where the names read the same the other way round, the direction cannot be told.
    dead_ends = into_dead_end - {(far, near) for near, far in into_dead_end}
    known = ports - unknown
    return Links(frozenset(pairs), frozenset(ports), frozenset(known), frozenset(dead_ends))


def find_crossings(
    hops: pd.DataFrame, path: Path, recorded: Collection[str] | None = None
) -> pd.DataFrame:
    """Return the CROSSINGS of all packets between the path's ends, in order of time.

    `recorded` names the events that were enabled; by default those that occur.
    """
    walk = _Walk(hops, recorded)
    crossings = pd.concat([_outbound(walk, path), _inbound(walk, path)], ignore_index=True)
    return crossings.sort_values("first_hop", kind="stable", ignore_index=True)


def find_passages(
    hops: pd.DataFrame,
    way: Path,
    crossings: pd.DataFrame,
    links: Links,
    recorded: Collection[str] | None = None,
) -> pd.DataFrame:
    """Return what passes the outer device of a native ping, as CROSSINGS without a latency.

    Outbound is what a task of the host queued there, inbound what was first received there. What a
    container received, on a device of the same name or in the end, is none of it, where `links`
    tell; nor is what was received in another way than the `crossings` show of the outer device.
    """
    walk = _Walk(hops, recorded)
    queued = walk.find(walk.on(way.outer), Kind.QUEUE)
    queued = queued[~walk.softirq[queued]]
    received = _not_for_containers(walk, walk.first_receptions(way.outer), way, links)
    uses_netif_rx = _outer_uses_netif_rx(walk, way, crossings)
    passages = pd.concat(
        [
            walk.rows(OUTBOUND, queued, queued, queued, walk.driver(queued)),
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
    return passages.assign(latency_ns=pd.array([None] * len(passages), dtype="Int64"))


def _not_for_containers(walk: _Walk, received: Indices, way: Path, links: Links) -> Indices:
    """Leave out of receptions what a container received, or what was sent on to one.

    A journey may go on with the next packet that got its address: only what comes before the next
    reception tells.
    """
    inwards = np.zeros(len(walk.kind), dtype=np.bool_)
    namesakes = inwards.copy()
    for sender, receiver in links.dead_ends:
        inwards |= walk.on(sender)
        namesakes |= walk.on(sender) & (receiver == way.outer)
    before = walk.step(received, -1)
    to_container = np.flatnonzero(inwards & ((walk.kind == Kind.QUEUE) | (walk.kind == Kind.XMIT)))
    sent_on = walk.nth(to_container, np.searchsorted(to_container, received), received)
    again = walk.nth(received, np.arange(len(received)) + 1, received)
    sent_on_at_once = (sent_on != NOWHERE) & ((again == NOWHERE) | (sent_on < again))
    by_container = namesakes[before] & (before != NOWHERE)
    return received[~sent_on_at_once & ~by_container]


def _outer_uses_netif_rx(walk: _Walk, way: Path, crossings: pd.DataFrame) -> bool | None:
    """Tell how the outer device receives; None where neither topology nor crossings show it."""
    if way.outer_uses_netif_rx is not None:
        return way.outer_uses_netif_rx
    came_in = (crossings["direction"] == INBOUND) & (crossings["status"] == "complete")
    return walk.mostly_netif_rx(crossings.loc[came_in, "first_hop"].to_numpy())


def name_namespaces(
    hops: pd.DataFrame, crossings: pd.DataFrame, sidecar: Sidecar | None
) -> pd.DataFrame:
    """Return HOPS with the namespace of every device that can be told from its namesakes.

    A name that only one namespace has is told by itself; one that several have, by its place in a
    crossing. Without a sidecar nothing is known.
    """
    if sidecar is None:
        return hops
    names = [namespace.name for namespace in sidecar.namespaces]
    dev = hops["dev"].cat.codes.to_numpy()
    netns = _codes_of(hops, _unique_owners(sidecar), names)[dev]
    path = sidecar.target.path
    if len(path) > 1:
        on_path = _codes_of(hops, {hop.dev: hop.netns for hop in path[1:]}, names)
        rows, at_inner = _rows_of_crossings(hops, crossings)
        netns[rows] = np.where(at_inner, names.index(path[0].netns), on_path[dev[rows]])
    return hops.assign(netns=pd.Categorical.from_codes(netns, names))


def _codes_of(hops: pd.DataFrame, netns: Mapping[str, str], names: list[str]) -> Indices:
    """Return the namespace of every device, as its place in `names`; -1 for none, and at the end.

    Shape (devices + 1,).
    """
    devices = hops["dev"].cat.categories
    known = [names.index(netns[dev]) if dev in netns else -1 for dev in devices]
    return np.array([*known, -1], dtype=np.int16)


def _unique_owners(sidecar: Sidecar) -> dict[str, str]:
    """Return the namespace of every device name that only one namespace has."""
    owners = pd.Series(
        {(n.name, link.name): n.name for n in sidecar.namespaces for link in n.links}
    )
    names = owners.index.get_level_values(-1)
    unique = ~names.duplicated(keep=False)
    return dict(zip(names[unique], owners[unique], strict=True))


def _rows_of_crossings(hops: pd.DataFrame, crossings: pd.DataFrame) -> tuple[Indices, Bools]:
    """Return the rows of HOPS within complete crossings, and which are on the inner device."""
    complete = crossings[crossings["status"] == "complete"]
    first, last = complete["first_hop"].to_numpy(), complete["last_hop"].to_numpy()
    length = last - first + 1
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    rows = np.repeat(first, length) + step
    outbound = np.repeat((complete["direction"] == OUTBOUND).to_numpy(), length)
    leaving = (step == 0) | ((step == 1) & (hop_kinds(hops)[rows] == Kind.XMIT))
    return rows, np.where(outbound, leaving, rows == np.repeat(last, length))


def steps_of(hops: pd.DataFrame, crossings: pd.DataFrame, rtts: pd.DataFrame) -> pd.DataFrame:
    """Return STEPS: the corrected pings' crossings hop by hop, for the way that most took."""
    corrected = rtts[rtts["status"] == "corrected"]
    rows = []
    for direction, column in ((OUTBOUND, "outbound_journey"), (INBOUND, "inbound_journey")):
        ours = crossings["journey"].isin(corrected[column]) & (crossings["status"] == "complete")
        ours &= crossings["direction"] == direction
        rows += _steps_of_direction(hops, crossings[ours], direction)
    return STEPS.from_rows(rows)


def _steps_of_direction(
    hops: pd.DataFrame, crossings: pd.DataFrame, direction: str
) -> list[Sequence[object]]:
    length = crossings["last_hop"] - crossings["first_hop"] + 1
    if crossings.empty:
        return []
    rows: list[Sequence[object]] = []
    usual = crossings[length == length.mode().iloc[0]]["first_hop"].to_numpy()
    times_ns = hops["time_ns"].to_numpy()
    for step in range(int(length.mode().iloc[0]) - 1):
        here = usual + step
        took_ns = times_ns[here + 1] - times_ns[here]
        median, p95 = np.percentile(took_ns, [50, 95])
        start, end = _label(hops, here[0]), _label(hops, here[0] + 1)
        rows.append((direction, step, start, end, len(here), median, p95))
    return rows


def _label(hops: pd.DataFrame, row: int) -> str:
    hop = hops.iloc[row]
    where = f"{hop['netns']}:{hop['dev']}" if pd.notna(hop["netns"]) else str(hop["dev"])
    return f"{where} {hop['event']}"


def _outbound(walk: _Walk, path: Path) -> pd.DataFrame:
    """Packets queued on the container's device and received by its peer."""
    queued = walk.find(walk.on(path.inner), Kind.QUEUE)
    arrived = walk.step(queued, len(walk.sending))
    received = (walk.kind == Kind.RX) | (walk.kind == Kind.RECEIVE)
    at_peer = received & (walk.on(path.peer) if path.peer else True)
    queued, arrived = _where(at_peer[arrived] & (arrived != NOWHERE), queued, arrived)
    out = walk.find(walk.on(path.outer), Kind.QUEUE)
    left = walk.nth(out, np.searchsorted(out, arrived) + path.outer_again - 1, arrived)
    return walk.rows(OUTBOUND, queued, queued, left, walk.driver(left), peer=arrived)


def _inbound(walk: _Walk, path: Path) -> pd.DataFrame:
    """Packets sent by the peer of the container's device and received there."""
    received = walk.first_receptions(path.inner)
    sent = walk.step(received, -1)
    by_peer = (walk.kind == walk.sending[-1]) & (walk.on(path.peer) if path.peer else True)
    received, sent = _where(by_peer[sent] & (sent != NOWHERE), received, sent)
    delivered = walk.if_stamped(received, path.inner_uses_netif_rx)
    delivered, sent = _where(delivered != NOWHERE, delivered, sent)
    came = walk.first_receptions(path.outer)
    entered = walk.nth(came, np.searchsorted(came, sent) - path.outer_again, sent)
    uses_netif_rx = path.outer_uses_netif_rx
    if uses_netif_rx is None:  # what a namesake received may be among them, but seldom
        uses_netif_rx = walk.mostly_netif_rx(entered[entered != NOWHERE])
    entered = walk.if_stamped(entered, uses_netif_rx)
    return walk.rows(INBOUND, delivered, entered, delivered, entered, peer=sent)


# What a device may add to the packets of another: nothing, a VLAN tag, an Ethernet header, both.
HEADER_LENGTHS = (0, 4, 14, 18)

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

    def on(self, dev: str) -> Bools:
        """Tell which hops are on devices of that name."""
        devices = self._hops["dev"].cat
        code = devices.categories.get_indexer([dev])[0]
        here: Bools = devices.codes.to_numpy() == code
        return here & bool(code >= 0)

    def find(self, where: Bools, kind: Kind) -> Indices:
        """Return the positions of one kind of hop."""
        return np.flatnonzero(where & (self.kind == kind))

    def step(self, positions: Indices, steps: int) -> Indices:
        """Go along the journeys, by so many hops."""
        return self._same_journey(positions + steps, positions)

    def nth(self, of: Indices, index: Indices, journey_of: Indices) -> Indices:
        """Return `of[index]` where that exists and is in the same journey."""
        padded: Indices = np.append(of, NOWHERE)
        index = np.where((index >= 0) & (index < len(of)), index, len(of))
        return self._same_journey(padded[index], journey_of)

    def driver(self, queued: Indices) -> Indices:
        """Return where what was queued was handed to the driver."""
        sent: Indices = self.step(queued, len(self.sending) - 1)
        return np.asarray(np.where(self.kind[sent] == self.sending[-1], sent, NOWHERE))

    def first_receptions(self, dev: str) -> Indices:
        """Return where packets were first received on a device of that name."""
        here = self.on(dev) & ((self.kind == Kind.RX) | (self.kind == Kind.RECEIVE))
        positions = np.flatnonzero(here)
        before = self.step(positions, -1)
        continued = here[before] & (before != NOWHERE) & (self.kind[positions] == Kind.RECEIVE)
        return positions[~continued]

    def mostly_netif_rx(self, receptions: Indices) -> bool | None:
        """Tell whether most were received by `netif_rx`; None of no receptions."""
        if not len(receptions):
            return None
        return bool(np.mean(self.kind[receptions] == Kind.RX) >= 0.5)

    def if_stamped(self, receptions: Indices, uses_netif_rx: bool | None) -> Indices:
        """Keep receptions seen at the device's first receive event: `netif_rx` if it uses that.

        Where that is not known, they use it if one of them does.
        """
        kinds: npt.NDArray[np.int8] = self.kind[receptions]
        seen = receptions != NOWHERE
        if uses_netif_rx is None:
            uses_netif_rx = bool(np.any(kinds[seen] == Kind.RX))
        first = Kind.RX if uses_netif_rx and Kind.RX in self.recorded else Kind.RECEIVE
        return np.where(seen & (kinds == first), receptions, NOWHERE)

    def rows(
        self,
        direction: str,
        seen: Indices,
        entered: Indices,
        left: Indices,
        wire: Indices,
        *,
        peer: Indices | None = None,
    ) -> pd.DataFrame:
        """Build CROSSINGS from positions; `seen` is the one that is always known."""
        seen_at_both = (entered != NOWHERE) & (left != NOWHERE) & (wire != NOWHERE)
        length = self._hops["len"].to_numpy()
        same = np.isin(np.abs(length[left] - length[entered]), HEADER_LENGTHS)
        complete = seen_at_both & same
        first = np.where(entered != NOWHERE, entered, seen)
        entered_ns, left_ns = self._times(entered), self._times(left)
        devices = self._hops["dev"].array
        return CROSSINGS.frame(
            {
                "journey": self.journey[seen],
                "direction": pd.Categorical([direction] * len(seen), [OUTBOUND, INBOUND]),
                "entered_ns": entered_ns,
                "left_ns": left_ns,
                "latency_ns": left_ns - entered_ns,
                "wire_ns": self._times(wire),
                "peer": devices[seen if peer is None else peer],
                "len": length[first],
                "pid": self._hops["pid"].to_numpy()[first],
                "softirq": self.softirq[first],
                "first_hop": first,
                "last_hop": np.maximum(np.maximum(left, wire), seen),
                "status": pd.Categorical.from_codes(complete.astype(int), STATUSES),
                "reason": np.select([complete, seen_at_both], ["", CHANGED], NOT_SEEN),
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
