"""What is around a place: its devices, and the namespaces at their other ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from maceproc.capture import Link, PathDevice
from maceproc.recording.bpf.devices import inner_device
from maceproc.recording.bpf.echo_tracer import Watched
from maceproc.recording.explorer import Explorer
from maceproc.recording.sites import Netns
from maceproc.recording.survey import SHARED_DEVICE_KINDS, read_offloads
from maceproc.watching.places import Place


class Behind(NamedTuple):
    """A container's device, and what is at its other end."""

    inner: Link
    host: Netns
    far: Link


@dataclass(frozen=True)
class Surroundings:
    """What was found out about a place.

    Attributes
    ----------
    number
        The number that the tracer has for the place.
    inner
        The container's devices; none: nothing can be followed.
    hosts
        The namespaces at the other end of its devices, by inode: the outer devices are there.
    not_outer
        Names of the hosts' devices that lead to the container.
    route
        The way of its packets, for people.
    note
        Why nothing can be followed; empty when something can.
    """

    place: Place
    number: int
    inner: tuple[Watched, ...] = ()
    hosts: tuple[tuple[int, Netns], ...] = ()
    not_outer: frozenset[str] = frozenset()
    route: str = ""
    note: str = ""


def look_around(place: Place, number: int) -> Surroundings:
    """Find a place's devices and the namespaces of its outer devices.

    Raises TargetError when the place has ended meanwhile.
    """
    if place.inode in _hosts_own():
        return Surroundings(place, number, note="it has the host's network, nothing is crossed")
    site = place.site
    explorer = Explorer([site.inside, *site.around])
    found = list(_behind(explorer, site.inside))
    if not found:
        names = ", ".join(link.name for link in explorer.describe(site.inside).links)
        why = f"none of its devices ({names}) leads to another namespace that can be seen"
        return Surroundings(place, number, note=why)
    for way in found:
        read_offloads(explorer, [PathDevice(netns=site.inside.name, dev=way.inner.name)])
    return Surroundings(
        place=place,
        number=number,
        inner=tuple(inner_device(place.inode, inner, number) for inner, _, _ in found),
        hosts=tuple({way.host.inode: way.host for way in found}.items()),
        not_outer=frozenset(name for way in found for name in _inwards(way)),
        route=", ".join(
            " -> ".join([f"{site.inside.name}:{way.inner.name}", *_names(way)]) for way in found
        ),
    )


def _behind(explorer: Explorer, inside: Netns) -> Iterator[Behind]:
    for link in explorer.describe(inside).links:
        if link.name == "lo" or link.peer_ifindex is None:
            continue
        found = explorer.peer(inside, link)
        if found and found[0].inode != inside.inode:
            yield Behind(link, *found)


def _inwards(way: Behind) -> list[str]:
    """Return the names of the host's devices that lead to the container and nowhere else."""
    if way.inner.kind in SHARED_DEVICE_KINDS:
        return []  # the parent of a macvlan, for example, is the outer device
    return [way.far.name, *([way.far.master] if way.far.master else [])]


def _names(way: Behind) -> list[str]:
    return [f"{way.host.name}:{way.far.name}", *([way.far.master] if way.far.master else [])]


def _hosts_own() -> set[int]:
    """Return the inode numbers of our own network namespace and the machine's first one."""
    found = set()
    for process in ("self", "1"):
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{process}/ns/net").stat().st_ino)
    return found
