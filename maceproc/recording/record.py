"""Make a capture: record the kernel's net events beside a ping, in arms and rounds.

A round runs the command once per arm: in the container traced and untraced, and natively (from the
host) traced and untraced. Traced minus untraced is the cost of tracing. The two traced arms differ
by what the host does to its own pings. The corrected RTT is compared with the native untraced arm.
The order of the arms is balanced over the rounds.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from maceproc import __version__
from maceproc.calibration import Calibration
from maceproc.capture import Sidecar, Tracing
from maceproc.capture_files import Capture, echoes_path, sidecar_path
from maceproc.errors import (
    CaptureError,
    CommandError,
    Interrupted,
    NoReply,
    TargetError,
    TracingError,
)
from maceproc.recording.arms import arms_of_round, schedule
from maceproc.recording.both_recorders import BothRecorders
from maceproc.recording.bpf.libbpf import require_bpf
from maceproc.recording.command import (
    Command,
    find_ping_in_container,
    find_program,
    parse_command,
    resolve_in_container,
)
from maceproc.recording.destinations import destination_notes, resolve_from
from maceproc.recording.echo_recorder import EchoRecorder, devices_to_watch
from maceproc.recording.engine_command import is_engine, parse_engine_command
from maceproc.recording.entrances import EngineExec
from maceproc.recording.event_sets import EventSet, choose_events, events_needed
from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6
from maceproc.recording.machine import (
    cpus_awake,
    describe_machine,
    require_programs,
    require_rights,
)
from maceproc.recording.native import describe_native
from maceproc.recording.options import Options, Tracer
from maceproc.recording.perf_recorder import PerfRecorder, perf_version, require_perf
from maceproc.recording.processes import Interruption
from maceproc.recording.recorder import Recorder
from maceproc.recording.rescue import remove_stale_instances
from maceproc.recording.session import (
    PIECE_LIMIT_BYTES,
    AnyRecorder,
    Progress,
    Session,
    failed,
    kept,
)
from maceproc.recording.sites import Site, engine_site, remote_spinning
from maceproc.recording.survey import Survey, survey
from maceproc.recording.tracing import (
    CLOCK,
    TRACEFS,
    available_events,
    default_buffer_kb,
    mounted_tracefs,
    tracecmd_version,
)
from maceproc.recording.workplace import Workplace

_NO_REPLY = re.compile(r"\b0 (packets )?received\b")  # iputils and busybox


News = TypeVar("News")


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
    tracer: Tracer = "ftrace",
    piece_limit_bytes: int = PIECE_LIMIT_BYTES,
    calibration: Calibration | None = None,
    announce: Callable[[Sidecar], None] = lambda _: None,
    tell: Callable[[Progress], None] = lambda _: None,
    show: Callable[[bytes], None] | None = None,
) -> Capture:
    """Record a command, with its arms and rounds, into a trace file and its sidecar.

    Both files are made in a private directory beside the output, and moved out when they are
    complete. Raises RecordError and its subclasses, and CaptureError when the output exists, is
    being recorded or cannot be written. What was recorded until an error or Ctrl-C is kept.
    >>> with Lab() as lab: record(["ping", "-c", "20"], lab_site(lab))        # doctest: +SKIP

    The parameters from `rounds` to `calibration` are described in
    `maceproc.recording.options.Options`, the others here. When `announce`, `tell` or `show` raises
    because it cannot write, the recording goes on without it.

    Parameters
    ----------
    command, site, output
        The command line (a ping that knows -D gets it), where to run it (from
        `maceproc.recording.sites`), and the trace file.
    announce
        Is called once, before anything runs: its sidecar says what will be recorded and what not.
    tell
        Is called with the progress before every run, and once more after the last run.
    show
        Is called with what the command prints, at most once a second, when there is a single run.
    """
    options = Options(
        rounds=rounds,
        baseline=baseline,
        events=events,
        outer=outer,
        force=force,
        buffer_kb=buffer_kb,
        awake=awake,
        tracer=tracer,
        piece_limit_bytes=piece_limit_bytes,
        calibration=calibration,
    )
    return _make_capture(list(command), site, Path(output), options, announce, tell, show)


def _make_capture(
    command: list[str],
    site: Site,
    trace: Path,
    options: Options,
    announce: Callable[[Sidecar], None],
    tell: Callable[[Progress], None],
    show: Callable[[bytes], None] | None,
) -> Capture:
    """Survey the path, run the plan, and raise an error when the recording ended badly."""
    require_rights(options.tracer, own_network=site.is_ours and not is_engine(command))
    check_output(trace, force=options.force)
    with (
        Interruption(raises=True) as interruption,
        Workplace(trace, force=options.force) as workplace,
        _understood(command, site, options.tracer) as (place, parsed),
        _tracefs_for(options.tracer) as tracefs,
    ):
        surveyed = _survey_path(parsed, place, options.outer)
        recorder, event_set, notes = _recorder_of(options, workplace, surveyed, tracefs)
        stamped = parsed.with_timestamps(command_inside(place))
        arms = list(arms_of_round(place, surveyed, stamped, options.baseline, notes))
        tracing = describe_tracing(recorder, event_set)
        sidecar = _begin_sidecar(command, options, surveyed, tracing, notes)
        if any(arm.place == "native" for arm in arms) and not place.is_native:
            sidecar.native = describe_native(place, stamped)
        place.end_first_look()
        limit = options.piece_limit_bytes
        session = Session(recorder, interruption, stamped, sidecar, workplace, limit)
        _quietly(announce)(sidecar)
        interruption.raises = False
        plan = list(schedule(arms, options.rounds))
        show_run = _quietly(show) if show and len(plan) == 1 else None
        try:
            with _cpus_kept_awake(options.awake), remote_spinning(place):
                session.execute(plan, _quietly(tell), show_run)
        finally:
            interruption.ignore()
    _judge(sidecar, interruption, parsed, place, trace)
    return Capture(trace, sidecar)


def _tracefs_for(tracer: Tracer) -> AbstractContextManager[Path]:
    """Give the directory of tracefs, mounted where the tracer needs it."""
    return contextlib.nullcontext(TRACEFS) if tracer == "bpf" else mounted_tracefs()


def _cpus_kept_awake(awake: bool) -> AbstractContextManager[None]:
    """Keep the CPUs from going idle within the block, if `awake`."""
    return cpus_awake() if awake else contextlib.nullcontext()


def _survey_path(command: Command, place: Site, outer: str) -> Survey:
    """Survey the path of the command's packets, and note what is special about it."""
    surveyed = survey(place, destination_address(command, place), outer)
    surveyed.target.notes += destination_notes(command, place, surveyed, outer)
    if place.launch:
        surveyed.target.transient = True
        surveyed.target.notes.append(
            f"every run has a container of its own, made of {place.launch.inside.image}; "
            "the path is that of a first one"
        )
    return surveyed


def _begin_sidecar(
    command: list[str], options: Options, surveyed: Survey, tracing: Tracing, notes: list[str]
) -> Sidecar:
    """Return the sidecar as it is known before the first run."""
    return Sidecar(
        maceproc=__version__,
        command=command,
        rounds=options.rounds,
        target=surveyed.target,
        runs=[],
        namespaces=surveyed.namespaces,
        tracing=tracing,
        machine=describe_machine(options.awake),
        notes=notes,
        calibration=options.calibration,
    )


def _quietly(callback: Callable[[News], None] | None) -> Callable[[News], None]:
    """Return a callback whose failures to write are ignored: its terminal or pipe may be gone."""

    def quiet(news: News) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            if callback is not None:
                callback(news)

    return quiet


@contextlib.contextmanager
def _understood(command: list[str], site: Site, tracer: Tracer) -> Iterator[tuple[Site, Command]]:
    """Give the site and the command; the command line of a container engine says both."""
    if not is_engine(command):
        parsed = with_destination(parse_command(command), site)
        require_command(parsed, site)
        require_tracer(tracer)
        yield site, parsed
        return
    if site.kind != "here":
        raise CommandError(
            f"{command[0]} says by itself where the command runs", hint="give no other target"
        )
    require_tracer(tracer)
    with engine_site(parse_engine_command(command), site.native) as (inside, parsed):
        require_command(parsed, inside)
        yield inside, parsed


def require_tracer(tracer: Tracer) -> None:
    """Raise TracingError when a program that this tracer needs is not installed."""
    require_programs(tracer)
    if tracer == "perf":
        require_perf()


def check_output(trace: Path, *, force: bool) -> None:
    """Raise CaptureError when a capture exists there already, or its directory does not."""
    if not trace.parent.is_dir():
        raise CaptureError(
            f"{trace.parent}: no such directory", hint="make it, or choose another -o"
        )
    if trace.is_dir():
        raise CaptureError(f"{trace}: is a directory", hint="name a file with -o")
    for path in (trace, sidecar_path(trace), echoes_path(trace)):
        if os.path.lexists(path) and not force:  # also a link to nowhere
            raise CaptureError(
                f"{path}: exists", hint="choose another name with -o, or use --force"
            )


def with_destination(command: Command, site: Site) -> Command:
    """Return the command; a ping in the lab that names no destination is sent to the remote."""
    if command.is_ping and not command.destination and site.kind == "lab":
        return command.to(REMOTE_IPV6 if command.family == socket.AF_INET6 else REMOTE_IPV4)
    return command


def command_inside(site: Site) -> EngineExec | None:
    """Return the container that a site's command is executed in; None: it is this machine's."""
    entrance = site.first_entrance
    return entrance if isinstance(entrance, EngineExec) else None


def require_command(command: Command, site: Site) -> None:
    """Make sure that the command can be executed where it is to run; CommandError when not."""
    inside = command_inside(site)
    if inside is None:
        find_program(command)
    elif (
        command.is_ping
    ):  # a missing program of another kind is reported by the engine when it runs
        find_ping_in_container(command, inside)


def destination_address(command: Command, site: Site) -> str:
    """Return the address that the command sends to; empty when unknown."""
    if not command.destination:
        return REMOTE_IPV4 if site.kind == "lab" else ""
    address = _resolve(command, site)
    if not address:
        where = f" for container {site.name!r}" if site.own_programs else ""
        raise CommandError(
            f"{command.destination}: no such host{where}", hint="check the name, or give an address"
        )
    return address


def _resolve(command: Command, site: Site) -> str:
    """Return the address of the destination, as it is known where the command runs."""
    entrance = site.first_entrance
    if command.is_ping and isinstance(entrance, EngineExec) and not command.has_literal_destination:
        return resolve_in_container(command, entrance)
    return resolve_from(command, command.destination, site)


def _recorder_of(
    options: Options, workplace: Workplace, surveyed: Survey, tracefs: Path
) -> tuple[AnyRecorder, EventSet, list[str]]:
    """Return the recorder that the options choose, its set of events, and notes about them."""
    if options.tracer == "bpf":
        require_bpf()
        return EchoRecorder(workplace.trace, devices_to_watch(surveyed)), "bpf", []
    minimal = events_needed(surveyed)
    chosen, event_set, notes = choose_events(options.events, available_events(tracefs), minimal)
    kb = options.buffer_kb or default_buffer_kb()
    if options.tracer == "perf":
        by_perf = PerfRecorder(workplace.trace, chosen, kb, tracefs, lock=workplace.lock)
        return by_perf, event_set, notes
    remove_stale_instances(tracefs)
    recorder = Recorder(workplace.trace, chosen, kb, tracefs, lock=workplace.lock)
    if options.tracer == "ftrace":
        return recorder, event_set, notes
    require_bpf()
    echoes = EchoRecorder(workplace.echoes, devices_to_watch(surveyed))
    return BothRecorders(recorder, echoes), event_set, notes


def describe_tracing(recorder: AnyRecorder, event_set: EventSet) -> Tracing:
    """Describe how a recorder records, for the sidecar."""
    if isinstance(recorder, EchoRecorder):
        return Tracing(
            events=[],
            event_set=event_set,
            clock=CLOCK,
            instance="",
            buffer_size_kb=recorder.buffer_kb,
            tracer="bpf",
        )
    by_perf = isinstance(recorder, PerfRecorder)
    both = isinstance(recorder, BothRecorders)
    return Tracing(
        events=recorder.events,
        event_set=event_set,
        clock=CLOCK,
        instance=recorder.instance,
        buffer_size_kb=recorder.buffer_kb,
        tracecmd_version="" if by_perf else tracecmd_version(),
        perf_version=perf_version() if by_perf else "",
        function_tracer_denied=recorder.covers_function_tracer,
        tracer="perf" if by_perf else "ftrace+bpf" if both else "ftrace",
    )


def _judge(
    sidecar: Sidecar, interruption: Interruption, command: Command, site: Site, trace: Path
) -> None:
    """Raise an error if the recording ended badly; the capture is on disk already."""
    runs = sidecar.runs
    what_is_kept = kept(command, runs, trace)
    if interruption.signal_number:
        raise Interrupted(
            f"interrupted by {interruption.reason}; {what_is_kept}",
            signal_number=interruption.signal_number,
        )
    if interruption.reason:
        raise TracingError(
            f"{interruption.reason}; {what_is_kept}",
            hint="make it shorter, or record less with --events",
        )
    if not site.entrance.is_alive():
        raise TargetError(f"container {site.name!r} ended during the recording; {what_is_kept}")
    if failed(command, runs[-1]):
        said = (runs[-1].errors + runs[-1].output).strip().splitlines() or ["it said nothing"]
        raise CommandError(
            f"{command.argv[0]} failed with exit status {runs[-1].exit_status}: {said[0]}; "
            f"{what_is_kept}"
        )
    inside = [run for run in runs if run.place == runs[0].place]
    if command.is_ping and all(_NO_REPLY.search(run.output) for run in inside):
        raise NoReply(
            f"no reply from {sidecar.target.address}; {what_is_kept}",
            hint="check the address and the routes of the target",
        )
