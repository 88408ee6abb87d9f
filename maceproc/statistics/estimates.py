"""Estimates with intervals: of a difference, of one arm, of a ratio."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from maceproc.statistics.resampling import (
    CONFIDENCE,
    ROUNDS_TO_RESAMPLE,
    SEED,
    expanded,
    quantiles,
    resample_blocks,
    resample_rounds,
)
from maceproc.statistics.samples import Pair, Statistic, Values, median


class Estimate(NamedTuple):
    """A difference, or a location, with its interval.

    Attributes
    ----------
    estimate_ns, low_ns, high_ns
        The mean over the rounds, and its interval of confidence `CONFIDENCE`.
    rounds
        Rounds it rests on.
    resampled
        What the interval comes from: ``rounds``, ``pings`` or ``nothing``.
    margin_ns
        The smallest margin within which the difference is equivalent to 0 by two one-sided tests
        (TOST) at the same confidence: "they are within 2.1 us of each other, 95 %".
    """

    estimate_ns: float
    low_ns: float
    high_ns: float
    rounds: int
    resampled: str
    margin_ns: float


NOTHING = Estimate(math.nan, math.nan, math.nan, 0, "nothing", math.nan)
"""The estimate of what was not measured."""


def difference(pairs: Sequence[Pair], statistic: Statistic = median) -> Estimate:
    """Estimate by how much the statistic of the first of each pair exceeds that of the second."""
    if not pairs:
        return NOTHING
    by_round = np.array([float(statistic(a) - statistic(b)) for a, b in pairs])
    return _estimate(
        by_round,
        lambda: (
            resample_blocks([a for a, _ in pairs], statistic)
            - resample_blocks([b for _, b in pairs], statistic, SEED + 1)
        ),
    )


def location(samples: Sequence[Values], statistic: Statistic = median) -> Estimate:
    """Estimate a statistic of one arm, given the values of each of its rounds."""
    if not samples:
        return NOTHING
    by_round = np.array([float(statistic(values)) for values in samples])
    return _estimate(by_round, lambda: resample_blocks(samples, statistic))


def estimate_rounds(by_round: Values) -> Estimate:
    """Estimate the mean of one number per round; with too few rounds, without an interval."""
    if not len(by_round):
        return NOTHING
    return _estimate(np.asarray(by_round), lambda: np.full(1, math.nan))


class Ratio(NamedTuple):
    """How many times one mean over rounds is another, with its interval.

    Attributes
    ----------
    ratio, low, high
        The ratio of the means, and its interval of confidence `CONFIDENCE`. They are nan where the
        interval of the denominator includes 0, because the ratio can then have any value.
    rounds
        Rounds it rests on.
    """

    ratio: float
    low: float
    high: float
    rounds: int


def ratio(mine: Values, other: Values) -> Ratio:
    """Estimate mean(mine) / mean(other), given one value of each per round, of the same rounds."""
    n = len(mine)
    if n < ROUNDS_TO_RESAMPLE or estimate_rounds(other).low_ns <= 0:
        return Ratio(math.nan, math.nan, math.nan, n)
    draws = resample_rounds(
        mine, other, statistic=lambda a, b, axis: np.mean(a, axis=axis) / np.mean(b, axis=axis)
    )
    return Ratio(float(mine.mean() / other.mean()), *quantiles(draws, expanded(CONFIDENCE, n)), n)


def _estimate(by_round: Values, resample_pings: Callable[[], Values]) -> Estimate:
    if len(by_round) >= ROUNDS_TO_RESAMPLE:
        resampled, draws = "rounds", resample_rounds(by_round, statistic=np.mean)
        levels = [expanded(level, len(by_round)) for level in (CONFIDENCE, 2 * CONFIDENCE - 1)]
    else:
        resampled, draws = "pings", resample_pings()
        levels = [CONFIDENCE, 2 * CONFIDENCE - 1]
    (low, high), one_sided = (quantiles(draws, level) for level in levels)
    margin = max(abs(end) for end in one_sided)
    return Estimate(float(by_round.mean()), low, high, len(by_round), resampled, margin)
