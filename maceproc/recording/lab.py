"""A network made of namespaces, so that nobody needs Docker to try maceproc.

    container            host                                 remote
    eth0 ------------- veth... - br0 - (MASQUERADE) - eth0 --- wire0
    172.17.0.2               172.17.0.1          192.0.2.1     192.0.2.2

It is laid out as Docker lays out its default bridge, with more containers on the bridge if wanted.
The host is a namespace too: nothing in the machine's own namespace, firewall or sysctls changes.
Container and host both have an eth0 on purpose: a name does not tell the namespace. The remote has
no eth0: no event of another machine would be seen, either. The host end of a veth has a name of its
own in every lab, as in Docker: events do not say in which namespace they are.

Without NAT the remote has a route to the containers, and the host has no netfilter rules at all.
The difference between two such labs is the cost of these rules, also for the host's own pings.

The remote can be a program instead, behind a tap device: `maceproc.recording.lab_remote`. That is
the nearest to another machine that one machine can have, and what the command line makes where
there are two CPUs or more: one for the remote, which spins while a recording runs, and one for the
ping.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from maceproc.errors import LabError
from maceproc.recording.owners import OWNER, has_ended, owner_name

LOG = logging.getLogger("maceproc")

DEFAULT_NAME = "maceproc"
RemoteKind = Literal["kernel", "program"]
"""What answers in a lab: this kernel's own stack, or a program behind a tap device."""

RUN_DIR = Path("/run")  # has the sockets of remotes that are programs
NETNS_DIR = Path("/run/netns")  # where `ip netns` keeps named namespaces, ip-netns(8)
MAX_CONTAINERS = 200  # the addresses .2 to .201

BRIDGE = "br0"
REMOTE_IPV4 = "192.0.2.2"
WIRE = "wire0"  # the remote's end
REMOTE_IPV6 = "fd6d:6163:6500:2::2"
# The remote has a second address of each family: another target on the same path.
SECOND_IPV4, SECOND_IPV6 = "192.0.2.3", "fd6d:6163:6500:2::3"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OWNED = re.compile(rf"{DEFAULT_NAME}-({OWNER})-[0-9a-f]{{4}}")
_ROLE = re.compile(r"container([2-9]|[1-9]\d+)?|host|remote")

# Addresses need no duplicate address detection here: nodad makes IPv6 usable at once.
_CONTAINER_LINK = "link add eth0 netns {lab}-{role} type veth peer name {port} netns {lab}-host\n"
_WIRE_LINK = "link add eth0 netns {lab}-host type veth peer name wire0 netns {lab}-remote\n"
_CONTAINER = """\
link set lo up
link set eth0 up
addr add 172.17.0.{address}/16 dev eth0
addr add fd6d:6163:6500:17::{address}/64 dev eth0 nodad
route add default via 172.17.0.1
route add default via fd6d:6163:6500:17::1
"""
_HOST = """\
link set lo up
link add br0 type bridge
link set br0 up
link set eth0 up
addr add 172.17.0.1/16 dev br0
addr add fd6d:6163:6500:17::1/64 dev br0 nodad
addr add 192.0.2.1/24 dev eth0
addr add fd6d:6163:6500:2::1/64 dev eth0 nodad
"""
_HOST_PORT = """\
link set {port} master br0
link set {port} up
"""
_REMOTE = """\
link set lo up
link set wire0 up
addr add 192.0.2.2/24 dev wire0
addr add 192.0.2.3/24 dev wire0
addr add fd6d:6163:6500:2::2/64 dev wire0 nodad
addr add fd6d:6163:6500:2::3/64 dev wire0 nodad
"""
_WAY_BACK = """\
route add 172.17.0.0/16 via 192.0.2.1
route add fd6d:6163:6500:17::/64 via fd6d:6163:6500:2::1
"""
# A forwarded packet is not the host's: it asks for the neighbour from its link-local address.
_LINK_LOCAL = "addr add fe80::1/64 dev eth0 nodad\n"
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
# As Docker writes it: what leaves the bridge's network by another device takes that one's address.
_MASQUERADE = (
    ("iptables", "172.17.0.0/16"),
    ("ip6tables", "fd6d:6163:6500:17::/64"),
)


@dataclass(frozen=True)
class Lab:
    """A lab by name; as a context manager it is up inside the ``with`` block.

    >>> with Lab() as lab:
    ...     subprocess.run(["ip", "netns", "exec", lab.netns("container"), "ping", "192.0.2.2"])
    """

    name: str = ""
    containers: int = 1
    nat: bool = True
    remote: RemoteKind = "kernel"

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(
                self, "name", f"{DEFAULT_NAME}-{owner_name()}-{secrets.token_hex(2)}"
            )
        if not _NAME.fullmatch(self.name):
            raise LabError(f"lab name {self.name!r}", hint="use letters, digits, '-', '_' and '.'")
        if not 1 <= self.containers <= MAX_CONTAINERS:
            raise LabError(f"{self.containers} containers", hint=f"ask for 1 to {MAX_CONTAINERS}")

    def __enter__(self) -> Lab:
        remove_stale_labs()
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def netns(self, role: str) -> str:
        """Return the namespace's name: role ``container``, ``container2``, ``host``, ``remote``."""
        return f"{self.name}-{role}"

    def port(self, number: int) -> str:
        """Return the name of a container's port on the bridge; containers count from 1."""
        return f"veth{zlib.crc32(self.name.encode()) & 0xFFFF:04x}{number}"

    @property
    def remote_socket(self) -> Path:
        """Where the remote listens, if it is a program: see `maceproc.recording.lab_remote`."""
        return RUN_DIR / f"{self.name}-remote.{DEFAULT_NAME}"

    @property
    def roles(self) -> list[str]:
        """The namespaces this lab is made of, containers first."""
        return [role for _, role in self._containers()] + ["host", "remote"]

    def existing(self) -> list[str]:
        """Return the roles whose namespace exists now, whoever brought them up."""
        names = (path.name for path in NETNS_DIR.glob(f"{self.name}-*"))
        roles = (name.removeprefix(f"{self.name}-") for name in names)
        return sorted(role for role in roles if _ROLE.fullmatch(role))

    def up(self) -> None:
        """Bring the lab up; a half-made one of that name is removed first.

        Raises LabError when it is up already or cannot be made; then nothing of it is left.
        """
        existing = self.existing()
        if is_complete(existing):
            raise LabError(
                f"lab {self.name!r} is up already",
                hint=f"use it, or `maceproc lab down --name {self.name}` first",
            )
        if existing:
            self.down()
        try:
            self._create()
        except BaseException:
            self.down()
            raise

    def down(self) -> list[str]:
        """Remove the lab, whole or in part; return the roles removed (none: it was not up).

        A process that still runs in a namespace keeps it, unnamed, until it ends.
        """
        removed = self.existing()
        for role in removed:
            _run(["ip", "netns", "delete", self.netns(role)])
        self.remote_socket.unlink(missing_ok=True)
        return removed

    def _containers(self) -> Iterator[tuple[int, str]]:
        for n in range(1, self.containers + 1):
            yield n, "container" if n == 1 else f"container{n}"

    def _create(self) -> None:
        for role in self.roles:
            _run(["ip", "netns", "add", self.netns(role)])
        for n, role in self._containers():
            _batch([], _CONTAINER_LINK.format(lab=self.name, role=role, port=self.port(n)))
        if self.remote == "program":
            self._start_remote()
        else:
            _batch([], _WIRE_LINK.format(lab=self.name))
            _batch(["-n", self.netns("remote")], _REMOTE + ("" if self.nat else _WAY_BACK))
        ports = "".join(_HOST_PORT.format(port=self.port(n)) for n, _ in self._containers())
        _batch(["-n", self.netns("host")], _HOST + ports + ("" if self.nat else _LINK_LOCAL))
        for n, role in self._containers():
            _batch(["-n", self.netns(role)], _CONTAINER.format(address=n + 1))
        self._forward()

    def _start_remote(self) -> None:
        """Start the program that is the remote, and give the host its tap device as eth0."""
        program = [sys.executable, "-P", "-m", "maceproc.recording.lab_remote", WIRE]
        cpu = str(max(os.sched_getaffinity(0)))
        _run([*self._inside("remote"), *program, cpu, str(self.remote_socket)])
        moved = ["set", WIRE, "netns", self.netns("host"), "name", "eth0"]
        _run(["ip", "-n", self.netns("remote"), "link", *moved])

    def _inside(self, role: str) -> list[str]:
        return ["nsenter", f"--net={NETNS_DIR / self.netns(role)}", "--"]

    def _forward(self) -> None:
        inside_host = self._inside("host")
        # /proc/sys/net shows the namespace of the process that looks.
        settings = "".join(f"echo 1 > /proc/sys/{path};" for path in _FORWARDING)
        _run([*inside_host, "sh", "-ec", settings])
        for program, source in _MASQUERADE if self.nat else ():
            rule = f"-t nat -A POSTROUTING -s {source} ! -o {BRIDGE} -j MASQUERADE"
            _run([*inside_host, program, "-w", *rule.split()])


def is_temporary(name: str) -> bool:
    """Tell whether a lab is one without a name of its own: up as long as its process."""
    return _OWNED.fullmatch(name) is not None


def usual_remote() -> RemoteKind:
    """Return what can be the remote here: a program needs a CPU of its own, and a tap device."""
    own_cpu = len(os.sched_getaffinity(0)) > 1
    return "program" if own_cpu and Path("/dev/net/tun").exists() else "kernel"


def is_complete(roles: list[str]) -> bool:
    """Tell whether these roles make a lab: a container, the host and the remote."""
    return {"container", "host", "remote"} <= set(roles)


def labs() -> dict[str, list[str]]:
    """Return every lab on this machine, whole or in part: its name and the roles that exist."""
    found: dict[str, list[str]] = {}
    for path in sorted(NETNS_DIR.glob("*-*")):
        name, _, role = path.name.rpartition("-")
        if _ROLE.fullmatch(role):
            found.setdefault(name, []).append(role)
    return found


def stale_labs() -> list[str]:
    """Return the labs without a name of their own whose process was killed."""
    return [name for name in labs() if (owner := _OWNED.fullmatch(name)) and has_ended(owner[1])]


def remove_stale_labs() -> list[str]:
    """Remove the labs without a name of their own whose process was killed; return their names."""
    stale = stale_labs()
    for name in stale:
        Lab(name).down()
    return stale


PROGRAMS = ("ip", "nsenter", "iptables", "ip6tables")
"""What a lab is made with; a lab with ``--no-nat`` needs no iptables."""


def absent_programs() -> list[str]:
    """Return the programs that a lab needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def _batch(options: list[str], commands: str) -> None:
    """Run ip(8) commands, one a line."""
    _run(["ip", *options, "-batch", "-"], commands)


def _run(argv: list[str], stdin: str = "") -> None:
    """Run a program; LabError with its own words when it fails or is missing."""
    LOG.info("%s", " ".join(argv) + "".join(f"\n    {line}" for line in stdin.splitlines()))
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(
            f"{argv[0]}: not found", hint="install iproute2, iptables and util-linux"
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        hint = "" if os.geteuid() == 0 else "a lab needs root"
        raise LabError(f"lab: {' '.join(argv)}: {said[0]}", hint=hint)
