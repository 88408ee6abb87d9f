"""What may be said about the difference between two arms that ran interleaved in rounds.

A round is what was repeated, so a round is the unit: every statistic is taken within each round,
and its mean over the rounds is the estimate. Intervals come from resampling the rounds, both arms
of a round together. The pings of one run resemble their neighbours; only with fewer than
`ROUNDS_TO_RESAMPLE` rounds are they resampled, in blocks, and then the interval says nothing about
drift from one round to the next.

All values are times [ns]; every function takes arrays and returns numbers, and knows nothing of
pings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Values = npt.NDArray[np.float64]
Pair = tuple[Values, Values]
Statistic = Callable[..., Values]

CONFIDENCE = 0.95
ROUNDS_TO_RESAMPLE = 5
RESAMPLES = 9999  # far tails are needed, see `_expanded`
BLOCK_RESAMPLES = 1999
SEED = 20190722  # the same capture gives the same interval; the day MACE was presented
DECILES = np.arange(1, 10) / 10
# A machine is taken to have changed when chance gives as large a change of the control so seldom;
# of a change this large, as a share of the median, less proof is asked, of few rounds none.
CHANGED_P = 0.01
CHANGED_SHARE, LARGE_P, FEW_ROUNDS = 0.2, 0.1, 7


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


def median(values: Values, axis: int = -1) -> Values:
    """Return the median."""
    return np.asarray(np.median(values, axis=axis))


def mean(values: Values, axis: int = -1) -> Values:
    """Return the mean."""
    return np.asarray(np.mean(values, axis=axis))


def deviation(values: Values, axis: int = -1) -> Values:
    """Return the standard deviation."""
    return np.asarray(np.std(values, axis=axis, ddof=1))


def deciles(values: Values, axis: int = -1) -> Values:
    """Return the nine deciles, along the first axis."""
    return np.asarray(np.quantile(values, DECILES, axis=axis))


def pair_rounds(mine: pd.DataFrame, other: pd.DataFrame) -> dict[int, Pair]:
    """Return the values of every round that both have: round -> (mine, other).

    Both have columns ``round`` and ``value_ns``, in the order of time.
    """
    ours, theirs = (
        {number: rows.to_numpy(np.float64) for number, rows in table.groupby("round")["value_ns"]}
        for table in (mine, other)
    )
    return {number: (ours[number], theirs[number]) for number in sorted(ours.keys() & theirs)}


def difference(pairs: Sequence[Pair], statistic: Statistic = median) -> Estimate:
    """Estimate how much larger the first of each pair is than the second, in this statistic."""
    if not pairs:
        return NOTHING
    by_round = np.array([float(statistic(a) - statistic(b)) for a, b in pairs])
    return _estimate(
        by_round,
        lambda: (
            _resample_blocks([a for a, _ in pairs], statistic)
            - _resample_blocks([b for _, b in pairs], statistic, SEED + 1)
        ),
    )


def location(samples: Sequence[Values], statistic: Statistic = median) -> Estimate:
    """Estimate a statistic of one arm, given the values of each of its rounds."""
    if not samples:
        return NOTHING
    by_round = np.array([float(statistic(values)) for values in samples])
    return _estimate(by_round, lambda: _resample_blocks(samples, statistic))


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
        The ratio of the means, and its interval of confidence `CONFIDENCE`: unknown (nan) where
        the other one is not told from 0, for then it may be any.
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
    draws = _resample_rounds(
        mine, other, statistic=lambda a, b, axis: np.mean(a, axis=axis) / np.mean(b, axis=axis)
    )
    return Ratio(float(mine.mean() / other.mean()), *_quantiles(draws, _expanded(CONFIDENCE, n)), n)


def _estimate(by_round: Values, resample_pings: Callable[[], Values]) -> Estimate:
    if len(by_round) >= ROUNDS_TO_RESAMPLE:
        resampled, draws = "rounds", _resample_rounds(by_round, statistic=np.mean)
        levels = [_expanded(level, len(by_round)) for level in (CONFIDENCE, 2 * CONFIDENCE - 1)]
    else:
        resampled, draws = "pings", resample_pings()
        levels = [CONFIDENCE, 2 * CONFIDENCE - 1]
    (low, high), one_sided = (_quantiles(draws, level) for level in levels)
    margin = max(abs(end) for end in one_sided)
    return Estimate(float(by_round.mean()), low, high, len(by_round), resampled, margin)


def _quantiles(draws: Values, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _expanded(confidence: float, n: int) -> float:
    """Return the level to read a percentile interval of n values at, so that it covers as stated.

    Resampling few values understates their spread, as if n - 1 were n and Student's t the normal
    distribution: T. Hesterberg, "What Teachers Should Know About the Bootstrap", Am. Stat. 2015.
    """
    # scipy.stats takes most of a second to import: only where it is needed.
    from scipy.stats import norm, t

    quantile = t.ppf((1 + confidence) / 2, n - 1) * math.sqrt(n / (n - 1))
    return 1 - 2 * float(norm.cdf(-quantile))


def _resample_rounds(*by_round: Values, statistic: Callable[..., Any]) -> Values:
    """Draw a statistic of resampled rounds, what belongs to a round kept together."""
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


def _resample_blocks(samples: Sequence[Values], statistic: Statistic, seed: int = SEED) -> Values:
    """Draw the mean over rounds of a statistic, the pings within each run resampled in blocks.

    Shape (..., BLOCK_RESAMPLES), the dots as in the statistic's result.
    """
    rng = np.random.default_rng(seed)
    return np.asarray(np.mean([statistic(_blocks(values, rng)) for values in samples], axis=0))


def _blocks(values: Values, rng: np.random.Generator) -> Values:
    """Draw samples by the circular block bootstrap, shape (BLOCK_RESAMPLES, len(values)).

    D. N. Politis, J. P. Romano, "A circular block-resampling procedure for stationary data", 1992.
    """
    n, length = len(values), block_length(values)
    starts = rng.integers(0, n, (BLOCK_RESAMPLES, -(-n // length), 1))
    places = (starts + np.arange(length)) % n
    return values[places.reshape(BLOCK_RESAMPLES, -1)[:, :n]]


def block_length(values: Values) -> int:
    """Return how many neighbours to keep together, for values correlated as their ranks are.

    The length that is best for an autoregression of first order: H. R. Künsch, "The jackknife and
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

    The autocorrelation of the ranks is summed as long as sums of neighbouring pairs are positive:
    C. J. Geyer, "Practical Markov chain Monte Carlo", Stat. Sci. 1992. At most len(values).
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
    """Return the autocorrelation at every lag; of constant values 0 but at lag 0."""
    from scipy.signal import correlate

    centred = values - values.mean()
    products = correlate(centred, centred)[len(values) - 1 :]
    if products[0] <= 0:
        return np.eye(1, len(values))[0]
    return np.asarray(products / products[0])


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
        reach = _simultaneous(by_round)
    else:
        draws = _resample_blocks([a for a, _ in pairs], deciles)
        draws = draws - _resample_blocks([b for _, b in pairs], deciles, SEED + 1)
        error = draws.std(axis=1)
        largest = np.max(np.abs(draws - estimate[:, None]) / _not_zero(error)[:, None], axis=0)
        reach = np.quantile(largest, CONFIDENCE) * error
    return Shift(DECILES, estimate, estimate - reach, estimate + reach)


def _simultaneous(by_round: Values) -> Values:
    """Return how far simultaneous intervals of the columns' means reach, shape (columns,).

    The largest of correlated t statistics decides: T. Hothorn, F. Bretz, P. Westfall, "Simultaneous
    inference in general parametric models", Biom. J. 2008.
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
        Share of the variance between rounds that comes from the pings within them: longer rounds
        take away no more than that, the rest needs more rounds.
    """

    half_width_ns: float
    rounds: int
    pings: int
    within_share: float


def precision_needed(pairs: Sequence[Pair], half_width_ns: float) -> Precision | None:
    """Say how many rounds are needed for that half width, from the variance seen in these.

    None with fewer than `ROUNDS_TO_RESAMPLE` rounds: then the variance is not known.
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
    return float(np.var(median(_blocks(values, np.random.default_rng(SEED)))))


class Drift(NamedTuple):
    """How much a control changed while it was measured.

    Attributes
    ----------
    change_ns
        Mean of the later rounds - mean of the earlier ones, divided where they differ most.
    at
        Number of rounds before that division.
    p
        Probability of such a division if the rounds could have come in any order.
    significant
        Whether the machine is taken to have changed.
    """

    change_ns: float
    at: int
    p: float
    significant: bool


def find_drift(control_ns: Values) -> Drift:
    """Look for a change of the machine in a control's medians, one per round in order of time."""
    control_ns = np.asarray(control_ns, dtype=np.float64)
    n = len(control_ns)
    if n < 2:
        return Drift(0.0, 0, 1.0, False)
    largest, before = _largest_change(control_ns)
    change, at = float(largest), int(before)
    orders = np.random.default_rng(SEED).permuted(np.tile(control_ns, (1999, 1)), axis=1)
    as_large = np.abs(_largest_change(orders)[0]) >= abs(change) - 1e-6
    p = float((1 + as_large.sum()) / (1 + len(orders)))
    large = abs(change) > CHANGED_SHARE * float(np.median(control_ns))
    return Drift(change, at, p, p < CHANGED_P or (large and (n < FEW_ROUNDS or p < LARGE_P)))


def _largest_change(values: Values) -> tuple[Values, npt.NDArray[np.intp]]:
    """Return, along the last axis, the largest change of the mean and how many come before it.

    Largest for the numbers before and after it: as t statistics of equal spread.
    """
    n = values.shape[-1]
    before = np.arange(1, n)
    sums = np.cumsum(values, axis=-1)
    change = (sums[..., -1:] - sums[..., :-1]) / (n - before) - sums[..., :-1] / before
    at = np.argmax(np.abs(change) * np.sqrt(before * (n - before)), axis=-1)
    return np.take_along_axis(change, at[..., None], axis=-1)[..., 0], at + 1


def bias_bound(drift: Drift, mine_at: Values, other_at: Values) -> float:
    """Bound what a drift can have done to the mean difference of two arms.

    `mine_at` and `other_at` say when the arms ran, round by round, in any unit. A steady drift does
    as much harm as the arms were apart in time on average, measured by the whole recording: nothing
    where their order alternates, half of the change where one ran after the other. A sudden one
    falls between the two arms of one round at most, whose difference then stands out and widens
    the interval by itself.
    """
    at = np.concatenate([mine_at, other_at])
    span = float(np.ptp(at))
    if not drift.significant or span == 0:
        return 0.0
    apart = abs(float(np.mean(mine_at - other_at))) / span
    return abs(drift.change_ns) * 2 * apart


def refuses(estimate: Estimate, bias_ns: float) -> bool:
    """Tell whether a bias of that size leaves nothing of an estimate to rely on."""
    half_width = (estimate.high_ns - estimate.low_ns) / 2
    return bias_ns > max(abs(estimate.estimate_ns) / 2, half_width)


def holm(p_values: Values) -> Values:
    """Adjust p values for their number, as S. Holm, Scand. J. Statist. 6, 1979."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


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

    Each round's line goes through the mean of its points. Rounds with a single x tell nothing about
    the slope, and are left out of it.
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
    low, high = _quantiles(draws, _expanded(CONFIDENCE, n))
    one_sided = _quantiles(draws, _expanded(2 * CONFIDENCE - 1, n))
    return Estimate(estimate, low, high, n, "rounds", max(abs(end) for end in one_sided))
