"""What the sidecar of a capture holds: the contract between recording and following.

A capture is two files: ``trace.dat``, the events, and ``trace.dat.json``, its sidecar. The sidecar
holds what the events cannot say: what ran where and when, what it printed, and how the namespaces
were connected. Its form is declared by the structs below, read from top to bottom;
`maceproc.capture_files` reads and writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from maceproc.calibration import Calibration

SIDECAR_VERSION = 1

Place = Literal["container", "native"]


class Link(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A network device of one namespace, as ``ip -json -details link`` shows it."""

    ifindex: int
    name: str
    kind: str = ""  # veth, bridge, macvlan, ...; empty for a physical device
    address: str = ""  # link-layer address
    mtu: int = 0
    qdisc: str = ""
    operstate: str = ""
    peer_ifindex: int | None = None  # the other end of a veth, the parent of a macvlan
    peer_netns: str | None = None  # name of that end's namespace, when it is one of ours
    master: str | None = None  # the bridge or bond this device is a port of
    offloads: dict[str, bool] = {}  # as ethtool names them; empty when it was not there to tell

    @property
    def has_gro(self) -> bool | None:
        """Generic receive offload is on; None when not known."""
        return self.offloads.get("generic-receive-offload")

    @property
    def uses_netif_rx(self) -> bool | None:
        """It receives by netif_rx(): a veth without GRO; not a tun or tap device; None: it may.

        drivers/net/veth.c, veth_forward_skb(), and drivers/net/tun.c, tun_get_user(), v6.8.
        """
        if self.kind == "tun":
            return False
        return True if self.kind == "veth" and self.has_gro is False else None


class Namespace(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A network namespace the packet may pass, and what it is made of."""

    name: str  # for people: "container", "host", "remote", or a container's name
    inode: int  # of /proc/PID/ns/net: two names of one namespace share it
    links: list[Link] = []
    addresses: dict[str, list[str]] = {}  # device -> addresses with prefix length
    routes: list[str] = []  # as `ip route` prints them, both families
    nat: list[str] = []  # rules that translate addresses, as iptables or nft prints them
    rules: str = ""  # digest of all netfilter rules; empty when not known


class PathDevice(msgspec.Struct, kw_only=True, frozen=True):
    """One device on the way, and the namespace it is in."""

    netns: str
    dev: str

    def __str__(self) -> str:
        return f"{self.netns}:{self.dev}"


PlaceKind = Literal[
    "lab", "netns", "pid", "host", "here", "container", "pod", "lxc", "machine", "unit"
]
"""What a place was named as; a service of Compose is a container."""


class Target(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where the command ran, and the way a packet takes from there to the outer device."""

    kind: PlaceKind
    name: str = ""  # as given: the namespace, process, container, pod, machine or unit
    address: str = ""  # what is pinged, as resolved; empty when unknown
    # From the container's device to the outer device, both included, in outbound order. One hop or
    # none: no namespace is crossed.
    path: list[PathDevice] = []
    # The devices that the outer one is on, from the top down to the cards; see maceproc.uplinks.
    below: list[PathDevice] = []
    nat: bool = False  # addresses are translated on the way
    crossing: bool = True  # between namespaces, that can be seen; the notes say why not
    # Every run had a container, and so a veth pair, of its own: the path is that of a first look.
    transient: bool = False
    notes: list[str] = []  # what could not be found out, or limits what can be seen

    @property
    def route(self) -> str:
        """The path for people: ``web:eth0 -> host:veth1a2b -> docker0 -> (NAT) -> eno1``.

        A namespace is named where it begins; what the outer device is on, at the end.
        """
        names = [
            hop.dev if before and before.netns == hop.netns else str(hop)
            for before, hop in zip([None, *self.path], self.path, strict=False)
        ]
        if self.nat and len(names) > 1:
            names.insert(-1, "(NAT)")
        on = f" (on {', '.join(hop.dev for hop in self.below)})" if self.below else ""
        return (" -> ".join(names) or "unknown") + on


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run of the command: which arm, which round, what it printed, and when it ran."""

    round: int  # from 1
    place: Place
    traced: bool
    argv: list[str]  # what was executed, without the words that enter the namespace
    pid: int | None = None  # of the command, as the kernel's events see it
    exit_status: int | None = None  # negative: ended by that signal
    output: str = ""
    errors: str = ""
    cut: bool = False  # it printed more than is kept: output or errors end early
    start_ns: int = 0  # trace clock
    end_ns: int = 0
    start_utc_ns: int = 0
    end_utc_ns: int = 0

    @property
    def arm(self) -> str:
        """The arm's name: ``container traced``, ``native untraced``, ..."""
        return f"{self.place} {'traced' if self.traced else 'untraced'}"


PING_KINDS = ("iputils", "BusyBox", "inetutils", "toybox")  # as ping -V says


def _kind(version: str) -> str:
    return next((kind for kind in PING_KINDS if kind in version), "")


class NativeProgram(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What ran from the host in place of a container's program, and how alike the two are."""

    # This machine's own program, or the container's image, run by its engine on the host's network.
    by: Literal["host", "image"]
    program: str = ""  # this machine's file
    version: str = ""  # what it says with -V, of a ping
    container_version: str = ""  # what the container's program says
    same_file: bool | None = None  # the two files hold the same; None when not known

    @property
    def kind(self) -> str:
        """The kind of program: iputils, BusyBox, ...; empty when it does not say."""
        return _kind(self.version)

    @property
    def container_kind(self) -> str:
        """The kind of the container's program, likewise."""
        return _kind(self.container_version)

    @property
    def sentence(self) -> str:
        """What ran, and whether it is the same program, for people."""
        if self.by == "image":
            return (
                "the container's image, run by its engine on the host's network: the same program, "
                "unless it was changed in the container"
            )
        ours, theirs = self.version or "version unknown", self.container_version
        if self.same_file:
            alike = "the same file as the container's"
        elif self.same_file is False:
            alike = f"not the file that the container has ({theirs or 'version unknown'})"
        else:
            alike = f"whether the container has the same is not known ({theirs or 'no version'})"
        return f"this machine's {self.program} ({ours}), {alike}"


class Tracing(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How the events were recorded."""

    events: list[str]  # system:event
    event_set: str  # minimal, full, or "list" when events were named one by one
    clock: str
    instance: str  # ring-buffer instance; empty for the top one
    buffer_size_kb: int  # per CPU
    tracecmd_version: str = ""
    perf_version: str = ""
    function_tracer_denied: bool = False  # trace-cmd ran with those control files covered
    events_lost: dict[str, int] = {}  # CPU -> events the kernel dropped
    # CPU -> events that the kernel handed over and the trace does not hold.
    events_missing: dict[str, int] = {}
    problems: list[str] = []  # what went wrong with the recording itself, one sentence each
    tracer: Literal["ftrace", "perf", "bpf", "ftrace+bpf"] = "ftrace"
    # Of the BPF tracer: points overwritten before they were read, and headers that it could not
    # read, by reason (`echo_rows.UNREAD`).
    points_lost: int = 0
    unread: dict[str, int] = {}


class Identity(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What tells one trace file from another: its size, and blocks spread over all of it.

    Two recordings never agree in them: every page of events begins with its time. Of a trace that
    was cut, the blocks that are left are still the same.
    """

    size: int  # [bytes]
    blocks: list[str]  # SHA-256 of each block, its first 16 digits


class Machine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The machine, as far as it decides a latency."""

    kernel: str
    cpu: str
    cpus: int
    governor: str = ""  # empty: no frequency scaling to see
    virtualization: str = ""
    load_average: float = 0.0  # over one minute, when the recording began
    awake: bool = False  # the CPUs were kept from going idle
    host: str = ""  # the machine's name; empty when not known
    identity: str = ""  # digest of what tells this machine from others; empty when not known


class Sidecar(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Everything beside the events; the whole of ``trace.dat.json``."""

    format: Literal["maceproc capture"] = "maceproc capture"
    version: int = SIDECAR_VERSION
    maceproc: str  # version of the program that recorded
    command: list[str]  # as given after "--"
    rounds: int
    target: Target
    runs: list[Run]
    namespaces: list[Namespace]
    tracing: Tracing
    machine: Machine
    trace: Identity | None = None  # the file that this belongs to; None: recorded before this
    interrupted: str = ""  # why the recording ended early; empty when it did not
    calibration: Calibration | None = None  # that was given to be used for this capture
    notes: list[str] = []  # what a reader of the results should know, one sentence each
    # What the native runs ran in place of a container's program; None when it was the same one.
    native: NativeProgram | None = None

    def facts(self) -> dict[str, Any]:
        """Return in short what ran, where, and how it was recorded."""
        return {
            "command": self.command,
            "rounds": self.rounds,
            "target": self.target.name or self.target.kind,
            "path": [str(hop) for hop in self.target.path],
            "kernel": self.machine.kernel,
            "cpu": self.machine.cpu,
            "event_set": self.tracing.event_set,
        }

    def link(self, hop: PathDevice) -> Link | None:
        """Return the device of a hop; None when it is not described."""
        return find_link(self.namespaces, hop)


def find_link(namespaces: Iterable[Namespace], hop: PathDevice) -> Link | None:
    """Return the device of a hop; None when it is not described."""
    for namespace in namespaces:
        for link in namespace.links:
            if (namespace.name, link.name) == (hop.netns, hop.dev):
                return link
    return None
