"""Resampling: of rounds, or of the pings within a round in blocks.

References: D. N. Politis, J. P. Romano, "A circular block-resampling procedure for stationary
data", 1992; T. Hesterberg, "What Teachers Should Know About the Bootstrap", Am. Stat. 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maceproc.statistics.samples import Statistic, Values

CONFIDENCE = 0.95
ROUNDS_TO_RESAMPLE = 5
RESAMPLES = 9999  # the expanded levels of `expanded` lie far out in the tails
BLOCK_RESAMPLES = 1999
SEED = 20190722  # the same capture gives the same interval; the day MACE was presented


def quantiles(draws: Values, confidence: float) -> tuple[float, float]:
    """Return the ends of the percentile interval of these draws, at this confidence."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def expanded(confidence: float, n: int) -> float:
    """Return the level at which a percentile interval of n resampled values covers `confidence`.

    A percentile interval of few values is too narrow: it divides by n instead of n - 1, and takes
    the normal distribution for Student's t. A higher level makes up for both (Hesterberg, 2015).
    """
    # scipy.stats takes most of a second to import, so it is imported where it is used.
    from scipy.stats import norm, t

    quantile = t.ppf((1 + confidence) / 2, n - 1) * math.sqrt(n / (n - 1))
    return 1 - 2 * float(norm.cdf(-quantile))


def resample_rounds(*by_round: Values, statistic: Callable[..., Any]) -> Values:
    """Draw a statistic of resampled rounds; the values of one round stay together."""
    from scipy.stats import bootstrap

    result = bootstrap(
        by_round,
        statistic,
        paired=len(by_round) > 1,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return np.asarray(result.bootstrap_distribution)


def resample_blocks(samples: Sequence[Values], statistic: Statistic, seed: int = SEED) -> Values:
    """Draw the mean over rounds of a statistic, with the pings of each run resampled in blocks.

    The shape is (..., BLOCK_RESAMPLES), where ... is the shape of the statistic's result.
    """
    rng = np.random.default_rng(seed)
    return np.asarray(np.mean([statistic(blocks(values, rng)) for values in samples], axis=0))


def blocks(values: Values, rng: np.random.Generator) -> Values:
    """Draw samples by the circular block bootstrap (Politis and Romano, 1992).

    The shape is (BLOCK_RESAMPLES, len(values)).
    """
    n, length = len(values), block_length(values)
    starts = rng.integers(0, n, (BLOCK_RESAMPLES, -(-n // length), 1))
    places = (starts + np.arange(length)) % n
    return values[places.reshape(BLOCK_RESAMPLES, -1)[:, :n]]


def block_length(values: Values) -> int:
    """Return how many neighbouring values a block should hold, from the correlation of the ranks.

    It is the optimal length for an autoregression of first order: H. R. Künsch, "The jackknife and
    the bootstrap for general stationary observations", Ann. Stat. 1989.
    """
    n = len(values)
    if n < 4:
        return 1
    rho = min(max(_autocorrelation(_ranks(values))[1], 0.0), 0.97)
    length = (6 * n) ** (1 / 3) * (rho / (1 - rho**2)) ** (2 / 3)
    return int(np.clip(math.ceil(length), 1, max(1, n // 4)))


def effective_size(values: Values) -> float:
    """Return how many independent values would tell as much about the median as these do.

    The autocorrelation of the ranks is summed up to the first pair of neighbouring lags whose sum
    is not positive: C. J. Geyer, "Practical Markov chain Monte Carlo", Stat. Sci. 1992. The result
    is at most len(values).
    """
    n = len(values)
    if n < 4:
        return float(n)
    rho = _autocorrelation(_ranks(values))
    sums = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = sums[: np.argmax(sums <= 0)] if (sums <= 0).any() else sums
    return float(n / max(1.0, 2 * positive.sum() - 1))


def _ranks(values: Values) -> Values:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _autocorrelation(values: Values) -> Values:
    """Return the autocorrelation at every lag; for constant values it is 0 except at lag 0."""
    from scipy.signal import correlate

    centred = values - values.mean()
    products = correlate(centred, centred)[len(values) - 1 :]
    if products[0] <= 0:
        return np.eye(1, len(values))[0]
    return np.asarray(products / products[0])
