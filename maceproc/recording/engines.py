"""Containers, and the engines that run them: Docker, Podman, containerd (by nerdctl).

The engines' command lines agree on what is needed here: ``ENGINE container inspect`` says where a
container's first process is. An engine can be on the other side of a socket, so its answers are not
trusted: they are read up to a limit, and their types are checked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maceproc.errors import TargetError
from maceproc.recording.bounded import ANSWER_LIMIT_BYTES, Finished, run_bounded
from maceproc.recording.inspected import Inspected, read_inspected
from maceproc.recording.owners import OWNER, has_ended

ENGINES = ("docker", "podman", "nerdctl")
ANSWER_TIMEOUT_S = 60.0
OWN_NAME_PREFIX = "maceproc-"  # of the names of containers that are made for a recording

_OWN_NAME = re.compile(rf"{OWN_NAME_PREFIX}({OWNER})-[0-9a-f]{{8}}")
_FIRST_LINE_IS_NOISE = re.compile(r"^(time=|WARN)")
_LOGGED_MESSAGE = re.compile(r'^time=.* msg="((?:[^"\\]|\\.)*)"')  # where there is nothing else
_PROCESSES_LIMIT_BYTES = 1 << 20


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
        answer = inspect(engine, name)
        if isinstance(answer, str):
            reasons.append(f"{engine}: {answer}")
        else:
            found.setdefault(answer.id, _container(engine, answer))
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
    done = ask([engine, "version", "--format", "{{json .}}"])
    if done.returncode:
        raise TargetError(reason(done))
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        said = json.loads(done.stdout)
        about = said.get("Server") or said.get("Client") or {}
        return str(about.get("Version", ""))
    return ""


def is_rootless(engine: str) -> bool:
    """Tell whether an engine runs without root: then a program forwards the packets."""
    option = "{{.Host.Security.Rootless}}" if engine == "podman" else "{{.SecurityOptions}}"
    said = ask([engine, "info", "--format", option]).stdout
    return said.strip() == "true" or "rootless" in said


def stale_containers(engine: str) -> list[str]:
    """Return the containers that an engine made for recordings which were killed."""
    own = ["--filter", f"name={OWN_NAME_PREFIX}", "--format", "{{.Names}}"]
    names = ask([engine, "ps", "--all", *own]).stdout.split()
    owners = {name: _OWN_NAME.fullmatch(name) for name in names}
    return [name for name, own in owners.items() if own and has_ended(own[1])]


def remove_container(engine: str, name: str) -> None:
    """Remove a container by force, should there be one of that name."""
    ask([engine, "rm", "--force", name])


def processes(container: Container) -> list[int]:
    """Return the pids of a container's processes, as seen from here; none if that is not known."""
    for members in _member_files(container):
        with contextlib.suppress(OSError), members.open() as listed:
            text = listed.read(_PROCESSES_LIMIT_BYTES)
            pids = [int(pid) for pid in text.split()]
            return pids[:-1] if len(text) == _PROCESSES_LIMIT_BYTES else pids  # one may be cut
    return []


def inspect(engine: str, name: str) -> Inspected | str:
    """Return an engine's description of a container, or a text that says why there is none."""
    # After "--" a name that the user gave is not taken for an option.
    done = ask([engine, "container", "inspect", "--", name])
    if done.returncode:
        return reason(done)
    return read_inspected(done.stdout) or "its answer does not describe one container"


def _container(engine: str, described: Inspected) -> Container:
    state = described.state
    container = Container(
        engine=engine,
        id=described.id,
        name=described.plain_name,
        pid=state.pid or 0,
        network=described.host.network_mode or "",
    )
    if state.paused or state.status == "paused":
        raise TargetError(
            f"container {container.name!r} is paused", hint=f"`{engine} unpause {container.name}`"
        )
    if container.pid <= 0:
        raise TargetError(
            f"container {container.name!r} does not run ({state.status or 'stopped'})",
            hint=f"`{engine} start {container.name}`",
        )
    return container


def _running(container: Container) -> Container:
    """Make sure that the engine's pid is that of the container on this machine, as seen from here.

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
        if container.id in path and ".." not in path and members.exists():
            yield members


def reason(done: Finished) -> str:
    """Return the line of an engine's output that says why it failed."""
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in said if not _FIRST_LINE_IS_NOISE.match(line)] or said
    errors = [line for line in said if "rror" in line]  # "Unable to find image locally" comes first
    first = (errors or said or [f"exit status {done.returncode}"])[0]
    logged = _LOGGED_MESSAGE.search(first)
    return logged[1].replace(r"\"", '"') if logged else first


def ask(argv: list[str], timeout_s: float | None = ANSWER_TIMEOUT_S) -> Finished:
    """Run an engine's program; raise TargetError when it does not start, or does not end."""
    try:
        done = run_bounded(argv, timeout_s=timeout_s, limit_bytes=ANSWER_LIMIT_BYTES)
    except OSError as error:
        raise TargetError(f"{argv[0]}: {error.strerror}") from error
    if done.ended:
        raise TargetError(f"{argv[0]} {done.ended}", hint="does its server answer?")
    return done
