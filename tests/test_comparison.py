"""Comparisons find differences that are there, and no others; the unit is what was repeated."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import maceproc
from maceproc.comparison import _contrast, labels_of
from maceproc.errors import AnalysisError
from maceproc.following.perturbation import values_of
from maceproc.reporting.side_by_side import format_p
from maceproc.series import UNTRACED
from maceproc.statistics import cliffs_delta
from tests.recorded import analyzed, path_of

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(scope="module")
def compared() -> maceproc.Comparison:
    return maceproc.compare(analyzed("idle"), analyzed("loaded"), analyzed("every_event"))


def pings(shift_ns: float, rounds: int, each: int, seed: int) -> pd.DataFrame:
    """Give pings of rounds that drift: the same drift, whatever the seed, has no meaning."""
    random = np.random.default_rng(seed)
    drift = random.normal(0, 3000, rounds).repeat(each)
    value_ns = 80_000 + shift_ns + drift + random.normal(0, 4000, rounds * each)
    number = np.arange(rounds).repeat(each) + 1
    return pd.DataFrame({"round": number, "value_ns": value_ns})


def test_a_capture_does_not_differ_from_itself() -> None:
    comparison = maceproc.compare(analyzed("idle"), analyzed("idle"))
    contrasts = comparison.contrasts
    assert (contrasts["estimate_ns"] == 0).all()
    assert (contrasts["p_adjusted"] == 1).all()
    assert (contrasts["delta"].dropna().abs() < 1e-12).all()
    assert comparison.notes == ()


def test_medians_are_those_of_the_analyses(compared: maceproc.Comparison) -> None:
    medians = compared.quantities.set_index(["capture", "quantity"])["median_ns"]
    for label, analysis in compared.analyses.items():
        for row in analysis.series.itertuples():
            assert medians[label, row.series] == pytest.approx(row.median_ns)


def test_rounds_are_the_unit_where_there_are_enough(compared: maceproc.Comparison) -> None:
    contrasts = compared.contrasts
    assert set(contrasts.loc[contrasts["capture"] == "loaded", "unit"]) == {"pings", "rounds"}
    many = [pings(0, 8, 30, seed) for seed in (1, 2)]
    assert _contrast(*many)[-3:] == ("rounds", 8, 8)
    few = [part[part["round"] < 4] for part in many]
    assert _contrast(*few)[-3:] == ("pings", 90, 90)


def test_drift_between_rounds_is_no_difference() -> None:
    """With the pings as unit, rounds that drift would differ in most cases; with rounds few do."""
    p_by_round = [_contrast(pings(0, 6, 200, s), pings(0, 6, 200, s + 1000))[6] for s in range(60)]
    assert np.mean(np.array(p_by_round) < 0.05) < 0.15


def test_a_shift_is_found_with_its_size() -> None:
    estimate, low, high, delta, *_, p_value, _, _, _ = _contrast(
        pings(12_000, 12, 100, 1), pings(0, 12, 100, 2)
    )
    assert low < 12_000 < high
    assert low < estimate < high
    assert p_value < 0.001
    assert delta > 0.8


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(100):
        _, low, high, *_ = _contrast(pings(5000, 6, 40, seed), pings(0, 6, 40, seed + 500))
        covered += low <= 5000 <= high
    assert covered >= 88


samples = arrays.arrays(float, st.integers(3, 12), elements=st.integers(0, 20).map(float))


@given(samples, samples)
def test_delta_is_what_its_definition_says(mine: np.ndarray, other: np.ndarray) -> None:
    frames = [pd.DataFrame({"round": 1, "value_ns": values}) for values in (mine, other)]
    delta, low, high = cliffs_delta(*frames)
    assert delta == pytest.approx(np.sign(mine[:, None] - other[None, :]).mean())
    assert -1 <= low <= delta <= high <= 1
    backwards, _, _ = cliffs_delta(*frames[::-1])
    assert backwards == pytest.approx(-delta)


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (("a/trace.dat", "b/trace.dat"), ["a", "b"]),
        (("x/idle.dat", "x/loaded.dat"), ["idle", "loaded"]),
        (("1/a/trace.dat", "1/b/trace.dat", "2/a/trace.dat"), ["1/a", "1/b", "2/a"]),
        (("t.dat", "t.dat"), ["t (1)", "t (2)"]),
    ],
)
def test_labels_are_what_tells_paths_apart(paths: tuple[str, ...], labels: list[str]) -> None:
    assert labels_of([Path(path) for path in paths]) == labels


def test_what_else_differs_is_said(compared: maceproc.Comparison) -> None:
    assert any("what was recorded is not the same" in note for note in compared.notes)
    assert any("native ping differs too" in note for note in compared.notes)


def test_no_comparison_of_one_or_without_pings(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="needs two captures"):
        maceproc.compare(analyzed("idle"))
    with pytest.raises(AnalysisError, match="labels"):
        maceproc.compare(analyzed("idle"), analyzed("loaded"), labels=["a", "a"])


def test_picture_shows_every_quantity(compared: maceproc.Comparison, tmp_path: Path) -> None:
    ax = compared.plot()
    assert "[" in ax.get_xlabel()
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert set(names) == set(compared.quantities["quantity"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(compared.analyses)
    plt.close("all")


def test_text_has_every_capture_and_number(compared: maceproc.Comparison) -> None:
    text = str(compared)
    for label in compared.analyses:
        assert label in text
    assert "Medians [us]" in text
    untraced = values_of(analyzed("idle").rtts, UNTRACED)["value_ns"].median()
    assert f"{untraced / 1000:.1f}" in text


@pytest.mark.parametrize(
    ("p_value", "text"), [(0.0004, "<0.001"), (0.0312, "0.031"), (0.24, "0.24"), (1.0, "1.00")]
)
def test_p_values_have_few_digits(p_value: float, text: str) -> None:
    assert format_p(p_value) == text


def test_paths_do_as_well() -> None:
    comparison = maceproc.compare(path_of("idle"), str(path_of("native")))
    assert list(comparison.captures["capture"]) == ["idle", "native"]
