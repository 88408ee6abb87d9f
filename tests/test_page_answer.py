"""The page answers first, draws the path, explains the slowest pings, and opens every ping."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from maceproc.ledger import LEDGER
from maceproc.reporting.colors import SEGMENT_COLORS, SERIES_COLORS
from maceproc.reporting.headline import duration
from maceproc.reporting.page import as_html
from maceproc.reporting.page.charts import charts
from maceproc.reporting.page.every_ping import every_ping
from maceproc.reporting.page.route import lanes
from maceproc.reporting.page.tail import hop_rows, tail
from tests.browser import opened, started_browser
from tests.recorded import analyzed


def test_one_colour_has_one_meaning() -> None:
    named = {
        name: pair for name, pair in SERIES_COLORS.items() if name not in {"outbound", "inbound"}
    }
    everything = [*named.items(), *((n, p) for n, p in SEGMENT_COLORS.items() if n != "wire")]
    for scheme in (0, 1):
        used = Counter(pair[scheme] for _, pair in everything)
        assert used.most_common(1)[0][1] == 1, used
    assert SERIES_COLORS["wire"] == SEGMENT_COLORS["wire"]
    assert SERIES_COLORS["outbound"] == SEGMENT_COLORS["outbound crossing"]


def test_path_is_drawn_with_its_latencies() -> None:
    analysis = analyzed("idle")
    out, back = lanes(analysis)
    assert out["parts"][0]["place"] == "container:eth0"
    assert out["parts"][-1]["place"] == "remote"
    assert back["parts"][-1]["place"] == "container:eth0"
    for lane in (out, back):
        took_ns = sum(part.get("took_ns", 0) + part.get("at_ns", 0) for part in lane["parts"])
        steps = analysis.steps[analysis.steps["direction"] == lane["direction"]]
        wire_ns = analysis.rtts["wire_rtt_ns"].median() if lane is out else 0
        assert took_ns == pytest.approx(steps["median_ns"].sum() + wire_ns, rel=0.02)


def test_far_away_values_are_left_out_of_the_scale_and_told() -> None:
    analysis = analyzed("idle")
    rtts = analysis.rtts.copy()
    rtts.loc[0, "rtt_ns"] = 10**9
    chart = next(chart for chart in charts(replace(analysis, rtts=rtts)) if chart["id"] == "rtt")
    values = [value for series in chart["series"] for value in series["y"]]
    assert chart["clip"]["left_out"] == sum(value > chart["clip"]["at_ns"] for value in values) >= 1
    page = html.unescape(as_html(replace(analysis, rtts=rtts)))
    assert f"The scale ends at {duration(chart['clip']['at_ns'])}" in page


def test_the_slowest_pings_lost_their_time_where_it_was_put() -> None:
    analysis = analyzed("idle")
    rtts = analysis.rtts.copy()
    slow = rtts[rtts["status"] == "corrected"].index[[3, 40, 77]]
    rtts.loc[slow, ["rtt_ns", "inbound_ns"]] += 700_000
    rtts.loc[slow[:2], "causes"] = "changed CPU"
    found = tail(replace(analysis, rtts=rtts))
    assert found["pings"] == 3
    assert found["segments"][0]["segment"] == "inbound crossing"
    assert found["segments"][0]["excess_ns"] == pytest.approx(700_000, rel=0.05)
    assert ("changed CPU", 2) in found["causes"]


def test_every_step_has_its_distribution() -> None:
    analysis = analyzed("idle")
    rows = hop_rows(analysis)
    assert [row["median_ns"] for row in rows] == pytest.approx(list(analysis.steps["median_ns"]))
    assert all(row["places"] == sorted(row["places"]) for row in rows)


def test_the_page_holds_the_events_of_every_traced_ping() -> None:
    analysis = analyzed("idle")
    data = every_ping(analysis)
    traced = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    assert len(data["pings"]) == len(traced)
    assert data["segments"] == [segment.name for segment in LEDGER]
    for row in traced.itertuples():
        ping = data["pings"][f"c-{row.round}-{row.seq}"]
        times_ns = ping[-1][1::2]
        assert times_ns == sorted(times_ns)
        assert ping[2] == row.rtt_ns
        assert times_ns[0] == row.tx_stack_ns


@pytest.mark.parametrize("chart", ["rtt", "ecdf", "crossings"])
def test_a_point_opens_its_ping(chart: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(as_html(analyzed("idle")))
    with started_browser() as browser, opened(browser, path) as page:
        plot = page.locator(f"#{chart} .plot")
        plot.focus()
        for _ in range(9):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        article = page.locator("#ping article:visible")
        assert article.count() == 1
        number, seq = article.locator("h3").inner_text().split(":")[0].split(", round ")[::-1]
        where = page.locator(f"#{chart} .where").inner_text()
        assert f"round {number}, {seq}" in where
