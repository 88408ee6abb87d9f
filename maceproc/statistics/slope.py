"""A line through points that belong to rounds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.statistics.estimates import NOTHING, Estimate
from maceproc.statistics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    ROUNDS_TO_RESAMPLE,
    SEED,
    expanded,
    quantiles,
)
from maceproc.statistics.samples import Values


class Slope(NamedTuple):
    """A line through points that belong to rounds.

    Attributes
    ----------
    slope
        y per x, the same in every round.
    at_zero
        y where x is 0, mean over rounds.
    """

    slope: Estimate
    at_zero: Estimate


def slope_within_rounds(x: Values, y: Values, rounds: npt.NDArray[np.int64]) -> Slope:
    """Fit y = (a level of each round) + slope * x; intervals by resampling rounds.

    Each round's line passes through the mean of its points. A round with a single x says nothing
    about the slope, and is not used.
    """
    table = pd.DataFrame({"round": rounds, "x": x, "y": y}, dtype="float64").dropna()
    means = table.groupby("round")[["x", "y"]].transform("mean")
    dx = table["x"] - means["x"]
    sums = pd.DataFrame({"xy": dx * (table["y"] - means["y"]), "xx": dx * dx})
    sums = sums.groupby(table["round"]).sum()
    sums[["x", "y"]] = table.groupby("round")[["x", "y"]].mean()
    sums = sums[sums["xx"] > 0]
    if sums.empty:
        return Slope(NOTHING, NOTHING)
    n, values = len(sums), sums.to_numpy()
    slope = values[:, 0].sum() / values[:, 1].sum()
    at_zero = float((sums["y"] - slope * sums["x"]).mean())
    if n < ROUNDS_TO_RESAMPLE:
        unknown = (math.nan, math.nan, n, "nothing", math.nan)
        return Slope(Estimate(float(slope), *unknown), Estimate(at_zero, *unknown))
    chosen = np.random.default_rng(SEED).integers(0, n, (RESAMPLES, n))
    xy, xx, mean_x, mean_y = values[chosen].mean(axis=1).T
    slopes = xy / xx
    return Slope(
        _from_draws(float(slope), slopes, n), _from_draws(at_zero, mean_y - slopes * mean_x, n)
    )


def _from_draws(estimate: float, draws: Values, n: int) -> Estimate:
    low, high = quantiles(draws, expanded(CONFIDENCE, n))
    one_sided = quantiles(draws, expanded(2 * CONFIDENCE - 1, n))
    return Estimate(estimate, low, high, n, "rounds", max(abs(end) for end in one_sided))
