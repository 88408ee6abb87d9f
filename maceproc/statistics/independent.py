"""Two independent sets of measurements: captures that did not run interleaved."""

from __future__ import annotations

import numpy as np
import pandas as pd

from maceproc.statistics.estimates import difference
from maceproc.statistics.resampling import BLOCK_RESAMPLES, CONFIDENCE, ROUNDS_TO_RESAMPLE, SEED
from maceproc.statistics.samples import Values


def cliffs_delta(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float]:
    """Return Cliff's delta of two sets of values and its 95 % interval.

    Both have columns ``round`` and ``value_ns``. Where both have five rounds or more, the rounds
    are resampled. Otherwise the interval is the normal approximation from the placements of the
    pings (E. DeLong et al., Biometrics 44, 1988).
    """
    won, sizes, others = _wins(mine, other)
    delta = float(won.sum() / np.outer(sizes, others).sum())
    if min(won.shape) >= ROUNDS_TO_RESAMPLE:
        random = np.random.default_rng(SEED)
        i, j = (random.integers(n, size=(BLOCK_RESAMPLES, n)) for n in won.shape)
        drawn = won[i[:, :, None], j[:, None, :]].sum(axis=(1, 2))
        draws = drawn / (sizes[i].sum(axis=1) * others[j].sum(axis=1))
        low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return delta, float(low), float(high)
    margin = _placement_margin(*(part["value_ns"].to_numpy() for part in (mine, other)))
    return delta, max(delta - margin, -1.0), min(delta + margin, 1.0)


def _wins(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[Values, Values, Values]:
    """Return for every pair of rounds how often a ping of the first is slower, minus faster.

    Also returns the number of pings of each round, for both sets.
    """
    rounds = [rows["value_ns"].to_numpy() for _, rows in mine.groupby("round")]
    against = [np.sort(rows["value_ns"].to_numpy()) for _, rows in other.groupby("round")]
    won = np.array([[_placements(a, b).sum() for b in against] for a in rounds], dtype=float)
    sizes, others = (
        np.array([len(v) for v in values], dtype=float) for values in (rounds, against)
    )
    return won, sizes, others


def _placements(values: Values, ordered: Values) -> Values:
    """Return for each value how many of the sorted values are below it, minus those above."""
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray(below + upto - len(ordered), dtype=float)


def _placement_margin(mine: Values, other: Values) -> float:
    from scipy.stats import norm

    parts = [(mine, other), (other, mine)]
    variance = sum(
        np.var(_placements(a, np.sort(b)) / len(b), ddof=1) / len(a) for a, b in parts if len(a) > 1
    )
    return float(norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance))


def welch(mine: Values, other: Values) -> tuple[float, float, float, float]:
    """Return the difference of the means, its interval and its p value, for unequal variances.

    B. L. Welch, Biometrika 34, 1947.
    """
    from scipy.stats import ttest_ind

    if not np.ptp(mine) and not np.ptp(other):
        shift = float(mine.mean() - other.mean())
        return shift, shift, shift, float(not shift)
    result = ttest_ind(mine, other, equal_var=False)
    low, high = result.confidence_interval(CONFIDENCE)
    return float(mine.mean() - other.mean()), float(low), float(high), float(result.pvalue)


def brunner_munzel(mine: pd.Series, other: pd.Series) -> tuple[float, float, float, float]:
    """Return the difference of the medians, its interval and its p value, with pings as the unit.

    E. Brunner, U. Munzel, Biom. J. 42, 2000.
    """
    from scipy.stats import brunnermunzel

    estimate, low, high, *_ = difference([(mine.to_numpy(), other.to_numpy())])
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = brunnermunzel(mine, other).pvalue
    if np.isnan(p_value):  # the two do not overlap, or all values are equal
        p_value = float(mine.median() == other.median())
    return estimate, low, high, float(p_value)


def holm(p_values: Values) -> Values:
    """Adjust p values for the number of tests (S. Holm, Scand. J. Statist. 6, 1979)."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
