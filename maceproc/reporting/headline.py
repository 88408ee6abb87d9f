"""The result in a sentence or two: what a person wants to know first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from maceproc.following.coverage import coverage
from maceproc.series import (
    CORRECTED,
    NATIVE,
    NATIVE_PERTURBATION,
    NATIVE_RAW,
    NATIVE_WIRE,
    PERTURBATION,
    RAW,
    REMAINDER,
    UNTRACED,
    WIRE,
)
from maceproc.units import NS_PER_MS, NS_PER_US

if TYPE_CHECKING:
    from maceproc.analysis import Analysis
    from maceproc.following.calibrating import Native


MINUS, NO_BREAK = "\u2212", "\u00a0"


def headline(analysis: Analysis) -> str:
    """Return what the ping reported, its corrected RTT, what tracing cost, and the coverage."""
    medians = analysis.series.set_index("series")["median_ns"].to_dict()
    sentences = [
        _the_rtt(medians, analysis.native),
        _the_remainder(analysis),
        _the_tracing(analysis.comparisons),
        _the_coverage(analysis.rtts),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def duration(time_ns: float, *, signed: bool = False) -> str:
    """Write a duration [ns]: ``53.7 µs``, from 10 ms on ``26.415 ms``; NaN as a dash."""
    if pd.isna(time_ns):
        return "-"
    long = abs(time_ns) >= 10 * NS_PER_MS
    unit_ns, unit, digits = (NS_PER_MS, "ms", 3) if long else (NS_PER_US, "µs", 1)
    number = f"{time_ns / unit_ns:{'+' if signed else ''},.{digits}f}"
    if number in {"-0.0", "+0.0"}:
        number = "0.0"
    return f"{number.replace('-', MINUS)}{NO_BREAK}{unit}"


def interval(low_ns: float, high_ns: float) -> str:
    """Write an interval of differences [ns]: ``+4.5 to +5.6 µs``."""
    low, high = (duration(end_ns, signed=True) for end_ns in (low_ns, high_ns))
    number, _, unit = low.partition(NO_BREAK)
    return f"{number if high.endswith(NO_BREAK + unit) else low} to {high}"


def _the_rtt(medians: dict[str, float], native: Native) -> str:
    reported = next((s for s in (UNTRACED, RAW) if s.name in medians), None)
    if reported is None:
        return _the_native_rtt(medians)
    sentence = f"In the container, ping reported a median RTT of {duration(medians[reported.name])}"
    if reported is RAW:
        sentence += " while events were recorded"
    if CORRECTED.name not in medians:
        return f"{sentence}; none could be corrected."
    if native.correction:
        median, ends = native.median, (native.median.low_ns, native.median.high_ns)
        sentence += (
            f"; this host's own ping would have printed {duration(median.estimate_ns)} "
            f"({' to '.join(map(duration, ends))})"
        )
    else:
        sentence += f"; without the crossings it is {duration(medians[CORRECTED.name])}"
    if NATIVE.name in medians:
        sentence += f", and the same ping from the host took {duration(medians[NATIVE.name])}"
    if native.missing:
        sentence += f". What this host's own ping would have printed is not known: {native.missing}"
    return f"{sentence}."


def _the_native_rtt(medians: dict[str, float]) -> str:
    reported = next((s for s in (NATIVE, NATIVE_RAW) if s.name in medians), None)
    wire = next((s for s in (NATIVE_WIRE, WIRE) if s.name in medians), None)
    on_wire = f"; on the wire it is {duration(medians[wire.name])}" if wire else ""
    if reported:
        rtt = duration(medians[reported.name])
        return f"The native ping reported a median RTT of {rtt}{on_wire}."
    if wire:
        return f"The median RTT on the wire is {duration(medians[wire.name])}; no ping was printed."
    return "No RTT was found."


def _the_remainder(analysis: Analysis) -> str:
    judged = analysis.native.left
    if judged.rounds:
        off = duration(judged.estimate_ns, signed=True)
        ends = interval(judged.low_ns, judged.high_ns)
        return (
            f"Held against natives that did not make it, that is off by {off} "
            f"(95 % interval {ends})."
        )
    left = _comparison(analysis.comparisons, REMAINDER.name)
    if left is None:
        return ""
    off, ends = duration(left["estimate_ns"], signed=True), interval(left.low_ns, left.high_ns)
    return f"Corrected and native differ by {off} (95 % interval {ends})."


def _the_tracing(comparisons: pd.DataFrame) -> str:
    for added in (PERTURBATION, NATIVE_PERTURBATION):
        cost = _comparison(comparisons, added.name)
        if cost is not None:
            estimate, ends = (
                duration(cost.estimate_ns, signed=True),
                interval(cost.low_ns, cost.high_ns),
            )
            if cost.estimate_ns < 0:
                return (
                    f"What recording added is not told: {estimate} ({ends}), and tracing cannot "
                    "speed a ping up."
                )
            return f"Recording added {estimate} ({ends})."
    return "What recording added is not known: there was no untraced run."


def _the_coverage(rtts: pd.DataFrame) -> str:
    counts = coverage(rtts)
    if not counts["answered"]:
        return ""
    native_only = "corrected" not in counts["by_status"] and "native" in counts["by_status"]
    done = "followed" if native_only else "corrected"
    return f"{counts['corrected']} of {counts['answered']} answered traced pings were {done}."


def _comparison(comparisons: pd.DataFrame, name: str) -> pd.Series | None:
    rows = comparisons[comparisons["comparison"] == name]
    return None if rows.empty else rows.iloc[0]
