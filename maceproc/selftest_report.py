"""What a self-test found, as a person reads it: tables, and PASS or FAIL in the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maceproc.reporting.text_table import report_table, titled
from maceproc.units import format_us

if TYPE_CHECKING:
    from rich.console import RenderableType

    from maceproc.selftest import DelayCheck, Result


def report_parts(result: Result) -> Iterator[RenderableType]:
    """Yield the noise floor, and how each delay that was put in was found."""
    table = report_table("|>difference|>95 % interval|>not told below")
    for name, found in result.noise.items():
        ends = _interval(found.low_ns, found.high_ns)
        difference = format_us(found.estimate_ns, signed=True)
        table.add_row(name, difference, ends, format_us(found.margin_ns))
    yield from titled("Noise floor: two halves of the same pings [us]", table)
    places: dict[str, list[DelayCheck]] = {}
    for check in result.checks:
        places.setdefault(str(check.injection), []).append(check)
    for place, checks in places.items():
        table = report_table("|grew|>by|>95 % interval|>expected")
        for check in checks:
            grew, low, high = (part * check.delay_ns for part in check.found[:3])
            expected = format_us(check.expected * check.delay_ns)
            row = (check.what, format_us(grew, signed=True), _interval(low, high), expected)
            style = "" if check.passed else "bold red"
            table.add_row("ok" if check.passed else "FAIL", *row, style=style)
        delay = format_us(checks[0].delay_ns)
        yield ""
        yield from titled(f"A delay of {delay} us a packet at {place} [us]", table)
    yield ""


def verdict(result: Result) -> str:
    """Return PASS or FAIL, and what that is about."""
    passed = sum(check.passed for check in result.checks)
    if not result.checks:
        return "PASS: the noise floor was measured; no delay was put in"
    told = f"{passed} of {len(result.checks)} checks found the delay where it is, and only there"
    return f"{'PASS' if result.passed else 'FAIL'}: {told}"


def _interval(low_ns: float, high_ns: float) -> str:
    return f"{format_us(low_ns, signed=True)} to {format_us(high_ns, signed=True)}"
