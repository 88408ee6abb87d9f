"""Where the command runs: a namespace, the ways into it, and the names of those around it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from maceproc.capture import PlaceKind
from maceproc.errors import TargetError
from maceproc.recording.command import Command, parse_command
from maceproc.recording.compose import only_container
from maceproc.recording.engine_command import EngineCommand
from maceproc.recording.engines import Container, find_container
from maceproc.recording.entrances import (
    EngineExec,
    EngineRun,
    Entrance,
    HostProgram,
    image_on_host,
)
from maceproc.recording.lab import NETNS_DIR, Lab, is_complete
from maceproc.recording.lab_remote import spinning
from maceproc.recording.machines import find_lxc, find_machine, find_unit
from maceproc.recording.pods import find_pod


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
        """Return the command line that executes `argv` in this namespace, as the same process.

        Our own is not entered without CAP_SYS_ADMIN, which even that would need.
        """
        own = os.geteuid() != 0 and self.path == f"/proc/{os.getpid()}/ns/net"
        pinned = [] if self.cpu is None else ["taskset", "--cpu-list", str(self.cpu)]
        return [*pinned, *([] if own else ["nsenter", f"--net={self.path}", "--"]), *argv]

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the command's pid: nsenter becomes it."""
        return process.pid

    def is_alive(self) -> bool:
        """Return True: nsenter itself fails when the namespace has ended."""
        return True


NativeChoice = Literal["", "host", "image"]
"""What runs from the host in place of a container's program: this machine's program, or the
container's image, which then sees the host's network. Not chosen: this machine's, of a ping."""


NamedKind = Literal["container", "compose", "netns", "pod", "lxc", "machine", "unit"]
"""The kinds of places that are found by a name."""


class Launch(NamedTuple):
    """How containers are made for a recording: as was asked for, and on the host's network."""

    inside: EngineRun
    on_host: EngineRun


@dataclass(frozen=True)
class Site:
    """Where to run: a target by kind and name, its namespace, and others known by name.

    In a container the command is a program of the container, unless `host_ping` asks for the
    host's. With `launch` every run has a container of its own; `container` is then a separate
    container that was started to survey the path. `native` says what a container's command is
    compared with.
    """

    kind: PlaceKind
    name: str
    inside: Netns
    around: tuple[Netns, ...] = ()
    container: Container | None = None
    host_ping: bool = False
    exec_options: tuple[str, ...] = ()
    launch: Launch | None = None
    native: NativeChoice = ""

    @property
    def is_native(self) -> bool:
        """Whether the command runs on the bare machine's network, as far as this site knows."""
        if self.container:
            here = Netns("host", f"/proc/{os.getpid()}/ns/net")
            return self.container.network == "host" or self.inside.inode == here.inode
        return self.is_ours

    @property
    def is_ours(self) -> bool:
        """Whether nothing is entered: the command runs in the network that we are in."""
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
        """Return the way to run the command from the host.

        In place of a container's program, this machine's own program runs, or the engine runs the
        container's image. The container's files are never executed in any other way.
        """
        if self.own_programs is None:
            return host
        if self.native != "image":
            return HostProgram(host.path)
        return self.launch.on_host if self.launch else image_on_host(self.own_programs)

    def end_first_look(self) -> None:
        """Remove the container that was started only to survey the path."""
        if self.launch:
            self.launch.inside.remove()


def lab_site(lab: Lab) -> Site:
    """Return the site of a lab that is up; TargetError when it is not.

    A remote that is a program has a CPU of its own; the recorded command runs on another CPU.
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


def remote_spinning(site: Site) -> AbstractContextManager[int | None]:
    """Keep a lab's remote from sleeping, where it is a program; give the CPU it spins on."""
    at_lab = site.kind == "lab"
    return spinning(Lab(site.name).remote_socket) if at_lab else nullcontext()


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
    return Site("netns", plain_name(name), Netns(plain_name(path.name), str(path)))


def plain_name(name: str) -> str:
    """Return a name with whatever is no printable text in it escaped: it may be any bytes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def pid_site(pid: int) -> Site:
    """Return the site of a process's network namespace; TargetError when there is no such one."""
    path = Path(f"/proc/{pid}/ns/net")
    if not path.exists():
        raise TargetError(f"no process {pid}", hint="`ps` shows them")
    return Site("pid", str(pid), Netns(f"pid {pid}", str(path)))


def container_site(
    name: str | Container, *, host_ping: bool = False, native: NativeChoice = ""
) -> Site:
    """Return the site of a running container, by its name or id.

    Raises TargetError when no engine has it, or it does not run.
    """
    container = name if isinstance(name, Container) else find_container(name)
    inside = Netns(container.name, str(container.netns))
    site = Site("container", container.name, inside, container=container)
    return replace(site, host_ping=host_ping, native=native)


def pod_site(name: str) -> Site:
    """Return the site of a pod on this node, ``[NAMESPACE/]NAME``; TargetError without one."""
    full_name, file = find_pod(name)
    return Site("pod", plain_name(full_name), Netns(plain_name(full_name), file))


def lxc_site(name: str) -> Site:
    """Return the site of a container of LXC, Incus or LXD; TargetError when it does not run."""
    return Site("lxc", plain_name(name), Netns(plain_name(name), find_lxc(name)))


def machine_site(name: str) -> Site:
    """Return the site of a container that systemd-machined knows; TargetError without one."""
    return Site("machine", name, Netns(name, find_machine(name)))


def unit_site(name: str) -> Site:
    """Return the site of a systemd unit; TargetError when it has no network of its own."""
    whole_name, file = find_unit(name)
    return Site("unit", whole_name, Netns(whole_name, file))


def named_site(
    kind: NamedKind, name: str, *, host_ping: bool = False, native: NativeChoice = ""
) -> Site:
    """Return the site that a kind of place and a name say; TargetError when it is not there.

    In a container the command is a program of the container, unless `host_ping` asks for this
    machine's. Everywhere else it is this machine's, and only the network namespace is entered.
    """
    if kind == "container":
        return container_site(name, host_ping=host_ping, native=native)
    if kind == "compose":
        return container_site(only_container(name), host_ping=host_ping, native=native)
    finders: dict[str, Callable[[str], Site]] = {
        "netns": netns_site,
        "pod": pod_site,
        "lxc": lxc_site,
        "machine": machine_site,
        "unit": unit_site,
    }
    return finders[kind](name)


@contextmanager
def engine_site(
    command: EngineCommand, native: NativeChoice = ""
) -> Iterator[tuple[Site, Command]]:
    """Give the site of a ``docker run`` or ``exec``, and the command that runs there.

    For a ``run``, a container is started to survey the path; `Site.end_first_look` removes it.
    Raises TargetError and CommandError.
    """
    if command.verb == "exec":
        container = find_container(command.place, (command.engine,))
        inside = Netns(container.name, str(container.netns))
        site = Site("container", container.name, inside, container=container, native=native)
        yield replace(site, exec_options=tuple(command.words())), parse_command([*command.argv])
        return
    launch = _launch(command)
    whole = launch.inside.whole_command([*command.argv], command.value("entrypoint"))
    parsed = parse_command(whole)
    try:
        container = launch.inside.start(_to_look_at(parsed))
        inside = Netns(_label(command), str(container.netns))
        site = Site("container", inside.name, inside, container=container, native=native)
        yield replace(site, launch=launch), parsed
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
    """Return a command that lasts long enough to survey its container."""
    if command.is_ping and command.destination:
        return command.probe(command.destination, count=60)
    return list(command.argv)


def _label(command: EngineCommand) -> str:
    """Return a name for people: the one that was given, or the name of the image."""
    return plain_name(command.value("name")) or command.place.rpartition("/")[2].partition(":")[0]


def here_site(kind: Literal["host", "here"] = "here", native: NativeChoice = "") -> Site:
    """Return the site where maceproc itself runs; ``host`` when the user said so."""
    return Site(kind, "", Netns("host", f"/proc/{os.getpid()}/ns/net"), native=native)
