"""What tracing cost, what the container cost, and how good the correction is.

All three are differences between the medians of arms that ran interleaved in rounds. How such a
difference and its interval are estimated is in `maceproc.statistics`.

ping prints whole microseconds, so many RTTs of one run are equal. The median of such numbers is one
of the printed ones, and can be wrong by half a microsecond. Equal printed RTTs are therefore spread
evenly over the step that they were rounded to, as is usual for quantiles of grouped data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.capture import Run
from maceproc.schema import COMPARISONS, SERIES
from maceproc.series import ALL_SERIES, DIFFERENCES, Series
from maceproc.statistics import Estimate, Pair
from maceproc.units import format_us

GOLDEN_RATIO = (5**0.5 - 1) / 2


def values_of(rtts: pd.DataFrame, series: Series) -> pd.DataFrame:
    """Return ``round`` and ``value_ns`` of the pings that have a value in this series."""
    rows = rtts.loc[(rtts["arm"] == series.arm) & rtts[series.column].notna()]
    value_ns = rows[series.column].astype("float64")
    if series.column == "rtt_ns":
        value_ns = spread_ties(value_ns, rows["rtt_resolution_ns"], rows["round"])
    return pd.DataFrame({"round": rows["round"], "value_ns": value_ns})


def spread_ties(
    value_ns: pd.Series[float], step_ns: pd.Series[int], rounds: pd.Series[int]
) -> pd.Series[float]:
    """Spread equal values of a round evenly over the step they were rounded to [ns].

    The n-th of the equal values is moved to n times the golden ratio, modulo 1, within its step.
    These positions are spread evenly for any number of values, and do not depend on their order in
    time. The printed value is the middle of its step.
    """
    nth = value_ns.groupby([rounds, value_ns]).cumcount() + 1
    return value_ns + ((nth * GOLDEN_RATIO) % 1 - 0.5) * step_ns.fillna(0).astype("float64")


def summarize(rtts: pd.DataFrame) -> pd.DataFrame:
    """Return SERIES: location and spread of every series that has pings."""
    rows = []
    for series in ALL_SERIES:
        values_ns = values_of(rtts, series)["value_ns"].to_numpy()
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

    `runs` say when each arm ran in each round. Without them a drift of the machine is not noticed.
    """
    rows = []
    for name, series, against, _ in DIFFERENCES:
        pairs = statistics.pair_rounds(values_of(rtts, series), values_of(rtts, against))
        if pairs:
            found = statistics.difference(list(pairs.values()))
            refused = _refusal(found, pairs, series.arm, against.arm, runs)
            rows.append((name, series.name, against.name, *found, refused))
    return COMPARISONS.from_rows(rows)


def _refusal(
    found: Estimate, pairs: Mapping[int, Pair], arm: str, against: str, runs: Sequence[Run]
) -> str:
    """Return why a difference is no evidence, or "": the machine changed by about as much."""
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
