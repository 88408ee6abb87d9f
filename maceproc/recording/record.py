"""Make a capture: record the kernel's net events beside a ping, in arms and rounds.

A round runs the command once per arm: in the container traced and untraced, and natively (from the
host) untraced. What tracing costs is the difference of the first two; how good the correction is
shows against the third. Rounds alternate the order of the arms, so that drift cancels.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from maceproc import __version__
from maceproc.capture import Capture, Run, Sidecar, Tracing, save_sidecar, sidecar_path
from maceproc.errors import CaptureError, CommandError, Interrupted, TargetError
from maceproc.recording.arms import Arm, arms_of_round, schedule
from maceproc.recording.command import (
    Command,
    find_ping_in_container,
    find_program,
    parse_command,
    resolve,
    resolve_in_container,
)
from maceproc.recording.engine_command import is_engine, parse_engine_command
from maceproc.recording.engines import EngineExec
from maceproc.recording.event_sets import EventSet, choose_events, minimal_events, path_links
from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6
from maceproc.recording.machine import (
    cpus_awake,
    describe_machine,
    require_programs,
    require_root,
)
from maceproc.recording.processes import Interruption, execute
from maceproc.recording.targets import Entrance, Site, engine_site, survey
from maceproc.recording.tracing import (
    CLOCK,
    Recorder,
    available_events,
    default_buffer_kb,
    mounted_tracefs,
    remove_stale_instances,
    tracecmd_version,
)

SETTLE_S = 0.02  # between switching events and the run: enabling a tracepoint patches code
_NO_REPLY = re.compile(r"\b0 (packets )?received\b")  # iputils and busybox


class Progress(NamedTuple):
    """How far a recording is: told before every run, and after the last one."""

    done: int
    total: int
    arm: str


def record(
    command: list[str],
    site: Site,
    output: str | Path = "trace.dat",
    *,
    rounds: int = 1,
    baseline: bool = True,
    events: str = "minimal",
    outer: str = "",
    force: bool = False,
    buffer_kb: int | None = None,
    awake: bool = False,
    announce: Callable[[Sidecar], None] = lambda _: None,
    tell: Callable[[Progress], None] = lambda _: None,
    show: Callable[[bytes], None] | None = None,
) -> Capture:
    """Record a command, with its arms and rounds, into a trace file and its sidecar.

    Raises RecordError and its subclasses, CaptureError when the output exists or cannot be written,
    and Interrupted after Ctrl-C or SIGTERM. What was recorded until then is kept.

    Parameters
    ----------
    command
        The command line; ping gets -D where it knows it.
    site
        Where to run it, from `maceproc.recording.targets`.
    baseline
        Run the untraced arms too. Without them there is no perturbation to report.
    events
        ``minimal``, ``full``, or events and patterns separated by commas (``net:*,skb:kfree_skb``).
    outer
        The outer device, when it is not the one that the host's routes choose.
    buffer_kb
        Ring buffer per CPU [KiB]; by default `default_buffer_kb`.
    awake
        Keep the CPUs from going idle while any arm runs: RTTs without the cost of waking up.
    announce
        Told, before anything runs, what will be recorded, on which path, and what cannot be seen.
    tell
        Told the progress before every run, and after the last.
    show
        Given what the command prints, at most once a second, when there is a single run.
    """
    require_root()
    trace = Path(output)
    check_output(trace, force=force)
    with (
        _understood(command, site) as (place, parsed),
        mounted_tracefs() as tracefs,
        Interruption() as interruption,
    ):
        surveyed = survey(place, destination_address(parsed, place), outer)
        if place.launch:
            surveyed.target.transient = True
            surveyed.target.notes.append(
                f"every run has a container of its own, made of {place.launch.inside.image}; "
                "the path is that of a first one"
            )
        minimal = minimal_events(path_links(surveyed))
        chosen, event_set, notes = choose_events(events, available_events(tracefs), minimal)
        remove_stale_instances(tracefs)
        recorder = Recorder(trace, chosen, buffer_kb or default_buffer_kb(), tracefs)
        arms = list(arms_of_round(place, surveyed, parsed, baseline, notes))
        sidecar = Sidecar(
            maceproc=__version__,
            command=list(command),
            rounds=rounds,
            target=surveyed.target,
            runs=[],
            namespaces=surveyed.namespaces,
            tracing=describe_tracing(recorder, event_set),
            machine=describe_machine(awake),
            notes=notes,
        )
        plan = list(schedule(arms, rounds))
        stamped = parsed.with_timestamps(place.first_entrance.enter)
        place.end_first_look()
        session = _Session(recorder, interruption, stamped, sidecar)
        announce(sidecar)
        with cpus_awake() if awake else contextlib.nullcontext():
            session.execute(plan, tell, show if len(plan) == 1 else None)
    _judge(sidecar, interruption, parsed, place, trace)
    return Capture(trace, sidecar)


@contextlib.contextmanager
def _understood(command: list[str], site: Site) -> Iterator[tuple[Site, Command]]:
    """Give where a command runs, and the command, which can be that of a container engine."""
    if not is_engine(command):
        parsed = with_destination(parse_command(command), site)
        require_command(parsed, site)
        require_programs()
        yield site, parsed
        return
    if site.kind != "here":
        raise CommandError(
            f"{command[0]} says by itself where the command runs", hint="give no other target"
        )
    require_programs()
    with engine_site(parse_engine_command(command)) as (inside, parsed):
        require_command(parsed, inside)
        yield inside, parsed


def check_output(trace: Path, *, force: bool) -> None:
    """Raise CaptureError when a capture exists there already, or could not be written."""
    if not trace.parent.is_dir():
        raise CaptureError(
            f"{trace.parent}: no such directory", hint="make it, or choose another -o"
        )
    if trace.is_dir():
        raise CaptureError(f"{trace}: is a directory", hint="name a file with -o")
    for path in (trace, sidecar_path(trace)):
        if path.exists() and not force:
            raise CaptureError(
                f"{path}: exists", hint="choose another name with -o, or use --force"
            )
    try:
        trace.open("ab").close()
    except OSError as error:
        raise CaptureError(
            f"{trace}: cannot be written: {error.strerror}", hint="choose another place with -o"
        ) from error
    if not trace.stat().st_size:
        trace.unlink()


def with_destination(command: Command, site: Site) -> Command:
    """Return the command; a ping in the lab that names no destination is sent to the remote."""
    if command.is_ping and not command.destination and site.kind == "lab":
        return command.to(REMOTE_IPV6 if command.family == socket.AF_INET6 else REMOTE_IPV4)
    return command


def require_command(command: Command, site: Site) -> None:
    """Make sure that the command can be executed where it is to run; CommandError when not."""
    entrance = site.first_entrance
    if not isinstance(entrance, EngineExec):
        find_program(command)
    elif command.is_ping:  # of any other program, the engine itself says so when it runs
        find_ping_in_container(command, entrance)


def destination_address(command: Command, site: Site) -> str:
    """Return the address that the command sends to; empty when unknown."""
    if not command.destination:
        return REMOTE_IPV4 if site.kind == "lab" else ""
    address = _resolve(command, site.first_entrance)
    if not address:
        where = f" for container {site.name!r}" if site.own_programs else ""
        raise CommandError(
            f"{command.destination}: no such host{where}", hint="check the name, or give an address"
        )
    return address


def _resolve(command: Command, entrance: Entrance) -> str:
    """Return the address of the destination, as it is known where the command runs."""
    if command.is_ping and isinstance(entrance, EngineExec) and not command.has_literal_destination:
        return resolve_in_container(command, entrance)
    return resolve(command.destination, command.family)


def describe_tracing(recorder: Recorder, event_set: EventSet) -> Tracing:
    """Describe how a recorder records, for the sidecar."""
    return Tracing(
        events=recorder.events,
        event_set=event_set,
        clock=CLOCK,
        instance=recorder.instance,
        buffer_size_kb=recorder.buffer_kb,
        tracecmd_version=tracecmd_version(),
        function_tracer_denied=recorder.covers_function_tracer,
    )


class _Session:
    """Runs the plan, and fills in the sidecar."""

    def __init__(
        self, recorder: Recorder, interruption: Interruption, command: Command, sidecar: Sidecar
    ) -> None:
        self._recorder = recorder
        self._interruption = interruption
        self._command = command
        self._sidecar = sidecar
        self._others: set[str] = set()  # instances that traced during an untraced run

    def execute(
        self,
        plan: list[tuple[int, Arm]],
        tell: Callable[[Progress], None],
        show: Callable[[bytes], None] | None,
    ) -> None:
        """Run every arm of the plan; however that ends, leave a trace with a sidecar."""
        if self._interruption.signal_number:
            return
        trace = self._recorder.output
        for old in (trace, sidecar_path(trace)):
            old.unlink(missing_ok=True)
        try:
            with self._recorder:
                for done, (number, arm) in enumerate(plan):
                    tell(Progress(done, len(plan), str(arm)))
                    if self._interruption.signal_number or self._has_failed():
                        break
                    self._run(number, arm, show)
                    if not arm.entrance.is_alive():
                        break
        except BaseException:
            with contextlib.suppress(CaptureError):  # the first error is the one to tell
                self._save(trace)
            raise
        self._save(trace)
        tell(Progress(len(plan), len(plan), ""))

    def _save(self, trace: Path) -> None:
        self._sidecar.interrupted = self._interruption.reason
        self._sidecar.tracing.events_lost = self._recorder.events_lost
        if self._others:
            names = ", ".join(
                sorted(repr(name) if name else "the top one" for name in self._others)
            )
            self._sidecar.notes.append(
                f"untraced runs were traced by somebody else, in another instance ({names})"
            )
        if self._sidecar.runs or trace.exists():
            save_sidecar(sidecar_path(trace), self._sidecar)

    def _has_failed(self) -> bool:
        runs = self._sidecar.runs
        return bool(runs) and failed(self._command, runs[-1])

    def _run(self, number: int, arm: Arm, show: Callable[[bytes], None] | None) -> None:
        run = Run(round=number, place=arm.place, traced=arm.traced, argv=list(self._command.argv))
        self._recorder.check_running()
        self._sidecar.runs.append(run)
        with self._traced() if arm.traced else self._untraced():
            time.sleep(SETTLE_S)
            execute(run, arm.entrance, self._interruption, show)

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        self._recorder.switch_on()
        try:
            yield
        finally:
            self._recorder.switch_off()

    @contextlib.contextmanager
    def _untraced(self) -> Iterator[None]:
        self._others.update(self._recorder.others())
        yield
        self._others.update(self._recorder.others())


def failed(command: Command, run: Run) -> bool:
    """Tell whether the command failed, or its namespace could not be entered any more."""
    return command.failed(run.exit_status) or run.errors.startswith("nsenter: ")


def _judge(
    sidecar: Sidecar, interruption: Interruption, command: Command, site: Site, trace: Path
) -> None:
    """Raise what the recording ended with; the capture is on disk already."""
    runs = sidecar.runs
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    kept = f"{count} kept in {trace}" if runs else "nothing was recorded"
    if interruption.signal_number:
        raise Interrupted(
            f"interrupted by {interruption.reason}; {kept}",
            signal_number=interruption.signal_number,
        )
    if not site.entrance.is_alive():
        raise TargetError(f"container {site.name!r} ended during the recording; {kept}")
    if failed(command, runs[-1]):
        said = (runs[-1].errors + runs[-1].output).strip().splitlines() or ["it said nothing"]
        raise CommandError(
            f"{command.argv[0]} failed with exit status {runs[-1].exit_status}: {said[0]}; {kept}"
        )
    inside = [run for run in runs if run.place == runs[0].place]
    if command.is_ping and all(_NO_REPLY.search(run.output) for run in inside):
        raise CommandError(
            f"no reply from {sidecar.target.address}; {kept}",
            hint="check the address and the routes of the target",
        )
