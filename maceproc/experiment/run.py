"""Carry out a plan: one capture for every tracer in every block."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from maceproc import __version__
from maceproc.capture import Run, Sidecar
from maceproc.capture_files import identify, save_sidecar, sidecar_path
from maceproc.errors import CaptureError, CommandError, Interrupted
from maceproc.experiment.plan import (
    PLAN_FILE,
    TRAFFIC_FILE,
    Block,
    Experiment,
    Plan,
    PlannedArm,
    check_plan,
    file_name,
    finished,
    load_experiment,
    save_experiment,
    what_differs,
)
from maceproc.experiment.recorders import AnyRecorder, events_of, recording_of
from maceproc.experiment.stage import Stage, ping_of, prepare
from maceproc.experiment.traffic import Running, Traffic, running_flows, save_reports
from maceproc.recording.bounded import run_bounded
from maceproc.recording.machine import (
    cpus_awake,
    describe_machine,
    require_programs,
    require_root,
)
from maceproc.recording.processes import Interruption, execute
from maceproc.recording.record import (
    describe_tracing,
)
from maceproc.recording.session import SETTLE_S, Progress, failed, note_losses
from maceproc.recording.sites import Site, remote_spinning
from maceproc.recording.tracing import (
    mounted_tracefs,
)


def run_experiment(
    plan: Plan,
    site: Site,
    directory: Path,
    *,
    outer: str = "",
    buffer_kb: int | None = None,
    announce: Callable[[Experiment], None] = lambda _: None,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Experiment:
    """Run what is left of a plan in a directory.

    Blocks that are finished there stay as they are; more rounds may be asked for than before.

    Parameters
    ----------
    site
        Where to run it, from `maceproc.recording.sites`.
    outer
        The outer device, when it is not the one that the host's routes choose.
    buffer_kb
        Ring buffer per CPU and tracer [KiB]; by default `default_buffer_kb`.
    announce
        Is called before anything runs, with what will be run on which path.
    tell
        Is called with the progress before every run, and once more after the last run.

    Raises RecordError and its subclasses, CaptureError when the directory holds something else, and
    Interrupted after Ctrl-C or SIGTERM; every finished block is kept.
    """
    check_plan(plan)
    traffic = Traffic.parse(plan.traffic)
    require_root()
    command = ping_of(plan, site)
    require_programs()
    with mounted_tracefs() as tracefs, Interruption() as interruption:
        stage = prepare(plan, command, site, outer, buffer_kb, tracefs, interruption)
        for tracer in plan.tracers:  # raises for an unknown event before anything runs
            events_of(stage, tracer)
        experiment = _begin(stage, directory)
        announce(experiment)
        with cpus_awake() if plan.awake else contextlib.nullcontext(), remote_spinning(site):
            _run_blocks(stage, experiment, traffic, directory, tell)
    return experiment


def _begin(stage: Stage, directory: Path) -> Experiment:
    """Write the plan; where the directory has one already, read it, to run the rest of it."""
    places = list(stage.entrances)
    machine = describe_machine(stage.plan.awake)
    if (directory / PLAN_FILE).exists():
        experiment = load_experiment(directory)
        differs = what_differs(stage.plan, experiment.plan)
        if not differs and experiment.places != places:
            differs = f"arms in {' and '.join(experiment.places)}"
        if differs:
            raise CaptureError(
                f"{directory}: holds another experiment, with {differs}",
                hint="choose another -o, or repeat its options to go on with it",
            )
        before = experiment.machine
        if (before.kernel, before.cpu, before.cpus) != (machine.kernel, machine.cpu, machine.cpus):
            raise CaptureError(
                f"{directory}: was begun on another machine: {before.cpu}, {before.kernel}",
                hint="choose another -o",
            )
        experiment.plan = stage.plan
    else:
        if directory.exists() and any(directory.iterdir()):
            raise CaptureError(
                f"{directory}: not empty, and no experiment", hint="choose another -o"
            )
        experiment = Experiment(
            plan=stage.plan,
            target=stage.surveyed.target,
            places=places,
            machine=machine,
            pinned=stage.cpus,
        )
    experiment.sessions.append(time.time_ns())
    save_experiment(directory, experiment)
    return experiment


def _run_blocks(
    stage: Stage,
    experiment: Experiment,
    traffic: Traffic,
    directory: Path,
    tell: Callable[[Progress], None],
) -> None:
    blocks = list(experiment.blocks())
    total = sum(len(block.arms) for block in blocks)
    kept, done = finished(directory), 0
    for block in blocks:
        if (block.round, block.flows) not in kept:
            partial = directory / block.path.with_name(block.path.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

            def tell_arm(nth: int, arm: PlannedArm, done: int = done, block: Block = block) -> None:
                where = f"round {block.round}, {block.flows} flows"
                tell(Progress(done + nth, total, f"{where}: {arm}"))

            try:
                _run_block(stage, block, traffic, partial, tell_arm)
                partial.rename(directory / block.path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                _raise_interruption(stage, directory, len(blocks))
                raise
        done += len(block.arms)
    tell(Progress(total, total, ""))


def _raise_interruption(stage: Stage, directory: Path, total: int) -> None:
    if stage.interruption.signal_number:
        raise Interrupted(
            f"interrupted by {stage.interruption.reason}; "
            f"{len(finished(directory))} of {total} blocks kept in {directory}",
            signal_number=stage.interruption.signal_number,
            hint="the same command goes on with it",
        )


def _run_block(
    stage: Stage,
    block: Block,
    traffic: Traffic,
    directory: Path,
    tell: Callable[[int, PlannedArm], None],
) -> None:
    """Run every arm of a block, and leave its captures in the directory."""
    address = stage.surveyed.target.address
    with contextlib.ExitStack() as stack:
        # The flows are started last, so that they have stopped when the recorders write the rest.
        recorders = {
            tracer: stack.enter_context(recording_of(stage, tracer, directory / file_name(tracer)))
            for tracer in stage.plan.tracers
        }
        flows = stack.enter_context(
            running_flows(traffic, block.flows, address, stage.sources, stage.server, stage.cpus)
        )
        sidecars = {
            tracer: _sidecar(stage, block, tracer, recorder)
            for tracer, recorder in recorders.items()
        }
        _warm_up(stage)
        others: set[str] = set()
        for nth, arm in enumerate(block.arms):
            tell(nth, arm)
            run = _run(stage, block.round, arm, recorders, flows, others)
            for tracer, sidecar in sidecars.items():
                if arm.tracer in ("", tracer):
                    sidecar.runs.append(run)
    _save(directory, recorders, sidecars, flows, others)


def _warm_up(stage: Stage) -> None:
    """Send one ping from each place, so that neighbours are resolved and the program is cached."""
    for entrance in stage.entrances.values():
        run_bounded(entrance.enter(stage.command.probe(stage.surveyed.target.address)))


def _run(
    stage: Stage,
    number: int,
    arm: PlannedArm,
    recorders: dict[str, AnyRecorder],
    flows: Running,
    others: set[str],
) -> Run:
    """Run one arm. Other tracing that is active during an untraced arm is added to `others`."""
    run = Run(round=number, place=arm.place, traced=bool(arm.tracer), argv=list(stage.command.argv))
    recorder = recorders[arm.tracer or stage.plan.tracers[0]]
    recorder.check_running()
    entrance = stage.entrances[arm.place]
    if arm.tracer:
        recorder.switch_on()
    else:
        others.update(recorder.others())
    try:
        time.sleep(SETTLE_S)
        execute(run, entrance, stage.interruption, None)
    finally:
        if arm.tracer:
            recorder.switch_off()
    flows.check()
    if stage.interruption.signal_number:
        raise Interrupted("interrupted", signal_number=stage.interruption.signal_number)
    if failed(stage.command, run) or not entrance.is_alive():
        said = (run.errors + run.output).strip().splitlines() or ["it said nothing"]
        raise CommandError(
            f"{' '.join(run.argv)} ({arm}) failed with exit status {run.exit_status}: {said[0]}"
        )
    return run


def _sidecar(stage: Stage, block: Block, tracer: str, recorder: AnyRecorder) -> Sidecar:
    _, event_set = events_of(stage, tracer)
    flows = f"{block.flows} background flows: {stage.plan.traffic}" if block.flows else ""
    return Sidecar(
        maceproc=__version__,
        command=list(stage.plan.command),
        rounds=1,
        target=stage.surveyed.target,
        runs=[],
        namespaces=stage.surveyed.namespaces,
        tracing=describe_tracing(recorder, event_set),
        machine=describe_machine(stage.plan.awake),
        notes=[flows] if flows else [],
        native=stage.native,
    )


def _save(
    directory: Path,
    recorders: dict[str, AnyRecorder],
    sidecars: dict[str, Sidecar],
    flows: Running,
    others: set[str],
) -> None:
    for tracer, sidecar in sidecars.items():
        trace = directory / file_name(tracer)
        sidecar.trace = identify(trace)
        sidecar.tracing.buffer_size_kb = recorders[tracer].buffer_kb
        note_losses(sidecar.tracing, recorders[tracer])
        if others:
            names = ", ".join(sorted(repr(name) for name in others))
            sidecar.notes.append(f"untraced runs were traced by somebody else ({names})")
        save_sidecar(sidecar_path(trace), sidecar)
    save_reports(directory / TRAFFIC_FILE, flows.reports)
