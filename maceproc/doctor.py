"""Check on this machine what a recording needs: each check is ok, a warning, or a problem.

A problem keeps `maceproc record` from recording. A warning means that its numbers are less certain
than they could be, or that it cannot record everywhere. A very short trial recording is one of the
checks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from maceproc.capture_files import recording_directory
from maceproc.doctor_programs import Check, lab, ping
from maceproc.errors import MaceprocError, PrivilegeError, TargetError
from maceproc.recording import remains, rescue
from maceproc.recording.bpf.trial import try_tracer
from maceproc.recording.engines import (
    ENGINES,
    engine_answers,
    is_rootless,
    remove_container,
    stale_containers,
)
from maceproc.recording.event_sets import minimal_events
from maceproc.recording.lab import remove_stale_labs, stale_labs
from maceproc.recording.machine import (
    CPU_DMA_LATENCY,
    describe_machine,
    require_programs,
    require_root,
    sees_kernel_pids,
)
from maceproc.recording.owners import OWNER, has_ended
from maceproc.recording.perf_trial import try_perf
from maceproc.recording.recorder import Recorder
from maceproc.recording.tracing import (
    BUFFER_KB,
    CLOCK,
    available_events,
    default_buffer_kb,
    function_tracer_denied,
    mounted_tracefs,
    tracecmd_version,
)

if TYPE_CHECKING:
    import pandas as pd

JSON_VERSION = 1
OLDEST_TRACECMD = (3, 1)  # the oldest that is tested with
LITTLE_SPACE_MB = 500  # where the trace is written

# The fields that the analysis reads of each event; `a|b`: one of the two names.
NEEDED_FIELDS = {
    "net_dev_queue": ("skbaddr", "len", "name|dev"),
    "net_dev_start_xmit": ("skbaddr", "len", "name|dev"),
    "netif_rx": ("skbaddr", "len", "name|dev"),
    "netif_receive_skb": ("skbaddr", "len", "name|dev"),
    "sys_enter_sendto": ("fd", "len"),
    "sys_enter_sendmsg": ("fd",),
    "sys_exit_recvmsg": ("ret",),
    "sys_exit_recvfrom": ("ret",),
}
_PIECE = re.compile(rf"(?P<trace>.+?)(\.{remains.INSTANCE_PREFIX}(?P<owner>{OWNER}))?\.cpu\d+")


def examine(directory: Path = Path()) -> list[Check]:
    """Check this machine, and look in `directory` for what killed recordings left there."""
    return [
        *_judged("privileges", _privileges),
        *_judged("programs", _programs),
        *_judged("tracefs", _tracing),
        Check("perf", *try_perf()),
        Check("BPF tracer", *try_tracer()),
        *_memory(directory),
        *_engines(),
        *ping(),
        *lab(),
        *_cpus(),
        *_judged("leftovers", lambda: _leftovers(directory)),
    ]


def as_json(checks: list[Check], removed: list[str]) -> str:
    """Return the checks, and what was removed before them, as one JSON object."""
    rows = [check._asdict() for check in checks]
    return json.dumps({"version": JSON_VERSION, "checks": rows, "removed": removed}, indent=1)


def remove_leftovers() -> list[str]:
    """Remove what killed recordings left behind; return a description of each thing removed.

    Pieces of a trace are kept, since they hold recorded events; events that are still in the
    kernel's ring buffer are saved beside them. Raises PrivilegeError without root.
    """
    require_root()
    with mounted_tracefs() as tracefs:
        removed = [f"tracing instance {name}" for name in rescue.remove_stale_instances(tracefs)]
        removed += [f"note {note}" for note in remains.remove_stale_notes(tracefs)]
    removed += [f"lab {name}" for name in remove_stale_labs()]
    removed += [f"directory {path}" for path in remains.remove_stale_temporary_directories()]
    for trace in rescue.abandoned_recordings(Path()):
        if rescue.discard_without_events(trace):
            removed.append(f"directory {recording_directory(trace)}")
    for engine, name in _stale_containers():
        remove_container(engine, name)
        removed.append(f"{engine} container {name}")
    return removed


def _judged(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Yield the results of a check; an error that it raises becomes a problem."""
    try:
        yield from check()
    except MaceprocError as error:
        yield Check(name, "problem", error.message, error.hint)


def _privileges() -> Iterator[Check]:
    require_root()
    yield Check("privileges", "ok", "root, with CAP_SYS_ADMIN")


def _programs() -> Iterator[Check]:
    require_programs()
    version = tracecmd_version()
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_TRACECMD:
        oldest = ".".join(map(str, OLDEST_TRACECMD))
        yield Check(
            "trace-cmd",
            "warning",
            f"version {version or 'unknown'}: never tried here, {oldest} is the oldest that was",
            "install a newer one",
        )
    else:
        yield Check("trace-cmd", "ok", f"version {version}")


def _tracing() -> Iterator[Check]:
    """Check tracefs, the events and the clock of the kernel; only root can read them."""
    if os.geteuid():
        raise PrivilegeError("tracefs can only be looked at by root", hint="run it with sudo")
    with mounted_tracefs() as tracefs:
        yield Check("tracefs", "ok", str(tracefs))
        yield from _events(tracefs)
        yield _clock(tracefs)
        yield _function_tracer(tracefs)
        with contextlib.suppress(MaceprocError):  # a missing program is reported by _programs
            require_programs()
            yield from _judged("trial", lambda: _trial(tracefs))


def _events(tracefs: Path) -> Iterator[Check]:
    available = available_events(tracefs)
    missing = [event for event in minimal_events([]) if event not in available]
    if missing:
        yield Check(
            "events",
            "problem",
            f"this kernel has no event {', '.join(missing)}",
            "use a kernel with CONFIG_FTRACE_SYSCALLS and CONFIG_EVENT_TRACING",
        )
        return
    for event in minimal_events([]):
        system, _, name = event.partition(":")
        absent = _absent_fields((tracefs / "events" / system / name / "format").read_text(), name)
        if absent:
            yield Check("events", "problem", f"{event} has no field {', '.join(absent)}")
            return
    yield Check("events", "ok", f"all {len(minimal_events([]))} that are needed, and their fields")


def _absent_fields(declared: str, event: str) -> list[str]:
    """Return the needed fields that an event's format does not declare."""
    has = set(re.findall(r"field:.*?(\w+)(?:\[.*?\])?;", declared))
    return [field for field in NEEDED_FIELDS[event] if not has & set(field.split("|"))]


def _clock(tracefs: Path) -> Check:
    clocks = (tracefs / "trace_clock").read_text().replace("[", "").replace("]", "").split()
    if CLOCK in clocks:
        return Check("clock", "ok", f"{CLOCK}: comparable between CPUs")
    return Check("clock", "problem", f"no clock {CLOCK}, only {', '.join(clocks)}")


def _function_tracer(tracefs: Path) -> Check:
    if function_tracer_denied(tracefs):
        message = "denied on this host; trace-cmd runs with its files covered, nothing needs it"
        return Check("function tracer", "ok", message)
    return Check("function tracer", "ok", "allowed, and not needed")


def _trial(tracefs: Path) -> Iterator[Check]:
    """Record a send and a receive call, and read them."""
    from maceproc.tracedat import read_events

    with remains.temporary_directory() as directory:
        trace = directory / "trace.dat"
        events = ["syscalls:sys_enter_sendto", "syscalls:sys_exit_recvfrom"]
        with Recorder(trace, events, 64, tracefs) as recorder:
            recorder.switch_on()
            _send_to_ourselves()
            recorder.switch_off()
        recorded = read_events(trace).events
    ours = {name: _calls_of_ours(table) for name, table in recorded.items()}
    missing = [event for event in events if not ours.get(event.partition(":")[2])]
    if missing:
        yield Check("trial", "problem", f"a trial recording holds no {', '.join(missing)} of ours")
    else:
        yield Check("trial", "ok", "a trial recording holds the calls that were made")


def _send_to_ourselves() -> None:
    """Make one sendto and one recvfrom call."""
    here, there = socket.socketpair()
    with here, there:
        here.send(b"maceproc")
        there.recv(8)


def _calls_of_ours(table: pd.DataFrame) -> int:
    own = table["pid"] == os.getpid() if sees_kernel_pids() else table["pid"] >= 0
    return int(own.sum())


def _memory(directory: Path) -> Iterator[Check]:
    size_kb = default_buffer_kb()
    if size_kb < BUFFER_KB:
        yield Check(
            "buffers",
            "warning",
            f"{size_kb} KiB per CPU, memory is short: a loaded machine may lose events",
            "free memory, or record less with --events",
        )
    else:
        yield Check("buffers", "ok", f"{size_kb} KiB per CPU")
    free_mb = shutil.disk_usage(directory).free // 2**20
    if free_mb < LITTLE_SPACE_MB:
        yield Check("disk", "warning", f"{free_mb} MiB free here", "write elsewhere with -o")
    else:
        yield Check("disk", "ok", f"{free_mb} MiB free here")


def _engines() -> Iterator[Check]:
    found = [engine for engine in ENGINES if shutil.which(engine)]
    if not found:
        yield Check(
            "engines",
            "warning",
            f"none of {', '.join(ENGINES)} is installed: --container cannot be used",
            "--pid and --netns record in any container",
        )
    for engine in found:
        yield _engine(engine)


def _to_have_it_answer(engine: str) -> str:
    """Return what to do where an engine that is installed does not answer."""
    if os.geteuid() != 0:
        return "run it with sudo: an engine of root may answer root alone"
    if engine == "docker":
        return "start it to use --container with docker; DOCKER_HOST says where it listens"
    return f"mend that to use --container with {engine}: `{engine} ps` must answer"


def _engine(engine: str) -> Check:
    try:
        version = engine_answers(engine)
        rootless = is_rootless(engine)
    except TargetError as error:
        return Check(
            engine,
            "warning",
            error.message,
            _to_have_it_answer(engine),
        )
    if rootless:
        return Check(
            engine,
            "warning",
            f"{version} answers, and is rootless: a program (slirp4netns or pasta) carries its "
            "containers' packets, and their crossing cannot be seen",
            "run the container with the engine of root to correct its RTTs",
        )
    return Check(engine, "ok", f"{version} answers")


def _cpus() -> Iterator[Check]:
    machine = describe_machine()
    idle = Path("/sys/devices/system/cpu/cpuidle/current_driver")
    driver = idle.read_text().strip() if idle.exists() else "none"
    if driver != "none" or not CPU_DMA_LATENCY.exists():
        yield Check(
            "idle",
            "warning",
            f"CPUs sleep between pings (cpuidle driver {driver}): RTTs hold the time to wake up",
            "--awake keeps them from it" if CPU_DMA_LATENCY.exists() else "",
        )
    else:
        yield Check("idle", "ok", "no cpuidle driver")
    if machine.governor not in ("", "performance"):
        yield Check(
            "governor",
            "warning",
            f"{machine.governor}: the CPUs' speed changes with load, and RTTs with it",
            "cpupower frequency-set --governor performance",
        )
    else:
        yield Check("governor", "ok", machine.governor or "no frequency scaling to be seen")
    if machine.virtualization:
        yield Check(
            "virtualization",
            "warning",
            f"a virtual machine ({machine.virtualization}): its host can hold it up at any time",
            "compare arms of one recording only, with enough --rounds",
        )
    if machine.load_average > machine.cpus:
        yield Check(
            "load",
            "warning",
            f"{machine.load_average:.1f} tasks want {machine.cpus} CPUs",
            "record on a quieter machine, unless the load is what you measure",
        )


def _leftovers(directory: Path) -> Iterator[Check]:
    instances = [] if os.geteuid() else remains.stale_instances()
    left = [f"tracing instance {name}" for name in instances]
    left += [f"note {note}" for note in remains.stale_notes()]
    left += [f"lab {name}" for name in stale_labs()]
    left += [f"directory {path}" for path in remains.stale_temporary_directories()]
    left += [f"{engine} container {name}" for engine, name in _stale_containers()]
    for what in left:
        advice = "`maceproc doctor --fix` removes it"
        yield Check("leftovers", "warning", f"{what}, of a recording that was killed", advice)
    abandoned = rescue.abandoned_recordings(directory)
    for trace in abandoned:
        yield Check(
            "leftovers",
            "warning",
            f"the recording of {trace}, that was killed",
            f"`maceproc salvage {trace}` makes a capture of it",
        )
    for name, count in sorted(_pieces(directory).items()):
        yield Check(
            "leftovers",
            "warning",
            f"pieces of {name} ({count}), of a recording that was killed",
            f"`maceproc salvage {name}` makes a trace of them; then remove {name}.*cpu*",
        )
    if not left and not abandoned and not _pieces(directory):
        yield Check("leftovers", "ok", "none")


def _stale_containers() -> Iterator[tuple[str, str]]:
    for engine in ENGINES:
        if shutil.which(engine):
            yield from ((engine, name) for name in stale_containers(engine))


def _pieces(directory: Path) -> dict[str, int]:
    """Count the per-CPU files in a directory, by trace, without those of running recordings.

    trace-cmd writes one file per CPU, and joins them at its end.
    """
    counts: dict[str, int] = {}
    for path in directory.glob("*.cpu*"):
        piece = _PIECE.fullmatch(path.name)
        if piece and (piece["owner"] is None or has_ended(piece["owner"])):
            trace = str(path.with_name(piece["trace"]))
            counts[trace] = counts.get(trace, 0) + 1
    return counts
