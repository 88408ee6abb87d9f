"""Every picture shows its table, with a unit on every axis that has numbers."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from maceproc.reporting.explain import explain
from maceproc.reporting.headline import duration
from maceproc.reporting.plots import order_of_devices, unit_of
from tests.recorded import NAMES, analyzed

mpl.use("Agg")
import matplotlib.pyplot as plt

PLOTS = ("rtt", "ecdf", "crossings", "path", "waterfall", "perturbation")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plot", PLOTS)
def test_every_plot_has_units_and_a_title(name, plot, tmp_path):
    ax = getattr(analyzed(name).plot, plot)()
    assert any(f"[{unit}]" in ax.get_xlabel() for unit in ("us", "ms", "s"))
    assert "[" in ax.get_ylabel() or ax.get_ylabel() in ("", "fraction of pings")
    assert ax.get_title(loc="left")
    ax.figure.savefig(tmp_path / "plot.png")


@pytest.mark.parametrize("plot", PLOTS)
def test_plots_draw_into_the_axes_given(plot):
    _, ax = plt.subplots()
    assert getattr(analyzed("idle").plot, plot)(ax=ax) is ax
    assert plt.get_fignums() == [ax.figure.number]


def test_points_are_the_tables_values():
    analysis = analyzed("idle")
    ax = analysis.plot.rtt()
    rows = analysis.view.rtt()
    drawn = {c.get_label(): np.asarray(c.get_offsets())[:, 1] for c in ax.collections}
    corrected = rows.loc[rows["series"] == "container, corrected", "rtt_ns"]
    np.testing.assert_allclose(drawn["container, corrected"], corrected / 1000)


def test_waterfall_goes_from_the_container_outwards():
    analysis = analyzed("idle")
    path = [str(hop) for hop in analysis.capture.sidecar.target.path]
    devices = order_of_devices(analysis, analysis.view.waterfall())
    assert [device for device in devices if device in path] == path
    assert devices[len(path) :] == ["remote:wire0"]


@pytest.mark.parametrize(
    ("times_ns", "unit"),
    [([], "us"), ([900], "us"), ([2_000_000], "us"), ([30_000_000], "ms"), ([2 * 10**10], "s")],
)
def test_unit_suits_the_size(times_ns, unit):
    assert unit_of(pd.Series(times_ns, dtype="int64"))[1] == unit


@pytest.mark.parametrize(
    ("name", "plot"), [("native", "crossings"), ("every_event", "perturbation")]
)
def test_plot_of_nothing_says_so(name, plot):
    ax = getattr(analyzed(name).plot, plot)()
    assert len(getattr(analyzed(name).view, plot)()) == 0
    assert any(text.get_text() for text in ax.texts)
    assert list(ax.get_xticks()) == []


def test_waterfall_is_drawn_in_the_ledgers_colours():
    analysis = analyzed("idle")
    ax = analysis.plot.waterfall()
    labels = {line.get_label() for line in ax.lines if not line.get_label().startswith("_")}
    assert labels == set(analysis.view.waterfall()["segment"]) - {""}


def test_results_show_themselves_in_a_notebook():
    analysis = analyzed("idle")
    shown = analysis._repr_html_()
    for series in analysis.series.itertuples():
        columns = ("median_ns", "mean_ns", "sd_ns", "p5_ns", "p95_ns")
        times = [duration(getattr(series, column)) for column in columns]
        cells = "</td><td>".join([series.series, str(series.used), *times])
        assert f"<td>{cells}</td>" in shown
    assert all(finding in shown for finding in analysis.findings["finding"])
    explained = explain(analysis, 21)._repr_html_()
    assert explained.count("<tr><td>") >= len(explain(analysis, 21).events)
    assert "icmp_seq 21, round 1, container traced: corrected" in explained
