"""Intervals hold what they promise, on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from maceproc import statistics
from maceproc.statistics import Pair

US = 1000.0
TRUTH = 5 * US  # what the first arm is larger by


def autoregressive(rng: np.random.Generator, n: int, rho: float, sd: float) -> np.ndarray:
    """Values that resemble their neighbours by `rho`."""
    noise = rng.normal(0, sd * math.sqrt(1 - rho**2), n + 200)
    return lfilter([1], [1, -rho], noise)[200:]


def rounds_of_pings(
    rng: np.random.Generator, rounds: int, pings: int = 60, between: float = 2 * US, rho: float = 0
) -> list[Pair]:
    """Two arms in one round share its level, which differs from round to round more than they."""
    pairs = []
    for _ in range(rounds):
        level = 50 * US + rng.normal(0, 10 * US)
        mine, other = (
            level + rng.normal(0, between) + autoregressive(rng, pings, rho, 4 * US)
            for _ in range(2)
        )
        pairs.append((mine + TRUTH, other))
    return pairs


def coverage(covered: list[bool]) -> float:
    return sum(covered) / len(covered)


@pytest.mark.parametrize("rounds", [5, 8, 20])
def test_interval_over_rounds_covers_the_truth(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    covered = []
    for _ in range(300):
        found = statistics.difference(rounds_of_pings(rng, rounds))
        assert found.resampled == "rounds"
        covered.append(found.low_ns <= TRUTH <= found.high_ns)
    assert 0.91 <= coverage(covered) <= 0.985  # 95 % +- 3 standard errors of 300 trials


def test_interval_is_paired() -> None:
    # Levels differ by 10 us between rounds; only what differs within a round may count.
    found = statistics.difference(rounds_of_pings(np.random.default_rng(1), 10))
    assert found.high_ns - found.low_ns < 8 * US


def test_interval_within_rounds_respects_autocorrelation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics.resampling, "BLOCK_RESAMPLES", 299)
    rng = np.random.default_rng(2)
    covered, as_if_independent = [], []
    for _ in range(150):
        pairs = rounds_of_pings(rng, 3, pings=200, between=0, rho=0.6)
        found = statistics.difference(pairs)
        assert found.resampled == "pings"
        covered.append(found.low_ns <= TRUTH <= found.high_ns)
        shuffled = [(rng.permutation(a), rng.permutation(b)) for a, b in pairs]
        naive = statistics.difference(shuffled)
        as_if_independent.append(naive.low_ns <= TRUTH <= naive.high_ns)
    assert coverage(covered) >= 0.88
    assert coverage(as_if_independent) < coverage(covered) - 0.1


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_effective_size_of_an_autoregression(rho: float) -> None:
    rng = np.random.default_rng(3)
    sizes = [statistics.effective_size(autoregressive(rng, 4000, rho, US)) for _ in range(10)]
    assert np.mean(sizes) == pytest.approx(4000 * (1 - rho) / (1 + rho), rel=0.25)


def test_effective_size_of_few_or_equal_values() -> None:
    assert statistics.effective_size(np.array([1.0, 2.0])) == 2
    assert statistics.effective_size(np.full(50, 7.0)) == 50
    assert statistics.block_length(np.full(50, 7.0)) == 1


@pytest.mark.parametrize("rounds", [4, 6, 15])
def test_band_of_the_shift_function_covers_all_deciles_at_once(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics.resampling, "BLOCK_RESAMPLES", 299)
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(120):
        between = 2 * US if rounds >= statistics.ROUNDS_TO_RESAMPLE else 0.0
        shift = statistics.shift_function(rounds_of_pings(rng, rounds, 100, between))
        covered.append(bool(((shift.low_ns <= TRUTH) & (shift.high_ns >= TRUTH)).all()))
    assert coverage(covered) >= 0.89


def test_shift_function_shows_a_tail_that_medians_do_not() -> None:
    rng = np.random.default_rng(5)
    pairs = []
    for _ in range(10):
        mine, other = rng.normal(50 * US, US, (2, 400))
        mine[rng.random(400) < 0.2] += 30 * US
        pairs.append((mine, other))
    shift = statistics.shift_function(pairs)
    assert shift.low_ns[-1] > 10 * US
    assert shift.high_ns[4] < 2 * US
    assert abs(statistics.difference(pairs).estimate_ns) < US
    assert statistics.difference(pairs, statistics.mean).low_ns > 4 * US


def test_margin_is_the_smallest_for_which_both_one_sided_tests_reject() -> None:
    rng = np.random.default_rng(6)
    by_round = rng.normal(1 * US, 2 * US, 40)
    margin = statistics.estimate_rounds(by_round).margin_ns
    from scipy.stats import ttest_1samp

    def rejected(bound: float) -> bool:
        below = ttest_1samp(by_round, bound, alternative="less").pvalue
        above = ttest_1samp(by_round, -bound, alternative="greater").pvalue
        return max(below, above) < 0.05

    assert rejected(margin * 1.1)
    assert not rejected(margin * 0.9)


def test_precision_needed_is_reached_with_that_many_rounds() -> None:
    rng = np.random.default_rng(7)
    needed = statistics.precision_needed(rounds_of_pings(rng, 40), US)
    assert needed is not None
    widths = []
    for _ in range(20):
        found = statistics.difference(rounds_of_pings(rng, needed.rounds))
        widths.append((found.high_ns - found.low_ns) / 2)
    assert np.mean(widths) == pytest.approx(US, rel=0.3)
    assert needed.pings == needed.rounds * 60


def test_precision_says_what_longer_rounds_can_do() -> None:
    rng = np.random.default_rng(8)
    noisy_pings = statistics.precision_needed(rounds_of_pings(rng, 30, 40, between=0), US)
    noisy_rounds = statistics.precision_needed(rounds_of_pings(rng, 30, 400, between=5 * US), US)
    assert noisy_pings is not None
    assert noisy_rounds is not None
    assert noisy_pings.within_share > 0.6
    assert noisy_rounds.within_share < 0.1
    assert statistics.precision_needed(rounds_of_pings(rng, 3), US) is None


def test_a_machine_that_stays_the_same_seldom_seems_to_change() -> None:
    rng = np.random.default_rng(9)
    alarms = [statistics.find_drift(rng.normal(50 * US, US, 12)).significant for _ in range(200)]
    assert coverage(alarms) <= 0.03


def test_a_step_is_found_where_it_is() -> None:
    rng = np.random.default_rng(10)
    control = rng.normal(50 * US, US, 16)
    control[10:] -= 33 * US
    drift = statistics.find_drift(control)
    assert drift.significant
    assert drift.at == 10
    assert drift.change_ns == pytest.approx(-33 * US, rel=0.1)


def test_arms_one_after_the_other_are_refused_where_interleaved_ones_are_not() -> None:
    # The machine becomes 33 us faster half-way. In a fixed order, the arm that ran last seems to
    # cost -33 us.
    rng = np.random.default_rng(11)
    n, at = 12, np.arange(24.0)
    machine = np.where(at < 12, 83 * US, 50 * US) + rng.normal(0, US, 24)
    first, last = at[:n], at[n:]
    estimate = statistics.estimate_rounds(machine[n:] - machine[:n])
    assert estimate.high_ns < -30 * US
    drift = statistics.find_drift(machine)
    assert statistics.refuses(estimate, statistics.bias_bound(drift, last, first))

    swap = np.arange(n) % 2
    mine, other = 2 * np.arange(n) + swap, 2 * np.arange(n) + 1 - swap
    interleaved = statistics.estimate_rounds(machine[mine] + TRUTH - machine[other])
    bound = statistics.bias_bound(drift, mine.astype(float), other.astype(float))
    assert not statistics.refuses(interleaved, bound)
    assert interleaved.low_ns < TRUTH < interleaved.high_ns


def test_slope_within_rounds() -> None:
    rng = np.random.default_rng(12)
    slopes, zeros = [], []
    for _ in range(100):
        rounds = np.repeat(np.arange(8), 4)
        x = np.tile([6.0, 9.0, 20.0, 40.0], 8)
        level = 50 * US + rng.normal(0, 5 * US, 8)
        y = level[rounds] + 400 * x + rng.normal(0, 500, len(x))
        found = statistics.slope_within_rounds(x, y, rounds)
        slopes.append(found.slope.low_ns <= 400 <= found.slope.high_ns)
        zeros.append(found.at_zero.low_ns <= 50 * US <= found.at_zero.high_ns)
    assert coverage(slopes) >= 0.88
    assert coverage(zeros) >= 0.88


def test_no_slope_without_different_x() -> None:
    found = statistics.slope_within_rounds(np.full(6, 3.0), np.arange(6.0), np.arange(6))
    assert found.slope == statistics.NOTHING


def test_only_rounds_that_both_arms_have_are_paired() -> None:
    mine = pd.DataFrame({"round": [1, 1, 2], "value_ns": [1.0, 2.0, 3.0]})
    other = pd.DataFrame({"round": [1, 3], "value_ns": [4.0, 5.0]})
    assert list(statistics.pair_rounds(mine, other)) == [1]
    assert statistics.difference([]) == statistics.NOTHING


def test_holm_as_in_the_textbook() -> None:
    np.testing.assert_allclose(
        statistics.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02]
    )
    assert statistics.holm(np.array([0.9, 0.8])).max() == 1


def test_interval_of_a_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(200):
        level, own = rng.normal(10 * US, 3 * US, 12), rng.normal(0, US, 12)
        found = statistics.ratio(0.4 * level + own, level)
        covered.append(found.low <= 0.4 <= found.high)
    assert 0.9 <= coverage(covered) <= 0.99


def test_no_ratio_to_what_may_be_nothing() -> None:
    rng = np.random.default_rng(6)
    nothing, much = rng.normal(0, US, 12), rng.normal(5 * US, US, 12)
    assert math.isnan(statistics.ratio(much, nothing).ratio)
    assert statistics.ratio(nothing, much).low < 0 < statistics.ratio(nothing, much).high
    few = statistics.ratio(much[:3], much[:3])
    assert (few.rounds, math.isnan(few.ratio)) == (3, True)
