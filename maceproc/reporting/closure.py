"""The small table that explains the difference between a corrected RTT and the native one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from maceproc.calibration import Calibration
from maceproc.following.calibrating import ADDED, CALIBRATION, CORRECTED_LEAVES, LEFT, Native
from maceproc.following.conditions import differences
from maceproc.following.native_rounds import TERMS
from maceproc.following.native_rtt import estimate
from maceproc.reporting.text_table import report_table, titled
from maceproc.units import format_duration, format_share, format_us

if TYPE_CHECKING:
    from rich.console import RenderableType

WHOLE = (CORRECTED_LEAVES, ADDED, LEFT)


def closure_lines(native: Native) -> Iterator[RenderableType]:
    """Yield the table and a line about where the native RTT comes from; nothing without natives."""
    if native.closure.empty:
        return
    table = report_table("|>estimate|>95 % interval|>of overhead")
    for row in native.closure.itertuples():
        low, high = (format_us(end, signed=True) for end in (row.low_ns, row.high_ns))
        table.add_row(
            row.term if row.term in WHOLE else f"  {row.term}",
            format_us(row.estimate_ns, signed=True),
            f"{low} to {high}",
            format_share(row.share),
            style="bold" if row.term == LEFT else "",
        )
    legend = dict(zip(native.closure["term"], native.closure["meaning"], strict=True))
    yield from titled("Between corrected and native [us]", table, legend)
    yield made_by(native)


def closure_rows(native: Native) -> list[dict[str, object]]:
    """Return the table's rows for a page or a notebook; `part` tells terms of a sum."""
    rows: list[dict[str, object]] = native.closure.to_dict("records")
    return [row | {"part": row["term"] not in WHOLE} for row in rows]


def made_by(native: Native) -> str:
    """Say where the native RTT comes from, and where its median lies."""
    if native.missing:
        return f"native RTT: not known, {native.missing}"
    e = native.median
    low, high = format_us(e.low_ns), format_us(e.high_ns)
    known = f"native RTT by {native.source}: median {format_us(e.estimate_ns)} us ({low} to {high})"
    if native.source == CALIBRATION and native.calibration:
        n = len(native.calibration.measured)
        known += f"; {n} capture{'s' * (n > 1)} in the calibration"
    return known


def calibration_lines(calibration: Calibration) -> list[str]:
    """Say in words what a calibration holds."""
    correction = estimate(calibration.measured)
    ends = 1.96 * np.sqrt(np.diag(correction.covariance_ns2))
    terms = zip(TERMS, correction.terms_ns, ends, strict=True)
    n = sum(one.rounds for one in calibration.measured)
    lines = [
        f"{' '.join(calibration.command)}, in {calibration.place}",
        f"{len(calibration.measured)} capture{'s' * (len(calibration.measured) > 1)}, {n} rounds",
    ]
    for name, mean_ns, reach_ns in terms:
        low, high = (format_us(mean_ns + s * reach_ns, signed=True) for s in (-1, 1))
        lines.append(f"  {name:<16} {format_us(mean_ns, signed=True):>6} us ({low} to {high})")
    reach_ns = 1.96 * math.sqrt(correction.variance_ns2)
    low, high = (format_us(correction.shift_ns + s * reach_ns, signed=True) for s in (-1, 1))
    added = f"{format_us(correction.shift_ns, signed=True):>6} us ({low} to {high})"
    lines.append(f"  {ADDED:<16} {added} to every corrected RTT of another capture")
    return lines


def check_lines(old: Calibration, new: Calibration) -> tuple[bool, list[str]]:
    """Tell whether a calibration holds, given one made now, and say so in words."""
    unlike = differences(old.conditions, new.conditions)
    lines = [f"{'refused' if one.refuses else 'doubtful'}: {one.message}" for one in unlike]
    theirs = estimate(old.measured)
    mine = estimate(new.measured)
    holds = not any(one.refuses for one in unlike)
    drift_ns = mine.shift_ns - theirs.shift_ns
    deviation_ns = math.sqrt(mine.variance_ns2 + theirs.variance_ns2)
    age_ns = max(m.made_utc_ns for m in new.measured) - max(m.made_utc_ns for m in old.measured)
    reach = 1.96 * deviation_ns
    low, high = (format_us(drift_ns + sign * reach, signed=True) for sign in (-1, 1))
    lines.append(
        f"made {format_duration(age_ns)} ago; what it adds to a corrected RTT has changed by "
        f"{format_us(drift_ns, signed=True)} us ({low} to {high})"
    )
    for i, name in enumerate(TERMS):
        was, now = (format_us(c.terms_ns[i], signed=True) for c in (theirs, mine))
        lines.append(f"  {name:<16} {was:>6} us then, {now:>6} us now")
    return holds and abs(drift_ns) <= reach, lines
