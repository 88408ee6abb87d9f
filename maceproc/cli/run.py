"""`maceproc run`: record, analyze and show, in one command with a known duration."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maceproc.cli.analyze import end_without_replies, write_page
from maceproc.cli.options import COMMAND, RecordsCommand, recorded, rounds_option
from maceproc.cli.places import place_options
from maceproc.cli.record import INTERRUPTIONS, record
from maceproc.cli.terminal import working
from maceproc.errors import CommandError, NoReply

if TYPE_CHECKING:
    from maceproc.pipeline import Analysis

PAGE_SUFFIX = ".html"


@click.command(cls=RecordsCommand)
@place_options
@recorded
@rounds_option()
@click.option("-o", "--output", default="trace.dat", show_default=True, metavar="FILE")
@click.option(
    "--html", metavar="FILE", help="The page for a browser.  [default: FILE of -o, with .html]"
)
@click.option("--no-page", is_flag=True, help="Write no page.")
@click.option("--force", is_flag=True, help="Replace a capture and a page that exist.")
@COMMAND
@click.pass_context
def run(
    context: click.Context,
    /,
    output: str,
    html: str | None,
    no_page: bool,
    force: bool,
    command: tuple[str, ...],
    **where_and_how: object,
) -> None:
    r"""Record a ping, print what the capture says, and write the report as a page.

    It says before the first ping how long it takes, and shows RTTs and loss while they come. The
    capture stays: `maceproc analyze` prints the report again, `maceproc explain` shows single
    pings.

    \b
    maceproc run --container web -- ping -c 100 -i 0.05 192.0.2.1
    maceproc run --lab -- ping -c 100 -i 0.05
    """
    from maceproc.recording.duration import own_command, ping_warnings
    from maceproc.whole_file import check_free

    if html and no_page:
        raise click.UsageError("choose one of --html and --no-page")
    pinged = own_command(list(command))
    warnings = ping_warnings(pinged) if pinged else []
    if warnings:
        problem, _, advice = warnings[0].partition(": ")
        raise CommandError(problem, hint=advice)
    page = None if no_page else Path(html or Path(output).with_suffix(PAGE_SUFFIX))
    if page:
        check_free(page, force=force)
    before = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    unanswered = None
    try:
        context.invoke(
            record, output=output, force=force, command=command, live=True, **where_and_how
        )
    except NoReply as error:  # the report says where the requests were last seen
        unanswered = error
    for number, handler in before.items():  # recording ignores them in the end
        signal.signal(number, handler)
    analysis = _show(output, page)
    if unanswered:
        raise unanswered
    end_without_replies(analysis)


def _show(output: str, page: Path | None) -> Analysis:
    """Analyze the capture, write its page, print the report, and return the analysis."""
    from maceproc.pipeline import analyze
    from maceproc.reporting import report
    from maceproc.reporting.text_table import terminal

    with working():
        analysis = analyze(output)
        text = analysis.as_html() if page else ""
    if page:
        write_page(text, page)
    report.print_report(analysis, terminal())
    return analysis
