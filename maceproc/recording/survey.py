"""The devices a packet passes on its way out of a site, and the namespaces that they are in.

`survey` finds them with ip(8), inside each namespace: links, addresses, routes, NAT, and the path
from the container's device over its veth peer and bridge to the outer device, as the kernel's own
routing tables decide it for the address in question.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maceproc.capture import Hop, Link, Namespace, Target
from maceproc.errors import TargetError
from maceproc.recording.ip_answers import ip_json, lines, output
from maceproc.recording.lab import NETNS_DIR
from maceproc.recording.sites import Netns, Site, here_site, plain_name
from maceproc.recording.underlay import read_tunnel
from maceproc.uplinks import TUNNELS, devices_below

MOST_TUNNELS = 4  # one in another
ENCRYPTING = ("wireguard", "xfrm", "macsec", "tun")
SHARED_DEVICE_KINDS = ("macvlan", "macvtap", "ipvlan", "ipvtap")  # on top of the host's device

_NAT_RULE = re.compile(r"\b(MASQUERADE|SNAT|DNAT|NETMAP|REDIRECT|masquerade|snat|dnat)\b")
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
        What is sent to; empty when unknown: then the default route decides.
    outer
        The outer device by name, when the user knows better than the host's routes.

    Raises TargetError when the namespace cannot be read or `outer` is not a device there.
    """
    explorer = _Explorer([site.inside, *site.around])
    target = Target(kind=site.kind, name=site.name, address=address)
    host = _find_path(explorer, site, target, outer)
    target.crossing = host is not None and not _is_shared(explorer, site.inside, target)
    target.nat = host is not None and _translates(explorer, site.inside, host)
    described = explorer.all_described()
    if target.path and target.crossing:
        target.below = devices_below(described, target.path[-1], target.path)
    _read_offloads(explorer, [*target.path, *target.below])
    if _passes_tunnel(explorer, target):
        host = None  # a native ping would not leave by the same device
    return Survey(target, described, host)


class _Explorer:
    """The namespaces known so far, each described when it is first asked for."""

    def __init__(self, known: list[Netns]) -> None:
        self.known = known
        self._described: dict[int, Namespace] = {}
        self._peer_nsids: dict[int, dict[int, int]] = {}  # inode -> ifindex -> peer's nsid
        self._nsids: dict[int, dict[int, int]] = {}  # inode -> nsid -> that one's inode

    def describe(self, netns: Netns) -> Namespace:
        """Return a namespace's description."""
        inode = netns.inode
        if inode not in self._described:
            links = ip_json(netns, "-details", "link", "show")
            self._peer_nsids[inode] = {
                link["ifindex"]: link["link_netnsid"] for link in links if "link_netnsid" in link
            }
            self._nsids[inode] = _nsids(netns)
            self._described[inode] = _describe(netns, links)
        return self._described[inode]

    def all_described(self) -> list[Namespace]:
        """Describe every known namespace, and name those where their devices have a peer."""
        described = [self.describe(netns) for netns in self.known]
        for netns, namespace in zip(self.known, described, strict=True):
            for link in namespace.links:
                there = self._peer_netns(netns, link, self.known)
                link.peer_netns = there.name if there and link.peer_ifindex else None
        return described

    def link(self, netns: Netns, name: str) -> Link | None:
        """Return a device by its name."""
        return next((link for link in self.describe(netns).links if link.name == name), None)

    def peer(self, netns: Netns, link: Link) -> tuple[Netns, Link] | None:
        """Return the other end of a veth, or the parent of a macvlan, and where it is."""
        there = self._peer_netns(netns, link, [*self.known, *_all_netns()])
        if there is None:
            return None
        there = self._made_known(there)
        links = self.describe(there).links
        return next(((there, far) for far in links if far.ifindex == link.peer_ifindex), None)

    def named(self, name: str) -> Netns:
        """Return a known namespace by its name."""
        return next(netns for netns in self.known if netns.name == name)

    def origin(self, netns: Netns, link: Link) -> Netns | None:
        """Return the namespace that a tunnel device was made in, and make it known."""
        there = self._peer_netns(netns, link, [*self.known, *_all_netns()])
        return None if there is None else self._made_known(there)

    def _made_known(self, there: Netns) -> Netns:
        """Add a namespace to the known ones, under a name of its own; return the known one."""
        for known in self.known:
            if known.inode == there.inode:
                return known
        while there.name in (netns.name for netns in self.known):
            there = Netns(f"{there.name}'", there.path)  # a container may be called "host"
        self.known.append(there)
        return there

    def _peer_netns(self, netns: Netns, link: Link, among: Iterable[Netns]) -> Netns | None:
        self.describe(netns)
        nsid = self._peer_nsids[netns.inode].get(link.ifindex)
        if nsid is None:  # no nsid: the peer is in the same namespace
            return netns
        inode = self._nsids[netns.inode].get(nsid)
        return next((other for other in among if other.inode == inode), None)


def _find_path(explorer: _Explorer, site: Site, target: Target, outer: str) -> Netns | None:
    """Fill in the target's path and notes; return the namespace of the outer device, if another."""
    inner = _outgoing_link(explorer, site.inside, target)
    if inner is None:
        return None
    target.path.append(Hop(netns=site.inside.name, dev=inner.name))
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
    target.path.append(Hop(netns=host.name, dev=link.name))
    bridge = explorer.link(host, link.master) if link.master else None
    if bridge:
        target.path.append(Hop(netns=host.name, dev=bridge.name))
    if not _append_outer(explorer, target, host, bridge or link, outer):
        return None
    if not outer:
        _append_underlays(explorer, target)
    return host


def _append_underlays(explorer: _Explorer, target: Target) -> None:
    """Go on from a tunnel device to the device that its packets leave by, and say what that means.

    A path that ends with a device that encrypts stays as it is: that makes another packet.
    """
    for _ in range(MOST_TUNNELS):
        hop = target.path[-1]
        netns = explorer.named(hop.netns)
        tunnel = explorer.link(netns, hop.dev)
        if tunnel is None:
            return
        if tunnel.kind in ENCRYPTING:
            target.notes.append(
                f"{hop} encrypts ({tunnel.kind}), on another CPU: packets are followed up to that "
                "device and from it; what encryption takes stays in the corrected RTTs"
            )
        if tunnel.kind not in TUNNELS:
            return
        found = _underlay(explorer, netns, tunnel)
        if found is None or found in target.path:
            target.notes.append(
                f"{hop} is a tunnel ({tunnel.kind}), and which device its packets leave by cannot "
                "be seen: the path ends there, encapsulation stays in the corrected RTTs"
            )
            return
        target.path.append(found)
        target.notes.append(
            f"{hop} is a tunnel ({tunnel.kind}) over {found}: the crossings include encapsulation "
            "and its undoing; the steps of the crossing show them apart"
        )


def _underlay(explorer: _Explorer, netns: Netns, tunnel: Link) -> Hop | None:
    """Return the device by which a tunnel's packets leave the namespace that it was made in."""
    there = explorer.origin(netns, tunnel)
    if there is None:
        return None
    known = read_tunnel(netns, tunnel.name)
    if known.dev and explorer.link(there, known.dev):
        return Hop(netns=there.name, dev=known.dev)
    devices = {_route_device(there, address) for address in known.remotes} - {"", "lo"}
    return Hop(netns=there.name, dev=devices.pop()) if len(devices) == 1 else None


def _passes_tunnel(explorer: _Explorer, target: Target) -> bool:
    """Tell whether the path leads through a tunnel, to the device under it."""
    links = [explorer.link(explorer.named(hop.netns), hop.dev) for hop in target.path[1:-1]]
    return any(link is not None and link.kind in TUNNELS for link in links)


def _is_shared(explorer: _Explorer, inside: Netns, target: Target) -> bool:
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


def _outgoing_link(explorer: _Explorer, netns: Netns, target: Target) -> Link | None:
    """Return the device by which packets to the target leave a namespace."""
    dev = _route_device(netns, target.address)
    link = explorer.link(netns, dev) if dev else None
    if link is None:
        target.notes.append(f"{netns.name} has no route to {target.address or 'the outside'}")
    return link


def _append_outer(
    explorer: _Explorer, target: Target, host: Netns, incoming: Link, outer: str
) -> bool:
    """Append the outer device, named or chosen by the host's routes; tell whether there is one."""
    if outer and explorer.link(host, outer) is None:
        names = ", ".join(link.name for link in explorer.describe(host).links)
        raise TargetError(f"no device {outer!r} in {host.name}", hint=f"it has {names}")
    port = None if outer else _port_out(explorer, target, host, incoming)
    if port is not None:
        target.path.append(Hop(netns=host.name, dev=port.name))
        return True
    source = _source_address(explorer.describe(explorer.known[0]), target)
    packet = ["from", source, "iif", incoming.name] if source else []
    dev = outer or _route_device(host, target.address, *packet)
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
        target.path.append(Hop(netns=host.name, dev=dev))
    return True


def _port_out(explorer: _Explorer, target: Target, host: Netns, bridge: Link) -> Link | None:
    """Return the port by which a bridge sends on what is for another machine, not for the host.

    That is so if the container's next hop is no address of the host's. None where that is not so,
    or where several ports may be meant; ports that are veths lead to other containers.
    """
    if bridge.kind != "bridge":
        return None
    next_hop = _next_hop(explorer.known[0], target.address)
    own = {
        address.partition("/")[0]
        for addresses in explorer.describe(host).addresses.values()
        for address in addresses
    }
    ports = [
        link
        for link in explorer.describe(host).links
        if link.master == bridge.name and link.kind not in ("veth", "tun")
    ]
    return ports[0] if next_hop and next_hop not in own and len(ports) == 1 else None


def _next_hop(netns: Netns, address: str) -> str:
    """Return the address that packets are handed to on the link: a gateway, or the target itself.

    Empty where the routes do not tell.
    """
    if not address:
        routes = ip_json(netns, "-4", "route", "show", "default")
        return str(routes[0].get("gateway", "")) if routes else ""
    try:
        route = ip_json(netns, "route", "get", address)[0]
    except (TargetError, IndexError):
        return ""
    via = route.get("via", {})
    return str(route.get("gateway") or via.get("host") or address)


def _source_address(inside: Namespace, target: Target) -> str:
    """Return the inner device's address of the target's family; empty when there is none."""
    for address in inside.addresses.get(target.path[0].dev, []):
        ip = ipaddress.ip_interface(address).ip
        if (ip.version == 6) == (":" in target.address) and not ip.is_link_local:
            return str(ip)
    return ""


def _route_device(netns: Netns, address: str, *packet: str) -> str:
    """Return the device that a namespace's routes choose for an address; without one, the default.

    `packet` tells more of the packet, as ``ip route get`` takes it: ``from ADDRESS iif DEV``.
    """
    if not address:
        for family in ("-4", "-6"):
            routes = ip_json(netns, family, "route", "show", "default")
            if routes:
                return str(routes[0].get("dev", ""))
        return ""
    try:
        return str(ip_json(netns, "route", "get", address, *packet)[0].get("dev", ""))
    except TargetError:  # the network is unreachable, or the host does not forward such a packet
        return _route_device(netns, address) if packet else ""


def _describe(netns: Netns, links: list[dict[str, Any]]) -> Namespace:
    """Describe a namespace from what ip(8) says of it."""
    ifindex_of = {link["ifname"]: link["ifindex"] for link in links}
    return Namespace(
        name=netns.name,
        inode=netns.inode,
        links=[_link(link, ifindex_of) for link in links],
        addresses={
            device["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in device["addr_info"]]
            for device in ip_json(netns, "address", "show")
            if device.get("addr_info")
        },
        routes=[
            line.strip()
            for family in ("-4", "-6")
            for line in lines(netns.enter(["ip", family, "route", "show"]))
        ],
        nat=_nat_rules(netns),
    )


def _link(link: dict[str, Any], ifindex_of: dict[str, int]) -> Link:
    """Turn one object of ``ip -json -details link`` into a Link."""
    # iproute2 prints IFLA_LINK as `link`, a name, when that device is in the same namespace, and
    # as `link_index` when it is in another one.
    peer = ifindex_of.get(link["link"]) if "link" in link else link.get("link_index")
    return Link(
        ifindex=link["ifindex"],
        name=link["ifname"],
        kind=link.get("linkinfo", {}).get("info_kind", ""),
        address=link.get("address", ""),
        mtu=link.get("mtu", 0),
        qdisc=link.get("qdisc", ""),
        operstate=link.get("operstate", ""),
        peer_ifindex=peer,
        master=link.get("master"),
    )


def _nat_rules(netns: Netns) -> list[str]:
    """Return the rules of a namespace that translate addresses.

    ``iptables -t nat -S`` would load the nat table where there is none, and slow every packet
    down; ``iptables-save`` and ``nft list`` only show what is there.
    """
    programs = (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"])
    for group in (programs[:2], programs[2:]):
        rules = [
            line.strip()
            for argv in group
            if shutil.which(argv[0])
            for line in lines(netns.enter(argv))
            if _NAT_RULE.search(line) and not line.startswith("#")
        ]
        if rules:
            return rules
    return []


def _translates(explorer: _Explorer, inside: Netns, host: Netns) -> bool:
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
    """Tell whether a rule may apply to packets from one of these; yes when it names no source."""
    network = _NAT_SOURCE.search(rule)
    if network is None:
        return True
    try:
        covered = ipaddress.ip_network(network[1], strict=False)
    except ValueError:  # words of a comment, which may be anybody's
        return True
    return any(ip in covered for ip in sources)


def _read_offloads(explorer: _Explorer, path: list[Hop]) -> None:
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


def _nsids(netns: Netns) -> dict[int, int]:
    """Return the ids a namespace gives to others: nsid -> inode.

    `ip netns` knows the named ones, lsns(8) those that a process is in.
    """
    ids = {}
    for entry in ip_json(netns, "netns", "list-id"):
        path = NETNS_DIR / entry.get("name", "")
        if entry.get("name") and path.exists():
            ids[int(entry["nsid"])] = path.stat().st_ino
    listed = output(netns.enter(["lsns", "--type=net", "--json", "--output=NS,NETNSID"]))
    for entry in json.loads(listed or "{}").get("namespaces", []):
        if str(entry["netnsid"]).isdigit():
            ids[int(entry["netnsid"])] = int(entry["ns"])
    return ids


def _all_netns() -> Iterator[Netns]:
    """Yield every namespace that can be entered: our own and the machine's first, named "host"."""
    own, first = Path(f"/proc/{os.getpid()}/ns/net"), Path("/proc/1/ns/net")
    for path in (own, first, *sorted(NETNS_DIR.glob("*")), *Path("/proc").glob("[1-9]*/ns/net")):
        name = plain_name(path.name) if path.parent == NETNS_DIR else f"pid {path.parts[2]}"
        netns = Netns("host" if path in (own, first) else name, str(path))
        try:
            _ = netns.inode
        except TargetError:
            continue
        yield netns
