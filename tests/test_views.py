"""The tables behind the pictures say what the analysis says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from maceproc.capture_files import Capture
from maceproc.errors import AnalysisError
from maceproc.ledger import COLUMNS
from maceproc.reporting.explain import explain
from maceproc.reporting.page.tail import tail
from maceproc.reporting.views import VIEWS, usual_ping
from maceproc.schema import LOST, RTTS
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


def test_natives_beside_the_container_s_pings_are_not_mixed_into_its_way() -> None:
    """Every round has native traced pings with the same numbers, here before the container's."""
    alone = analyzed("idle")
    natives = alone.rtts[alone.rtts["arm"] == "container traced"].astype(
        {"arm": str, "status": str}
    )
    natives = natives.assign(arm="native traced", status="native", rtt_ns=natives["rtt_ns"] // 2)
    for segment in ("tx_stack_ns", "wire_rtt_ns"):
        natives[segment] = natives[segment] // 2
    rtts = pd.concat([natives, alone.rtts.astype({"arm": str, "status": str})], ignore_index=True)
    both = replace(alone, rtts=RTTS.frame(rtts))
    assert usual_ping(both) == usual_ping(alone)
    pd.testing.assert_frame_equal(both.view.path(), alone.view.path())
    pd.testing.assert_frame_equal(both.view.examples(), alone.view.examples())
    assert tail(both) == tail(alone)
    assert explain(both, 3, 1).ping["arm"] == "container traced"


def test_ledger_adds_up_to_the_mean_rtt():
    analysis = analyzed("idle")
    corrected = analysis.rtts[analysis.rtts["status"] == "corrected"]
    ledger = analysis.view.ledger()
    assert list(ledger["segment"]) == list(COLUMNS)
    assert ledger["mean_ns"].sum() == pytest.approx(corrected["rtt_ns"].mean())


def test_perturbation_by_round_has_the_reports_estimate_as_its_mean():
    analysis = analyzed("idle")
    by_round = analysis.view.perturbation().groupby("comparison")["difference_ns"].mean()
    for row in analysis.comparisons.itertuples():
        assert by_round[row.comparison] == pytest.approx(row.estimate_ns)


def test_path_goes_from_the_send_call_to_the_container_again():
    path = analyzed("idle").view.path()
    assert path["segment"].iloc[0] == "tx stack"
    order = [list(COLUMNS).index(segment) for segment in path["segment"]]
    assert order == sorted(order)
    inbound = path[path["segment"] == "inbound crossing"]
    assert inbound["end"].iloc[-1].startswith("container:eth0 ")


def test_waterfall_is_the_ping_asked_for():
    analysis = analyzed("idle")
    ping = analysis.rtts.iloc[20]
    rows = analysis.view.waterfall(int(ping["seq"]), int(ping["round"]))
    assert rows["after_ns"].iloc[0] == 0
    assert rows["after_ns"].is_monotonic_increasing
    assert rows["device"].iloc[0] == "container:eth0"
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


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_a_waterfall_add_up_to_the_ledger(name):
    analysis = analyzed(name)
    for seq, number in analysis.view.examples()[["seq", "round"]].itertuples(index=False):
        explained = explain(analysis, seq, number)
        rows = analysis.view.waterfall(seq, number)
        step_ns = rows["after_ns"].diff().fillna(0)
        by_segment = step_ns[rows["segment"] != ""].groupby(rows["segment"]).sum()
        known = explained.ledger.drop("residual").dropna()
        if explained.ping["status"] in ("corrected", "native"):
            assert by_segment.to_dict() == known[known != 0].to_dict()


def test_waterfall_ends_with_the_ping():
    # Without events of freeing, a journey goes on with the next packet at that address.
    analysis = analyzed("native")
    for seq, number in analysis.view.examples()[["seq", "round"]].itertuples(index=False):
        events = analysis.view.waterfall(seq, number)["event"]
        assert (events == "net_dev_queue").sum() <= 2


def test_wait_in_the_outer_queue_is_no_part_of_the_crossing():
    path = analyzed("in_flight").view.path()
    assert (path["segment"] == "outer queue").sum() == 1
    crossing = path[path["segment"] == "outbound crossing"]
    assert crossing["end"].iloc[-1] == "host:eth0 net_dev_queue"


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_the_extremes_and_whatever_was_not_corrected(name):
    analysis = analyzed(name)
    examples = analysis.view.examples()
    assert not examples.duplicated(["round", "seq"]).any()
    settled = analysis.rtts[analysis.rtts["status"].isin(["corrected", "native"])]
    slowest = examples.loc[examples["why"].str.startswith("slowest"), "rtt_ns"]
    assert slowest.max() == settled["rtt_ns"].max()
    usual = examples[examples["why"].str.startswith("median")]
    assert tuple(usual[["seq", "round"]].iloc[0]) == usual_ping(analysis)
    not_corrected = analysis.rtts[analysis.rtts["status"].isin(["ambiguous", "incomplete"])]
    shown = examples["status"].isin(["ambiguous", "incomplete"])
    assert shown.sum() == min(len(not_corrected), 3)


@pytest.mark.parametrize("sidecar", [True, False])
def test_lost_events_are_placed_between_the_pings(sidecar):
    analysis = analyzed("idle")
    rtts = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    gaps = [("", 0, int(ns) + 5_000_000, int(ns) + 6_000_000, 7) for ns in rtts["received_ns"][:9]]
    trace = replace(analysis.trace, lost=LOST.from_rows(gaps))
    capture = analysis.capture if sidecar else Capture(analysis.capture.trace, None)
    lost = replace(analysis, trace=trace, capture=capture).view.lost()
    printed_ns = analysis.view.rtt().set_index("series").loc["container, traced", "after_ns"][:10]
    assert (lost["after_ns"].to_numpy() > printed_ns[:9].to_numpy()).all()
    assert (lost["until_ns"].to_numpy() < printed_ns[1:].to_numpy()).all()


def test_lost_events_have_no_place_when_ping_told_no_time():
    analysis = analyzed("idle")
    gaps = LOST.from_rows([("", 0, 1, 2, 3)])
    pings = analysis.pings.assign(received_at_ns=pd.array([pd.NA] * len(analysis.pings), "Int64"))
    trace = replace(analysis.trace, lost=gaps)
    lost = replace(analysis, trace=trace, pings=pings).view.lost()
    assert lost["count"].tolist() == [3]
    assert lost[["after_ns", "until_ns"]].isna().all(axis=None)
