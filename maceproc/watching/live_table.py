"""The echoes of every container and target as a table, for a terminal or as plain lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from maceproc.units import format_us
from maceproc.watching.series import MORE_TARGETS, SHOWN, AllSeries, Key, Series
from maceproc.watching.watcher import Losses

if TYPE_CHECKING:
    from rich.console import Group

SHARES = (0.5, 0.95, 0.99)
HEADINGS = {"rtt": "kernel RTT", "corrected_rtt": "corrected", "container": "container adds"}
LONGEST_NAMES = (24, 39)  # of a container and of a target; 39 is the longest IPv6 address
SHORTEST_NAME = 6
AROUND = 8  # lines of a terminal that are not rows: headings, what is below the table, a prompt
TARGETS_INSIDE = 3  # that are named, of requests that left by no outer device
NOT_FOLLOWED = {
    "no_request": "replies came to a container whose request left by no outer device, or was "
    "answered before",
    "unreadable": "packets had a header that is cut, or not in their linear part",
    "unknown_headers": "packets had IPv6 extension headers that are not understood",
}
"""What `maceproc.echo_rows.COUNTS` counts, after a number."""
HEADING_LINES = 4  # two of headings, how many rows are not shown, and a prompt
LAST_LINE = "Ctrl-C ends it"
"""Below the table, so that the ``^C`` that a terminal writes there does not break a full line."""


class Layout(NamedTuple):
    """How much of the echoes a table shows: fewer percentiles where the terminal is narrow."""

    shares: tuple[float, ...]
    headings: tuple[str, ...]  # of what is `SHOWN`
    with_counts: bool = True  # how many echoes there were
    gap: int = 2  # blanks between columns


LAYOUTS = (
    Layout(SHARES, tuple(f"{heading} [us]" for heading in HEADINGS.values())),
    Layout((0.5, 0.99), ("RTT [us]", "corrected", "added")),
    Layout((0.5,), ("RTT [us]", "corrected", "added"), with_counts=False, gap=1),
)


class Column(NamedTuple):
    """A column of the table: its heading, which may have several lines, and a cell for each row."""

    heading: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Return the characters of its longest line."""
        return max(len(line) for line in (*self.heading.split("\n"), *self.cells))


def table(
    all_series: AllSeries,
    name_of: Callable[[int], str],
    losses: Losses,
    now_ns: int,
    size: tuple[int, int],
) -> Group:
    """Return the table for a terminal of `size` (columns, lines), and what is below it."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    width, lines = size
    foot = [*loss_lines(losses, all_series, name_of), LAST_LINE]
    below = sum(math.ceil(len(line) / width) for line in foot)
    height = max(3, lines - max(AROUND, HEADING_LINES + below))
    shown = _order(all_series, name_of)
    rows = [
        (name_of(key.container), key.target, series, all_series.rate(series, now_ns))
        for key, series in shown[:height]
    ]
    layout, columns = laid_out(rows, width)
    made = Table(box=None, pad_edge=False, padding=(0, layout.gap, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        justify = "left" if place < len(LONGEST_NAMES) else "right"
        made.add_column(escape(column.heading), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*map(escape, cells))
    more = len(shown) - height
    if more > 0:
        foot.insert(0, f"{more} more rows")
    return Group(made, Text("\n".join(foot), style="dim"))


def laid_out(
    rows: Sequence[tuple[str, str, Series, float]], width: int
) -> tuple[Layout, list[Column]]:
    """Return the first layout that fits into a width, and its columns; the last one is made to fit.

    Rows are container, target, series and echoes a second.
    """
    for layout in LAYOUTS:
        columns = _columns(rows, layout)
        left = width - sum(column.width + layout.gap for column in columns[2:])
        longest = [min(c.width, m) for c, m in zip(columns, LONGEST_NAMES, strict=False)]
        if sum(longest) + layout.gap <= left:
            break
    else:
        names = max(left - layout.gap, 2 * SHORTEST_NAME)
        container = max(min(longest[0], names // 2), names - longest[1])
        longest = [container, names - container]
    return layout, [*map(_cut, columns, longest), *columns[2:]]


def _columns(rows: Sequence[tuple[str, str, Series, float]], layout: Layout) -> list[Column]:
    percentiles = " / ".join(f"p{share * 100:g}" for share in layout.shares)
    made = {
        "container": [container for container, *_ in rows],
        "target": [target for _, target, *_ in rows],
        "echoes": [str(series.echoes) for *_, series, _ in rows],
        "a\nsecond": [f"{rate:.1f}" for *_, rate in rows],
        **{
            f"{heading}\n{percentiles}": [
                _spans(series, name, layout.shares) for *_, series, _ in rows
            ]
            for name, heading in zip(SHOWN, layout.headings, strict=True)
        },
        "un-\nanswered": [str(series.unanswered) for *_, series, _ in rows],
        "not\ncertain": [str(series.not_certain) for *_, series, _ in rows],
    }
    if not layout.with_counts:
        del made["echoes"]
    return [Column(heading, tuple(cells)) for heading, cells in made.items()]


def _cut(column: Column, longest: int) -> Column:
    """Return a column whose texts are not longer; what was cut ends with a sign of it."""
    texts = [
        text if len(text) <= longest else f"{text[: longest - 1]}…"
        for text in (column.heading, *column.cells)
    ]
    return Column(texts[0], tuple(texts[1:]))


def _spans(series: Series, name: str, shares: tuple[float, ...]) -> str:
    return " / ".join(format_us(value) for value in series.recent[name].percentiles(shares))


def plain_lines(
    all_series: AllSeries, name_of: Callable[[int], str], losses: Losses, now_ns: int
) -> list[str]:
    """Return a line for each container and target, and one for what was not followed."""
    lines = []
    for key, series in _order(all_series, name_of):
        named = ", ".join(
            f"{heading} {_spans(series, span, SHARES)}" for span, heading in HEADINGS.items()
        )
        lines.append(
            f"{name_of(key.container)} -> {key.target}: {series.echoes} echoes, "
            f"{all_series.rate(series, now_ns):.1f}/s; {named} us (p50 / p95 / p99); "
            f"{series.unanswered} unanswered, {series.not_certain} not certain"
        )
    return lines + loss_lines(losses, all_series, name_of)


def loss_lines(losses: Losses, all_series: AllSeries, name_of: Callable[[int], str]) -> list[str]:
    """Return what was not followed; nothing where everything was."""
    said = []
    if losses.points_lost:
        said.append(
            f"{losses.points_lost} points of echoes lost: overwritten before they were read"
        )
    if losses.stayed_inside:
        said.append(
            f"{losses.stayed_inside} requests left by no outer device (to this host, to a "
            f"neighbour, or dropped){_targets_inside(losses, name_of)}"
        )
    said += [f"{count} {NOT_FOLLOWED[name]}" for name, count in losses.counts.items() if count]
    if all_series.shared_targets:
        said.append(
            f"{all_series.shared_targets} echoes to targets beyond the first "
            f"{all_series.limit} are together under {MORE_TARGETS}"
        )
    return said


def _targets_inside(losses: Losses, name_of: Callable[[int], str]) -> str:
    """Return where most of the requests went that left by no outer device."""
    most = sorted(losses.inside.items(), key=lambda item: -item[1])
    named = [f"{name_of(number)} -> {target} {n}" for (number, target), n in most[:TARGETS_INSIDE]]
    more = len(most) - len(named)
    if more:
        named.append(f"{more} more targets")
    return f": {', '.join(named)}" if named else ""


def _order(all_series: AllSeries, name_of: Callable[[int], str]) -> list[tuple[Key, Series]]:
    """Return the series by container, those with the most echoes first."""
    return sorted(
        all_series.series.items(),
        key=lambda item: (name_of(item[0].container), -item[1].echoes, item[0].target),
    )
