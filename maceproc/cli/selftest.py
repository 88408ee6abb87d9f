"""`maceproc selftest`: put a known delay into a lab, and look for it."""

from __future__ import annotations

import sys

import click

from maceproc.cli.privileges import require_root
from maceproc.cli.terminal import tell
from maceproc.foreign_text import clean


@click.command()
@click.option(
    "--delay-us",
    type=click.IntRange(0, 100_000),
    default=500,
    show_default=True,
    metavar="US",
    help="Delay a packet; 0 measures only the noise floor.",
)
def selftest(delay_us: int) -> None:
    r"""Put a known delay into a lab, and check that it is found where it is.

    The crossing must grow by just that, at that device, and the corrected RTT must not. Exit status
    1 when a check fails.

    \b
    maceproc selftest
    maceproc selftest --delay-us 2000
    """
    from maceproc.cli.record import interrupt_cleanly
    from maceproc.reporting.console import print_parts
    from maceproc.reporting.text_table import terminal
    from maceproc.selftest import run_selftest
    from maceproc.selftest_report import report_parts, verdict
    from maceproc.units import NS_PER_US

    require_root("the selftest")
    interrupt_cleanly()
    result = run_selftest(delay_us * NS_PER_US, tell)
    print_parts(report_parts(result), terminal())
    click.echo(clean(verdict(result)))
    if not result.passed:
        sys.exit(1)
