"""`maceproc events` and `maceproc salvage`: any trace, without a ping."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from maceproc.cli.options import MEMORY
from maceproc.cli.terminal import tell_notes, working
from maceproc.foreign_text import clean


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="TRACE")
@click.argument("event", required=False)
@click.option("--head", type=click.IntRange(1), default=10, show_default=True, help="Rows to show.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all rows of EVENT as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as one JSON object.")
@MEMORY
def events(
    file: Path, event: str | None, head: int, as_csv: bool, as_json: bool, memory: int | None
) -> None:
    r"""List the events of a trace.dat, a perf.data or their text, or show those of EVENT.

    \b
    maceproc events trace.dat
    maceproc events trace.dat net_dev_queue --csv > queue.csv
    """
    if event is not None and as_json:
        raise click.UsageError("--json prints the list of events; the rows of one come with --csv")
    from maceproc.reporting import listing as view

    notes: Collection[str] = ()
    with working():
        if event is None:
            parts = iter([(view.listing_json(file) if as_json else view.listing(file)) + "\n"])
        elif as_csv:
            parts, notes = view.rows_csv(file, event, memory)
        else:
            parts = iter([view.rows(file, event, head)])
    for part in parts:
        click.echo(part, nl=False)
    tell_notes(notes)


@click.command()
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
    r"""Make a capture of what a killed recording of TRACE left.

    `maceproc record` leaves the directory TRACE.recording, with the runs that had ended and their
    events. Of the TRACE.cpuN files that trace-cmd left by itself, a trace.dat is made.

    \b
    maceproc salvage trace.dat
    ls trace.dat.cpu*
    maceproc salvage trace.dat --clock mono -o saved.dat
    maceproc salvage trace.dat --formats earlier.dat
    """
    from maceproc.capture_files import recording_directory
    from maceproc.recording.rescue import finish_killed
    from maceproc.tracedat.salvage import salvage as salvage_recording

    if recording_directory(file).is_dir():
        capture = finish_killed(file, output or file)
        runs = len(capture.sidecar.runs) if capture.sidecar else 0
        click.echo(f"salvaged {capture.trace}, with {runs} runs that had ended")
        return
    with working():
        saved = salvage_recording(file, output or file, formats, clock)
    tell_notes(saved.notes)
    click.echo(clean(f"salvaged {saved.pages} pages of {len(saved.sources)} files: {saved.trace}"))
