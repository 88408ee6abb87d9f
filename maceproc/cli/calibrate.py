"""`maceproc calibrate`: measure what this host does to its own pings, for other captures."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from maceproc.cli.options import COMMAND, REMOTE, recorded, rounds_option
from maceproc.cli.places import NAMED, Chosen, chosen_site, placed
from maceproc.cli.privileges import require_root
from maceproc.cli.record import doctor_at_hand, interrupt_cleanly, recording_progress
from maceproc.cli.terminal import tell, tell_notes, working

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from maceproc.calibration import Calibration
    from maceproc.recording.sites import Site


@click.command()
@placed
@recorded
@REMOTE
@rounds_option(least=4, default=24)
@click.option(
    "--from",
    "made_from",
    multiple=True,
    metavar="TRACE",
    help="Record nothing: use a capture that has native arms. May be given several times.",
)
@click.option(
    "--check",
    metavar="FILE",
    help="Tell whether a calibration still holds on this machine: record, and compare.",
)
@click.option("--keep", metavar="TRACE", help="Keep what is recorded, as a capture.")
@click.option("-o", "--output", default="calibration.json", show_default=True, metavar="FILE")
@click.option("--force", is_flag=True, help="Replace a calibration that exists.")
@COMMAND
def calibrate(
    where: Chosen,
    remote: Literal["kernel", "program"] | None,
    outer: str,
    rounds: int,
    buffer_kb: int | None,
    awake: bool,
    made_from: tuple[str, ...],
    check: str | None,
    keep: str | None,
    output: str,
    force: bool,
    command: tuple[str, ...],
) -> None:
    """Measure what this host does to its own pings, for captures that have no native arms.

    Records the ping in the container and from the host, traced and untraced, and writes a small
    file. It serves captures on this machine of other targets and other times: the same kernel,
    devices, ping and interval; where one of these differs, the analysis says so.

    \b
    maceproc calibrate --container web -- ping -i 0.2 -c 20 192.0.2.1
    maceproc analyze other.dat --calibration calibration.json
    From captures that are there:
      maceproc calibrate --from trace.dat --from more.dat -o calibration.json
    Does it still hold?
      maceproc calibrate --check calibration.json
    """  # noqa: D301  \b is click's
    from maceproc.calibration import load_calibration

    if made_from and (command or check):
        raise click.UsageError("--from takes captures that are there: give no command, no --check")
    if not made_from and not check and not command:
        raise click.UsageError("give the ping to calibrate with, after --")
    old = load_calibration(check) if check else None
    if not made_from:
        require_root("a calibration")
    if old is None:
        _require_new(output, force)
    with tempfile.TemporaryDirectory(prefix="maceproc-") as directory:
        traces = [*made_from]
        if not traces:
            interrupt_cleanly()
            traces = [keep or f"{directory}/calibration.dat"]
            if old and where.kind == "here":
                where = _place_of(old, where)
            there = chosen_site(where, remote=remote)
            words = list(command) or (old.command if old else [])
            awake = awake or bool(old and old.conditions.awake)
            options = {"rounds": rounds, "outer": outer, "buffer_kb": buffer_kb, "force": force}
            _record(words, there, traces[0], awake=awake, **options)
        new = _made_of(traces)
    if old is not None:
        _compare(old, new, str(check))
    else:
        _save(new, output)


def _require_new(output: str, force: bool) -> None:
    from maceproc.errors import CaptureError

    if Path(output).exists() and not force:
        raise CaptureError(f"{output}: exists", hint="choose another name with -o, or use --force")


def _record(
    words: list[str], where: AbstractContextManager[Site], trace: str, **options: Any
) -> None:
    """Record a capture to calibrate with."""
    from maceproc.recording.record import record

    with doctor_at_hand(), recording_progress(tuple(words)) as (follow, _), where as site:
        made = record(words, site, trace, tell=follow, **options)
    tell_notes(made.sidecar.notes if made.sidecar else [])


def _made_of(traces: list[str]) -> Calibration:
    """Return the calibration that captures make."""
    from maceproc.following.calibrating import make_calibration
    from maceproc.pipeline import analyze

    with working():
        analyses = [analyze(trace) for trace in traces]
        return make_calibration([(a.capture, a.rtts, a.native) for a in analyses])


def _save(calibration: Calibration, output: str) -> None:
    from maceproc.calibration import save_calibration
    from maceproc.reporting.closure import calibration_lines

    save_calibration(output, calibration)
    for line in calibration_lines(calibration):
        click.echo(line)
    tell(f"wrote {output}; next: maceproc analyze TRACE --calibration {output}")


def _place_of(calibration: Calibration, given: Chosen) -> Chosen:
    """Return the place that a calibration was made in; the given one where that has no name."""
    from maceproc.recording.lab import is_temporary

    kind, _, name = calibration.place.partition(" ")
    if kind == "lab":  # one that was up just for that is made anew
        return replace(given, kind=kind, value="" if is_temporary(name) else name)
    return replace(given, kind=kind, value=name) if kind in NAMED else given


def _compare(old: Calibration, new: Calibration, name: str) -> None:
    """Print whether a calibration holds; end with status 1 where it does not."""
    from maceproc.reporting.closure import check_lines

    holds, lines = check_lines(old, new)
    for line in lines:
        click.echo(line)
    click.echo(f"{name} {'still holds' if holds else 'does not hold any more: calibrate again'}")
    if not holds:
        raise SystemExit(1)
