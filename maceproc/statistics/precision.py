"""How many rounds it takes to know a difference as well as wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from maceproc.statistics.resampling import CONFIDENCE, ROUNDS_TO_RESAMPLE, SEED, blocks
from maceproc.statistics.samples import Pair, Values, median


class Precision(NamedTuple):
    """What it takes to know a difference of medians to a given half width.

    Attributes
    ----------
    half_width_ns
        The half width asked for.
    rounds
        Rounds as long as those recorded.
    pings
        Pings of each arm in all those rounds.
    within_share
        Share of the variance between rounds that comes from the pings within them. Longer rounds
        reduce only this share; more rounds reduce all of it.
    """

    half_width_ns: float
    rounds: int
    pings: int
    within_share: float


def precision_needed(pairs: Sequence[Pair], half_width_ns: float) -> Precision | None:
    """Return how many rounds that half width takes, from the variance of these rounds.

    Returns None for fewer than `ROUNDS_TO_RESAMPLE` rounds, which do not show the variance.
    """
    if len(pairs) < ROUNDS_TO_RESAMPLE:
        return None
    from scipy.stats import t

    by_round = np.array([float(median(a) - median(b)) for a, b in pairs])
    deviation_ns = float(by_round.std(ddof=1))
    rounds = 2
    while (
        t.ppf((1 + CONFIDENCE) / 2, rounds - 1) * deviation_ns / math.sqrt(rounds) > half_width_ns
    ):
        rounds += 1 + rounds // 50
    within = np.mean([_median_variance(a) + _median_variance(b) for a, b in pairs])
    share = min(1.0, float(within) / deviation_ns**2) if deviation_ns else 0.0
    pings = round(rounds * float(np.mean([len(a) for a, _ in pairs])))
    return Precision(half_width_ns, rounds, pings, share)


def _median_variance(values: Values) -> float:
    """Return the variance of a run's median, from the pings within it."""
    return float(np.var(median(blocks(values, np.random.default_rng(SEED)))))
