"""Which devices the tracer is to watch, and for what: the container's own, and the outer ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from maceproc.capture import Link
from maceproc.errors import TargetError
from maceproc.recording.bpf import memory
from maceproc.recording.bpf.echo_tracer import Watched
from maceproc.recording.explorer import list_links
from maceproc.recording.sites import Netns


def inner_device(netns: int, link: Link, container: int = 0) -> Watched:
    """Return a container's device, by the tracepoint that sees a reply first on it.

    Where that is not known, both are watched, and the first one counts.
    """
    if link.uses_netif_rx is None:
        received = memory.INNER_RX | memory.INNER_RECEIVE
    else:
        received = memory.INNER_RX if link.uses_netif_rx else memory.INNER_RECEIVE
    return Watched(netns, link.ifindex, memory.INNER_QUEUED | received, container)


def outer_device(netns: int, link: Link) -> Watched:
    """Return an outer device, with no more tracepoints than tell when packets leave and come.

    A device without a queue gets a packet in the call that queues it (net/core/dev.c,
    __dev_queue_xmit(), v6.8): when it was sent needs no tracepoint of its own.
    """
    roles = memory.OUTER_QUEUED
    if link.qdisc != "noqueue":
        roles |= memory.OUTER_SENT
    if link.uses_netif_rx is None:
        roles |= memory.OUTER_RX | memory.OUTER_RECEIVE
    else:
        roles |= memory.OUTER_RX if link.uses_netif_rx else memory.OUTER_RECEIVE
    return Watched(netns, link.ifindex, roles)


def devices_beneath(netns: int, links: Sequence[Link], outer: Link) -> set[Watched]:
    """Return the devices that packets come in by before a VLAN or bond has them: none of a card.

    The stack tells only of the lowest one (net/core/dev.c, __netif_receive_skb_core(), v6.8).
    """
    found: dict[int, Link] = {}
    above = [outer]
    while above:
        link = above.pop()
        beneath = [other for other in links if other.master == link.name]
        if link.kind == "vlan":
            beneath += [other for other in links if other.ifindex == link.peer_ifindex]
        above += [other for other in beneath if other.ifindex not in found]
        found |= {other.ifindex: other for other in beneath}
    roles = memory.OUTER_RX | memory.OUTER_RECEIVE
    return {Watched(netns, ifindex, roles) for ifindex in found}


def outer_devices(
    host: Netns, inwards: Collection[str], only: Collection[str] = ()
) -> set[Watched]:
    """Return the devices of a host by which packets may leave it and come back.

    Not its loopback, nor what leads to containers: `inwards` by name, and ports of a bridge. Of a
    VLAN or bond the card beneath is among them: a packet is followed from the first that sees it
    going out, and back to the first that sees it come in. With `only`, packets are followed going
    out by these devices alone.

    Raises TargetError when the namespace has ended or has no such device.
    """
    links = list_links(host)
    names = {link.name for link in links}
    for name in only:
        if name not in names:
            has = ", ".join(sorted(names))
            raise TargetError(f"no device {name!r} in {host.name}", hint=f"it has {has}")
    bridges = {link.name for link in links if link.kind == "bridge"}
    found = set()
    for link in links:
        outside = link.name != "lo" and link.name not in inwards and link.master not in bridges
        if link.name in only or outside:
            outer = outer_device(host.inode, link)
            if only and link.name not in only:
                outer = outer._replace(roles=memory.OUTER_RX | memory.OUTER_RECEIVE)
            found.add(outer)
    return found
