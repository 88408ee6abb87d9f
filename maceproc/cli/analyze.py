"""`maceproc analyze` and `maceproc explain`: what a capture says."""

from __future__ import annotations

from pathlib import Path

import click

from maceproc.errors import CaptureError


@click.command()
@click.argument("file", type=click.Path(), metavar="TRACE")
@click.option("--ping", metavar="FILE", help="What the ping printed, where no sidecar says so.")
@click.option("--inner", default="", metavar="DEV", help="The container's device, likewise.")
@click.option("--outer", default="", metavar="DEV", help="The outer device, likewise.")
@click.option(
    "--peer", default="", metavar="DEV", help="The other end of the container's veth pair."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a report.")
@click.option("--html", metavar="FILE", help="Write the report as a page for a browser, too.")
def analyze(
    file: str,
    ping: str | None,
    inner: str,
    outer: str,
    peer: str,
    as_json: bool,
    html: str | None,
) -> None:
    """Follow every packet of a capture and correct the RTT of every ping."""
    from maceproc import report
    from maceproc.pipeline import analyze as analyze_capture

    analysis = analyze_capture(file, ping=ping, inner=inner, outer=outer, peer=peer)
    if html:
        _write_page(analysis.as_html(), Path(html))
    if as_json:
        click.echo(report.as_json(analysis))
    else:
        report.print_report(analysis, report.terminal())


def _write_page(page: str, path: Path) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CaptureError(
            f"{path}: cannot write the page: {error.strerror}", hint="give another --html FILE"
        ) from error
    click.echo(f"wrote {path}, {path.stat().st_size / 1000:.0f} kB: open it in a browser", err=True)


@click.command()
@click.argument("file", type=click.Path(), metavar="TRACE")
@click.argument("seq", type=int)
@click.option("--round", "round_", type=click.IntRange(1), help="Which round; the first otherwise.")
def explain(file: str, seq: int, round_: int | None) -> None:
    """Show one ping: its events, its ledger, and why these packets are its own."""
    from maceproc.explain import explain as explain_ping
    from maceproc.pipeline import analyze as analyze_capture

    click.echo(str(explain_ping(analyze_capture(file), seq, round_)))
