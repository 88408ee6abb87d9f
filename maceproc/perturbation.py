"""What tracing cost, what the container cost, and how good the correction is.

All three are differences between medians of arms that ran interleaved in rounds. A round is what
was repeated, so with enough of them the rounds are resampled; with fewer, only the pings within
them can be, and the interval says nothing about drift from one round to the next.

ping prints microseconds, and an RTT of a few of them takes a handful of values: their median is one
of these, half a microsecond off or not. So equal printed RTTs are spread over the step they were
rounded to, which makes every quantile here that of grouped data, not of the print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.schema import COMPARISONS, SERIES

Values = npt.NDArray[np.float64]

ROUNDS_TO_RESAMPLE = 5
RESAMPLES = 2000
CONFIDENCE = 0.95
GOLDEN_RATIO = (5**0.5 - 1) / 2
SEED = 20190722  # the same capture gives the same interval; the day MACE was presented


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
WIRE = Series("wire", "container traced", "wire_rtt_ns")
UNTRACED = Series("container, untraced", "container untraced", "rtt_ns")
NATIVE_RAW = Series("native, traced", "native traced", "rtt_ns")
NATIVE_WIRE = Series("wire, native", "native traced", "wire_rtt_ns")
NATIVE = Series("native, untraced", "native untraced", "rtt_ns")

ALL_SERIES = (RAW, UNTRACED, NATIVE_RAW, NATIVE, CORRECTED, WIRE, NATIVE_WIRE)

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


def compare(rtts: pd.DataFrame) -> pd.DataFrame:
    """Return COMPARISONS: every difference for which both arms were run."""
    rows = []
    for name, series, against in ALL_COMPARISONS:
        mine, other = series.of(rtts), against.of(rtts)
        if len(mine) and len(other):
            estimate, low, high, rounds, resampled = difference(mine, other)
            rows.append((name, series.name, against.name, estimate, low, high, rounds, resampled))
    return COMPARISONS.from_rows(rows)


def difference(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float, int, str]:
    """Estimate how much larger `mine` is than `other`, with a 95 % bootstrap interval.

    Both have columns ``round`` and ``value_ns``. The estimate is the mean over rounds of the
    difference of the round's medians. Returns estimate, low, high [ns], the number of rounds and
    what was resampled.
    """
    medians = pd.DataFrame(
        {
            "mine": mine.groupby("round")["value_ns"].median(),
            "other": other.groupby("round")["value_ns"].median(),
        }
    ).dropna()
    if medians.empty:
        return np.nan, np.nan, np.nan, 0, "nothing"
    by_round = (medians["mine"] - medians["other"]).to_numpy()
    if len(by_round) >= ROUNDS_TO_RESAMPLE:
        resampled, draws = "rounds", _resample((by_round,), np.mean)
    else:
        resampled = "pings"
        pairs = [(_of_round(mine, number), _of_round(other, number)) for number in medians.index]
        draws = np.mean([_resample(pair, _median_difference) for pair in pairs], axis=0)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(by_round.mean()), float(low), float(high), len(by_round), resampled


def _of_round(values: pd.DataFrame, number: int) -> Values:
    return values.loc[values["round"] == number, "value_ns"].to_numpy()


def _median_difference(mine: Values, other: Values, axis: int = -1) -> Values:
    return np.asarray(np.median(mine, axis=axis) - np.median(other, axis=axis))


def _resample(samples: Sequence[Values], statistic: Callable[..., Values]) -> Values:
    """Draw the statistic from resampled samples, `RESAMPLES` times."""
    # scipy.stats takes most of a second to import: only where it is needed.
    from scipy.stats import bootstrap

    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return np.asarray(result.bootstrap_distribution)


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
