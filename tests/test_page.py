"""The report page says what the tables say, in a real browser, on a phone and without a network."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import re
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import expect

from maceproc.cli import cli
from maceproc.errors import CaptureError
from maceproc.pipeline import analyze
from maceproc.reporting.colors import BASE_COLORS, SEGMENT_COLORS, SERIES_COLORS
from maceproc.reporting.headline import duration, headline
from maceproc.reporting.page import as_html
from maceproc.reporting.page.charts import apart, charts, thinned
from maceproc.schema import FINDINGS, LOST
from tests.browser import DESKTOP, PHONE, accessibility_violations, opened, started_browser
from tests.recorded import NAMES, analyzed, path_of

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def with_losses():
    """Return the idle capture as if events had been lost and two pings not been corrected."""
    analysis = analyzed("idle")
    run = next(run for run in analysis.capture.sidecar.runs if run.traced)
    second = 10**9
    lost = LOST.from_rows(
        [
            ("", 0, run.start_ns + second // 4, run.start_ns + second // 2, 1203),
            ("", 1, run.end_ns, None, None),
        ]
    )
    rtts = analysis.rtts.astype({"status": object})
    gone = ["bare_metal_rtt_ns", "wire_rtt_ns", "inbound_ns", "delivery_ns", "residual_ns"]
    for row, status in ((5, "ambiguous"), (9, "incomplete")):
        rtts.loc[row, gone] = pd.NA
        rtts.loc[row, ["status", "reason"]] = [status, f"made {status} by this test"]
    return replace(analysis, trace=replace(analysis.trace, lost=lost), rtts=rtts)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    analyses = {name: analyzed(name) for name in NAMES} | {"losses": with_losses()}
    for name, analysis in analyses.items():
        (folder / f"{name}.html").write_text(as_html(analysis))
    return {name: folder / f"{name}.html" for name in analyses}


@pytest.fixture(scope="module")
def browser():
    with started_browser() as started:
        yield started


# What is written


@pytest.mark.parametrize("name", NAMES)
def test_page_asks_for_nothing(name, pages):
    page = pages[name].read_text()
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) <= {"data:,"}
    assert "default-src 'none'" in page
    assert headline(analyzed(name)) in html.unescape(page)


def test_page_runs_no_script_but_its_own(browser, tmp_path):
    analysis = analyzed("idle")
    findings = FINDINGS.from_rows([(HOSTILE, "note", HOSTILE, HOSTILE)])
    rtts = analysis.rtts.assign(reason=HOSTILE, causes=HOSTILE)
    path = tmp_path / "hostile.html"
    path.write_text(as_html(replace(analysis, findings=findings, rtts=rtts)))
    with opened(browser, path) as page:
        assert page.locator("main img, main script").count() == 0
        assert HOSTILE in page.locator("#findings").inner_text()


def test_page_of_a_capture_without_a_sidecar(tmp_path):
    trace = tmp_path / "trace.dat"
    trace.write_bytes(path_of("idle").read_bytes())
    ping = tmp_path / "ping.txt"
    ping.write_text(next(r.output for r in analyzed("idle").capture.sidecar.runs if r.traced))
    options = {"inner": "eth0", "outer": "eth0", "peer": "veth74e51"}
    for given_ping in (None, ping):
        page = as_html(analyze(trace, ping=given_ping, **options))
        assert "by hand: no sidecar" in page


def test_charts_have_every_row_of_their_tables():
    analysis = with_losses()
    made = {chart["id"]: chart for chart in charts(analysis)}
    rtt, rows = made["rtt"], analysis.view.rtt()
    for series in rtt["series"]:
        if series["name"] != "not corrected":
            expected = rows.loc[rows["series"] == series["name"], "rtt_ns"]
            assert sorted(series["y"]) == sorted(expected)
    missed = rows["status"].isin(["ambiguous", "incomplete"])
    assert sum(len(s["y"]) for s in rtt["series"] if s["name"] == "not corrected") == missed.sum()
    for chart in made.values():
        names = [series["name"] for series in chart["series"]]
        assert len(names) == len(set(names))
        for series in chart["series"]:
            assert all(np.diff(series["x"]) > 0)
            assert series["rows"] == len(series["x"])


@given(st.lists(st.integers(0, 30), min_size=1))
def test_equal_times_are_moved_apart_and_no_others(times):
    x = np.sort(np.array(times))
    moved = apart(x)
    assert (np.diff(moved) > 0).all()
    assert (moved >= x).all()
    assert (moved - x).max() < len(x)
    if len(set(times)) == len(times):
        assert (moved == x).all()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.integers(2, 40))
def test_thinning_keeps_the_extremes(values, most):
    values = np.array(values)
    kept = values[thinned(values, most)]
    assert len(kept) <= max(most, 1) or len(values) <= most
    assert (kept.min(), kept.max()) == (values.min(), values.max())


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out(scheme):
    grounds = [BASE_COLORS[name][scheme] for name in ("background", "panel")]
    drawn = [pair[scheme] for pair in (SERIES_COLORS | SEGMENT_COLORS).values()]
    written = [BASE_COLORS[n][scheme] for n in ("text", "quiet", "link", "warning", "problem")]
    assert min(contrast(c, ground) for c in drawn for ground in grounds) >= 3
    assert min(contrast(c, ground) for c in written for ground in grounds) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it."""

    def luminance(color: str) -> float:
        channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_uplot_is_as_published():
    content = (files("maceproc.reporting.page") / "uPlot.iife.min.js").read_bytes()
    published = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
    assert hashlib.sha256(content).hexdigest() == published


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [(53_700, "53.7 us"), (26_414_887, "26.415 ms"), (-4, "0.0 us"), (np.nan, "-")],
)
def test_durations(time_ns, text):
    assert duration(time_ns).replace("\u00a0", " ") == text


def test_command_writes_the_page_beside_the_report(tmp_path):
    path = tmp_path / "report.html"
    command = ["analyze", str(path_of("idle")), "--json", "--html", str(path)]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert json.loads(result.stdout)["schema_version"]
    assert f"wrote {path}" in result.stderr
    assert path.read_text() == as_html(analyzed("idle"))


def test_command_says_when_it_cannot_write(tmp_path):
    command = ["analyze", str(path_of("idle")), "--html", str(tmp_path / "no" / "report.html")]
    with pytest.raises(CaptureError, match="there is no directory"):
        CliRunner().invoke(cli, command, catch_exceptions=False)


# What a browser makes of it


@pytest.mark.parametrize("name", [*NAMES, "losses"])
def test_every_page_is_whole(name, browser, pages):
    analysis = with_losses() if name == "losses" else analyzed(name)
    with opened(browser, pages[name]) as page:
        for chart in charts(analysis):
            assert inked(page, chart["id"]) > 100
        sections = {s.get_attribute("id") for s in page.locator("section").all()}
        assert {"findings", "path", "rtt", "ecdf", "ping", "recorded"} <= sections
        assert page.locator("#ping article:visible").count() == 1
        examples = analysis.view.examples()
        assert page.locator("#choose option").count() == len(examples)
        assert page.locator("#path tbody tr:not(.segment)").count() == len(analysis.view.path())


def inked(page, chart):
    """Count the coloured pixels of a chart, those of no grey."""
    return page.evaluate(
        """(id) => {
            const canvas = document.querySelector(`#${id} canvas`);
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            const pixels = copy.getImageData(0, 0, width, height).data;
            let colored = 0;
            for (let i = 0; i < pixels.length; i += 4) {
                const [r, g, b] = pixels.slice(i, i + 3);
                if (pixels[i + 3] && Math.max(r, g, b) - Math.min(r, g, b) > 60) colored++;
            }
            return colored;
        }""",
        chart,
    )


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out(width, browser, pages):
    for name in ("every_event", "losses"):
        with opened(browser, pages[name], {"width": width, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.set_viewport_size({"width": 300, "height": 800})
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(50)
            assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_is_accessible(viewport, scheme, browser, pages):
    with opened(browser, pages["losses"], viewport, scheme) as page:
        page.locator("#lost summary").click()
        assert accessibility_violations(page) == []


def test_a_page_that_is_not_accessible_is_found_out(browser, pages, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(pages["idle"].read_text().replace("--quiet:#55626f", "--quiet:#c8cdd2"))
    with opened(browser, path) as page:
        assert any(found.startswith("color-contrast") for found in accessibility_violations(page))


def test_colours_follow_the_system_until_the_reader_chooses(browser, pages):
    def ground(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    with opened(browser, pages["idle"], scheme="dark") as page:
        plot, button = page.locator("#rtt .plot"), page.locator("#theme")
        expect(button).to_have_text("Light")
        dark, drawn = ground(page), plot.screenshot()
        page.emulate_media(color_scheme="light")
        expect(button).to_have_text("Dark")
        assert ground(page) != dark
        assert plot.screenshot() != drawn
        button.press("Enter")
        expect(button).to_have_text("Light")
        assert ground(page) == dark
        assert plot.screenshot() == drawn


def test_ping_is_chosen_with_the_keyboard(browser, pages):
    examples = with_losses().view.examples()
    with opened(browser, pages["losses"]) as page:
        page.locator("#choose").focus()
        seen = []
        for example in examples.itertuples():
            article = page.locator("#ping article:visible")
            assert article.count() == 1
            seen.append(article.get_attribute("id"))
            assert f"{example.seq}, round {example.round}: {example.status}" in article.inner_text()
            page.keyboard.press("ArrowDown")
        assert seen == [f"ping-{e.round}-{e.seq}" for e in examples.itertuples()]
        assert "Made ambiguous by this test" in page.locator("#ping").text_content()


def test_waterfall_shows_the_events_of_the_ping(browser, pages):
    analysis = analyzed("idle")
    rows = analysis.view.waterfall()
    with opened(browser, pages["idle"]) as page:
        cells = page.locator("#ping article:visible tbody tr").all()
        shown = [row.locator("td").first.inner_text() for row in cells]
        assert shown == [duration(time_ns) for time_ns in rows["after_ns"]]


def test_chart_is_read_and_zoomed_with_the_keyboard(browser, pages):
    rows = analyzed("idle").view.rtt()
    first = rows[rows["after_ns"] == 0].set_index("series")["rtt_ns"]
    with opened(browser, pages["idle"]) as page:
        plot, spoken = page.locator("#rtt .plot"), page.locator("#rtt [role=status]")
        plot.focus()
        page.keyboard.press("ArrowRight")
        for name, rtt_ns in first.drop("wire").items():
            assert f"{name} {rtt_ns / 1000:.1f} us" in spoken.inner_text()
        page.keyboard.press("ArrowRight")
        assert "round 1, icmp_seq 2" in spoken.inner_text()
        whole = plot.screenshot()
        everything = page.locator("#rtt .zoom-out")
        assert everything.is_disabled()
        page.keyboard.press("+")
        assert everything.is_enabled()
        page.wait_for_timeout(50)
        assert plot.screenshot() != whole
        page.keyboard.press("Escape")
        page.wait_for_timeout(50)
        assert everything.is_disabled()


def test_chart_is_zoomed_with_the_mouse(browser, pages):
    with opened(browser, pages["idle"]) as page:
        over = page.locator("#rtt .u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 300, box["y"] + 80, steps=4)
        page.mouse.up()
        assert page.locator("#rtt .zoom-out").is_enabled()
        over.dblclick()
        assert page.locator("#rtt .zoom-out").is_disabled()


def test_series_are_hidden_and_shown(browser, pages):
    with opened(browser, pages["idle"]) as page:
        all_of_it = inked(page, "ecdf")
        button = page.locator("#ecdf .legend button", has_text="container, corrected")
        button.press("Enter")
        page.wait_for_timeout(50)
        assert button.get_attribute("aria-pressed") == "false"
        assert inked(page, "ecdf") < all_of_it
        button.press("Enter")
        page.wait_for_timeout(50)
        assert inked(page, "ecdf") == all_of_it


def test_lost_events_are_on_the_time_axis(browser, pages):
    analysis = with_losses()
    lost = analysis.view.lost()
    end_ns = analysis.view.rtt()["after_ns"].max()
    with opened(browser, pages["losses"]) as page:
        gap = page.locator("#lost .gap").first
        track, own = gap.locator("xpath=..").bounding_box(), gap.bounding_box()
        left = (own["x"] - track["x"]) / track["width"]
        assert left == pytest.approx(lost["after_ns"].iloc[0] / end_ns, abs=0.01)
        assert "1,203 events were lost in 2 places" in page.locator("#lost").inner_text()
        # Where nothing else is drawn, the chart is shaded within the gap and not beside it.
        middle_ns = lost[["after_ns", "until_ns"]].iloc[0].mean()
        within, beside = (top_pixel(page, time_ns) for time_ns in (middle_ns, 7e8))
        assert within[3] > 0
        assert beside[3] == 0


def top_pixel(page, time_ns):
    """Return the colour of the RTT chart near its upper edge, at a time [ns]."""
    end_ns = with_losses().view.rtt()["after_ns"].max()
    return page.evaluate(
        """(part) => {
            const canvas = document.querySelector("#rtt canvas");
            const over = document.querySelector("#rtt .u-over");
            const x = over.offsetLeft + over.clientWidth * (0.01 + part) / 1.02;
            const copy = new OffscreenCanvas(1, 1).getContext("2d");
            copy.drawImage(canvas, -Math.round(x), -over.offsetTop - 3);
            return [...copy.getImageData(0, 0, 1, 1).data];
        }""",
        float(time_ns / end_ns),
    )


def test_csv_is_the_table(browser, pages, tmp_path):
    rows = analyzed("idle").view.crossings()
    with opened(browser, pages["idle"]) as page:
        with page.expect_download() as download:
            page.locator("#crossings .csv").click()
        download.value.save_as(tmp_path / "crossings.csv")
    with (tmp_path / "crossings.csv").open() as file:
        read = [(r["series"], int(r["seq"]), int(r["latency_ns"])) for r in csv.DictReader(file)]
    expected = rows[["direction", "seq", "latency_ns"]].itertuples(index=False, name=None)
    assert sorted(read) == sorted(expected)


def test_page_is_readable_without_scripts(browser, pages):
    with opened(browser, pages["idle"], java_script_enabled=False) as page:
        shown = page.locator("#ping article:visible").count()
        assert shown == len(analyzed("idle").view.examples())
        assert not page.locator(".tools").first.is_visible()
        assert page.locator("#series tbody tr").count() == len(analyzed("idle").series)
