"""Where a tunnel's packets leave: the device under a VXLAN, Geneve, IPIP or GRE device.

A tunnel device puts the packet into another one, in the same skb, and sends that to the tunnel's
other end, in the namespace in which the device was made. A container engine may have moved the
device elsewhere since, as Docker Swarm does with the VXLAN device of an overlay network.
"""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

from maceproc.capture import Link, PathDevice, Target
from maceproc.errors import TargetError
from maceproc.recording.explorer import Explorer, route_device
from maceproc.recording.ip_answers import ip_json, printed_json
from maceproc.recording.sites import Netns
from maceproc.uplinks import TUNNELS

MOST_TUNNELS = 4  # nested in one another
ENCRYPTING = ("wireguard", "xfrm")


class Tunnel(NamedTuple):
    """What a tunnel device says of itself."""

    remotes: list[str]  # addresses of its other ends; empty when none is known
    dev: str  # the device it is bound to; empty when routes decide


def read_tunnel(netns: Netns, name: str) -> Tunnel:
    """Return the other ends of a tunnel device, and the device that it is bound to.

    The other ends of a VXLAN device without a fixed one are in its forwarding table.
    """
    answer = ip_json(netns, "-details", "link", "show", "dev", name)
    data: dict[str, Any] = answer[0].get("linkinfo", {}).get("info_data", {}) if answer else {}
    remotes = [data[key] for key in ("remote", "remote6", "group", "group6") if key in data]
    remotes = [address for address in remotes if is_one_end(address)]
    if not remotes:
        remotes = [entry["dst"] for entry in forwarding_table(netns, name) if "dst" in entry]
    known = dict.fromkeys(address for address in remotes if is_one_end(address))
    return Tunnel(list(known), str(data.get("link", "")))


def is_one_end(address: object) -> bool:
    """Tell whether this is the address of a machine; not "any", and not 0.0.0.0."""
    try:
        return not ipaddress.ip_address(str(address)).is_unspecified
    except ValueError:
        return False


def forwarding_table(netns: Netns, name: str) -> list[dict[str, Any]]:
    """Return the entries of a device's forwarding table, as ``bridge fdb`` shows them."""
    if name.startswith("-"):
        return []
    return printed_json(netns.enter(["bridge", "-json", "fdb", "show", "dev", name]))


def append_underlays(explorer: Explorer, target: Target) -> None:
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
        if tunnel.kind == "tun" and target.kind != "lab":  # a lab's remote is such a program
            target.notes.append(
                f"{hop} hands packets to a program (tun): they are followed up to that device and "
                "from it; what the program takes stays in the corrected RTTs"
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


def _underlay(explorer: Explorer, netns: Netns, tunnel: Link) -> PathDevice | None:
    """Return the device by which a tunnel's packets leave the namespace that it was made in."""
    there = explorer.origin(netns, tunnel)
    if there is None:
        return None
    known = read_tunnel(netns, tunnel.name)
    if known.dev and explorer.link(there, known.dev):
        return PathDevice(netns=there.name, dev=known.dev)
    devices = {route_device(there, address) for address in known.remotes} - {"", "lo"}
    return PathDevice(netns=there.name, dev=devices.pop()) if len(devices) == 1 else None


def passes_tunnel(explorer: Explorer, target: Target) -> bool:
    """Tell whether the path leads through a tunnel, to the device under it."""
    links = [explorer.link(explorer.named(hop.netns), hop.dev) for hop in target.path[1:-1]]
    return any(link is not None and link.kind in TUNNELS for link in links)


def port_out(explorer: Explorer, target: Target, host: Netns, bridge: Link) -> Link | None:
    """Return the port by which a bridge sends packets to another machine, past the host.

    A bridge does so if the container's next hop is no address of the host. None where the next hop
    is the host, or where several ports are possible; ports that are veths lead to other containers.
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
