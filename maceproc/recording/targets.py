"""Where the command runs: its namespace, and the devices a packet passes on the way out.

A `Site` says where: one namespace to run in, and the names of those around it. `survey` finds the
rest with ip(8), inside each namespace: links, addresses, routes, NAT, and the path from the
container's device over its veth peer and bridge to the outer device, as the kernel's own routing
tables decide it for the address in question.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from maceproc.capture import Hop, Link, Namespace, Target
from maceproc.errors import TargetError
from maceproc.recording.command import Command, parse_command
from maceproc.recording.engine_command import EngineCommand
from maceproc.recording.engines import (
    Container,
    EngineExec,
    EngineRun,
    ProgramOutside,
    find_container,
)
from maceproc.recording.lab import NETNS_DIR, Lab, is_complete
from maceproc.recording.lab_remote import spinning

SHARED_DEVICE_KINDS = ("macvlan", "macvtap", "ipvlan", "ipvtap")  # on top of the host's device

_NAT_RULE = re.compile(r"\b(MASQUERADE|SNAT|DNAT|NETMAP|REDIRECT|masquerade|snat|dnat)\b")
_SOURCE_NAT = re.compile(r"\b(MASQUERADE|SNAT|NETMAP|masquerade|snat)\b")
_COUNTERS = re.compile(r"\[\d+:\d+\]|counter packets \d+ bytes \d+")
_NAT_SOURCE = re.compile(r"(?<!! )(?:-s|saddr) ([0-9a-f.:]+(?:/\d+)?)(?: |$)")


class Entrance(Protocol):
    """A way to run commands somewhere else."""

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes `argv` there."""

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the pid that `argv` has, once it is started; None when that is not known."""

    def is_alive(self) -> bool:
        """Tell whether the place is still the one it was."""


@dataclass(frozen=True)
class Netns:
    """A network namespace: its name for people, and a file to enter it by.

    With `cpu`, what runs in it runs on that CPU alone.
    """

    name: str
    path: str
    cpu: int | None = None

    @property
    def inode(self) -> int:
        """The namespace's identity: two files with one inode are one namespace.

        Raises TargetError when it has ended, or may not be looked at.
        """
        try:
            return Path(self.path).stat().st_ino
        except OSError as error:
            raise TargetError(f"{self.name}: {self.path}: {error.strerror}") from error

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes `argv` in this namespace, as the same process."""
        pinned = [] if self.cpu is None else ["taskset", "--cpu-list", str(self.cpu)]
        return [*pinned, "nsenter", f"--net={self.path}", "--", *argv]

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the command's pid: nsenter becomes it."""
        return process.pid

    def is_alive(self) -> bool:
        """Tell whether the place is the one it was: what ended, nsenter says itself."""
        return True


class Launch(NamedTuple):
    """How containers are made for a recording: as was asked for, and on the host's network."""

    inside: EngineRun
    on_host: EngineRun


@dataclass(frozen=True)
class Site:
    """Where to run: a target by kind and name, its namespace, and others known by name.

    In a container the command is the container's own, unless `host_ping` asks for the host's. With
    `launch` every run has a container of its own; `container` is then one for a first look.
    """

    kind: Literal["lab", "netns", "pid", "host", "here", "container"]
    name: str
    inside: Netns
    around: tuple[Netns, ...] = ()
    container: Container | None = None
    host_ping: bool = False
    exec_options: tuple[str, ...] = ()
    launch: Launch | None = None

    @property
    def is_native(self) -> bool:
        """The command runs on the bare machine's network, as far as this site knows."""
        if self.container:
            here = Netns("host", f"/proc/{os.getpid()}/ns/net")
            return self.container.network == "host" or self.inside.inode == here.inode
        return self.kind in ("host", "here")

    @property
    def own_programs(self) -> Container | None:
        """The container whose programs are run; None when they are those of this machine."""
        return None if self.host_ping else self.container

    @property
    def first_entrance(self) -> EngineExec | Netns:
        """The way in for a first look, before anything is recorded."""
        return (
            EngineExec(self.own_programs, self.exec_options) if self.own_programs else self.inside
        )

    @property
    def entrance(self) -> Entrance:
        """The way in for what is recorded."""
        return self.launch.inside if self.launch else self.first_entrance

    def native_entrance(self, host: Netns) -> Entrance:
        """Return the way to run the same programs outside."""
        if self.launch:
            return self.launch.on_host
        return ProgramOutside(self.own_programs, host.path) if self.own_programs else host

    def end_first_look(self) -> None:
        """Remove a container that was only there to be looked at."""
        if self.launch:
            self.launch.inside.remove()


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
        The namespace that holds the outer device; None when no namespace is crossed.
    """

    target: Target
    namespaces: list[Namespace]
    host: Netns | None


def lab_site(lab: Lab) -> Site:
    """Return the site of a lab that is up; TargetError when it is not.

    Where its remote is a program, that has a CPU of its own: what is recorded runs on another one.
    """
    roles = lab.existing()
    if not is_complete(roles):
        raise TargetError(
            f"lab {lab.name!r} is not up", hint=f"run `maceproc lab up --name {lab.name}`"
        )
    with spinning(lab.remote_socket) as remote_cpu:
        cpu = None if remote_cpu is None else _other_cpu(remote_cpu)
    spaces = {role: Netns(role, str(NETNS_DIR / lab.netns(role)), cpu) for role in roles}
    inside = spaces.pop("container")
    return Site("lab", lab.name, inside, tuple(spaces.values()))


def _other_cpu(taken: int) -> int | None:
    """Return a CPU that is not taken; None when there is no other."""
    return min(os.sched_getaffinity(0) - {taken}, default=None)


def netns_site(name: str) -> Site:
    """Return the site of a namespace by its ip-netns(8) name, or by a file such as an nsfs mount.

    Raises TargetError when there is none.
    """
    path = Path(name) if "/" in name else NETNS_DIR / name
    if not path.exists():
        raise TargetError(f"no network namespace {name!r}", hint="`ip netns list` shows them")
    return Site("netns", name, Netns(path.name, str(path)))


def pid_site(pid: int) -> Site:
    """Return the site of a process's network namespace; TargetError when there is no such one."""
    path = Path(f"/proc/{pid}/ns/net")
    if not path.exists():
        raise TargetError(f"no process {pid}", hint="`ps` shows them")
    return Site("pid", str(pid), Netns(f"pid {pid}", str(path)))


def container_site(name: str, *, host_ping: bool = False) -> Site:
    """Return the site of a running container, by its name or id.

    Raises TargetError when no engine has it, or it does not run.
    """
    container = find_container(name)
    inside = Netns(container.name, str(container.netns))
    return Site("container", container.name, inside, container=container, host_ping=host_ping)


@contextmanager
def engine_site(command: EngineCommand) -> Iterator[tuple[Site, Command]]:
    """Give the site of a ``docker run`` or ``exec``, and the command that runs there.

    Of a run, a container is started for a first look: `Site.end_first_look` removes it.
    Raises TargetError and CommandError.
    """
    if command.verb == "exec":
        container = find_container(command.place, (command.engine,))
        inside = Netns(container.name, str(container.netns))
        options = tuple(command.words())
        argv = parse_command([*command.argv])
        yield (
            Site("container", container.name, inside, container=container, exec_options=options),
            argv,
        )
        return
    launch = _launch(command)
    whole = launch.inside.whole_command([*command.argv], command.value("entrypoint"))
    parsed = parse_command(whole)
    try:
        container = launch.inside.start(_to_look_at(parsed))
        inside = Netns(_label(command), str(container.netns))
        yield Site("container", inside.name, inside, container=container, launch=launch), parsed
    finally:
        launch.inside.remove()
        launch.on_host.remove()


def _launch(command: EngineCommand) -> Launch:
    engine, image = command.engine, command.place
    on_host = ("--network", "host", *command.words_on_host_network())
    return Launch(
        EngineRun(engine, image, tuple(command.words())), EngineRun(engine, image, on_host)
    )


def _to_look_at(command: Command) -> list[str]:
    """Return a command that lasts long enough for its container to be looked at."""
    if command.is_ping and command.destination:
        return command.probe(command.destination, count=60)
    return list(command.argv)


def _label(command: EngineCommand) -> str:
    """Return a name for people: that which was asked for, or the image's."""
    return command.value("name") or command.place.rpartition("/")[2].partition(":")[0]


def here_site(kind: Literal["host", "here"] = "here") -> Site:
    """Return the site where maceproc itself runs; ``host`` when the user said so."""
    return Site(kind, "", Netns("host", f"/proc/{os.getpid()}/ns/net"))


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
    _read_offloads(explorer, target.path)
    return Survey(target, explorer.all_described(), host)


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
            links = _ip(netns, "-details", "link", "show")
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
        if there not in self.known:
            while there.name in (netns.name for netns in self.known):
                there = Netns(f"{there.name}'", there.path)  # a container may be called "host"
            self.known.append(there)
        links = self.describe(there).links
        return next(((there, far) for far in links if far.ifindex == link.peer_ifindex), None)

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
    return host if _append_outer(explorer, target, host, bridge or link, outer) else None


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
            routes = _ip(netns, family, "route", "show", "default")
            if routes:
                return str(routes[0].get("dev", ""))
        return ""
    try:
        return str(_ip(netns, "route", "get", address, *packet)[0].get("dev", ""))
    except TargetError:  # the network is unreachable, or the host does not forward such a packet
        return _route_device(netns, address) if packet else ""


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
            for device in _ip(netns, "address", "show")
            if device.get("addr_info")
        },
        routes=[
            line.strip()
            for family in ("-4", "-6")
            for line in _output(netns.enter(["ip", family, "route", "show"])).splitlines()
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
            for line in _output(netns.enter(argv)).splitlines()
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
    return any(ip in ipaddress.ip_network(network[1], strict=False) for ip in sources)


def _read_offloads(explorer: _Explorer, path: list[Hop]) -> None:
    """Add the offloads of the devices on the path, where ethtool(8) is there to tell."""
    if not shutil.which("ethtool"):
        return
    by_name = {netns.name: netns for netns in explorer.known}
    for hop in path:
        link = explorer.link(by_name[hop.netns], hop.dev)
        if link is not None:
            features = _output(by_name[hop.netns].enter(["ethtool", "-k", hop.dev]))
            link.offloads = {
                name: state == "on"
                for name, state in re.findall(r"^\t?([a-z0-9-]+): (on|off)", features, re.MULTILINE)
            }


def _nsids(netns: Netns) -> dict[int, int]:
    """Return the ids a namespace gives to others: nsid -> inode.

    `ip netns` knows the named ones, lsns(8) those that a process is in.
    """
    ids = {}
    for entry in _ip(netns, "netns", "list-id"):
        path = NETNS_DIR / entry.get("name", "")
        if entry.get("name") and path.exists():
            ids[int(entry["nsid"])] = path.stat().st_ino
    listed = _output(netns.enter(["lsns", "--type=net", "--json", "--output=NS,NETNSID"]))
    for entry in json.loads(listed or "{}").get("namespaces", []):
        if str(entry["netnsid"]).isdigit():
            ids[int(entry["netnsid"])] = int(entry["ns"])
    return ids


def _all_netns() -> Iterator[Netns]:
    """Yield every namespace that can be entered: our own and the machine's first, named "host"."""
    own, first = Path(f"/proc/{os.getpid()}/ns/net"), Path("/proc/1/ns/net")
    for path in (own, first, *sorted(NETNS_DIR.glob("*")), *Path("/proc").glob("[1-9]*/ns/net")):
        name = path.name if path.parent == NETNS_DIR else f"pid {path.parts[2]}"
        netns = Netns("host" if path in (own, first) else name, str(path))
        try:
            _ = netns.inode
        except TargetError:
            continue
        yield netns


def _ip(netns: Netns, *arguments: str) -> list[dict[str, Any]]:
    """Run ``ip -json`` in a namespace; TargetError with its own words when it fails."""
    argv = netns.enter(["ip", "-json", *arguments])
    done = _run(argv)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TargetError(f"{netns.name}: {' '.join(argv[3:])}: {said}")
    return [entry for entry in json.loads(done.stdout or "[]") if entry]


def _output(argv: list[str]) -> str:
    """Return what a program prints; nothing when it fails: then its knowledge is missing."""
    done = _run(argv)
    return done.stdout if done.returncode == 0 else ""


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise TargetError(
            f"{argv[0]}: not found", hint="install util-linux and iproute2"
        ) from error
