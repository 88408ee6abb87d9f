"""The devices that a ping passes, and the links between them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from maceproc.capture import PathDevice, Sidecar
from maceproc.errors import AnalysisError
from maceproc.following.journeys import Links
from maceproc.uplinks import added_bytes, cards_of, devices_below

ETHERNET_MTU = 1500


@dataclass(frozen=True)
class Way:
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
    below
        Names of the devices that the outer one is on, from the top down.
    cards
        Names of the lowest of them, where packets leave and enter the machine: the outer device
        itself if it is on no other. `outer_uses_netif_rx` is about these.
    card_again
        Like `outer_again`, for the names of the cards.
    added_bytes
        What the tunnels and VLANs on the way may add to the length of a packet.
    """

    inner: str
    outer: str
    peer: str = ""
    outer_again: int = 1
    crosses: bool = True
    inner_uses_netif_rx: bool | None = None
    outer_uses_netif_rx: bool | None = None
    below: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    card_again: int = 1
    added_bytes: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.cards:
            object.__setattr__(self, "cards", (self.outer,))
            object.__setattr__(self, "card_again", self.outer_again)

    @classmethod
    def from_hops(
        cls,
        hops: Sequence[PathDevice],
        below: Sequence[PathDevice] = (),
        cards: Sequence[PathDevice] = (),
    ) -> Way:
        """Return the way along a sidecar's path, from the container's device to the outer one."""
        under = tuple(hop.dev for hop in below)
        lowest = tuple(dict.fromkeys(hop.dev for hop in cards)) or (hops[-1].dev,)
        if len(hops) == 1:
            return cls(hops[0].dev, hops[0].dev, crosses=False, below=under, cards=lowest)
        inner, peer, outer = hops[0], hops[1], hops[-1]
        # Outbound, a device sends if the next one is in another namespace. The outer one always
        # sends.
        senders = [a for a, b in pairwise(hops[1:]) if a.netns != b.netns]
        return cls(
            inner.dev,
            outer.dev,
            peer.dev if peer != outer else "",
            outer_again=1 + sum(hop.dev == outer.dev for hop in senders),
            below=under,
            cards=lowest,
            card_again=1 + sum(hop.dev in lowest for hop in senders),
        )


def way_of(sidecar: Sidecar | None, inner: str, outer: str, peer: str) -> Way:
    """Return the devices to measure between, as given, otherwise as the sidecar says.

    The peer is left empty where every run has a veth pair of its own. Raises AnalysisError when
    a device is neither given nor in the sidecar.
    """
    if sidecar and sidecar.target.path:
        path = _ending_at(sidecar, outer)
        below = stack_of(sidecar, path)
        cards = cards_of(sidecar.namespaces, path[-1], below)
        known = Way.from_hops(path, below, cards)
        passed = [link for hop in (*path, *below) if (link := sidecar.link(hop))]
        return replace(
            known,
            crosses=known.crosses and sidecar.target.crossing,
            inner=inner or sidecar.target.path[0].dev,
            peer=peer or ("" if sidecar.target.transient else known.peer),
            inner_uses_netif_rx=_all_use_netif_rx(sidecar, path[:1]),
            outer_uses_netif_rx=_all_use_netif_rx(sidecar, cards),
            added_bytes=added_bytes(passed),
        )
    if not inner or not outer:
        raise AnalysisError(
            "the capture does not say which devices the ping passed",
            hint="name the container's device with --inner and the host's with --outer",
        )
    return Way(inner, outer, peer)


def _ending_at(sidecar: Sidecar, outer: str) -> list[PathDevice]:
    """Return the sidecar's path; with another outer device of the same namespace, if named."""
    path = sidecar.target.path
    if not outer or outer == path[-1].dev:
        return path
    named = PathDevice(netns=path[-1].netns, dev=outer)
    if named in path and path.index(named) > 0:
        return path[: path.index(named) + 1]
    return [*path[:-1], named]


def stack_of(sidecar: Sidecar, path: Sequence[PathDevice] | None = None) -> list[PathDevice]:
    """Return the devices that the outer device is on, as recorded, otherwise by the links."""
    path = sidecar.target.path if path is None else path
    if not path:
        return []
    if sidecar.target.below and path[-1] == sidecar.target.path[-1]:
        return sidecar.target.below
    return devices_below(sidecar.namespaces, path[-1], path)


def _all_use_netif_rx(sidecar: Sidecar, hops: Sequence[PathDevice]) -> bool | None:
    """Tell whether these devices receive by `netif_rx`; None if not known, or not all alike."""
    links = [sidecar.link(hop) for hop in hops]
    uses = {link.uses_netif_rx if link else None for link in links}
    return uses.pop() if len(uses) == 1 else None


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
    # Where the path has the same names in both directions, the direction cannot be told.
    dead_ends = into_dead_end - {(far, near) for near, far in into_dead_end}
    known = ports - unknown
    # One link of each kind: added_bytes() combines all that it is given.
    kinds = {link.kind: link for n in sidecar.namespaces for link in n.links}
    return Links(
        frozenset(pairs),
        frozenset(ports),
        frozenset(known),
        frozenset(dead_ends),
        added_bytes(kinds.values()),
    )


def with_pairs(links: Links, inner: str, peers: Collection[str]) -> Links:
    """Return the links and, in addition, pairs of the container's device and these peers."""
    into_container = {(peer, inner) for peer in peers}
    return replace(
        links,
        pairs=links.pairs | into_container | {(inner, peer) for peer in peers},
        ports=links.ports | set(peers),
        known=links.known | set(peers),
        dead_ends=links.dead_ends | into_container,
    )


def mtu_of(sidecar: Sidecar | None) -> int:
    """Return the MTU of the device the ping is sent on [bytes]; Ethernet's when not known."""
    link = sidecar.link(sidecar.target.path[0]) if sidecar and sidecar.target.path else None
    return (link and link.mtu) or ETHERNET_MTU
