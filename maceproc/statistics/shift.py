"""The shift function: how far each decile of one arm is from that of another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from maceproc.statistics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    ROUNDS_TO_RESAMPLE,
    SEED,
    resample_blocks,
)
from maceproc.statistics.samples import DECILES, Pair, Values, deciles


class Shift(NamedTuple):
    """The shift function: how much larger each decile of one arm is than of another.

    Attributes
    ----------
    quantiles
        0.1 to 0.9.
    estimate_ns, low_ns, high_ns
        Difference of the deciles, and a band that holds all nine at once with `CONFIDENCE`.
    """

    quantiles: Values
    estimate_ns: Values
    low_ns: Values
    high_ns: Values


def shift_function(pairs: Sequence[Pair]) -> Shift:
    """Estimate by how much each decile of the first of each pair is larger than of the second."""
    if not pairs:
        nothing = np.full(len(DECILES), np.nan)
        return Shift(DECILES, nothing, nothing, nothing)
    by_round = np.array([deciles(a) - deciles(b) for a, b in pairs])
    estimate = by_round.mean(axis=0)
    if len(pairs) >= ROUNDS_TO_RESAMPLE:
        reach = simultaneous_reach(by_round)
    else:
        draws = resample_blocks([a for a, _ in pairs], deciles)
        draws = draws - resample_blocks([b for _, b in pairs], deciles, SEED + 1)
        error = draws.std(axis=1)
        largest = np.max(np.abs(draws - estimate[:, None]) / _not_zero(error)[:, None], axis=0)
        reach = np.quantile(largest, CONFIDENCE) * error
    return Shift(DECILES, estimate, estimate - reach, estimate + reach)


def simultaneous_reach(by_round: Values) -> Values:
    """Return how far simultaneous intervals of the columns' means reach, shape (columns,).

    The quantile of the largest of the correlated t statistics decides: T. Hothorn, F. Bretz,
    P. Westfall, "Simultaneous inference in general parametric models", Biom. J. 2008.
    """
    from scipy.stats import multivariate_t

    n = len(by_round)
    error = by_round.std(axis=0, ddof=1) / math.sqrt(n)
    varying = error > 0
    if not varying.any():
        return error
    correlation = np.atleast_2d(np.corrcoef(by_round[:, varying], rowvar=False))
    joint = multivariate_t(shape=correlation, df=n - 1, allow_singular=True, seed=SEED)
    draws = np.reshape(joint.rvs(RESAMPLES), (RESAMPLES, -1))
    return np.asarray(np.quantile(np.abs(draws).max(axis=1), CONFIDENCE) * error)


def _not_zero(values: Values) -> Values:
    return np.where(values > 0, values, np.inf)
