"""The page of a fleet: one HTML file without scripts, readable with ten thousand captures.

It draws groups and days, not captures: its size depends on how many hosts and paths there are, and
has a bound.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc import __version__
from maceproc.fleet.dataset import Dataset
from maceproc.fleet.groups import OTHERS, Groups, compare_groups
from maceproc.fleet.report import in_order, quantities_of
from maceproc.foreign_text import clean
from maceproc.reporting.colors import as_css
from maceproc.reporting.headline import duration, interval
from maceproc.reporting.page import typeset
from maceproc.series import OVERHEAD
from maceproc.units import NS_PER_US

if TYPE_CHECKING:
    from jinja2 import Template

MOST_BARS = 60
MOST_ROWS = 500
MOST_PATHS = 50
MOST_FAILURES = 20
MOST_LINES = 3  # over time, beside that of all captures
LEFT, RIGHT, TOP, BOTTOM = 60, 790, 12, 235  # of the chart over time


def as_html(dataset: Dataset, groups: Groups) -> str:
    """Return the page of a dataset whose captures were grouped: `groups.compare_groups`."""
    quantities = quantities_of(groups)
    main = quantities[0] if quantities else ""
    rows = in_order(groups, main) if quantities else pd.DataFrame()
    css = (files("maceproc.reporting.page") / "page.css").read_text(encoding="utf-8")
    own = (files("maceproc.fleet") / "page.css").read_text(encoding="utf-8")
    return _template().render(
        version=__version__,
        css=as_css() + css + own,
        name=dataset.name.rstrip("/").rpartition("/")[2] or dataset.name,
        by=", ".join(groups.by),
        main=main,
        against=next(iter(groups.contrasts["against"]), OTHERS),
        tests=len(groups.contrasts),
        headline=headline(groups, rows, main),
        bars=_bars(rows[:MOST_BARS]),
        left_out=max(len(rows) - MOST_BARS, 0),
        rows=_table(groups, rows[:MOST_ROWS], quantities[:5]),
        quantities=quantities[:5],
        total=len(rows),
        cut=len(rows) > MOST_ROWS,
        paths=_paths(dataset, main) if quantities else [],
        failures=_failures(dataset),
        **_over_time(groups, rows, main),
    )


def headline(groups: Groups, rows: pd.DataFrame, main: str) -> str:
    """Return in a few sentences how much there is, what containers add, and what stands out."""
    said = [f"{groups.captures:,} captures in {len(rows):,} groups by {', '.join(groups.by)}."]
    if len(rows):
        medians = groups.medians[groups.medians["quantity"] == main]["median_ns"]
        p10, median, p90 = medians.quantile([0.1, 0.5, 0.9])
        said.append(
            f"Median {main}: {duration(median)}; of eight captures in ten it is between "
            f"{duration(p10)} and {duration(p90)}."
        )
        outstanding = list(rows[rows["stands_out"]]["group"])
        if outstanding:
            more = f" and {len(outstanding) - 3:,} more" if len(outstanding) > 3 else ""
            verb = "stands" if len(outstanding) == 1 else "stand"
            said.append(f"{', '.join(map(clean, outstanding[:3]))}{more} {verb} out.")
        else:
            said.append("No group stands out.")
    if groups.failures:
        said.append(f"{groups.failures:,} more captures could not be analyzed.")
    return " ".join(said)


def _bars(rows: pd.DataFrame) -> list[dict[str, Any]]:
    if rows.empty:
        return []
    low, high = min(rows["p5_ns"].min(), 0.0), rows["p95_ns"].max()
    scale = 100 / ((high - low) or 1.0)
    return [
        {
            **row,
            "left": round((row["p5_ns"] - low) * scale, 2),
            "width": round((row["p95_ns"] - row["p5_ns"]) * scale, 2),
            "at": round((row["median_ns"] - low) * scale, 2),
        }
        for row in rows.to_dict("records")
    ]


def _table(groups: Groups, rows: pd.DataFrame, quantities: list[str]) -> list[dict[str, Any]]:
    medians = groups.groups.set_index(["group", "quantity"])["median_ns"].to_dict()
    return [
        {
            **row,
            "medians": [medians.get((row["group"], name), np.nan) for name in quantities],
            "interval": _interval(row["low_ns_of_difference"], row["high_ns_of_difference"]),
        }
        for row in rows.to_dict("records")
    ]


def _interval(low_ns: float, high_ns: float) -> str:
    return "" if pd.isna(low_ns) else interval(low_ns, high_ns)


def _range(low_ns: float, high_ns: float) -> str:
    return "" if pd.isna(low_ns) else f"{duration(low_ns)} to {duration(high_ns)}"


def _paths(dataset: Dataset, main: str) -> list[dict[str, Any]]:
    table = compare_groups(dataset, ["path"]).groups
    overhead = table[table["quantity"] == OVERHEAD.name].set_index("group")["median_ns"]
    own = table[table["quantity"] == main].nlargest(MOST_PATHS, "captures")
    return [
        {
            **row,
            "interval": _range(row["low_ns"], row["high_ns"]),
            "overhead_ns": overhead.get(row["group"], np.nan),
        }
        for row in own.to_dict("records")
    ]


def _failures(dataset: Dataset) -> list[dict[str, Any]]:
    """Count the failures by what was wrong: the error without the name of the capture."""
    rows = dataset.failures.df("host", "file", "error")
    what = [str(e).replace(str(f), "...") for e, f in zip(rows["error"], rows["file"], strict=True)]
    counted = rows.assign(error=what).groupby("error")["host"].agg(["size", "unique"])
    largest = counted.nlargest(MOST_FAILURES, "size")
    found = []
    for error, row in largest.iterrows():
        hosts = sorted(str(host) for host in row["unique"] if not pd.isna(host))
        more = f" and {len(hosts) - 3} more" if len(hosts) > 3 else ""
        found.append({"error": error, "count": row["size"], "hosts": ", ".join(hosts[:3]) + more})
    return found


def _over_time(groups: Groups, rows: pd.DataFrame, main: str) -> dict[str, Any]:
    """Return what draws the medians of days: all captures, and the groups that stand out most."""
    if rows.empty:
        return {"days": [], "lines": [], "ticks": [], "band": "", "undated": 0}
    every = groups.over_time(quantity=main)
    undated = int(every[every["date"] == ""]["captures"].sum())
    every = every[every["date"] != ""]
    outstanding = list(rows[rows["stands_out"]]["group"][:MOST_LINES])
    tables = {"all": every} | {name: groups.over_time(name, main) for name in outstanding}
    days = list(every["date"])
    if len(days) < 2:
        return {"days": days, "lines": [], "ticks": [], "band": "", "undated": undated}
    low = min(0.0, every["p10_ns"].min())
    high = max(every["p90_ns"].max(), *(table["median_ns"].max() for table in tables.values()))
    chart = _Chart(pd.to_datetime(days), low, high)
    band = chart.points(days, every["p90_ns"])
    band += chart.points(days, every["p10_ns"])[::-1]
    lines = []
    for number, (name, table) in enumerate(tables.items()):
        dated = table[table["date"] != ""]
        points = chart.points(list(dated["date"]), dated["median_ns"])
        dots = [{"x": x, "y": y} for x, y in points] if len(points) <= 60 else []
        lines.append({"name": name, "points": _joined(points), "dots": dots, "number": number})
    ticks = [{"y": chart.y(v), "label": duration(v)} for v in chart.ticks()]
    return {"days": days, "lines": lines, "ticks": ticks, "band": _joined(band), "undated": undated}


class _Chart:
    """Where days and durations are in the drawing."""

    def __init__(self, days: pd.DatetimeIndex, low_ns: float, high_ns: float) -> None:
        self._first, self._span = days[0], (days[-1] - days[0]).days or 1
        self._low, self._high = low_ns, high_ns if high_ns > low_ns else low_ns + NS_PER_US

    def y(self, time_ns: float) -> float:
        share = (time_ns - self._low) / (self._high - self._low)
        return round(float(BOTTOM - share * (BOTTOM - TOP)), 1)

    def points(self, days: list[str], times_ns: pd.Series) -> list[tuple[float, float]]:
        places = (pd.to_datetime(days) - self._first).days / self._span
        return [
            (round(LEFT + place * (RIGHT - LEFT), 1), self.y(time_ns))
            for place, time_ns in zip(places, times_ns, strict=True)
        ]

    def ticks(self) -> list[float]:
        """Return round durations [ns] between the ends."""
        rough = (self._high - self._low) / 5
        magnitude = 10 ** np.floor(np.log10(rough))
        step = magnitude * next(m for m in (1, 2, 5, 10) if m * magnitude >= rough)
        return [float(v) for v in np.arange(np.ceil(self._low / step) * step, self._high, step)]


def _joined(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("maceproc.fleet", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters |= {"duration": duration, "typeset": typeset}
    return environment.get_template("page.html.j2")
