"""A capture on disk: ``trace.dat``, the events, and ``trace.dat.json``, its sidecar.

The sidecar holds what the events cannot say: what ran where and when, what it printed, and how the
namespaces were connected. Its form is declared by the structs below, read from top to bottom.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from maceproc.errors import CaptureError
from maceproc.sidecar_checks import check_sidecar, read_bounded

SIDECAR_VERSION = 1
SIDECAR_SUFFIX = ".json"
RECORDING_SUFFIX = ".recording"  # of the directory that a recording is made in

IDENTITY_BLOCKS = 16
IDENTITY_BLOCK_BYTES = 1 << 16

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


class Hop(msgspec.Struct, kw_only=True, frozen=True):
    """One device on the way, and the namespace it is in."""

    netns: str
    dev: str

    def __str__(self) -> str:
        return f"{self.netns}:{self.dev}"


class Target(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where the command ran, and the way a packet takes from there to the outer device."""

    kind: Literal["lab", "netns", "pid", "host", "here", "container"]
    name: str = ""  # as given: the namespace, process or container
    address: str = ""  # what is pinged, as resolved; empty when unknown
    # From the container's device to the outer device, both included, in outbound order. One hop or
    # none: no namespace is crossed.
    path: list[Hop] = []
    nat: bool = False  # addresses are translated on the way
    crossing: bool = True  # between namespaces, that can be seen; the notes say why not
    # Every run had a container, and so a veth pair, of its own: the path is that of a first look.
    transient: bool = False
    notes: list[str] = []  # what could not be found out, or limits what can be seen

    @property
    def route(self) -> str:
        """The path for people: ``web:eth0 -> host:veth1a2b -> docker0 -> (NAT) -> eno1``.

        A namespace is named where it begins.
        """
        names = [
            hop.dev if before and before.netns == hop.netns else str(hop)
            for before, hop in zip([None, *self.path], self.path, strict=False)
        ]
        if self.nat and len(names) > 1:
            names.insert(-1, "(NAT)")
        return " -> ".join(names) or "unknown"


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
    function_tracer_denied: bool = False  # trace-cmd ran with those control files covered
    events_lost: dict[str, int] = {}  # CPU -> events the kernel dropped
    # CPU -> events that the kernel handed over and the trace does not hold.
    events_missing: dict[str, int] = {}
    problems: list[str] = []  # what went wrong with the recording itself, one sentence each


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

    def link(self, hop: Hop) -> Link | None:
        """Return the device of a hop; None when it is not described."""
        return find_link(self.namespaces, hop)


def find_link(namespaces: Iterable[Namespace], hop: Hop) -> Link | None:
    """Return the device of a hop; None when it is not described."""
    for namespace in namespaces:
        for link in namespace.links:
            if (namespace.name, link.name) == (hop.netns, hop.dev):
                return link
    return None


class Capture(msgspec.Struct, frozen=True):
    """A capture on disk: where the events are, and what the sidecar says (None without one)."""

    trace: Path
    sidecar: Sidecar | None

    def __hash__(self) -> int:
        """Hash by the trace's path: a sidecar holds lists, which have no hash."""
        return hash(self.trace)


def sidecar_path(trace: str | Path) -> Path:
    """Return where the sidecar of a trace file belongs: ``trace.dat`` -> ``trace.dat.json``."""
    return Path(f"{os.fspath(trace)}{SIDECAR_SUFFIX}")


def recording_directory(trace: str | Path) -> Path:
    """Return where a trace is recorded: ``trace.dat`` -> the directory ``trace.dat.recording``."""
    return Path(f"{os.fspath(trace)}{RECORDING_SUFFIX}")


def open_capture(trace: str | Path) -> Capture:
    """Open a capture by its trace file; one recorded by hand has no sidecar.

    Raises CaptureError when the file is missing, or its sidecar cannot be understood or belongs to
    another trace.
    """
    path = Path(trace)
    check_is_trace(path)
    beside = sidecar_path(path)
    sidecar = load_sidecar(beside) if beside.exists() else None
    if sidecar and sidecar.trace and not belongs_to(sidecar.trace, path):
        raise CaptureError(
            f"{beside}: belongs to another trace than {path}, or that was changed since",
            hint="put the right two together, or remove the sidecar to analyze the events alone",
        )
    return Capture(path, sidecar)


def check_is_trace(path: Path) -> None:
    """Raise CaptureError unless `path` is a file that may be a trace: no directory, no sidecar."""
    if not path.exists():
        hint = "give the trace.dat that `maceproc record` or trace-cmd wrote"
        if recording_directory(path).is_dir():
            hint = f"its recording goes on or was killed: then `maceproc salvage {path}`"
        raise CaptureError(f"{path}: no such file", hint=hint)
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.dat"))
        hint = f"give a trace in it, such as {path / inside[0]}" if inside else "give a trace.dat"
        raise CaptureError(f"{path}: is a directory", hint=hint)
    if not path.is_file():
        raise CaptureError(f"{path}: not a regular file", hint="copy it to one, and give that")
    trace = path.with_suffix("")
    if path.suffix == SIDECAR_SUFFIX and trace.is_file():
        raise CaptureError(f"{path}: is the sidecar of a trace", hint=f"give the trace: {trace}")


def identify(trace: Path) -> Identity:
    """Return what tells this trace file from any other; OSError when it cannot be read."""
    size = trace.stat().st_size
    return Identity(size=size, blocks=_block_digests(trace, size, size))


def belongs_to(identity: Identity, trace: Path) -> bool:
    """Tell whether a trace file is the one identified, or the beginning of it."""
    present = trace.stat().st_size
    found = _block_digests(trace, identity.size, present)
    return present <= identity.size and found == identity.blocks[: len(found)]


def _block_digests(trace: Path, size: int, present: int) -> list[str]:
    """Digest blocks spread over a file of this size, as far as they are present [bytes]."""
    last = max(size - IDENTITY_BLOCK_BYTES, 0)
    digests = []
    with trace.open("rb") as file:
        for number in range(IDENTITY_BLOCKS):
            start = last * number // (IDENTITY_BLOCKS - 1)
            if min(start + IDENTITY_BLOCK_BYTES, size) > present:
                break
            file.seek(start)
            digests.append(hashlib.sha256(file.read(IDENTITY_BLOCK_BYTES)).hexdigest()[:16])
    return digests


def load_sidecar(path: Path) -> Sidecar:
    """Read a sidecar; CaptureError names the file and the place in it that is wrong."""
    try:
        sidecar = msgspec.json.decode(read_bounded(path), type=Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CaptureError(
            f"{path}: not a capture's sidecar: {error}",
            hint="remove it to analyze the events alone, with --inner and --outer",
        ) from error
    if sidecar.version > SIDECAR_VERSION:
        raise CaptureError(
            f"{path}: sidecar version {sidecar.version}, this maceproc reads {SIDECAR_VERSION}",
            hint="upgrade maceproc",
        )
    check_sidecar(path, sidecar)
    return sidecar


def save_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write a sidecar whole or not at all: to a new file beside it, then renamed.

    Only its owner may read it. Raises CaptureError when it cannot be written.
    """
    # omit_defaults leaves out the two fields that say what the file is.
    identity = {"format": sidecar.format, "version": sidecar.version}
    document = identity | msgspec.to_builtins(sidecar)
    text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    try:
        # A name that nobody can guess, made with O_EXCL and O_NOFOLLOW: no link is followed.
        descriptor, partial = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CaptureError(f"{path}: cannot write the sidecar: {error.strerror}") from error
