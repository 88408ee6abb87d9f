"""The devices a packet passes on its way out of a site, and the namespaces that they are in.

`survey` finds them with ip(8), inside each namespace: links, addresses, routes, NAT, and the path
from the container's device over its veth peer and bridge to the outer device, as the kernel's own
routing tables decide it for the address in question.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from maceproc.capture import Link, Namespace, PathDevice, Target
from maceproc.errors import TargetError
from maceproc.recording.explorer import Explorer, route_device
from maceproc.recording.ip_answers import output
from maceproc.recording.sites import Netns, Site, here_site
from maceproc.recording.underlay import append_underlays, passes_tunnel, port_out
from maceproc.recording.unseen import unseen_notes
from maceproc.uplinks import devices_below

SHARED_DEVICE_KINDS = ("macvlan", "macvtap", "ipvlan", "ipvtap")  # on top of the host's device

_SOURCE_NAT = re.compile(r"\b(MASQUERADE|SNAT|NETMAP|masquerade|snat)\b")
_NAT_SOURCE = re.compile(r"(?<!! )(?:-s|saddr) ([0-9a-f.:]+(?:/\d+)?)(?: |$)")


@dataclass(frozen=True)
class Survey:
    """What `survey` found out about a site.

    Attributes
    ----------
    target
        The path and what limits it, for the sidecar.
    namespaces
        Each namespace on the way or known by name.
    host
        The namespace to send native pings from; None when there is nothing to compare with them.
    """

    target: Target
    namespaces: list[Namespace]
    host: Netns | None


def survey(site: Site, address: str, outer: str = "") -> Survey:
    """Find the path from a site to its outer device, and describe the namespaces on it.

    Parameters
    ----------
    address
        The address that the command sends to; empty when unknown: then the default route decides.
    outer
        The outer device by name, when the user knows better than the host's routes; of a native
        ping, the device that it leaves by.

    Raises TargetError when the namespace cannot be read, or there is no device `outer`.
    """
    explorer = Explorer([site.inside, *site.around])
    target = Target(kind=site.kind, name=site.name, address=address)
    host = _find_path(explorer, site, target, outer)
    if outer:  # also where the path ends before it
        _require_device(explorer.known[:1] if site.is_native else explorer.known, explorer, outer)
    target.crossing = host is not None and not _is_shared(explorer, site.inside, target)
    target.nat = host is not None and _translates(explorer, site.inside, host)
    described = explorer.all_described()
    if target.path and target.crossing:
        target.below = devices_below(described, target.path[-1], target.path)
    read_offloads(explorer, [*target.path, *target.below])
    if target.crossing:
        target.notes += unseen_notes(explorer, target)
    if passes_tunnel(explorer, target):
        host = None  # a native ping would not leave by the same device
    return Survey(target, described, host)


def _find_path(explorer: Explorer, site: Site, target: Target, outer: str) -> Netns | None:
    """Fill in the target's path and notes; return the outer device's namespace if it is another."""
    inner = _outgoing_link(explorer, site.inside, target)
    if outer and site.is_native:
        inner = explorer.link(site.inside, outer)
    if inner is None:
        return None
    target.path.append(PathDevice(netns=site.inside.name, dev=inner.name))
    reason = _why_nothing_is_crossed(site, inner, target)
    if reason is not None:
        target.notes += [reason] if reason else []
        return None
    far = explorer.peer(site.inside, inner) if inner.peer_ifindex else None
    if far is None:
        target.notes.append(
            f"{target.path[0]} ({inner.kind or 'physical device'}) leads to no device that can be "
            "seen from here: no crossing can be measured, RTTs stay as ping prints them"
        )
        return None
    host, link = far
    if inner.kind in SHARED_DEVICE_KINDS:
        target.notes.append(
            f"{target.path[0]} is a {inner.kind} on {link.name}: packets pass to that device "
            "directly, there is little or no crossing to see; RTTs stay as ping prints them"
        )
    target.path.append(PathDevice(netns=host.name, dev=link.name))
    bridge = explorer.link(host, link.master) if link.master else None
    if bridge:
        target.path.append(PathDevice(netns=host.name, dev=bridge.name))
    if not _append_outer(explorer, target, host, bridge or link, outer):
        return None
    if not outer:
        append_underlays(explorer, target)
    return host


def _is_shared(explorer: Explorer, inside: Netns, target: Target) -> bool:
    """Tell whether the container's device is one on top of the outer device, such as a macvlan."""
    inner = explorer.link(inside, target.path[0].dev)
    return inner is not None and inner.kind in SHARED_DEVICE_KINDS


def _why_nothing_is_crossed(site: Site, inner: Link, target: Target) -> str | None:
    """Return why packets by this device cross no namespace ("": as asked); None when they may."""
    name = site.inside.name
    if site.is_native:
        shared = f"{name} uses the host's network: nothing is crossed, its RTTs are native ones"
        return shared if site.container else ""
    if inner.name == "lo":
        return (
            f"{target.address} is {name} itself: no packet leaves it, RTTs stay as ping prints them"
        )
    if inner.kind == "tun":
        return (
            f"{target.path[0]} is served by a program (slirp4netns or pasta of a rootless engine, "
            "or a VPN): it takes packets in and sends others, which cannot be told to be the same; "
            "RTTs stay as ping prints them"
        )
    if site.inside.inode == here_site().inside.inode:
        return f"{name} is in the network namespace of maceproc itself: nothing is crossed"
    return None


def _outgoing_link(explorer: Explorer, netns: Netns, target: Target) -> Link | None:
    """Return the device by which packets to the target leave a namespace."""
    dev = route_device(netns, target.address)
    link = explorer.link(netns, dev) if dev else None
    if link is None:
        target.notes.append(f"{netns.name} has no route to {target.address or 'the outside'}")
    return link


def _append_outer(
    explorer: Explorer, target: Target, host: Netns, incoming: Link, outer: str
) -> bool:
    """Append the outer device, named or chosen by the host's routes; tell whether there is one."""
    if outer:
        _require_device([host], explorer, outer)
    port = None if outer else port_out(explorer, target, host, incoming)
    if port is not None:
        target.path.append(PathDevice(netns=host.name, dev=port.name))
        return True
    source = _source_address(explorer.describe(explorer.known[0]), target)
    packet = ["from", source, "iif", incoming.name] if source else []
    dev = outer or route_device(host, target.address, *packet)
    if not dev:
        target.notes.append(f"{host.name} has no route to {target.address or 'the outside'}")
        return False
    if dev == "lo" or (dev == incoming.name and incoming.kind == "bridge"):
        target.notes.append(
            f"{target.address} is reached by {incoming.name}: no outer device is passed, there is "
            "no crossing to take out; RTTs stay as ping prints them"
        )
        return False
    if dev != incoming.name:
        target.path.append(PathDevice(netns=host.name, dev=dev))
    return True


def _require_device(spaces: Sequence[Netns], explorer: Explorer, name: str) -> None:
    """Raise TargetError when none of the namespaces has a device of that name."""
    if any(explorer.link(space, name) for space in spaces):
        return
    has = ", ".join(
        dict.fromkeys(link.name for space in spaces for link in explorer.describe(space).links)
    )
    alone = len(spaces) == 1
    where = spaces[0].name if alone else "any of the namespaces"
    raise TargetError(
        f"no device {name!r} in {where}", hint=f"{'it has' if alone else 'they have'} {has}"
    )


def _source_address(inside: Namespace, target: Target) -> str:
    """Return the inner device's address of the target's family; empty when there is none."""
    for address in inside.addresses.get(target.path[0].dev, []):
        ip = ipaddress.ip_interface(address).ip
        if (ip.version == 6) == (":" in target.address) and not ip.is_link_local:
            return str(ip)
    return ""


def _translates(explorer: Explorer, inside: Netns, host: Netns) -> bool:
    """Tell whether the host has a source NAT rule that covers an address of the container."""
    sources = [
        ipaddress.ip_interface(address).ip
        for device in explorer.describe(inside).addresses.values()
        for address in device
    ]
    return any(
        _SOURCE_NAT.search(rule) and _covers(rule, sources) for rule in explorer.describe(host).nat
    )


def _covers(rule: str, sources: list[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    """Tell whether a rule may apply to packets from one of these; a rule without source does."""
    network = _NAT_SOURCE.search(rule)
    if network is None:
        return True
    try:
        covered = ipaddress.ip_network(network[1], strict=False)
    except ValueError:  # a word of a comment, which may hold any text
        return True
    return any(ip in covered for ip in sources)


def read_offloads(explorer: Explorer, path: list[PathDevice]) -> None:
    """Add the offloads of the devices on the path, where ethtool(8) is there to tell."""
    if not shutil.which("ethtool"):
        return
    by_name = {netns.name: netns for netns in explorer.known}
    for hop in path:
        link = explorer.link(by_name[hop.netns], hop.dev)
        if link is not None:
            if hop.dev.startswith("-"):  # ethtool would take it for an option
                continue
            features = output(by_name[hop.netns].enter(["ethtool", "-k", hop.dev]))
            link.offloads = {
                name: state == "on"
                for name, state in re.findall(r"^\t?([a-z0-9-]+): (on|off)", features, re.MULTILINE)
            }
