"""Differences between arms: what they rest on, and that ping's print does not shift them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.capture import Run
from maceproc.following import perturbation
from maceproc.following.perturbation import values_of
from maceproc.schema import RTTS
from maceproc.series import NATIVE, UNTRACED
from maceproc.statistics import difference, pair_rounds
from maceproc.units import NS_PER_US

US = NS_PER_US


def printed_rtts(arm: str, rtt_ns: np.ndarray, rounds: np.ndarray) -> pd.DataFrame:
    """RTTS of pings that printed whole microseconds."""
    rows = pd.DataFrame({"round": rounds, "arm": arm, "rtt_ns": np.round(rtt_ns / US) * US})
    rows["rtt_resolution_ns"] = US
    return rows.reindex(columns=RTTS.names)


def test_print_resolution_does_not_shift_a_median() -> None:
    # 6.9 and 7.4 us both print as 7 in the middle of their distribution.
    rng = np.random.default_rng(1)
    rounds = np.repeat(np.arange(1, 6), 400)
    noise = rng.normal(0, 1200, 2000)
    native = printed_rtts("native untraced", 6900 + noise, rounds)
    container = printed_rtts("container untraced", 7400 + rng.permutation(noise), rounds)
    pairs = pair_rounds(values_of(container, UNTRACED), values_of(native, NATIVE))
    estimate, low, high, *_ = difference(list(pairs.values()))
    assert estimate == pytest.approx(500, abs=150)
    assert low < 500 < high


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
    st.sampled_from([1, 10, 1000, 10_000]),
)
def test_ties_stay_within_their_step_and_apart(printed: list[int], step: int) -> None:
    values = pd.Series(printed, dtype="float64") * step
    same_round = pd.Series(1, index=values.index)
    spread = perturbation.spread_ties(values, pd.Series(step, index=values.index), same_round)
    assert ((spread - values).abs() <= step / 2).all()
    assert spread.nunique() == len(values)


def test_values_of_unknown_step_stay_as_they_are() -> None:
    values = pd.Series([7.0, 7.0])
    step = pd.Series([pd.NA, pd.NA], dtype="Int64")
    assert list(perturbation.spread_ties(values, step, pd.Series([1, 1]))) == [7.0, 7.0]


def test_a_change_of_the_machine_is_no_cost_of_tracing() -> None:
    # All traced runs first, all untraced ones last: what the machine did in between is no evidence.
    rng = np.random.default_rng(2)
    rounds, n = np.repeat(np.arange(1, 9), 50), 400
    level = np.where(rounds > 4, 50_000, 83_000)
    rows = pd.concat(
        [
            printed_rtts("container traced", level + 2000 + rng.normal(0, 500, n), rounds),
            printed_rtts("container untraced", level + rng.normal(0, 500, n), rounds),
        ]
    )
    arms = {"traced": 0, "untraced": 1}

    def compared(interleaved: bool) -> pd.Series:
        runs = [
            Run(round=number, place="container", traced=arm == "traced", argv=["ping"], start_ns=at)
            for number in range(1, 9)
            for arm, nth in arms.items()
            for at in [2 * number + (nth + number) % 2 if interleaved else 8 * nth + number]
        ]
        return perturbation.compare(rows, runs).iloc[0]

    assert "changed by -33" in compared(interleaved=False)["refused"]
    assert compared(interleaved=True)["refused"] == ""
