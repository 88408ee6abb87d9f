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
    from maceproc.selftest import run_selftest
    from maceproc.units import NS_PER_US, format_us

    require_root("the selftest")
    interrupt_cleanly()
    result = run_selftest(delay_us * NS_PER_US, tell)
    click.echo("noise floor: two halves of the same pings differ by")
    for name, found in result.noise.items():
        low, high = (format_us(end, signed=True) for end in (found.low_ns, found.high_ns))
        click.echo(
            f"  {name:<18} {format_us(found.estimate_ns, signed=True):>6} us ({low} to {high}): "
            f"less than {format_us(found.margin_ns)} us is not told from nothing here"
        )
    for check in result.checks:
        click.echo(clean(check))
    if not result.passed:
        sys.exit(1)
