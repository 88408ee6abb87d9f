"""The charts that uPlot draws, as the plain values that page.js reads from the page.

Times stay integers [ns]; page.js divides by the axis' ``unit_ns``. Every point of a series has an
x of its own, since uPlot joins the series by x.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.reporting.colors import slug
from maceproc.reporting.plots import COLORS, is_wide, unit_of
from maceproc.reporting.views import Views
from maceproc.series import ALL_SERIES, CONTAINER_TRACED, NATIVE_TRACED
from maceproc.units import NS_PER_S

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

Integers = npt.NDArray[np.int64]

MOST_POINTS = 10_000  # of one series: more make the file large and show nothing new
MOST_STEPS = 1_000  # of one distribution
CLIPPED_AT, FAR_AWAY = 99.5, 1.5  # percentile at which a scale ends, if the longest is so far
NOT_CORRECTED = ["incomplete", "ambiguous"]
COLUMNS = ("round", "seq", "rtt_ns", "latency_ns", "fraction")


def charts(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the charts that have points, in the page's order."""
    made = [_rtt(analysis), _ecdf(analysis), _crossings(analysis)]
    return [chart for chart in made if chart["series"]]


def _rtt(analysis: Analysis) -> dict[str, Any]:
    rows = Views(analysis).rtt()
    rows = rows[~rows["series"].str.startswith("wire")]
    missed = rows[rows["status"].isin(NOT_CORRECTED) & rows["series"].str.endswith("traced")]
    rows = pd.concat([rows, missed.assign(series="not corrected")])
    chart = _over_time("rtt", "RTT", rows, "series", "rtt_ns")
    return chart | {"bands": _lost_bands(analysis)}


def _crossings(analysis: Analysis) -> dict[str, Any]:
    rows = Views(analysis).crossings().rename(columns={"direction": "series"})
    chart = _over_time("crossings", "crossing", rows, "series", "latency_ns")
    return chart | {"bands": _lost_bands(analysis)}


def _ecdf(analysis: Analysis) -> dict[str, Any]:
    rows = Views(analysis).ecdf()
    pings = Views(analysis).rtt().sort_values(["series", "rtt_ns"], kind="stable")  # as ecdf() does
    rows = rows.assign(**{key: pings[key].to_numpy() for key in ("round", "seq")})
    # Of several equal values the last one has the fraction that is not above it.
    rows = rows.drop_duplicates(["series", "rtt_ns"], keep="last")
    series = []
    for name, part in _in_order(rows):
        shown = part.iloc[np.unique(np.linspace(0, len(part) - 1, MOST_STEPS).astype(int))]
        columns = {"x": shown["rtt_ns"], "y": shown["fraction"]}
        more = {key: shown[key] for key in ("round", "seq")}
        series.append(_series(name, columns, more, len(part)))
    unit_ns, unit = unit_of(rows["rtt_ns"])
    return {
        "id": "ecdf",
        "kind": "steps",
        "x": {"label": "RTT", "unit": unit, "unit_ns": unit_ns, "log": is_wide(rows["rtt_ns"])},
        "y": {"label": "fraction of pings", "unit": "", "unit_ns": 1, "log": False},
        "series": series,
        "bands": [],
        "clip": _clip(Views(analysis).rtt()["rtt_ns"]),
    }


def _over_time(id_: str, label: str, rows: pd.DataFrame, group: str, column: str) -> dict[str, Any]:
    """Make a chart of points over ping's time, or over their number where it is not known."""
    timed = bool(len(rows)) and bool(rows["after_ns"].notna().all())
    x = rows["after_ns"] if timed else rows.groupby(group).cumcount() + 1
    rows = rows.assign(x=x.astype("int64"))
    unit_ns, unit = unit_of(rows[column])
    series = []
    for name, part in _in_order(rows):
        ordered = part.sort_values("x", kind="stable")
        ordered["x"] = apart(ordered["x"].to_numpy())
        shown = ordered.iloc[thinned(ordered[column].to_numpy("int64"))]
        more = {name: shown[name] for name in ("round", "seq")}
        series.append(_series(name, {"x": shown["x"], "y": shown[column]}, more, len(part)))
    time = {"label": "time since the first reply", "unit": "s", "unit_ns": NS_PER_S}
    number = {"label": "number of the ping", "unit": "", "unit_ns": 1}
    return {
        "id": id_,
        "kind": "points",
        "x": (time if timed else number) | {"log": False},
        "y": {"label": label, "unit": unit, "unit_ns": unit_ns, "log": is_wide(rows[column])},
        "series": series,
        "clip": _clip(rows[column]),
    }


def _clip(values_ns: pd.Series) -> dict[str, float] | None:
    """Return up to where a scale goes [ns] and how many values are above; None if it shows all.

    Few values that are far away would press all others into a corner.
    """
    if values_ns.empty:
        return None
    most_ns = float(np.percentile(values_ns.astype("float64"), CLIPPED_AT))
    if float(values_ns.max()) <= FAR_AWAY * most_ns:
        return None
    return {"at_ns": most_ns * 1.05, "left_out": int((values_ns > most_ns * 1.05).sum())}


def _series(
    name: str, axes: dict[str, pd.Series], more: dict[str, pd.Series], rows: int
) -> dict[str, Any]:
    lists = {key: values.tolist() for key, values in (axes | more).items()}
    arm = {one.name: one.arm for one in ALL_SERIES}.get(name, CONTAINER_TRACED)
    place = {CONTAINER_TRACED: "c", NATIVE_TRACED: "n"}.get(arm, "")  # untraced: no events
    facts = {"name": name, "slug": slug(name), "dashed": "untraced" in name, "rows": rows}
    return facts | {"place": place} | lists


def _in_order(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Yield the series in drawing order: later ones cover earlier ones."""
    for name in COLORS:
        part = rows[rows["series"] == name]
        if len(part):
            yield name, part


def apart(x: Integers) -> Integers:
    """Make the values of a sorted series distinct: add 1 to each repetition of a value."""
    steps = np.arange(len(x))
    return np.maximum.accumulate(x - steps) + steps


def thinned(values: Integers, most: int = MOST_POINTS) -> Integers:
    """Return the positions to draw: all, or the smallest and largest of each equal stretch."""
    if len(values) <= most:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), most // 2 + 1).astype(int)
    kept = [
        start + extreme(values[start:end])
        for start, end in pairwise(edges)
        for extreme in (np.argmin, np.argmax)
    ]
    return np.unique(kept)


def _lost_bands(analysis: Analysis) -> list[list[int | None]]:
    """Return begin and end of every gap in the events [ns], where they are known."""
    lost = Views(analysis).lost()
    known = lost[lost[["after_ns", "until_ns"]].notna().any(axis=1)]
    return [
        [None if pd.isna(end) else int(end) for end in (row.after_ns, row.until_ns)]
        for row in known.itertuples()
    ]
