"""Containers, and the engines that run them: Docker, Podman, containerd (by nerdctl).

The engines' command lines agree on what is needed here: ``ENGINE container inspect`` says where a
container's first process is, and ``ENGINE exec`` runs a command beside it, with the user, limits
and capabilities that the container has. That command is a child of the engine's, not ours: its pid
is found by a mark in its environment. ``ENGINE run`` makes a container for one command, which is
its first process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maceproc.errors import CommandError, TargetError

ENGINES = ("docker", "podman", "nerdctl")

MARK = "MACEPROC_RUN"  # in the environment of what we run in a container
LOOK_EVERY_S = 0.002  # only until the command has started
ASK_EVERY_S = 0.05  # the engine, likewise: that costs more
START_TIMEOUT_S = 10

# What `docker exec` says by its exit status when the command is not there, or cannot be executed;
# Podman and nerdctl do the same. https://docs.docker.com/reference/cli/docker/container/exec/
NOT_EXECUTABLE = (126, 127)
OWN_NAME_PREFIX = "maceproc-"  # of containers that are made for a recording, then its pid

_OWN_NAME = re.compile(rf"{OWN_NAME_PREFIX}(\d+)-[0-9a-f]{{8}}")
_FIRST_LINE_IS_NOISE = re.compile(r"^(time=|WARN)")


@dataclass(frozen=True)
class Container:
    """A running container.

    Attributes
    ----------
    engine
        The command line program that knows it.
    pid
        Its first process, as seen from here.
    network
        Its network as the engine names it: ``bridge``, ``host``, ``none``, ``container:ID``, or
        the name of a network.
    """

    engine: str
    id: str
    name: str
    pid: int
    network: str = ""

    @property
    def netns(self) -> Path:
        """The file of its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")


@dataclass(frozen=True)
class EngineExec:
    """Runs commands inside a container, through its engine."""

    container: Container
    options: tuple[str, ...] = ()
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes `argv` in the container."""
        environment = ("--env", f"{MARK}={self.mark}", "--env", "LC_ALL=C")
        words = (*environment, *self.options)
        return [self.container.engine, "exec", *words, self.container.id, *argv]

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the pid of the command that the engine starts for this process, as seen from here.

        None when it has ended before it was seen, or the container's processes cannot be listed.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            marked = {pid for pid in processes(self.container) if self._is_marked(pid)}
            if marked:
                # What the command itself has started inherits the mark.
                first = [pid for pid in marked if _parent(pid) not in marked]
                return first[0] if len(first) == 1 else None
            time.sleep(LOOK_EVERY_S)
        return None

    def is_alive(self) -> bool:
        """Tell whether the container still runs, and was not restarted."""
        return self.container.netns.exists()

    def _is_marked(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # it has ended
            return False
        return f"{MARK}={self.mark}".encode() in environment.split(b"\0")


@dataclass(frozen=True)
class EngineRun:
    """Runs every command in a container of its own, made of one image and removed afterwards."""

    engine: str
    image: str
    options: tuple[str, ...] = ()
    name: str = field(
        default_factory=lambda: f"{OWN_NAME_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    )

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes `argv` in a new container."""
        words = ("--rm", "--name", self.name, "--env", "LC_ALL=C", *self.options)
        return [self.engine, "run", *words, "--entrypoint", argv[0], self.image, *argv[1:]]

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the pid of the container's first process; with ``--init``, that of its only child.

        As seen from here; None when it has ended before it was seen.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            answer = _inspect(self.engine, self.name)
            first = 0 if isinstance(answer, str) else int(answer["State"].get("Pid") or 0)
            has_init = not isinstance(answer, str) and (answer.get("HostConfig") or {}).get("Init")
            started = _children(first) if first and has_init else [first]
            if len(started) == 1 and started[0]:
                return started[0]
            time.sleep(ASK_EVERY_S)
        return None

    def is_alive(self) -> bool:
        """Tell whether commands can be run: every one has a container of its own."""
        return True

    def start(self, argv: list[str]) -> Container:
        """Start a container that runs `argv`, and do not wait for it.

        Raises CommandError when it cannot be started, TargetError when it has ended already.
        """
        done = _run([self.engine, "run", "--detach", *self.enter(argv)[2:]])
        if done.returncode in NOT_EXECUTABLE:
            raise CommandError(
                f"{argv[0]}: no such program in image {self.image!r}",
                hint="start a container that stays, and record in its network with "
                "--container NAME --host-ping",
            )
        if done.returncode:
            raise CommandError(f"{self.engine} run: {_reason(done)}")
        try:
            return find_container(self.name, (self.engine,))
        except TargetError as error:
            raise TargetError(
                f"the container of `{self.engine} run` ended before its network was looked at",
                hint="run the command by hand; is it a ping that goes on for a while?",
            ) from error

    def whole_command(self, words: list[str], entrypoint: str = "") -> list[str]:
        """Return what a container executes when it is given `words`: the image has its say too.

        Where the image is not here yet, the engine fetches it. Raises CommandError in the engine's
        words when no container can be made.
        """
        own = ["--entrypoint", entrypoint] if entrypoint else []
        make = [self.engine, "create", "--name", self.name, *self.options, *own]
        done = _run([*make, self.image, *words], timeout_s=None)
        if done.returncode:
            raise CommandError(f"{self.engine} run: {_reason(done)}")
        answer = _inspect(self.engine, self.name)
        self.remove()
        if isinstance(answer, str):
            raise CommandError(f"{self.engine} run: {answer}")
        return [answer["Path"], *(answer.get("Args") or [])]

    def remove(self) -> None:
        """Remove the container, should there be one."""
        remove_container(self.engine, self.name)


@dataclass(frozen=True)
class ProgramOutside:
    """Runs a container's own programs in another network namespace: the native control."""

    container: Container
    netns: str  # the file to enter it by

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes `argv`, found in the container's files, there."""
        files = f"--mount=/proc/{self.container.pid}/ns/mnt"
        root = f"--root=/proc/{self.container.pid}/root"
        return ["nsenter", files, root, f"--net={self.netns}", "--", *argv]

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the command's pid: nsenter becomes it."""
        return process.pid

    def is_alive(self) -> bool:
        """Tell whether the container still runs, and was not restarted."""
        return self.container.netns.exists()


def find_container(name: str, among: Sequence[str] = ENGINES) -> Container:
    """Return a running container by its name or id, whichever engine has it.

    Raises TargetError when none or more than one of the engines has it, when it does not run, or
    when its processes are not to be seen from here.
    """
    engines = [engine for engine in among if shutil.which(engine)]
    if not engines:
        raise TargetError(
            f"no container engine found ({', '.join(among)})",
            hint="--pid takes any process of a container",
        )
    found: dict[str, Container] = {}
    reasons = []
    for engine in engines:
        answer = _inspect(engine, name)
        if isinstance(answer, str):
            reasons.append(f"{engine}: {answer}")
        else:
            found.setdefault(answer["Id"], _container(engine, answer))
    if not found:
        raise TargetError(
            f"no container {name!r} ({'; '.join(reasons)})",
            hint=f"`{engines[0]} ps` shows those that run",
        )
    if len(found) > 1:
        raise TargetError(
            f"{' and '.join(c.engine for c in found.values())} each have a container {name!r}",
            hint="give its id",
        )
    return _running(next(iter(found.values())))


def engine_answers(engine: str) -> str:
    """Return the version of an engine's server; raise TargetError in its own words if none answers.

    nerdctl and Podman without a server answer for themselves.
    """
    done = _run([engine, "version", "--format", "{{json .}}"])
    if done.returncode:
        raise TargetError(_reason(done))
    with contextlib.suppress(ValueError, AttributeError):
        said = json.loads(done.stdout)
        about = said.get("Server") or said.get("Client") or {}
        return str(about.get("Version", ""))
    return ""


def is_rootless(engine: str) -> bool:
    """Tell whether an engine says that it runs without root: its networks end in a program."""
    option = "{{.Host.Security.Rootless}}" if engine == "podman" else "{{.SecurityOptions}}"
    said = _run([engine, "info", "--format", option]).stdout
    return said.strip() == "true" or "rootless" in said


def stale_containers(engine: str) -> list[str]:
    """Return the containers that an engine made for recordings which were killed."""
    own = ["--filter", f"name={OWN_NAME_PREFIX}", "--format", "{{.Names}}"]
    names = _run([engine, "ps", "--all", *own]).stdout.split()
    owners = {name: _OWN_NAME.fullmatch(name) for name in names}
    return [name for name, own in owners.items() if own and not Path(f"/proc/{own[1]}").exists()]


def remove_container(engine: str, name: str) -> None:
    """Remove a container by force, should there be one of that name."""
    _run([engine, "rm", "--force", name])


def processes(container: Container) -> list[int]:
    """Return the pids of a container's processes, as seen from here; none if that is not known."""
    for members in _member_files(container):
        with contextlib.suppress(OSError):
            return [int(pid) for pid in members.read_text().split()]
    return []


def _inspect(engine: str, name: str) -> dict[str, Any] | str:
    """Return what an engine says of a container, or why it says nothing."""
    # The option's end: a name from the user is not to be taken for an option.
    done = _run([engine, "container", "inspect", "--", name])
    try:
        described = json.loads(done.stdout)[0]
    except (ValueError, IndexError, TypeError):
        return _reason(done)
    return described if isinstance(described, dict) and "State" in described else _reason(done)


def _container(engine: str, described: dict[str, Any]) -> Container:
    state, host = described["State"], described.get("HostConfig") or {}
    container = Container(
        engine=engine,
        id=described["Id"],
        name=str(described.get("Name", "")).removeprefix("/") or described["Id"][:12],
        pid=int(state.get("Pid") or 0),
        network=str(host.get("NetworkMode") or ""),
    )
    if state.get("Paused") or state.get("Status") == "paused":
        raise TargetError(
            f"container {container.name!r} is paused", hint=f"`{engine} unpause {container.name}`"
        )
    if not container.pid:
        raise TargetError(
            f"container {container.name!r} does not run ({state.get('Status', 'stopped')})",
            hint=f"`{engine} start {container.name}`",
        )
    return container


def _running(container: Container) -> Container:
    """Make sure that the pid the engine tells is the container's on this machine, seen from here.

    An engine can be on another machine (DOCKER_HOST), or see other pids than we do.
    """
    try:
        cgroups = Path(f"/proc/{container.pid}/cgroup").read_text()
    except OSError:
        cgroups = ""
    if container.id not in cgroups:
        raise TargetError(
            f"process {container.pid}, which {container.engine} says is that of container "
            f"{container.name!r}, is not here",
            hint="record on the machine the container runs on, outside of any other container",
        )
    return container


def _member_files(container: Container) -> Iterator[Path]:
    """Yield the files that list the processes of a container's cgroup.

    A line of /proc/PID/cgroup ends with the path in one hierarchy, cgroups(7); it is looked for
    where a hierarchy is mounted.
    """
    try:
        lines = Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return
    paths = sorted({line.split(":", 2)[2].lstrip("/") for line in lines})
    hierarchies = [Path(mount.split()[1]) for mount in mounts if " cgroup" in mount]
    for hierarchy, path in itertools.product(hierarchies, paths):
        members = hierarchy / path / "cgroup.procs"
        if container.id in path and members.exists():
            yield members


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # proc(5): state, ppid; comm may hold anything


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in said if not _FIRST_LINE_IS_NOISE.match(line)] or said
    errors = [line for line in said if "rror" in line]  # "Unable to find image locally" comes first
    return (errors or said or [f"exit status {done.returncode}"])[0]


def _run(argv: list[str], timeout_s: float | None = 60) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{argv[0]} does not answer", hint="is it running?") from error
    except OSError as error:
        raise TargetError(f"{argv[0]}: {error.strerror}") from error
