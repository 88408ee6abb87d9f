"""The devices under an outer device, down to the network cards: VLAN on bond on card.

A host's outer device is often one on top of others. A packet that is sent passes `net_dev_queue`
on each of them in turn. A packet that is received shows the card's name only: the stack moves it
up to bond and VLAN without a further event (net/core/dev.c, __netif_receive_skb_core(),
another_round, v6.8). Bridges and tunnels do have a receive event, but it comes after the card's.
So a native ping begins at the top of the stack, and the kernel takes its receive stamp at the
bottom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from maceproc.capture import Link, Namespace, PathDevice, find_link

MASTERS = frozenset({"bond", "team", "bridge", "openvswitch", "hsr", "batadv"})
"""Kinds of devices on top of their ports, which name them as their master."""

UPPERS = frozenset({"vlan", "macvlan", "macvtap", "macsec"})
"""Kinds of devices on top of one other, which `ip link` names after an @."""

IP, IPV6, UDP, ETHERNET = 20, 40, 8, 14
_GRE = tuple(range(4, 17, 4))  # with checksum, key and sequence number
_OPTIONS = tuple(range(8, 261, 4))  # Geneve's header with its options

TUNNELS: Mapping[str, tuple[int, ...]] = {
    "vxlan": tuple(ip + UDP + 8 + ETHERNET for ip in (IP, IPV6)),
    "geneve": tuple(ip + UDP + own + ETHERNET for ip in (IP, IPV6) for own in _OPTIONS),
    "ipip": (IP,),
    "sit": (IP,),
    "ip6tnl": (IPV6, IPV6 + 8),  # with an encapsulation limit
    "gre": tuple(IP + own for own in _GRE),
    "ip6gre": tuple(IPV6 + own for own in (*_GRE, *(own + 8 for own in _GRE))),
    "gretap": tuple(IP + own + ETHERNET for own in _GRE),
    "ip6gretap": tuple(IPV6 + own + ETHERNET for own in (*_GRE, *(own + 8 for own in _GRE))),
}
"""Kinds of devices that put a packet into another one, in the same skb, and what that adds [bytes].

RFC 7348 (VXLAN), 8926 (Geneve), 2003 (IPIP), 4213 (sit), 2473 (ip6tnl), 2890 (GRE).
"""


def devices_below(
    namespaces: Sequence[Namespace], outer: PathDevice, path: Iterable[PathDevice] = ()
) -> list[PathDevice]:
    """Return the devices under the outer one, from the top down, each once; none if it is a card.

    The devices of `path`, which a packet passes before the outer one, are not under it.
    """
    passed = {outer, *path}
    found: list[PathDevice] = []
    layer = [outer]
    while layer:
        layer = [
            lower
            for hop in layer
            for lower in _directly_below(namespaces, hop)
            if lower not in passed and lower not in found
        ]
        layer = list(dict.fromkeys(layer))
        found += layer
    return found


def cards_of(
    namespaces: Sequence[Namespace], outer: PathDevice, below: Sequence[PathDevice]
) -> list[PathDevice]:
    """Return the lowest devices of a stack: those where packets leave and enter the machine."""
    stack = [outer, *below]
    return [hop for hop in stack if not set(_directly_below(namespaces, hop)) & set(below)]


def _directly_below(namespaces: Sequence[Namespace], hop: PathDevice) -> list[PathDevice]:
    """Return the ports of a bond or bridge, or the device that a VLAN is on."""
    link = find_link(namespaces, hop)
    if link is None:
        return []
    if link.kind in MASTERS:
        return [
            PathDevice(netns=hop.netns, dev=port.name)
            for namespace in namespaces
            if namespace.name == hop.netns
            for port in namespace.links
            if port.master == link.name
        ]
    if link.kind in UPPERS and link.peer_ifindex:
        return [
            PathDevice(netns=namespace.name, dev=parent.name)
            for namespace in namespaces
            if namespace.name == (link.peer_netns or hop.netns)
            for parent in namespace.links
            if parent.ifindex == link.peer_ifindex
        ]
    return []


VLAN_TAG = 4  # IEEE 802.1Q; in the packet of a VLAN in a VLAN, else beside it (skb->vlan_tci)


def added_bytes(links: Iterable[Link]) -> tuple[int, ...]:
    """Return by how much the tunnels and VLANs among these may lengthen a packet [bytes]."""
    lengths = {0}
    for link in links:
        added = (VLAN_TAG,) if link.kind == "vlan" else TUNNELS.get(link.kind, ())
        lengths |= {sum(pair) for pair in product(lengths, added)}
    return tuple(sorted(lengths))
