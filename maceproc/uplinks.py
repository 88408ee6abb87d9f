"""The devices under an outer device, down to the network cards: VLAN on bond on card.

A host's outer device is often one on top of others. A packet that is sent passes `net_dev_queue`
on each of them in turn. A packet that is received shows the card's name only: the stack moves it
up to bond and VLAN without a further event (net/core/dev.c, __netif_receive_skb_core(),
another_round, v6.8). Bridges and tunnels do have a receive event, but it comes after the card's.
So a native ping begins at the top of the stack, and the kernel takes its receive stamp at the
bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from maceproc.capture import Link, Namespace, PathDevice, Target, find_link

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

NEEDING_ROOM = frozenset({*TUNNELS, "vlan", "macsec", "wireguard"})
"""Kinds of devices that want more room before a packet than an Ethernet card.

Seen on 6.1 and 6.12, with a probe on skb_expand_head(): VLAN, bridge on a VLAN, VXLAN, Geneve,
gretap, sit, macsec, WireGuard. No copy was made for a card, a bond, a bridge on a card, tap, tun.
"""


def copying_device(
    target: Target, link_of: Callable[[PathDevice], Link | None]
) -> tuple[PathDevice, Link] | None:
    """Return the device that packets are copied for on their way out, and the one that needs room.

    ip6_forward() makes room for the next device's Ethernet header only; ip6_finish_output2() wants
    what that device says it needs, and skb_expand_head() goes on with a clone of a packet that has
    no socket (net/ipv6/ip6_output.c, net/core/skbuff.c, v6.1). IPv4's ip_forward() makes room for
    all of it, so None is returned for IPv4, and where no device of the path needs room.
    """
    routed = _routed_device(target, link_of)
    if routed is None or ":" not in target.address:
        return None
    links = [link_of(hop) for hop in (routed, *target.below)]
    if links[0] is not None and links[0].kind != "bridge":
        links = links[:1]  # a bridge needs what its ports need; of a bond that is not known
    needing = next((link for link in links if link and link.kind in NEEDING_ROOM), None)
    return None if needing is None else (routed, needing)


def _routed_device(
    target: Target, link_of: Callable[[PathDevice], Link | None]
) -> PathDevice | None:
    """Return the device that the host routes packets to; None where it does not route them."""
    if len(target.path) < 3:
        return None
    veth = link_of(target.path[1])
    bridge = target.path[2].dev if veth and veth.master == target.path[2].dev else ""
    after = target.path[3 if bridge else 2 :]
    first = link_of(after[0]) if after else None
    return after[0] if first is not None and not (bridge and first.master == bridge) else None


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
