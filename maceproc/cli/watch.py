"""`maceproc watch`: follow every ICMP echo of containers, whatever sends it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import click

from maceproc.cli.privileges import require_root
from maceproc.cli.record import INTERRUPTIONS
from maceproc.cli.terminal import Verbosity, tell, tell_notes, verbosity
from maceproc.errors import RecordError
from maceproc.foreign_text import clean

if TYPE_CHECKING:
    from maceproc.recording.sites import NamedKind
    from maceproc.watching.places import Wanted
    from maceproc.watching.watch import Columns, Sink, Watching

SHOW_EVERY_S, PRINT_EVERY_S = 1.0, 10.0


def _address(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    if value is None:
        return None
    address, _, port = value.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not [ADDR]:PORT, such as :9876")
    return address.removeprefix("[").removesuffix("]"), int(port)


@click.command()
@click.option("--container", "containers", multiple=True, metavar="NAME", help="A container.")
@click.option("--all", "every", is_flag=True, help="Every container of every engine here.")
@click.option(
    "--compose",
    "services",
    multiple=True,
    metavar="[PROJECT/]SERVICE",
    help="Every container of a Compose service.",
)
@click.option("--pod", multiple=True, metavar="[NAMESPACE/]NAME", help="A pod on this node.")
@click.option("--lxc", multiple=True, metavar="NAME", help="A container of LXC, Incus or LXD.")
@click.option("--machine", multiple=True, metavar="NAME", help="A container of systemd-nspawn.")
@click.option("--unit", multiple=True, metavar="NAME", help="A systemd unit's own network.")
@click.option("--netns", multiple=True, metavar="NAME", help="A network namespace.")
@click.option("--pid", "pids", type=int, multiple=True, help="The namespace of a process.")
@click.option(
    "--lab",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="The containers of a lab that is up.",
)
@click.option(
    "--outer",
    multiple=True,
    metavar="DEV",
    help="An outer device by which packets leave; otherwise every one that leads outside.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=2.0,
    show_default=True,
    metavar="S",
    help="An echo without a reply for so long is unanswered.",
)
@click.option("--duration", type=click.FloatRange(0), metavar="S", help="End after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print an object a line for each echo.")
@click.option("-o", "--output", metavar="DIR", help="Write every echo to Parquet files there.")
@click.option(
    "--rotate-s",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Begin a new Parquet file after so long; one is also begun at 64 MiB.",
)
@click.option(
    "--prometheus",
    callback=_address,
    metavar="[ADDR]:PORT",
    help="Serve histograms for Prometheus; without ADDR at every address.",
)
def watch(
    containers: tuple[str, ...],
    every: bool,
    netns: tuple[str, ...],
    pids: tuple[int, ...],
    lab: str | None,
    outer: tuple[str, ...],
    timeout: float,
    duration: float | None,
    as_json: bool,
    output: str | None,
    rotate_s: float,
    prometheus: tuple[str, int] | None,
    services: tuple[str, ...],
    **others: tuple[str, ...],
) -> None:
    """Follow every ICMP echo of containers while they run, whatever sends it.

    For each container and target: how often, the RTT as the kernel sees it at the container's
    device, the same without the container, and what the container adds, over the last minute. The
    sender's own program and socket are in none of them. Ctrl-C ends it.

    \b
    maceproc watch --all
    maceproc watch --container web --container probe --json | jq .corrected_rtt_ns
    maceproc watch --all -o echoes/ --prometheus :9876
    """  # noqa: D301  \b is click's
    wanted = _wanted(containers, every, netns, pids, lab, services, others)
    with _doctor_at_hand():
        require_root("watching")
    with _stopped_by_signals() as stop:
        from maceproc.watching.series import AllSeries
        from maceproc.watching.watch import Watching
        from maceproc.watching.watcher import Watcher

        with contextlib.ExitStack() as stack:
            with _doctor_at_hand():
                watcher = Watcher(wanted, timeout_ns=int(timeout * 1e9), outer=outer)
                stack.enter_context(watcher)
            watching = Watching(watcher, AllSeries(), tell)
            sinks = [_print_json] if as_json else []
            sinks += stack.enter_context(_parquet(output, rotate_s, watching))
            stack.enter_context(_prometheus(prometheus, watching))
            stack.enter_context(_end_told(watching))
            show = stack.enter_context(_shown(watching, plain=as_json))
            every_s = SHOW_EVERY_S if sys.stdout.isatty() and not as_json else PRINT_EVERY_S
            watching.run(sinks, show, show_every_s=every_s, duration_s=duration, stop=stop)
            watching.finish(sinks)


def _wanted(
    containers: tuple[str, ...],
    every: bool,
    netns: tuple[str, ...],
    pids: tuple[int, ...],
    lab: str | None,
    services: tuple[str, ...],
    others: dict[str, tuple[str, ...]],
) -> Wanted:
    """Return what is to be watched; UsageError when no option says so."""
    from maceproc.recording.lab import DEFAULT_NAME
    from maceproc.watching.places import Wanted

    lab = None if lab is None else lab or DEFAULT_NAME
    named = [(cast("NamedKind", kind), name) for kind, names in others.items() for name in names]
    if not (containers or every or netns or pids or services or named or lab is not None):
        raise click.UsageError(
            "say what to watch: --container, --all, --compose, --pod, --netns, --pid, --lab, ..."
        )
    return Wanted(containers, every, netns, pids, lab, services, tuple(named))


@contextlib.contextmanager
def _doctor_at_hand() -> Iterator[None]:
    """Point to `maceproc doctor` where watching fails for reasons of this machine."""
    try:
        yield
    except RecordError as error:
        error.hint = "; ".join(filter(None, [error.hint, "`maceproc doctor` checks what it needs"]))
        raise


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C, SIGTERM and SIGHUP set: the usual end of a watch.

    A signal that is ignored already (SIGHUP, by nohup) stays ignored.
    """
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_json(columns: Columns) -> None:
    import msgspec

    from maceproc.watching.columns import echo_records

    if columns["status"]:
        encode = msgspec.json.Encoder().encode
        lines = b"".join(encode(echo) + b"\n" for echo in echo_records(columns))
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def _parquet(directory: str | None, rotate_s: float, watching: Watching) -> Iterator[list[Sink]]:
    if directory is None:
        yield []
        return
    try:
        from maceproc.watching.parquet_files import ParquetFiles
    except ImportError as error:
        raise click.UsageError("-o needs pyarrow: pip install 'maceproc[export]'") from error
    files = ParquetFiles(directory, watching.facts, rotate_s=rotate_s)
    tell_notes(f"{path}: removed, a killed watch left it" for path in files.removed)

    def write(columns: Columns) -> None:
        files.add(columns)
        while files.files:
            watching.tell(f"wrote {files.files.pop(0)}")

    try:
        yield [write]
    finally:
        files.close()
    while files.files:
        tell(f"wrote {files.files.pop(0)}")


@contextlib.contextmanager
def _prometheus(address: tuple[str, int] | None, watching: Watching) -> Iterator[None]:
    if address is None:
        yield
        return
    try:
        from maceproc.watching.prometheus import Exporter
    except ImportError as error:
        raise click.UsageError(
            "--prometheus needs prometheus-client: pip install 'maceproc[watch]'"
        ) from error
    watcher = watching.watcher
    exporter = Exporter(*(address or ("0.0.0.0", 0)), watching.series, watcher.name, watcher.losses)
    watching.lock = exporter.lock
    tell(f"serving http://{address[0] or '0.0.0.0'}:{exporter.port}/metrics")
    try:
        yield
    finally:
        exporter.close()


@contextlib.contextmanager
def _shown(watching: Watching, *, plain: bool) -> Iterator[Callable[[], None]]:
    """Give what shows the state: a table on a terminal, else lines, with --json only notes."""
    from maceproc.watching.live_table import plain_lines, table

    watcher = watching.watcher

    def rows(make: Any) -> Any:
        return make(watching.series, watcher.name, watcher.losses(), time.monotonic_ns())

    def notes() -> list[str]:
        told, watcher.notes = watcher.notes, []
        return told

    if plain or not sys.stdout.isatty():

        def show() -> None:
            tell_notes(notes())
            for line in () if plain else rows(plain_lines):
                click.echo(line)

        tell_notes(notes())
        yield show
        show()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()

    def tell_above(line: str) -> None:
        if verbosity() > Verbosity.QUIET:
            console.print(clean(line), style="dim", highlight=False, markup=False)

    shown = console.size
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def show_table() -> None:
            nonlocal shown
            for note in notes():
                tell_above(f"note: {note}")
            size, before = console.size, shown
            if size.width < before.width:
                console.clear()  # a narrower terminal has broken the lines of the last table
            shown = size
            live.update(rows(partial(table, size=(size.width, size.height))), refresh=True)

        show_table()
        watching.tell = tell_above
        yield show_table
        watching.tell = tell
        show_table()


@contextlib.contextmanager
def _end_told(watching: Watching) -> Iterator[None]:
    """Say at the end how many echoes were followed, and what was not, whatever ends it."""
    try:
        yield
    finally:
        from maceproc.watching.live_table import loss_lines

        followed = sum(series.echoes for series in watching.series.series.values())
        waiting = watching.watcher.waiting
        tell(f"{followed} echoes followed{f', {waiting} without a reply yet' * bool(waiting)}")
        watcher = watching.watcher
        tell_notes(loss_lines(watcher.losses(), watching.series, watcher.name))
