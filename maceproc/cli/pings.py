"""`maceproc pings`: how a ping's output was read."""

from __future__ import annotations

import click

from maceproc.cli.terminal import working


@click.command()
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE")
@click.option(
    "--head", type=click.IntRange(0), default=20, show_default=True, help="Rows to show of a run."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all rows.")
def pings(file: str, head: int, as_json: bool) -> None:
    r"""Show how the output of a ping was read, and why so.

    FILE is what a ping printed (- for standard input), or a capture. Shown are every run's program,
    first icmp_seq and rows, and the lines that were not understood.

    \b
    ping -c 3 192.0.2.1 | maceproc pings -
    maceproc pings ping.txt --json
    maceproc pings trace.dat
    """
    from maceproc.reporting import pings_listing

    with working():
        text = pings_listing.as_json(file) if as_json else pings_listing.as_text(file, head)
    click.echo(text)
