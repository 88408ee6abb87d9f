"""The devices that the tracer is to watch for a place: the container's own, and the outer ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from maceproc.capture import Link, Namespace
from maceproc.errors import TargetError
from maceproc.recording.bpf import memory
from maceproc.recording.bpf.echo_tracer import Watched
from maceproc.recording.sites import Netns
from maceproc.recording.survey import list_links, survey
from maceproc.watching.places import Place


@dataclass(frozen=True)
class Surroundings:
    """What was found out about a place.

    Attributes
    ----------
    number
        The number that the tracer has for the place.
    inner
        The container's devices.
    host
        The namespace of the outer devices; None: no namespace is crossed, nothing can be followed.
    not_outer
        Names of the host's devices that lead to the container.
    notes
        Why nothing can be followed, or what limits it.
    """

    place: Place
    number: int
    inner: tuple[Watched, ...]
    host: Netns | None
    not_outer: frozenset[str]
    route: str
    notes: tuple[str, ...]


def look_around(place: Place, number: int) -> Surroundings:
    """Find a place's devices and the namespace of its outer devices.

    Raises TargetError when the place has ended meanwhile.
    """
    found = survey(place.site, "")
    path = found.target.path
    inside = next(space for space in found.namespaces if space.inode == place.inode)
    inner = _inner_devices(inside, number) if found.host else ()
    return Surroundings(
        place=place,
        number=number,
        inner=tuple(inner),
        host=found.host,
        not_outer=frozenset(hop.dev for hop in path[1:-1]),
        route=found.target.route,
        notes=tuple(found.target.notes),
    )


def _inner_devices(inside: Namespace, number: int) -> list[Watched]:
    return [
        Watched(inside.inode, link.ifindex, memory.INNER_QUEUED | _received_at(link), number)
        for link in inside.links
        if link.name != "lo" and link.kind != "bridge" and not link.master
    ]


def _received_at(link: Link) -> int:
    """Return the tracepoint that sees a reply first; both where that is not known."""
    if link.uses_netif_rx is None:
        return memory.INNER_RX | memory.INNER_RECEIVE
    return memory.INNER_RX if link.uses_netif_rx else memory.INNER_RECEIVE


def outer_devices(
    host: Netns, around: Iterable[Surroundings], only: tuple[str, ...] = ()
) -> set[Watched]:
    """Return the devices of a host by which packets may leave it and come back.

    Not its loopback, nor what leads to containers. Of a VLAN or bond the card beneath is among
    them: a packet is followed from the first that sees it going out, and back to the first that
    sees it come in. With `only`, packets are followed going out by these devices alone.

    Raises TargetError when the namespace has ended or has no such device.
    """
    inwards = {name for place in around for name in place.not_outer}
    links = list_links(host)
    names = {link.name for link in links}
    for name in only:
        if name not in names:
            has = ", ".join(sorted(names))
            raise TargetError(f"no device {name!r} in {host.name}", hint=f"it has {has}")
    bridges = {link.name for link in links if link.kind == "bridge"}
    found = set()
    for link in links:
        if link.name in only or _leads_outside(link, inwards, bridges):
            out = not only or link.name in only
            roles = memory.OUTER_QUEUED | memory.OUTER_SENT if out else 0
            roles |= memory.OUTER_RX | memory.OUTER_RECEIVE
            found.add(Watched(host.inode, link.ifindex, roles))
    return found


def _leads_outside(link: Link, inwards: set[str], bridges: set[str]) -> bool:
    return link.name != "lo" and link.name not in inwards and link.master not in bridges
