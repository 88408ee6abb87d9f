"""The live table: what it shows fits into the terminal, whole numbers before whole names."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from maceproc.echo_rows import COUNTS
from maceproc.watching.live_table import LAST_LINE, LAYOUTS, NOT_FOLLOWED, laid_out, table
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


def lines_on(
    width: int, lines: int, *targets: str, name: str = "container2", lost: Losses = NOTHING_LOST
) -> list[str]:
    """Return the lines that a terminal of this size is given."""
    console = Console(file=io.StringIO(), width=width, height=lines, color_system=None)
    shown = table(series_of(*targets), lambda _: name, lost, 2 * NOW_NS, (width, lines))
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


def test_what_was_not_followed_is_told_whole_below_the_rows() -> None:
    inside = {(1, f"172.17.0.{n}"): n for n in range(1, 6)}
    lost = Losses(7, {**dict.fromkeys(COUNTS, 0), "no_request": 9}, 15, inside)
    lines = lines_on(80, 14, *(f"192.0.2.{n}" for n in range(1, 31)), lost=lost)
    assert len(lines) <= 13
    assert lines[-1] == LAST_LINE
    said = " ".join(lines)
    assert "7 points of echoes lost" in said
    assert "15 requests left by no outer device" in said
    first = "container2 -> 172.17.0.5 5, container2 -> 172.17.0.4 4, container2 -> 172.17.0.3 3"
    assert f"{first}, 2 more targets" in said
    assert "9 replies came to a container whose request left by no outer device" in said


def test_every_count_has_words() -> None:
    assert NOT_FOLLOWED.keys() == COUNTS.keys()


def test_without_rows_there_are_headings() -> None:
    layout, columns = laid_out([], 200)
    assert layout == LAYOUTS[0]
    assert columns[0].heading == "container"
