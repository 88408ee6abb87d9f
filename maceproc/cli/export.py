"""`maceproc export`: tables with units, a timeline, a packet capture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from maceproc.cli.options import MEMORY, TRACE, by_hand
from maceproc.cli.terminal import bar, tell, working

# The names are those of maceproc.reporting.export, which would import pandas.
FORMATS = ("csv", "json", "parquet", "perfetto", "pcapng")
TABLES = (
    "rtts",
    "pings",
    "crossings",
    "journeys",
    "hops",
    "steps",
    "series",
    "comparisons",
    "findings",
    "lost",
)


@click.command()
@TRACE
@click.option(
    "--table",
    type=click.Choice(TABLES),
    help="Which table, for csv, json and parquet.  [default: rtts]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="[default: what the ending of FILE says; csv without a FILE]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="Where to; without it csv and json are printed.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@by_hand
@MEMORY
def export(
    file: str,
    table: str | None,
    form: str | None,
    output: str | None,
    force: bool,
    ping: str,
    inner: str,
    outer: str,
    peer: str,
    memory: int | None,
) -> None:
    r"""Write a table, a timeline or the pings as packets, for other programs.

    Every file says what it was made from: the capture's SHA-256, the command, the kernel. A CSV
    file does so in FILE-metadata.json beside it, with unit and meaning of each column; Parquet
    (pandas, R, DuckDB) in its own metadata.

    perfetto is a timeline for ui.perfetto.dev: a track for every device, a slice for every hop,
    arrows that follow the packets. pcapng is for Wireshark: an ICMP echo for every ping with the
    results as packet comments, made up from the events, which hold no bytes.

    \b
    maceproc export trace.dat --table crossings > crossings.csv
    maceproc export trace.dat -o rtts.parquet
    maceproc export trace.dat -o timeline.pftrace
    maceproc export trace.dat --format pcapng -o pings.pcapng
    """
    from maceproc.pipeline import analyze
    from maceproc.reporting.export import OF_TABLES, check_replaceable, files_of, format_of, tables
    from maceproc.reporting.export import export as write

    if output is None and (form := form or "csv") not in ("csv", "json"):
        raise click.UsageError(f"{form} is not for a terminal: say where to with -o FILE")
    if output is not None:
        path = Path(output)
        form = form or format_of(path)
        for made in files_of(path, form):  # type: ignore[arg-type]
            check_replaceable(Path(file), made, force=force)
    if table is not None and form not in OF_TABLES:
        raise click.UsageError(f"{form} holds no table: leave --table out")
    table = table or "rtts"
    memory = _allowed(memory, form)
    with working():
        given: dict[str, Any] = {"inner": inner, "outer": outer, "peer": peer, "memory": memory}
        analysis = analyze(file, ping=ping or None, **given)
    if output is None:
        for text in (tables.as_csv if form == "csv" else tables.as_json)(analysis, table):
            click.echo(text, nl=False)
        click.echo(nl=form == "json")
        return
    with bar("writing") as show:
        given_form: Any = form
        written = write(analysis, path, table=table, format=given_form, force=force, tell=show)
    tell(f"wrote {' and '.join(map(str, written))}")


def _allowed(memory: int | None, form: str | None) -> int | None:
    """Return the memory to take: no bound for a timeline; UsageError if one is given."""
    if form != "perfetto":
        return memory
    if memory is not None:
        raise click.UsageError("--memory cannot be kept: a timeline has every packet of the trace")
    return 1 << 62
