"""Pages of tables, as of a comparison: the numbers of the tables, escaped, readable everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser

from maceproc import compare
from maceproc.cli import cli
from maceproc.errors import CaptureError
from maceproc.following.soundness import judge
from maceproc.reporting.headline import duration
from maceproc.reporting.page.sheet import Bar, Section, Sheet, Table, scaled
from maceproc.schema import FINDINGS
from tests.browser import DESKTOP, PHONE, accessibility_violations, opened, started_browser
from tests.recorded import analyzed, path_of

HOSTILE = "<b onload=x>\x1b[2J\u202e'\""
SOUND = judge(FINDINGS.from_rows([]))


def compared(*names: str) -> str:
    return compare(*map(analyzed, ("idle", "loaded")), labels=names or ("a", "b")).as_html()


def test_the_page_of_a_comparison_has_the_answer_and_the_numbers_of_its_tables() -> None:
    comparison = compare(analyzed("idle"), analyzed("loaded"), labels=("a", "b"))
    page = comparison.as_html()
    assert page.index("b against a: the median RTT") < page.index('<p class="verdict')
    for row in comparison.contrasts.itertuples():
        assert f'<td class="number">{duration(row.estimate_ns, signed=True)}</td>' in page
    for median_ns in comparison.quantities["median_ns"]:
        assert f'<td class="number">{duration(median_ns)}</td>' in page


def test_hostile_names_are_text() -> None:
    page = compared("a", HOSTILE)
    assert "<b onload" not in page
    assert "&lt;b onload" in page
    assert not {"\x1b", "\u202e"} & set(page)
    table = Table(HOSTILE, [HOSTILE], [[HOSTILE]], frozenset(), HOSTILE)
    bar = Bar(HOSTILE, 1.0, 0.0, 2.0, HOSTILE, HOSTILE, HOSTILE)
    section = Section(HOSTILE, HOSTILE, [bar], [table])
    facts, findings = [(HOSTILE, HOSTILE)], [("note", HOSTILE, HOSTILE)]
    sheet = Sheet(HOSTILE, HOSTILE, [HOSTILE] * 5, SOUND, [section], facts, findings, HOSTILE)
    page = sheet.as_html()
    assert "<b onload" not in page
    assert not {"\x1b", "\u202e"} & set(page)


def test_bars_share_a_scale_that_an_outlier_does_not_take() -> None:
    nan = math.nan
    bars = [Bar("a", 10.0, 5.0, 20.0, ""), Bar("b", 8.0, 7.0, 1e6, ""), Bar("c", nan, nan, nan, "")]
    zero, ((_, *first), (_, *second)) = scaled(bars)
    assert zero == 0
    assert [round(x) for x in first] == [33, 17, 50]
    assert second[1] + second[2] == pytest.approx(100)
    assert scaled([Bar("d", -10.0, -30.0, 10.0, "")])[0] == 75
    assert scaled([])[1] == []


def test_the_verb_writes_the_page_but_over_no_capture(tmp_path: Path) -> None:
    files = [str(path_of("idle")), str(path_of("native"))]
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["compare", *files, "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert page.read_text().startswith("<!doctype html>")
    over = CliRunner().invoke(cli, ["compare", *files, "--html", files[1]])
    assert isinstance(over.exception, CaptureError)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_browser() as browser:
        yield browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(browser: Browser, scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(compared("a", "a-name-without-any-place-to-break-it" * 3))
    for viewport in (DESKTOP, PHONE):
        with opened(browser, path, viewport, scheme) as page:
            assert accessibility_violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
