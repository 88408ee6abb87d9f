"""`maceproc export`: tables with units, a timeline, a packet capture."""

from __future__ import annotations

import click

from maceproc.cli.options import TRACE, by_hand
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
    default="rtts",
    show_default=True,
    help="Which table, for csv, json and parquet.",
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
@by_hand
def export(
    file: str,
    table: str,
    form: str | None,
    output: str | None,
    ping: str,
    inner: str,
    outer: str,
    peer: str,
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
    from maceproc.reporting.export import export as write
    from maceproc.reporting.export import format_of, tables

    if output is None and (form := form or "csv") not in ("csv", "json"):
        raise click.UsageError(f"{form} is not for a terminal: say where to with -o FILE")
    if output is not None:
        from pathlib import Path

        form = form or format_of(Path(output))
    with working():
        given = {"inner": inner, "outer": outer, "peer": peer}
        analysis = analyze(file, ping=ping or None, **given)
    if output is None:
        as_text = tables.as_csv if form == "csv" else tables.as_json
        click.echo(as_text(analysis, table).rstrip("\n"))
        return
    with bar("writing") as show:
        written = write(analysis, output, table=table, format=form, tell=show)  # type: ignore[arg-type]
    tell(f"wrote {' and '.join(map(str, written))}")
