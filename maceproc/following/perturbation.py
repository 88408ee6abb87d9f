"""What tracing cost, what the container cost, and how good the correction is.

All three are differences between medians of arms that ran interleaved in rounds; what may be said
of such differences is in `maceproc.statistics`.

ping prints microseconds, and an RTT of a few of them takes a handful of values: their median is one
of these, half a microsecond off or not. So equal printed RTTs are spread over the step they were
rounded to, which makes every quantile here that of grouped data, not of the print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.capture import Run
from maceproc.schema import COMPARISONS, SERIES
from maceproc.statistics import Estimate, Pair
from maceproc.units import format_us

GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Series:
    """One way of looking at the pings: a column of RTTS in one arm."""

    name: str
    arm: str
    column: str

    def of(self, rtts: pd.DataFrame) -> pd.DataFrame:
        """Return round and value [ns] of the pings that have one."""
        rows = rtts.loc[(rtts["arm"] == self.arm) & rtts[self.column].notna()]
        value_ns = rows[self.column].astype("float64")
        if self.column == "rtt_ns":
            value_ns = spread_ties(value_ns, rows["rtt_resolution_ns"], rows["round"])
        return pd.DataFrame({"round": rows["round"], "value_ns": value_ns})


def spread_ties(
    value_ns: pd.Series[float], step_ns: pd.Series[int], rounds: pd.Series[int]
) -> pd.Series[float]:
    """Spread equal values of a round evenly over the step they were rounded to [ns].

    Successive ones get multiples of the golden ratio modulo 1: even for any number of them, and
    unrelated to their order in time. The value itself is the middle of its step.
    """
    nth = value_ns.groupby([rounds, value_ns]).cumcount() + 1
    return value_ns + ((nth * GOLDEN_RATIO) % 1 - 0.5) * step_ns.fillna(0).astype("float64")


RAW = Series("container, traced", "container traced", "rtt_ns")
CORRECTED = Series("container, corrected", "container traced", "bare_metal_rtt_ns")
NATIVE_RTT = Series("container, as native", "container traced", "native_rtt_ns")
WIRE = Series("wire", "container traced", "wire_rtt_ns")
UNTRACED = Series("container, untraced", "container untraced", "rtt_ns")
NATIVE_RAW = Series("native, traced", "native traced", "rtt_ns")
NATIVE_WIRE = Series("wire, native", "native traced", "wire_rtt_ns")
NATIVE = Series("native, untraced", "native untraced", "rtt_ns")

ALL_SERIES = (RAW, UNTRACED, NATIVE_RAW, NATIVE, NATIVE_RTT, CORRECTED, WIRE, NATIVE_WIRE)

# name, what is compared, with what
ALL_COMPARISONS = (
    ("perturbation", RAW, UNTRACED),
    ("perturbation, native", NATIVE_RAW, NATIVE),
    ("container overhead", UNTRACED, NATIVE),
    ("corrected - native", CORRECTED, NATIVE),
)


def summarize(rtts: pd.DataFrame) -> pd.DataFrame:
    """Return SERIES: location and spread of every series that has pings."""
    rows = []
    for series in ALL_SERIES:
        values_ns = series.of(rtts)["value_ns"].to_numpy()
        answered = ((rtts["arm"] == series.arm) & rtts["rtt_ns"].notna()).sum()
        if len(values_ns):
            p5, median, p95 = np.percentile(values_ns, [5, 50, 95])
            spread = values_ns.std(ddof=1) if len(values_ns) > 1 else np.nan
            location = (median, values_ns.mean(), spread, p5, p95)
            identity = (series.name, series.arm, series.column)
            rows.append((*identity, len(values_ns), answered, *location))
    return SERIES.from_rows(rows)


def compare(rtts: pd.DataFrame, runs: Sequence[Run] = ()) -> pd.DataFrame:
    """Return COMPARISONS: every difference for which both arms were run.

    `runs` say when each arm ran in each round; without them drift cannot be told from a difference.
    """
    rows = []
    for name, series, against in ALL_COMPARISONS:
        pairs = statistics.pair_rounds(series.of(rtts), against.of(rtts))
        if pairs:
            found = statistics.difference(list(pairs.values()))
            refused = _refusal(found, pairs, series.arm, against.arm, runs)
            rows.append((name, series.name, against.name, *found, refused))
    return COMPARISONS.from_rows(rows)


def _refusal(
    found: Estimate, pairs: Mapping[int, Pair], arm: str, against: str, runs: Sequence[Run]
) -> str:
    """Return why a difference is no evidence: the machine changed, by more than it says."""
    started = {(run.round, run.arm): float(run.start_ns) for run in runs}
    rounds = [n for n in pairs if {(n, arm), (n, against)} <= started.keys()]
    if not rounds:
        return ""
    control = np.array([np.median(pairs[n][1]) for n in rounds])
    drift = statistics.find_drift(control)
    mine_at, other_at = (np.array([started[n, name] for n in rounds]) for name in (arm, against))
    bias_ns = statistics.bias_bound(drift, mine_at, other_at)
    if not statistics.refuses(found, bias_ns):
        return ""
    return (
        f"{against} changed by {format_us(drift.change_ns, signed=True)} us after round "
        f"{rounds[drift.at - 1]}: that alone can make {format_us(bias_ns)} us"
    )


def corrected_bounds(rtts: pd.DataFrame) -> dict[str, float]:
    """Bound the corrected median and mean [ns], whatever the pings without a correction were.

    A crossing takes no less than nothing and no more than the RTT, so each of those lies between
    0 and its own RTT. Returns median_low_ns, median_high_ns, mean_low_ns and mean_high_ns, empty
    when no ping was answered.
    """
    answered = rtts[(rtts["arm"] == CORRECTED.arm) & rtts["rtt_ns"].notna()]
    answered = answered[answered["status"] != "duplicate"]
    if answered.empty:
        return {}
    known = answered["bare_metal_rtt_ns"]
    low, high = known.fillna(0).astype(float), known.fillna(answered["rtt_ns"]).astype(float)
    return {
        "median_low_ns": float(low.median()),
        "median_high_ns": float(high.median()),
        "mean_low_ns": float(low.mean()),
        "mean_high_ns": float(high.mean()),
    }
