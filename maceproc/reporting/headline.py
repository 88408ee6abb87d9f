"""The result of an analysis in one sentence; and times written for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from maceproc.following.lost_pings import lost_by_arm
from maceproc.series import CORRECTED, NATIVE, NATIVE_RAW, NATIVE_WIRE, RAW, UNTRACED, WIRE
from maceproc.units import NS_PER_MS, NS_PER_US

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

MINUS, NO_BREAK = "\u2212", "\u00a0"


def headline(analysis: Analysis) -> str:
    """Return what the ping reported, and what it is without the container, in a sentence."""
    if analysis.pings.empty:
        return _without_pings(analysis.crossings)
    medians = analysis.series.set_index("series")["median_ns"].to_dict()
    return " ".join(filter(None, [_the_rtt(medians, analysis), _the_loss(analysis.pings)]))


def duration(time_ns: float, *, signed: bool = False) -> str:
    """Write a duration [ns]: ``53.7 us``, from 10 ms on ``26.415 ms``; NaN as a dash."""
    if pd.isna(time_ns):
        return "-"
    long = abs(time_ns) >= 10 * NS_PER_MS
    unit_ns, unit, digits = (NS_PER_MS, "ms", 3) if long else (NS_PER_US, "us", 1)
    number = f"{time_ns / unit_ns:{'+' if signed else ''},.{digits}f}"
    if number in {"-0.0", "+0.0"}:
        number = "0.0"
    return f"{number.replace('-', MINUS)}{NO_BREAK}{unit}"


def interval(low_ns: float, high_ns: float, *, signed: bool = True) -> str:
    """Write an interval [ns], by default of differences: ``+4.5 to +5.6 us``."""
    low, high = (duration(end_ns, signed=signed) for end_ns in (low_ns, high_ns))
    number, _, unit = low.partition(NO_BREAK)
    return f"{number if high.endswith(NO_BREAK + unit) else low} to {high}"


def _the_rtt(medians: dict[str, float], analysis: Analysis) -> str:
    native = analysis.native
    reported = next((s for s in (UNTRACED, RAW) if s.name in medians), None)
    if reported is None:
        return _without_a_printed_rtt(medians, analysis.pings)
    sentence = f"In the container, ping reported a median RTT of {duration(medians[reported.name])}"
    if reported is RAW:
        sentence += " while events were recorded"
    if CORRECTED.name not in medians:
        return f"{sentence}; none could be corrected."
    if native.correction:
        median = native.median
        sentence += (
            f"; this host's own ping would have printed {duration(median.estimate_ns)} "
            f"({interval(median.low_ns, median.high_ns, signed=False)})"
        )
    else:
        sentence += f"; without the crossings it is {duration(medians[CORRECTED.name])}"
    if NATIVE.name in medians:
        sentence += f", and the same ping from the host took {duration(medians[NATIVE.name])}"
    return f"{sentence}."


def _without_pings(crossings: pd.DataFrame) -> str:
    whole = crossings[crossings["latency_ns"].notna()]
    if whole.empty:
        return "No ping was printed, and no packet crossed."
    by_direction = whole.groupby("direction", observed=True)["latency_ns"].median()
    told = [f"{direction} in a median of {duration(ns)}" for direction, ns in by_direction.items()]
    return f"No ping was printed; {len(whole)} packets crossed, {' and '.join(told)}."


def _without_a_printed_rtt(medians: dict[str, float], pings: pd.DataFrame) -> str:
    if CORRECTED.name in medians:
        corrected = duration(medians[CORRECTED.name])
        return f"The median RTT is {corrected} without the crossings; ping printed no RTTs."
    counts = lost_by_arm(pings)
    inside = [arm for arm in counts.index if arm.startswith("container")]
    sent, lost = (int(counts.loc[inside, column].sum()) for column in ("sent", "lost"))
    if sent and sent == lost:
        return f"None of {sent} pings in the container got a reply. {_the_native_rtt(medians)}"
    return _the_native_rtt(medians)


def plain(text: str) -> str:
    """Return a text for a terminal: with ASCII's minus and blanks."""
    return text.replace(MINUS, "-").replace(NO_BREAK, " ")


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


def _the_loss(pings: pd.DataFrame) -> str:
    """Say how many pings of each place got no reply; say nothing where all or none got one."""
    counts = lost_by_arm(pings)
    if not counts["lost"].any() or (counts["lost"] == counts["sent"]).all():
        return ""
    told = [f"{row.lost} of {row.sent} {arm}" for arm, row in counts.iterrows() if row.lost]
    return f"No reply came to {', '.join(told)} pings."
