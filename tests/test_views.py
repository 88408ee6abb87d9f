"""The tables behind the pictures say what the analysis says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from maceproc.errors import AnalysisError
from maceproc.explain import LEDGER
from maceproc.views import VIEWS, usual_ping
from tests.recorded import NAMES, analyzed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_view_has_the_columns_it_declares(name, view):
    frame = getattr(analyzed(name).view, view.name)()
    assert list(frame) == view.names
    expected = {c.name: pd.Series(dtype=c.dtype).dtype for c in view.columns}
    assert dict(frame.dtypes) == expected


@pytest.mark.parametrize("name", NAMES)
def test_series_are_those_of_the_report(name):
    analysis = analyzed(name)
    counts = analysis.view.rtt()["series"].value_counts().to_dict()
    assert counts == dict(zip(analysis.series["series"], analysis.series["used"], strict=True))


def test_distribution_rises_to_one_and_halves_at_the_median():
    analysis = analyzed("idle")
    medians = analysis.series.set_index("series")["median_ns"]
    for name, rows in analysis.view.ecdf().groupby("series"):
        assert rows["fraction"].is_monotonic_increasing
        assert rows["rtt_ns"].is_monotonic_increasing
        assert rows["fraction"].iloc[-1] == 1
        below = rows.loc[rows["fraction"] <= 0.5, "rtt_ns"].max()
        above = rows.loc[rows["fraction"] > 0.5, "rtt_ns"].min()
        step = 500  # half of what ping prints: medians are those of grouped data
        assert below - step <= medians[name] <= above + step


def test_crossings_are_those_of_the_corrected_pings():
    analysis = analyzed("idle")
    crossings = analysis.view.crossings().groupby("direction")["latency_ns"]
    corrected = analysis.rtts[analysis.rtts["status"] == "corrected"]
    assert crossings.size().to_dict() == {d: len(corrected) for d in ("outbound", "inbound")}
    assert crossings.sum()["outbound"] == corrected["outbound_ns"].sum()


def test_ledger_adds_up_to_the_mean_rtt():
    analysis = analyzed("idle")
    corrected = analysis.rtts[analysis.rtts["status"] == "corrected"]
    ledger = analysis.view.ledger()
    assert list(ledger["segment"]) == list(LEDGER)
    assert ledger["mean_ns"].sum() == pytest.approx(corrected["rtt_ns"].mean())


def test_perturbation_by_round_has_the_reports_estimate_as_its_mean():
    analysis = analyzed("idle")
    by_round = analysis.view.perturbation().groupby("comparison")["difference_ns"].mean()
    for row in analysis.comparisons.itertuples():
        assert by_round[row.comparison] == pytest.approx(row.estimate_ns)


def test_path_goes_from_the_send_call_to_the_container_again():
    path = analyzed("idle").view.path()
    assert path["segment"].iloc[0] == "tx stack"
    order = [list(LEDGER).index(segment) for segment in path["segment"]]
    assert order == sorted(order)
    inbound = path[path["segment"] == "inbound crossing"]
    assert inbound["end"].iloc[-1].startswith("container:eth0 ")


def test_waterfall_is_the_ping_asked_for():
    analysis = analyzed("idle")
    ping = analysis.rtts.iloc[20]
    rows = analysis.view.waterfall(int(ping["seq"]), int(ping["round"]))
    assert rows["after_ns"].iloc[0] == 0
    assert rows["after_ns"].is_monotonic_increasing
    assert rows["place"].iloc[0] == "container:eth0"
    assert ping["kernel_rtt_ns"] in set(rows["after_ns"])


def test_waterfall_of_no_ping_in_particular_is_a_usual_one():
    analysis = analyzed("idle")
    seq, number = usual_ping(analysis)
    rtts = analysis.rtts[analysis.rtts["status"] == "corrected"]
    usual = rtts[(rtts["seq"] == seq) & (rtts["round"] == number)]["rtt_ns"].iloc[0]
    low, high = np.percentile(rtts["rtt_ns"].astype(float), [45, 55])
    assert low <= usual <= high
    pd.testing.assert_frame_equal(analysis.view.waterfall(), analysis.view.waterfall(seq, number))


def test_waterfall_of_a_ping_that_was_not_sent():
    with pytest.raises(AnalysisError, match="no traced ping has icmp_seq 4711"):
        analyzed("idle").view.waterfall(4711)
