"""System containers and systemd units: their network namespaces, by their names.

The programs asked are ``lxc-info`` (LXC), ``incus query`` and ``lxc query`` (Incus, LXD),
``machinectl show`` (systemd-nspawn) and ``systemctl show``. Each tells the first process; its
namespace is entered with this machine's own programs, so nothing of the container is executed. The
names are the user's, and the answers foreign text: names go in as single words, answers are read up
to a limit.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec

from maceproc.errors import TargetError
from maceproc.foreign_text import clean
from maceproc.recording.bounded import Finished
from maceproc.recording.engines import ask, reason

_PID = re.compile(r"[1-9][0-9]{0,9}")
_INSTANCE = re.compile(r"[A-Za-z0-9-]{1,63}")  # Incus and LXD allow no other names
_MACHINE = re.compile(r"[A-Za-z0-9._-]{1,64}")  # hostname_is_valid() of systemd, without a pattern
# systemd.unit(5), "String Escaping for Inclusion in Unit Names"; "*" would be a pattern.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_CGROUPS = ("", "unified", "systemd")  # where systemd's own hierarchy is mounted below CGROUP_ROOT
CGROUP_ROOT = Path("/sys/fs/cgroup")


class _State(msgspec.Struct):
    """What Incus and LXD say of an instance: GET /1.0/instances/NAME/state."""

    pid: int = 0


class _Instance(msgspec.Struct):
    """What they say of an instance itself: GET /1.0/instances/NAME."""

    type: str = ""


def find_lxc(name: str) -> str:
    """Return the file of the network namespace of a container of LXC, Incus or LXD.

    Raises TargetError when none of them has it, more than one has it, or it does not run.
    """
    asked = {"lxc-info": _of_lxc, "incus": _of_incus, "lxc": _of_incus}
    programs = [program for program in asked if shutil.which(program)]
    if not programs:
        raise TargetError(
            f"no {', '.join(asked)} here to find container {name!r} with",
            hint="--pid takes the pid of any process in it",
        )
    pids: dict[str, int] = {}
    reasons = []
    for program in programs:
        answer = asked[program](program, name)
        if isinstance(answer, str):
            reasons.append(f"{program}: {clean(answer)[:200]}")
        else:
            pids[program] = answer
    if not pids:
        raise TargetError(
            f"no container {name!r} runs ({'; '.join(reasons)})",
            hint="`lxc-ls --running` or `incus list` shows those that do",
        )
    if len(set(pids.values())) > 1:
        raise TargetError(
            f"{' and '.join(pids)} each have a container {name!r}",
            hint="--pid takes the pid of any process in the one that is meant",
        )
    return _namespace_of(next(iter(pids.values())), f"container {name!r}")


def _of_lxc(program: str, name: str) -> int | str:
    """Return the first process of a container of LXC, or why there is none."""
    done = ask([program, f"--name={name}", "--pid", "--no-humanize"])
    said = done.stdout.strip()
    if done.returncode or not _PID.fullmatch(said):
        return _why(done) if done.returncode else "it does not run"
    return int(said)


def _of_incus(program: str, name: str) -> int | str:
    """Return the first process of a container of Incus or LXD, or why there is none.

    A virtual machine has no namespace here, and an instance on another server has no process here.
    """
    if not _INSTANCE.fullmatch(name):
        return "no such name is possible"
    answers = []
    for path in (f"/1.0/instances/{name}", f"/1.0/instances/{name}/state"):
        done = ask([program, "query", "--force-local", path])
        if done.returncode:
            return _why(done)
        answers.append(done.stdout)
    try:
        instance = msgspec.json.decode(answers[0], type=_Instance)
        state = msgspec.json.decode(answers[1], type=_State)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return f"its answer is not understood: {error}"
    if instance.type != "container":
        return f"it is a {instance.type or 'thing of an unknown type'}, not a container"
    return state.pid if state.pid > 0 else "it does not run"


def find_machine(name: str) -> str:
    """Return the file of the network namespace of a container that systemd-machined knows.

    Raises TargetError when there is none; also for a virtual machine, whose process is the
    emulator on this host.
    """
    if not _MACHINE.fullmatch(name):
        raise TargetError(f"no machine can be called {name!r}", hint="`machinectl list` shows them")
    shown = _properties(["machinectl", "show"], name, ("Class", "Leader"))
    if (kind := shown.get("Class", "")) != "container":
        own_kernel = "a virtual machine has a kernel of its own: record in it"
        raise TargetError(
            f"machine {name!r} is no container: its class is {clean(kind)[:40] or 'unknown'}",
            hint="--host records a ping of the host" if kind == "host" else own_kernel,
        )
    return _namespace_of(_pid(shown.get("Leader", "")), f"machine {name!r}")


def find_unit(name: str) -> tuple[str, str]:
    """Return a systemd unit's whole name and the file of its network namespace.

    That is a namespace of its own: by PrivateNetwork= or NetworkNamespacePath=, see
    systemd.exec(5). Raises TargetError when the unit does not run, or has none.
    """
    if not _UNIT.fullmatch(name) or name.isdigit():  # a number would be a job
        raise TargetError(f"no unit can be called {name!r}", hint="`systemctl` shows them")
    wanted = ("Id", "LoadState", "MainPID", "ControlGroup", "NetworkNamespacePath")
    shown = _properties(["systemctl", "show"], name, wanted)
    whole = shown.get("Id", "")
    if shown.get("LoadState") == "not-found" or not _UNIT.fullmatch(whole):
        raise TargetError(f"no unit {name!r}", hint="`systemctl` shows them")
    file = _unit_namespace(whole, shown)
    if _inode(file) in (_inode("/proc/1/ns/net"), _inode("/proc/self/ns/net")):
        raise TargetError(
            f"unit {whole} has no network of its own",
            hint="--host records a ping of the host; if the unit starts a container, name that",
        )
    return whole, file


def _inode(file: str) -> int | None:
    """Return which namespace a file is of; None where it has ended or may not be looked at."""
    try:
        return Path(file).stat().st_ino
    except OSError:
        return None


def _unit_namespace(whole: str, shown: dict[str, str]) -> str:
    """Return the file of a unit's namespace: that of a process, or the configured one."""
    pid = _pid(shown.get("MainPID", "")) or _any_process(shown.get("ControlGroup", ""))
    if not pid and Path(shown.get("NetworkNamespacePath") or "/nowhere").exists():
        return shown["NetworkNamespacePath"]
    return _namespace_of(pid, f"unit {whole}")


def _any_process(group: str) -> int:
    """Return a process of a control group, as systemd names it; 0 when there is none."""
    if not group.startswith("/") or ".." in group:
        return 0
    for hierarchy in _CGROUPS:
        try:
            members = (CGROUP_ROOT / hierarchy / group[1:] / "cgroup.procs").open()
        except OSError:
            continue
        with members:
            return _pid(members.readline().strip())
    return 0


def _properties(words: list[str], name: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """Return properties that a program of systemd shows, one ``NAME=VALUE`` a line."""
    if not shutil.which(words[0]):
        raise TargetError(
            f"no {words[0]} here to find {name!r} with", hint="--pid takes a process of it"
        )
    # machinectl of systemd 252 takes one property at a time, src/machine/machinectl.c
    properties = [f"--property={property_}" for property_ in wanted]
    done = ask([*words, *properties, "--", name])
    if done.returncode:
        raise TargetError(f"{words[0]}: {_why(done)}", hint="--pid takes a process of it")
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: value for key, _, value in pairs if key in wanted}


def _pid(text: str) -> int:
    return int(text) if _PID.fullmatch(text) else 0


def _namespace_of(pid: int, what: str) -> str:
    """Return the file of a process's network namespace; TargetError when it is not here."""
    file = Path(f"/proc/{pid}/ns/net")
    if pid <= 0 or not file.exists():
        raise TargetError(f"{what} has no process here", hint="does it run, and on this machine?")
    return str(file)


def _why(done: Finished) -> str:
    return clean(reason(done))[:200]
