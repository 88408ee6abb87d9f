"""The answer that every report of a capture begins with: a sentence, a verdict, five numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maceproc import statistics
from maceproc.following.coverage import coverage
from maceproc.following.perturbation import values_of
from maceproc.following.soundness import Soundness, judge
from maceproc.ledger import OUTBOUND, OUTER_QUEUE
from maceproc.reporting.headline import duration, headline, interval
from maceproc.series import (
    CORRECTED,
    NATIVE_PERTURBATION,
    NATIVE_RAW,
    NATIVE_WIRE,
    OVERHEAD,
    PERTURBATION,
    WIRE,
)

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.analysis import Analysis
    from maceproc.series import Difference, Series
    from maceproc.statistics import Estimate


@dataclass(frozen=True)
class Answer:
    """What a person wants to know first.

    Attributes
    ----------
    sentence
        What the ping reported, and what it is without the container.
    soundness
        Whether the numbers may be used, and why not.
    facts
        A name and a text each: the median without the container with its interval, under the name
        of its series; what the container added, where most of it arose, what tracing added, and
        the coverage. What is not known is left out.
    """

    sentence: str
    soundness: Soundness
    facts: tuple[tuple[str, str], ...]


def answer(analysis: Analysis) -> Answer:
    """Return the answer of an analysis."""
    facts = (
        _without_container(analysis),
        ("container", _added_by(analysis)),
        ("mostly", _mostly(analysis.steps)),
        ("tracing", _tracing(analysis.comparisons) if len(analysis.pings) else ""),
        ("coverage", _coverage(analysis.rtts)),
    )
    known = tuple((name, text) for name, text in facts if text)
    judged = judge(analysis.findings, native_held=analysis.native.held)
    return Answer(headline(analysis), judged, known)


def median_of(analysis: Analysis, series: Series) -> Estimate:
    """Return the median of a series' pings; its 95 % interval is that of the rounds' medians.

    The interval is widened to the median of all pings, where rounds of few pings leave that out.
    """
    values = values_of(analysis.rtts, series)
    by_round = [part.to_numpy() for _, part in values.groupby("round")["value_ns"]]
    found, median_ns = statistics.location(by_round), float(values["value_ns"].median())
    low_ns, high_ns = min(found.low_ns, median_ns), max(found.high_ns, median_ns)
    return found._replace(estimate_ns=median_ns, low_ns=low_ns, high_ns=high_ns)


def _without_container(analysis: Analysis) -> tuple[str, str]:
    """Return the name and the median of the best RTT without the container that is known."""
    native = analysis.native
    if native.correction:
        median = native.median
        return "as native", f"{_median(median)}: as this host's own ping would have printed it"
    for name, series, what in (
        ("corrected", CORRECTED, "without the crossings (bare_metal_rtt_ns)"),
        ("native", NATIVE_RAW, "as the native ping printed it: nothing was crossed"),
        ("wire", WIRE, "on the wire"),
        ("wire", NATIVE_WIRE, "on the wire"),
    ):
        median = median_of(analysis, series)
        if median.rounds:
            return name, f"{_median(median)}: {what}"
    return "", ""


def _median(median: Estimate) -> str:
    ends = interval(median.low_ns, median.high_ns, signed=False)
    return f"{duration(median.estimate_ns)} (95 % {ends})"


def _added_by(analysis: Analysis) -> str:
    told = _difference(analysis.comparisons, OVERHEAD)
    if told:
        return f"added {told}: container - native, both untraced"
    crossed = analysis.rtts[analysis.rtts["status"] == "corrected"]
    if crossed.empty:
        return ""
    both_ns = (crossed["outbound_ns"] + crossed["inbound_ns"]).astype("float64").median()
    return f"crossings took {duration(both_ns)}, tracing included; no native ping beside it"


def _mostly(steps: pd.DataFrame) -> str:
    """Say in which step of the crossings the most time passed."""
    steps = steps[steps["segment"] != OUTER_QUEUE.name]
    if steps.empty:
        return ""
    most = steps.loc[steps["median_ns"].idxmax()]
    where = "on the way out" if most["segment"] == OUTBOUND.name else "on the way in"
    start, end = (label.rsplit(" ", 1)[0] for label in (most["start"], most["end"]))
    place = f"at {start}" if start == end else f"from {start} to {end}"
    took, whole = duration(most["median_ns"]), duration(steps["median_ns"].sum())
    return f"{place}, {where}: {took} of the crossings' {whole}"


def _tracing(comparisons: pd.DataFrame) -> str:
    for added in (PERTURBATION, NATIVE_PERTURBATION):
        told = _difference(comparisons, added)
        if told:
            row = comparisons[comparisons["comparison"] == added.name].iloc[0]
            if row["estimate_ns"] < 0:
                return f"{told}: not told, since it cannot speed a ping up"
            return f"added {told}"
    return "not known what it added: there is no untraced run with RTTs"


def _difference(comparisons: pd.DataFrame, difference: Difference) -> str:
    rows = comparisons[comparisons["comparison"] == difference.name]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    ends = interval(row["low_ns"], row["high_ns"])
    return f"{duration(row['estimate_ns'], signed=True)} (95 % {ends})"


def _coverage(rtts: pd.DataFrame) -> str:
    counts = coverage(rtts)
    if not counts["answered"]:
        return ""
    if "uncrossed" in counts["by_status"]:
        return "nothing was crossed, so nothing was corrected"
    native_only = "corrected" not in counts["by_status"] and "native" in counts["by_status"]
    done = "followed" if native_only else "corrected"
    return f"{counts['corrected']} of {counts['answered']} answered traced pings {done}"
