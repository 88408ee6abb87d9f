"""The devices that a ping passes, and the links between them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from maceproc.capture import Hop, Sidecar
from maceproc.errors import AnalysisError
from maceproc.following.journeys import Links

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
    """

    inner: str
    outer: str
    peer: str = ""
    outer_again: int = 1
    crosses: bool = True
    inner_uses_netif_rx: bool | None = None
    outer_uses_netif_rx: bool | None = None

    @classmethod
    def from_hops(cls, hops: Sequence[Hop]) -> Way:
        """Return the way along a sidecar's path, from the container's device to the outer one."""
        if len(hops) == 1:
            return cls(hops[0].dev, hops[0].dev, crosses=False)
        inner, peer, outer = hops[0], hops[1], hops[-1]
        # Outbound, a device sends if the next one is in another namespace. The outer one always
        # sends.
        senders = [a for a, b in pairwise(hops[1:]) if a.netns != b.netns]
        again = sum(hop.dev == outer.dev for hop in (*senders, outer))
        return cls(inner.dev, outer.dev, peer.dev if peer != outer else "", again)


def way_of(sidecar: Sidecar | None, inner: str, outer: str, peer: str) -> Way:
    """Return the devices to measure between, as given, otherwise as the sidecar says.

    The peer is left empty where every run has a veth pair of its own. Raises AnalysisError when
    a device is neither given nor in the sidecar.
    """
    if sidecar and sidecar.target.path:
        known = Way.from_hops(sidecar.target.path)
        ends = [sidecar.link(hop) for hop in (sidecar.target.path[0], sidecar.target.path[-1])]
        inner_rx, outer_rx = (link.uses_netif_rx if link else None for link in ends)
        return replace(
            known,
            crosses=known.crosses and sidecar.target.crossing,
            inner=inner or known.inner,
            outer=outer or known.outer,
            peer=peer or ("" if sidecar.target.transient else known.peer),
            inner_uses_netif_rx=inner_rx,
            outer_uses_netif_rx=outer_rx,
        )
    if not inner or not outer:
        raise AnalysisError(
            "the capture does not say which devices the ping passed",
            hint="name the container's device with --inner and the host's with --outer",
        )
    return Way(inner, outer, peer)


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
