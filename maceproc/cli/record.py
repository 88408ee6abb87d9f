"""`maceproc record`: make a capture, and show how far it is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Literal

import click

from maceproc.cli import candidates
from maceproc.cli.options import COMMAND, REMOTE, RecordsCommand, recorded, rounds_option
from maceproc.cli.places import Chosen, chosen_site, placed
from maceproc.cli.privileges import require_rights
from maceproc.cli.terminal import bar, may_move, tell, tell_notes
from maceproc.errors import Interrupted, PrivilegeError, TargetError, TracingError
from maceproc.foreign_text import clean

if TYPE_CHECKING:
    from maceproc.calibration import Calibration
    from maceproc.capture import Sidecar
    from maceproc.capture_files import Capture
    from maceproc.recording import session

    Tell = Callable[[session.Progress], None]
    Show = Callable[[bytes], None]


@click.command(cls=RecordsCommand)
@placed
@recorded
@REMOTE
@click.option(
    "--host-ping",
    is_flag=True,
    help="With --container: run this machine's ping in its network, not the container's own.",
)
@click.option("--host", is_flag=True, help="Run on the host: a native ping.")
@rounds_option()
@click.option("--no-baseline", is_flag=True, help="Leave the untraced runs out.")
@click.option(
    "--events",
    default="minimal",
    show_default=True,
    metavar="minimal|full|LIST",
    shell_complete=candidates.events,
    help="What to record; LIST is SYSTEM:EVENT,... with * and ? as wildcards.",
)
@click.option(
    "--tracer",
    type=click.Choice(["ftrace", "perf", "bpf", "ftrace+bpf"]),
    default="ftrace",
    show_default=True,
    help="What follows the packets: raw events by trace-cmd or by perf; programs in the kernel "
    "(eBPF), which know echoes by what they carry; or both, where events alone cannot tell.",
)
@click.option(
    "--calibration", metavar="FILE", help="Keep a calibration in the sidecar, for the analysis."
)
@click.option("-o", "--output", default="trace.dat", show_default=True, metavar="FILE")
@click.option("--force", is_flag=True, help="Replace a capture that exists.")
@COMMAND
def record(
    where: Chosen,
    remote: Literal["kernel", "program"] | None,
    outer: str,
    rounds: int,
    no_baseline: bool,
    events: str,
    tracer: Literal["ftrace", "perf", "bpf", "ftrace+bpf"],
    buffer_kb: int | None,
    awake: bool,
    calibration: str | None,
    output: str,
    force: bool,
    command: tuple[str, ...],
    live: bool = False,
) -> None:
    """Record a command, usually ping, and the kernel's net events beside it.

    Each round runs the command traced and untraced, in the target and from the host.
    Without a target the command runs here, as a native ping.

    \b
    maceproc record --container web --tracer bpf -- ping -c 100 192.0.2.1
    maceproc record --lab -- ping -c 100 -i 0.05
    """  # noqa: D301  \b is click's
    from maceproc.recording import record as recording

    check_alone(tracer, events, buffer_kb)
    _require_rights(tracer, where, command)
    interrupt_cleanly()
    told: list[str] = []
    there = chosen_site(where, remote=remote)
    with _recording(command, live) as (follow, show), there as site, _cleaned_up():
        capture = recording.record(
            list(command),
            site,
            output,
            rounds=rounds,
            baseline=not no_baseline,
            events=events,
            outer=outer,
            force=force,
            buffer_kb=buffer_kb,
            awake=awake,
            tracer=tracer,
            calibration=_loaded(calibration),
            announce=lambda sidecar: told.extend(_announce(sidecar, command)),
            tell=follow,
            show=show,
        )
    _tell_end(capture, told)


def _require_rights(tracer: str, where: Chosen, command: tuple[str, ...]) -> None:
    from maceproc.recording.engine_command import is_engine

    own_network = where.kind in ("host", "here") and not is_engine(command)
    with doctor_at_hand():
        require_rights("recording", tracer, own_network=own_network)


@contextmanager
def _recording(command: tuple[str, ...], live: bool) -> Iterator[tuple[Tell, Show | None]]:
    """Give what shows the progress, and point to the doctor where the recording fails."""
    with doctor_at_hand(), recording_progress(command, live=live) as shown:
        yield shown


def _loaded(file: str | None) -> Calibration | None:
    from maceproc.calibration import load_calibration

    return load_calibration(file) if file else None


@contextmanager
def _cleaned_up() -> Iterator[None]:
    """Ignore further signals once the block is left: what follows is clean-up."""
    try:
        yield
    finally:
        ignore_interruptions()


def _tell_end(capture: Capture, told: list[str]) -> None:
    """Say what was recorded, with the notes that are new."""
    tell_notes(note for note in _notes(capture.sidecar) if note not in told)
    tell(f"recorded {capture.trace}; next: maceproc analyze {capture.trace}")


def _warnings(command: tuple[str, ...]) -> list[str]:
    """Return what the options of the ping that is to run take away from the results."""
    from maceproc.recording.duration import own_command, ping_warnings

    pinged = own_command(list(command))
    return ping_warnings(pinged) if pinged else []


@contextmanager
def doctor_at_hand() -> Iterator[None]:
    """Point to `maceproc doctor` where a recording fails for reasons of this machine."""
    try:
        yield
    except (PrivilegeError, TracingError, TargetError) as error:
        advice = "`maceproc doctor` checks what a recording needs"
        error.hint = f"{error.hint}; {advice}" if error.hint else advice
        raise


def _announce(sidecar: Sidecar, command: tuple[str, ...] = ()) -> list[str]:
    """Show, before anything runs, the packets' path and what cannot be seen; return the notes."""
    tell(f"path: {sidecar.target.route}")
    if sidecar.native:
        tell(f"native: {sidecar.native.sentence}")
    tell_notes([*_warnings(command), *_notes(sidecar)])
    return _notes(sidecar)


def _notes(sidecar: Sidecar | None) -> list[str]:
    return [*sidecar.target.notes, *sidecar.notes] if sidecar else []


ENDS_AFTER = "ends after"  # the root's obj, where the process has nothing else to do
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_cleanly() -> None:
    """Turn a signal that would end us on the spot into an error, so that everything is put back.

    A signal that is ignored already (SIGHUP, by nohup) stays ignored.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        ignore_interruptions()
        raise Interrupted(f"interrupted by {signal.Signals(number).name}", signal_number=number)

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    context = click.get_current_context()
    if context.find_root().obj != ENDS_AFTER:
        context.call_on_close(put_back)
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def ignore_interruptions() -> None:
    """Ignore further signals: what follows is clean-up, also in programs that we start."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)


def check_alone(tracer: str, events: str, buffer_kb: int | None) -> None:
    """Raise UsageError when an option of the ftrace tracer is given with another one."""
    if tracer == "bpf" and (events != "minimal" or buffer_kb is not None):
        raise click.UsageError("--events and --buffer-kb go with --tracer ftrace or perf")


def _show_output(printed: bytes) -> None:
    """Show what the command prints; of its control characters only those of ping -f act."""
    click.echo(clean(printed.decode(errors="backslashreplace"), keep="\n\t\b"), nl=False)


@contextmanager
def recording_progress(
    command: tuple[str, ...], *, live: bool = False
) -> Iterator[tuple[Tell, Show | None]]:
    """Give what shows a recording's progress on a terminal: a bar, and the command's own output.

    With `live`, RTTs and loss of every arm so far are shown instead. Before the first run it says
    how many there are, and how long they take.
    """
    from maceproc.recording.duration import own_command, plan_sentence

    pinged = own_command(list(command))

    def announce(progress: session.Progress) -> None:
        if progress.done == 0 and pinged and pinged.is_ping:
            tell_notes([plan_sentence(pinged, progress.total)])

    if live and may_move() and pinged and pinged.is_ping:
        with _live(announce) as shown:
            yield shown
        return
    with bar(unit="run", per_second=1) as update:

        def follow(progress: session.Progress) -> None:
            announce(progress)
            update(progress.done, progress.total, progress.arm)

        yield follow, _show_output if may_move() else None


@contextmanager
def _live(announce: Tell) -> Iterator[tuple[Tell, Show]]:
    from maceproc.cli.live import live_pings

    with live_pings() as pings:

        def follow(progress: session.Progress) -> None:
            announce(progress)
            pings.follow(progress)

        yield follow, pings.read
