"""The echoes of every container and target as a table, for a terminal or as plain lines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from maceproc.units import format_us
from maceproc.watching.series import MORE_TARGETS, SHOWN, AllSeries, Key, Series
from maceproc.watching.watcher import Losses

if TYPE_CHECKING:
    from rich.table import Table

SHARES = (0.5, 0.95, 0.99)
HEADINGS = {"rtt": "kernel RTT", "corrected_rtt": "corrected", "container": "container adds"}


def table(
    all_series: AllSeries, name_of: Callable[[int], str], losses: Losses, now_ns: int
) -> Table:
    """Return the table for a terminal; what does not fit on it is told at its end."""
    from rich.markup import escape
    from rich.table import Table

    height = max(3, shutil.get_terminal_size().lines - 8)
    shown = _order(all_series, name_of)
    made = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    made.add_column("container", no_wrap=True, overflow="ellipsis", max_width=24)
    made.add_column("target", no_wrap=True, overflow="ellipsis", max_width=39)
    for heading in ("echoes", "a second"):
        made.add_column(heading, justify="right", no_wrap=True)
    for name in SHOWN:
        heading = escape(f"{HEADINGS[name]} [us]\np50 / p95 / p99")
        made.add_column(heading, justify="right", no_wrap=True)
    for heading in ("unanswered", "not certain"):
        made.add_column(heading, justify="right", no_wrap=True)
    for key, series in shown[:height]:
        made.add_row(*map(escape, _cells(key, series, all_series, name_of, now_ns)))
    more = len(shown) - height
    foot = [f"{more} more rows" if more > 0 else "", *loss_lines(losses, all_series)]
    made.caption = escape("\n".join(line for line in foot if line))
    return made


def plain_lines(
    all_series: AllSeries, name_of: Callable[[int], str], losses: Losses, now_ns: int
) -> list[str]:
    """Return a line for each container and target, and one for what was not followed."""
    lines = []
    for key, series in _order(all_series, name_of):
        name, target, echoes, rate, *spans, unanswered, doubtful = _cells(
            key, series, all_series, name_of, now_ns
        )
        named = ", ".join(
            f"{HEADINGS[span]} {text}" for span, text in zip(SHOWN, spans, strict=True)
        )
        lines.append(
            f"{name} -> {target}: {echoes} echoes, {rate}/s; {named} us (p50 / p95 / p99); "
            f"{unanswered} unanswered, {doubtful} not certain"
        )
    return lines + loss_lines(losses, all_series)


def loss_lines(losses: Losses, all_series: AllSeries) -> list[str]:
    """Return what was not followed; nothing where everything was."""
    counts = [f"{name} {count}" for name, count in losses.counts.items() if count]
    said = []
    if losses.points_lost:
        said.append(
            f"{losses.points_lost} points of echoes lost: overwritten before they were read"
        )
    if losses.stayed_inside:
        said.append(
            f"{losses.stayed_inside} requests left by no outer device (to this host, to a "
            "neighbour, or dropped)"
        )
    if counts:
        said.append(f"packets not followed: {', '.join(counts)}")
    if all_series.shared_targets:
        said.append(
            f"{all_series.shared_targets} echoes to targets beyond the first "
            f"{all_series.limit} are together under {MORE_TARGETS}"
        )
    return said


def _order(all_series: AllSeries, name_of: Callable[[int], str]) -> list[tuple[Key, Series]]:
    """Return the series by container, those with the most echoes first."""
    return sorted(
        all_series.series.items(),
        key=lambda item: (name_of(item[0].container), -item[1].echoes, item[0].target),
    )


def _cells(
    key: Key,
    series: Series,
    all_series: AllSeries,
    name_of: Callable[[int], str],
    now_ns: int,
) -> list[str]:
    return [
        name_of(key.container),
        key.target,
        str(series.echoes),
        f"{all_series.rate(series, now_ns):.1f}",
        *(
            " / ".join(format_us(value) for value in series.recent[name].percentiles(SHARES))
            for name in SHOWN
        ),
        str(series.unanswered),
        str(series.not_certain),
    ]
