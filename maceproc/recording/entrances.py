"""Ways into a container, and to its counterpart on the host: each gives a command line.

Only a container's engine ever executes a program of the container, with the user, limits and
capabilities that the engine gives: ``ENGINE exec`` runs a command in a container, and
``ENGINE run`` makes a container for one command, which is its first process. With ``exec`` the
command is a child of the engine, not of ours: a mark in its environment tells its pid.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from maceproc.errors import CommandError, TargetError
from maceproc.recording.bounded import CLOSING_TIME_S, Finished, run_bounded
from maceproc.recording.engines import (
    OWN_NAME_PREFIX,
    Container,
    ask,
    find_container,
    inspect,
    processes,
    reason,
    remove_container,
)
from maceproc.recording.inspected import Inspected, confinement
from maceproc.recording.owners import owner_name

MARK = "MACEPROC_RUN"  # in the environment of what we run in a container
LOOK_EVERY_S = 0.002  # only until the command has started
ASK_EVERY_S = 0.05  # the engine, likewise: that costs more
START_TIMEOUT_S = 10

# What `docker exec` says by its exit status when the command is not there, or cannot be executed;
# Podman and nerdctl do the same. https://docs.docker.com/reference/cli/docker/container/exec/
NOT_EXECUTABLE = (126, 127)

_ENVIRONMENT_LIMIT_BYTES = 4 << 20  # arguments and environment take a quarter of the stack: 2 MiB

Found = TypeVar("Found")


class Entrance(Protocol):
    """A way to run commands somewhere else."""

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes `argv` there."""

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the pid that `argv` has, once it is started; None when that is not known."""

    def is_alive(self) -> bool:
        """Tell whether the place still exists, and was not replaced by another."""


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
        return _in_time(lambda: self._look_for_pid(process), START_TIMEOUT_S + CLOSING_TIME_S)

    def _look_for_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            members = set(processes(self.container))
            # The engine starts the command from outside. What the container itself has started is
            # not looked at: it may have inherited the mark, and may keep us waiting.
            started = members - {self.container.pid}
            started = {pid for pid in started if _parent(pid) not in members}
            marked = [pid for pid in started if self._is_marked(pid)]
            if marked:
                return marked[0] if len(marked) == 1 else None
            time.sleep(LOOK_EVERY_S)
        return None

    def is_alive(self) -> bool:
        """Tell whether the container still runs, and was not restarted."""
        return self.container.netns.exists()

    def probe(self, argv: list[str]) -> Finished:
        """Run a short command and return its output, within the limits of a probe.

        If it does not end in time, the engine's program and what it started in the container are
        ended.
        """
        done = run_bounded(self.enter(argv))
        if done.ended:
            self.end()
        return done

    def end(self) -> None:
        """End the commands of ours that still run in the container, as far as they can be found."""
        _in_time(self._end_marked, CLOSING_TIME_S)

    def _end_marked(self) -> None:
        for pid in processes(self.container):
            with contextlib.suppress(OSError):  # it has ended by itself
                process = os.pidfd_open(pid)
                try:
                    if self._is_marked(
                        pid
                    ):  # the process is held, so its pid cannot be given to another
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                finally:
                    os.close(process)

    def _is_marked(self, pid: int) -> bool:
        """Tell whether a process has the mark; this may take for ever, see `_in_time`."""
        try:
            with Path(f"/proc/{pid}/environ").open("rb") as environment:
                variables = environment.read(_ENVIRONMENT_LIMIT_BYTES).split(b"\0")
        except OSError:  # it has ended
            return False
        return f"{MARK}={self.mark}".encode() in variables


@dataclass(frozen=True)
class EngineRun:
    """Runs every command in a container of its own, made of one image and removed afterwards."""

    engine: str
    image: str
    options: tuple[str, ...] = ()
    name: str = field(
        default_factory=lambda: f"{OWN_NAME_PREFIX}{owner_name()}-{secrets.token_hex(4)}"
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
            answer = inspect(self.engine, self.name)
            started = _first_processes(answer) if isinstance(answer, Inspected) else []
            if len(started) == 1:
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
        done = ask([self.engine, "run", "--detach", *self.enter(argv)[2:]])
        if done.returncode in NOT_EXECUTABLE:
            raise CommandError(
                f"{argv[0]}: no such program in image {self.image!r}",
                hint="start a container that stays, and record in its network with "
                "--container NAME --host-ping",
            )
        if done.returncode:
            raise CommandError(f"{self.engine} run: {reason(done)}")
        try:
            return find_container(self.name, (self.engine,))
        except TargetError as error:
            raise TargetError(
                f"the container of `{self.engine} run` ended before its network was looked at",
                hint="run the command by hand; is it a ping that goes on for a while?",
            ) from error

    def whole_command(self, words: list[str], entrypoint: str = "") -> list[str]:
        """Return what a container executes when it is given `words`, with what the image adds.

        Where the image is not here yet, the engine fetches it. Raises CommandError in the engine's
        words when no container can be made.
        """
        own = ["--entrypoint", entrypoint] if entrypoint else []
        make = [self.engine, "create", "--name", self.name, *self.options, *own]
        done = ask([*make, self.image, *words], timeout_s=None)
        if done.returncode:
            raise CommandError(f"{self.engine} run: {reason(done)}")
        answer = inspect(self.engine, self.name)
        self.remove()
        if isinstance(answer, str):
            raise CommandError(f"{self.engine} run: {answer}")
        whole = [answer.path or "", *(answer.args or [])]
        if not whole[0]:
            raise CommandError(f"{self.engine} run: image {self.image!r} says no command to run")
        return whole

    def remove(self) -> None:
        """Remove the container, should there be one."""
        remove_container(self.engine, self.name)


def image_on_host(container: Container) -> EngineRun:
    """Return the way to run a container's image on the host's network, confined as it is itself.

    Raises TargetError when the engine does not describe the container any more.
    """
    described = inspect(container.engine, container.id)
    if isinstance(described, str):
        raise TargetError(f"{container.engine}: {described}")
    options = ["--network", "host", "--pull", "never", *confinement(container.engine, described)]
    return EngineRun(container.engine, described.image or "", tuple(options))


@dataclass(frozen=True)
class HostProgram:
    """Runs this machine's own program of a command's name, in another network namespace.

    The program is looked up in our PATH by its name alone: a directory that a container or an
    image names does not exist on this machine. Only the network namespace is entered.
    """

    netns: str  # the file to enter it by

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command line that executes this machine's program with the same words."""
        return ["nsenter", f"--net={self.netns}", "--", Path(argv[0]).name, *argv[1:]]

    def find_pid(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the command's pid: nsenter becomes it."""
        return process.pid

    def is_alive(self) -> bool:
        """Return True: nsenter itself fails when the namespace has ended."""
        return True


def _in_time(look: Callable[[], Found], limit_s: float) -> Found | None:
    """Return what a function returns; None when that takes longer than the limit.

    The environment of a process is in its own memory, and is read from there (fs/proc/base.c,
    environ_read(), v6.8). A process can map a file there, of a file system that it serves itself
    and that never answers. So a thread waits for it, which ends when this process ends.
    """
    found: list[Found] = []
    thread = threading.Thread(target=lambda: found.append(look()), daemon=True)
    thread.start()
    thread.join(limit_s)
    return found[0] if found else None


def _first_processes(container: Inspected) -> list[int]:
    """Return a container's first process, or what its init has started."""
    first = container.state.pid or 0
    if first > 0 and container.host.init:
        return _children(first)
    return [first] if first > 0 else []


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
