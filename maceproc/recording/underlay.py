"""Where a tunnel's packets leave: the device under a VXLAN, Geneve, IPIP or GRE device.

A tunnel device puts the packet into another one, in the same skb, and sends that to the tunnel's
other end, in the namespace in which the device was made. A container engine may have moved the
device elsewhere since, as Docker Swarm does with the VXLAN device of an overlay network.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any, NamedTuple

from maceproc.recording.ip_answers import ip_json, output
from maceproc.recording.sites import Netns


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
    printed = output(netns.enter(["bridge", "-json", "fdb", "show", "dev", name]))
    try:
        entries = json.loads(printed or "[]")
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)]
