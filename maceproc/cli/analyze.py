"""`maceproc analyze` and `maceproc explain`: what a capture says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from maceproc.cli.options import MEMORY, TRACE, by_hand
from maceproc.cli.terminal import working
from maceproc.errors import CaptureError
from maceproc.foreign_text import clean
from maceproc.whole_file import opened_whole

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

NO_REPLY = "no reply"  # the finding of maceproc.following.lost_pings, which would import pandas
PAGE_SUFFIXES = (".html", ".htm")


WITNESS = click.option(
    "--witness",
    metavar="EVENTS",
    help="Check every match by events of retis (JSON) from the same time.",
)


@click.command()
@TRACE
@by_hand
@click.option(
    "--calibration",
    metavar="FILE",
    help="Take what makes the native RTT from a calibration: see `maceproc calibrate`.",
)
@WITNESS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a report.")
@click.option("--html", metavar="FILE", help="Write the report as a page for a browser, too.")
@MEMORY
def analyze(
    file: str,
    ping: str,
    inner: str,
    outer: str,
    peer: str,
    calibration: str | None,
    witness: str | None,
    as_json: bool,
    html: str | None,
    memory: int | None,
) -> None:
    r"""Follow every packet of a capture and correct the RTT of every ping.

    \b
    maceproc analyze trace.dat
    maceproc analyze trace.dat --html report.html
    maceproc analyze trace.dat --calibration calibration.json
    maceproc analyze trace.dat --json | jq '.summary.series'
    maceproc analyze large.dat --memory 1G
    maceproc analyze trace.dat --witness events.json
    A trace recorded by hand, and what the ping printed:
      maceproc analyze trace.txt --ping ping.txt --inner eth0 --outer eno1
    """
    from maceproc.pipeline import analyze as analyze_capture
    from maceproc.reporting import document, report
    from maceproc.reporting.text_table import terminal

    if html:
        check_page(Path(file), Path(html))
    with working():
        given = {"inner": inner, "outer": outer, "peer": peer}
        analysis = analyze_capture(
            file,
            ping=ping or None,
            calibration=calibration,
            memory=memory,
            witness=witness,
            **given,
        )
        page = analysis.as_html() if html else ""
    if html:
        write_page(page, Path(html))
    if as_json:
        click.echo(document.as_json(analysis))
    else:
        report.print_report(analysis, terminal())
    end_without_replies(analysis)


def end_without_replies(analysis: Analysis) -> None:
    """End with status 1 where pings were sent and none got a reply: the report says so."""
    if (analysis.findings["finding"] == NO_REPLY).any():
        raise SystemExit(1)


def check_page(trace: Path, page: Path) -> None:
    """Raise CaptureError when the page would replace anything but an earlier page."""
    from maceproc.reporting.export import check_replaceable

    is_page = page.suffix.lower() in PAGE_SUFFIXES
    check_replaceable(trace, page, force=is_page)


def write_page(page: str, path: Path) -> None:
    """Write the page whole or not at all."""
    data = page.encode("utf-8", "backslashreplace")
    try:
        with opened_whole(path) as stream:
            stream.write(data)
    except OSError as error:
        raise CaptureError(
            f"{path}: cannot write the page: {error.strerror}", hint="give another --html FILE"
        ) from error
    click.echo(clean(f"wrote {path}, {len(data) / 1000:.0f} kB: open it in a browser"), err=True)


@click.command()
@TRACE
@click.argument("seq", type=int)
@click.option("--round", "round_", type=click.IntRange(1), help="Which round; the first otherwise.")
@by_hand
@WITNESS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def explain(
    file: str,
    seq: int,
    round_: int | None,
    ping: str,
    inner: str,
    outer: str,
    peer: str,
    witness: str | None,
    as_json: bool,
) -> None:
    r"""Show one ping: its events, its ledger, and why these packets are its own.

    SEQ is the icmp_seq that ping printed.

    \b
    maceproc explain trace.dat 17
    maceproc explain trace.dat 17 --round 3
    maceproc explain trace.dat 17 --witness events.json
    """
    from maceproc.pipeline import analyze as analyze_capture
    from maceproc.reporting.explain import explain as explain_ping

    with working():
        analysis = analyze_capture(
            file, ping=ping or None, inner=inner, outer=outer, peer=peer, witness=witness
        )
    explanation = explain_ping(analysis, seq, round_)
    click.echo(explanation.as_json() if as_json else str(explanation))
    if not as_json:
        findings = analysis.findings
        for said in findings["message"][findings["finding"] == "witness"]:
            click.echo(clean(f"witness: {said}"))
