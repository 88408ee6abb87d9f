"""The live table: what it shows fits into the terminal, whole numbers before whole names."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from maceproc.echo_rows import COUNTS
from maceproc.watching.live_table import LAST_LINE, LAYOUTS, laid_out, table
from maceproc.watching.series import AllSeries
from maceproc.watching.watcher import Losses
from tests.echo_samples import echo_rows

NOTHING_LOST = Losses(0, dict.fromkeys(COUNTS, 0), 0)
NOW_NS = 10**10


def series_of(*targets: str) -> AllSeries:
    made = AllSeries()
    for target in targets:
        made.add(echo_rows(50, target=target), NOW_NS)
    return made


def lines_on(width: int, lines: int, *targets: str, name: str = "container2") -> list[str]:
    """Return the lines that a terminal of this size is given."""
    console = Console(file=io.StringIO(), width=width, height=lines, color_system=None)
    shown = table(series_of(*targets), lambda _: name, NOTHING_LOST, 2 * NOW_NS, (width, lines))
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 110, 130, 200])
def test_names_and_numbers_are_whole_from_80_columns_on(width: int) -> None:
    lines = lines_on(width, 24, "192.0.2.2", "198.51.100.200")
    assert max(map(len, lines)) <= width
    assert len(lines) == 5
    assert "…" not in "".join(lines)
    assert lines[-1] == LAST_LINE
    assert lines[3].startswith("container2")
    assert "198.51.100.200" in "".join(lines)
    assert "p50" in lines[1]
    assert ("p99" in lines[1]) == (width >= 110)
    assert ("p95" in lines[1]) == (width >= 130)


@pytest.mark.parametrize("width", [64, 80, 100, 140])
def test_of_long_names_each_keeps_a_part(width: int) -> None:
    lines = lines_on(width, 24, "2001:db8:1234:5678:9abc:def0:1234:5678", name="measuring-probe-7")
    assert max(map(len, lines)) <= width
    words = lines[2].split()
    assert words[0].startswith("mea")
    assert words[1].startswith("2001")
    assert words[-2:] == ["0", "0"]
    assert ("…" in lines[2]) == (width < 140)


def test_rows_that_do_not_fit_are_counted() -> None:
    lines = lines_on(120, 24, *(f"192.0.2.{n}" for n in range(1, 31)))
    assert len(lines) <= 24
    assert "14 more rows" in lines


def test_without_rows_there_are_headings() -> None:
    layout, columns = laid_out([], 200)
    assert layout == LAYOUTS[0]
    assert columns[0].heading == "container"
