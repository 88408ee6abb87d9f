"""The command line: a verb here is a function in the library.

Only this module turns an error into one line and an exit status. Each verb imports what it needs
when it runs, so that `maceproc --help` is instant and recording stays light.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from maceproc import __version__
from maceproc.errors import Interrupted, MaceprocError

if TYPE_CHECKING:
    from maceproc import record as recording
    from maceproc import targets
    from maceproc.capture import Sidecar

    Tell = Callable[[recording.Progress], None]
    Show = Callable[[bytes], None]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="maceproc")
def cli() -> None:
    """Corrected ping RTTs for containers.

    Record raw net tracepoints beside a ping, then take the time that its packets spent between the
    container and the outer device out of every RTT.
    """


@cli.group()
def lab() -> None:
    """Try maceproc without Docker: a network made of namespaces."""


LAB_NAME = click.option("--name", default="maceproc", show_default=True, help="The lab's name.")


@lab.command()
@LAB_NAME
@click.option("--containers", default=1, show_default=True, help="Containers on the bridge.")
def up(name: str, containers: int) -> None:
    """Bring the lab up; it stays until `maceproc lab down`."""
    from maceproc.lab import Lab

    made = Lab(name, containers)
    made.up()
    click.echo(f"lab {name!r} is up: {', '.join(made.netns(role) for role in made.roles)}")


@lab.command()
@LAB_NAME
def down(name: str) -> None:
    """Remove the lab, also one that was left half made."""
    from maceproc.lab import Lab

    removed = Lab(name).down()
    click.echo(f"lab {name!r} is down" if removed else f"lab {name!r} was not up")


@lab.command()
def status() -> None:
    """Show the labs on this machine."""
    from maceproc.lab import is_complete, labs

    found = labs()
    for name, roles in found.items():
        state = "up" if is_complete(roles) else "incomplete"
        click.echo(f"{name}: {state} ({', '.join(roles)})")
    if not found:
        click.echo("no lab is up")


@cli.command()
@click.option(
    "--lab",
    "lab_name",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Run in a lab's container: the lab NAME, the one that is up, or one just for this.",
)
@click.option(
    "--netns", metavar="NAME", help="Run in a network namespace, by ip-netns name or file."
)
@click.option(
    "--container",
    metavar="NAME",
    help="Run in a container of Docker, Podman or containerd (nerdctl), by name or id.",
)
@click.option(
    "--host-ping",
    is_flag=True,
    help="With --container: run this machine's ping in its network, not the container's own.",
)
@click.option("--pid", type=int, help="Run in the network namespace of a process.")
@click.option("--host", is_flag=True, help="Run on the host: a native ping.")
@click.option(
    "--outer", default="", metavar="DEV", help="The outer device, if not the routes' choice."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=1, show_default=True, help="Runs per arm."
)
@click.option("--no-baseline", is_flag=True, help="Leave the untraced runs out.")
@click.option(
    "--events",
    default="minimal",
    show_default=True,
    metavar="minimal|full|LIST",
    help="What to record; LIST is SYSTEM:EVENT,... with * and ? as wildcards.",
)
@click.option(
    "--buffer-kb",
    type=click.IntRange(64),
    metavar="KB",
    help="Ring buffer per CPU [KiB]. [default: 8192, less where memory is short]",
)
@click.option("--awake", is_flag=True, help="Keep the CPUs from going idle while anything runs.")
@click.option("-o", "--output", default="trace.dat", show_default=True, metavar="FILE")
@click.option("--force", is_flag=True, help="Replace a capture that exists.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
def record(
    lab_name: str | None,
    netns: str | None,
    container: str | None,
    host_ping: bool,
    pid: int | None,
    host: bool,
    outer: str,
    rounds: int,
    no_baseline: bool,
    events: str,
    buffer_kb: int | None,
    awake: bool,
    output: str,
    force: bool,
    command: tuple[str, ...],
) -> None:
    r"""Record a command, usually ping, and the kernel's net events beside it.

    Each round runs the command traced and untraced in the target, and untraced from the host.
    Without a target the command runs here, as a native ping.

    \b
    maceproc record --container web -- ping -c 100 192.0.2.1
    maceproc record --lab --rounds 5 -- ping -c 100 -i 0.05
    maceproc record --pid 4711 -o web.dat -- ping -c 100 192.0.2.1
    """
    from maceproc import record as recording

    _interrupt_cleanly()
    if host_ping and container is None:
        raise click.UsageError("--host-ping goes with --container")
    told: list[str] = []
    where = _site(lab_name, netns, container, host_ping, pid, host)
    with where as site, _recording_progress() as (tell, show):
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
            announce=lambda sidecar: told.extend(_announce(sidecar)),
            tell=tell,
            show=show,
        )
    _echo_notes(note for note in _notes(capture.sidecar) if note not in told)
    click.echo(f"recorded {capture.trace}; next: maceproc analyze {capture.trace}", err=True)


def _announce(sidecar: Sidecar) -> list[str]:
    """Show, before anything runs, the packets' path and what cannot be seen; return the notes."""
    click.echo(f"path: {sidecar.target.route}", err=True)
    _echo_notes(_notes(sidecar))
    return _notes(sidecar)


def _notes(sidecar: Sidecar | None) -> list[str]:
    return [*sidecar.target.notes, *sidecar.notes] if sidecar else []


def _echo_notes(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _interrupt_cleanly() -> None:
    """Turn a signal that would end us on the spot into an error, so that everything is put back."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(f"interrupted by {signal.Signals(number).name}", signal_number=number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@contextmanager
def _site(
    lab_name: str | None,
    netns: str | None,
    container: str | None,
    host_ping: bool,
    pid: int | None,
    host: bool,
) -> Iterator[targets.Site]:
    """Give the site that the options name; where no lab is up yet, one is up just inside."""
    from maceproc import targets
    from maceproc.lab import DEFAULT_NAME, Lab, is_complete

    chosen = [place is not None for place in (lab_name, netns, container, pid)]
    if sum((*chosen, host)) > 1:
        raise click.UsageError("choose one of --container, --lab, --netns, --pid and --host")
    if lab_name == "" and not is_complete(Lab(DEFAULT_NAME).existing()):
        with Lab() as lab:
            yield targets.lab_site(lab)
    elif lab_name is not None:
        yield targets.lab_site(Lab(lab_name or DEFAULT_NAME))
    elif netns is not None:
        yield targets.netns_site(netns)
    elif container is not None:
        yield targets.container_site(container, host_ping=host_ping)
    elif pid is not None:
        yield targets.pid_site(pid)
    else:
        yield targets.here_site("host" if host else "here")


@contextmanager
def _recording_progress() -> Iterator[tuple[Tell, Show | None]]:
    """Give what shows a recording's progress on a terminal: a bar, or the command's own output.

    The bar is drawn at most once a second: whoever wakes up beside a measurement disturbs it.
    """
    if not sys.stderr.isatty():
        yield (lambda _: None), None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("run {task.completed} of {task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), refresh_per_second=1, transient=True
    ) as bar:
        task = bar.add_task("", total=None, visible=False)

        def tell(progress: recording.Progress) -> None:
            bar.update(
                task,
                total=progress.total,
                completed=progress.done,
                description=progress.arm,
                visible=progress.total > 1,
                refresh=True,
            )

        yield tell, lambda printed: click.echo(printed, nl=False)


@cli.command()
@click.argument("file", type=click.Path(), metavar="TRACE")
@click.option("--ping", metavar="FILE", help="What the ping printed, where no sidecar says so.")
@click.option("--inner", default="", metavar="DEV", help="The container's device, likewise.")
@click.option("--outer", default="", metavar="DEV", help="The outer device, likewise.")
@click.option(
    "--peer", default="", metavar="DEV", help="The other end of the container's veth pair."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a report.")
def analyze(file: str, ping: str | None, inner: str, outer: str, peer: str, as_json: bool) -> None:
    """Follow every packet of a capture and correct the RTT of every ping."""
    from maceproc import report
    from maceproc.pipeline import analyze as analyze_capture

    analysis = analyze_capture(file, ping=ping, inner=inner, outer=outer, peer=peer)
    if as_json:
        click.echo(report.as_json(analysis))
    else:
        report.print_report(analysis, report.terminal())


@cli.command()
@click.argument("file", type=click.Path(), metavar="TRACE")
@click.argument("seq", type=int)
@click.option("--round", "round_", type=click.IntRange(1), help="Which round; the first otherwise.")
def explain(file: str, seq: int, round_: int | None) -> None:
    """Show one ping: its events, its ledger, and why these packets are its own."""
    from maceproc.explain import explain as explain_ping
    from maceproc.pipeline import analyze as analyze_capture

    click.echo(str(explain_ping(analyze_capture(file), seq, round_)))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="TRACE")
@click.argument("event", required=False)
@click.option("--head", type=click.IntRange(1), default=10, show_default=True, help="Rows to show.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all rows of EVENT as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as one JSON object.")
def events(file: Path, event: str | None, head: int, as_csv: bool, as_json: bool) -> None:
    r"""List the events of a trace.dat or of ftrace text, or show those of EVENT.

    \b
    maceproc events trace.dat
    maceproc events trace.dat net_dev_queue --csv > queue.csv
    """
    from maceproc.tracedat import view

    if event is None:
        click.echo(view.listing_json(file) if as_json else view.listing(file))
    else:
        click.echo(view.rows_csv(file, event) if as_csv else view.rows(file, event, head), nl=False)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="TRACE")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: TRACE itself]")
@click.option(
    "--formats",
    type=click.Path(path_type=Path),
    metavar="TRACE",
    help="Another trace.dat of the same boot, for its event formats; else the running kernel's.",
)
@click.option("--clock", default="", help="The trace clock that was recorded with.")
def salvage(file: Path, output: Path | None, formats: Path | None, clock: str) -> None:
    """Make a trace.dat of the TRACE.cpuN files that a recorder left when it died."""
    from maceproc.tracedat.salvage import salvage as salvage_recording

    saved = salvage_recording(file, output or file, formats, clock)
    for note in saved.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"salvaged {saved.pages} pages of {len(saved.sources)} files: {saved.trace}")


def main() -> None:
    """Run the command line; an error becomes one line on stderr and a non-zero exit status."""
    try:
        cli()
    except MaceprocError as error:
        click.echo(f"maceproc: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not worth a word. Keep the interpreter from
        # flushing into the closed pipe at exit.
        sys.stdout = None
        sys.exit(141)
