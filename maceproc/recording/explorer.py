"""What is in the network namespaces around a site: devices, addresses, routes, NAT.

ip(8) and similar programs tell all of it; each is run once inside each namespace.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maceproc.capture import Link, Namespace
from maceproc.errors import TargetError
from maceproc.recording.ip_answers import ip_json, lines, output
from maceproc.recording.lab import NETNS_DIR
from maceproc.recording.sites import Netns, plain_name

_NAT_RULE = re.compile(r"\b(MASQUERADE|SNAT|DNAT|NETMAP|REDIRECT|masquerade|snat|dnat)\b")
_COUNTERS = re.compile(r"\[\d+:\d+\]|counter packets \d+ bytes \d+")


def list_links(netns: Netns) -> list[Link]:
    """Return the devices of a namespace; TargetError when it has ended or may not be looked at."""
    links = ip_json(netns, "-details", "link", "show")
    ifindex_of = {link["ifname"]: link["ifindex"] for link in links}
    return [_link(link, ifindex_of) for link in links]


class Explorer:
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


def _describe(netns: Netns, links: list[dict[str, Any]]) -> Namespace:
    """Describe a namespace from what ip(8) says of it."""
    ifindex_of = {link["ifname"]: link["ifindex"] for link in links}
    rulesets = _rulesets(netns)
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
        nat=_nat_rules(rulesets),
        rules=_digest(rulesets),
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


def _rulesets(netns: Netns) -> list[list[str]]:
    """Return the netfilter rules of a namespace, as iptables prints them and as nft does.

    ``iptables -t nat -S`` would load the nat table where there is none, and slow every packet
    down; ``iptables-save`` and ``nft list`` only show what is there.
    """
    programs = (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"])
    return [
        [
            line.strip()
            for argv in group
            if shutil.which(argv[0])
            for line in lines(netns.enter(argv))
            if not line.startswith("#")
        ]
        for group in (programs[:2], programs[2:])
    ]


def _nat_rules(rulesets: list[list[str]]) -> list[str]:
    """Return the rules that translate addresses: iptables' words for them, else nft's."""
    found = ([rule for rule in rules if _NAT_RULE.search(rule)] for rules in rulesets)
    return next((rules for rules in found if rules), [])


def _digest(rulesets: list[list[str]]) -> str:
    """Return a digest of rules that does not change with their counters."""
    lines = [_COUNTERS.sub("", line) for rules in rulesets for line in rules]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


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


def route_device(netns: Netns, address: str, *packet: str) -> str:
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
        return route_device(netns, address) if packet else ""
