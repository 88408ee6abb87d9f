"""The pictures of an experiment, with matplotlib.

Each draws a table of `maceproc.experiment.results.Results` into the Axes given, or into a new one,
and returns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.experiment.results import Results
from maceproc.reporting.colors import DISTINCT_COLORS
from maceproc.reporting.plots import finish, new_axes, note, require_matplotlib
from maceproc.units import NS_PER_US
from maceproc.whole_file import opened_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# M. Okabe, K. Ito, "Color Universal Design", 2008, by the names of the series.
COLORS = {  # without native corrected, which equals native traced
    "native untraced": "#009e73",
    "native traced": "#005c43",
    "native wire": "#a0a0a0",
    "container untraced": "#e69f00",
    "container traced": "#d55e00",
    "container corrected": "#0072b2",
    "container without events": "#cc79a7",
    "container wire": "#7f7f7f",
}
DASHED = ("native untraced", "container untraced")
DIFFERENCES = {
    "container overhead": COLORS["container untraced"],
    "corrected - native untraced": COLORS["container corrected"],
    "corrected - native corrected": "#56b4e9",
}
WIDTH = 6.4
SIDE_BY_SIDE = 0.05  # share of the distance between levels: intervals do not hide each other


def medians(results: Results, ax: Axes | None = None) -> Axes:
    """Plot the median of every series against the flows."""
    return _against_flows(results, "median", "Medians", ax)


def means(results: Results, ax: Axes | None = None) -> Axes:
    """Plot the mean of every series against the flows."""
    return _against_flows(results, "mean", "Means", ax)


def deviations(results: Results, ax: Axes | None = None) -> Axes:
    """Plot the standard deviation of every series against the flows."""
    ax = _against_flows(results, "sd", "Standard deviations", ax)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:e}"[0] in "25" else "")
    return ax


def differences(results: Results, ax: Axes | None = None) -> Axes:
    """Plot what the container adds, and what the correction leaves, against the flows."""
    ax = ax or new_axes(WIDTH, 3.6)
    table = results.comparisons
    table = table[table["tracer"].isin(["", results.tracer]) & (table["statistic"] == "median")]
    for nth, (name, color) in enumerate(DIFFERENCES.items()):
        _line(ax, results, table[table["comparison"] == name], nth, name, color)
    ax.axhline(0, color="#555555", linewidth=0.8)
    return _finish_levels(ax, results, "difference of medians [us]", "Differences")


def perturbation(results: Results, ax: Axes | None = None) -> Axes:
    """Plot what every tracer adds to the median RTT, native and container."""
    ax = ax or new_axes(WIDTH, 3.6)
    table = results.comparisons[results.comparisons["statistic"] == "median"]
    nth = 0
    for tracer, color in zip(results.experiment.plan.tracers, cycle(DISTINCT_COLORS), strict=False):
        for place, style in (("container", "-"), ("native", "--")):
            rows = table[
                (table["comparison"] == f"perturbation, {place}") & (table["tracer"] == tracer)
            ]
            _line(ax, results, rows, nth, f"{tracer}, {place}", color, style)
            nth += 1
    ax.axhline(0, color="#555555", linewidth=0.8)
    return _finish_levels(ax, results, "traced - untraced [us]", "Perturbation")


def distributions(results: Results, ax: Any = None) -> Any:
    """Plot the distribution of every series, one panel for each level of traffic.

    `ax` is an array of as many Axes as there are levels.
    """
    levels = results.values.levels
    axes = np.atleast_1d(ax) if ax is not None else _panels(len(levels))
    for panel, flows in zip(axes.flat, levels, strict=False):
        widest = 0.0
        for name, color in COLORS.items():
            table = results.values.table(flows, name, results.tracer)
            if table.empty:
                continue
            value_us = np.sort(table["value_ns"].to_numpy()) / NS_PER_US
            fraction = np.arange(1, len(value_us) + 1) / len(value_us)
            style = "--" if name in DASHED else "-"
            panel.step(value_us, fraction, where="post", color=color, linestyle=style, label=name)
            widest = max(widest, float(np.quantile(value_us, 0.98)))
        panel.set_xlim(0, widest * 1.05 or None)
        finish(panel, "RTT [us]", "fraction of pings", f"{flows} flows", legend="")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[0].figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    return axes


def event_costs(results: Results, ax: Axes | None = None) -> Axes:
    """Plot what tracing adds against the events on the path, and the line through zero events."""
    ax = ax or new_axes(WIDTH, 3.6)
    table = results.comparisons[results.comparisons["statistic"] == "median"]
    levels = results.values.levels
    for flows, color in zip(levels, cycle(DISTINCT_COLORS), strict=False):
        for place, marker, style in (("container", "o", "-"), ("native", "s", "--")):
            seen = results.events
            seen = seen[(seen["flows"] == flows) & (seen["place"] == place)]
            rows = table[
                (table["flows"] == flows) & (table["comparison"] == f"perturbation, {place}")
            ]
            points = seen.merge(rows, on="tracer", suffixes=("", "_"))
            if points.empty:
                continue
            y = points["estimate_ns"] / NS_PER_US
            reach = [
                (points["estimate_ns"] - points["low_ns"]) / NS_PER_US,
                (points["high_ns"] - points["estimate_ns"]) / NS_PER_US,
            ]
            ax.errorbar(
                points["events"], y, yerr=reach, fmt=marker, color=color, markersize=4, lw=1,
                label=f"{place}, {flows} flows",
            )  # fmt: skip
            _cost_line(ax, results.event_costs, flows, place, points["events"], color, style)
    ax.axhline(0, color="#555555", linewidth=0.8)
    ax.set_xlim(left=0)
    finish(ax, "events on a ping's path", "traced - untraced [us]", "What an event costs")
    return ax


def _cost_line(
    ax: Axes, costs: pd.DataFrame, flows: int, place: str, events: pd.Series, color: str, style: str
) -> None:
    for row in costs[(costs["flows"] == flows) & (costs["place"] == place)].itertuples():
        x = np.array([0, float(events.max())])
        ax.plot(x, (row.off_ns + x * row.cost_ns) / NS_PER_US, style, color=color, linewidth=1)


def shifts(results: Results, ax: Axes | None = None) -> Axes:
    """Plot by how much each decile of corrected and of native RTTs differ."""
    ax = ax or new_axes(WIDTH, 3.6)
    table = results.shifts[results.shifts["comparison"] == "corrected - native untraced"]
    for flows, color in zip(results.values.levels, cycle(DISTINCT_COLORS), strict=False):
        rows = table[table["flows"] == flows]
        low, middle, high = (
            rows[name] / NS_PER_US for name in ("low_ns", "estimate_ns", "high_ns")
        )
        ax.fill_between(rows["quantile"], low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot(rows["quantile"], middle, "o-", color=color, markersize=3.5, label=f"{flows} flows")
    ax.axhline(0, color="#555555", linewidth=0.8)
    ax.set_xticks(np.arange(1, 10) / 10)
    finish(ax, "decile", "corrected - native [us]", "Shift by decile")
    note(ax, "bands hold all nine deciles at once, 95 %")
    return ax


PLOTS: Mapping[str, Callable[[Results], Any]] = {
    "medians": medians,
    "means": means,
    "deviations": deviations,
    "differences": differences,
    "perturbation": perturbation,
    "event-costs": event_costs,
    "distributions": distributions,
    "shifts": shifts,
}


def save_plots(results: Results, directory: Path) -> list[Path]:
    """Draw every plot into a PNG file; AnalysisError when matplotlib is not installed."""
    require_matplotlib()
    new_axes(1, 1)  # raises when it is not installed
    import matplotlib.pyplot as plt

    plt.close()
    paths = []
    for name, draw in PLOTS.items():
        drawn = draw(results)
        figure = np.atleast_1d(drawn).flat[0].figure
        paths.append(directory / f"{name}.png")
        with opened_whole(paths[-1]) as file:
            figure.savefig(file, dpi=90, format="png")
        plt.close(figure)
    return paths


def _panels(count: int) -> Any:
    import matplotlib.pyplot as plt

    columns = min(count, 2)
    rows = -(-count // columns)
    size = (3.8 * columns + 0.4, 2.7 * rows + 0.6)
    _, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return axes


def _against_flows(results: Results, statistic: str, title: str, ax: Axes | None) -> Axes:
    ax = ax or new_axes(WIDTH, 3.6)
    table = results.series
    table = table[table["tracer"].isin(["", results.tracer]) & (table["statistic"] == statistic)]
    for nth, (name, color) in enumerate(COLORS.items()):
        style = "--" if name in DASHED else "-"
        _line(ax, results, table[table["series"] == name], nth, name, color, style)
    return _finish_levels(ax, results, f"{title.lower()} of RTTs [us]", title)


def _line(
    ax: Axes,
    results: Results,
    rows: pd.DataFrame,
    nth: int,
    name: str,
    color: str,
    style: str = "-",
) -> None:
    """Draw estimates and their intervals over the levels, a little beside each other."""
    if rows.empty:
        return
    levels = results.values.levels
    x = np.array([levels.index(flows) for flows in rows["flows"]]) + SIDE_BY_SIDE * (nth / 2 - 2)
    low, middle, high = (
        rows[column].to_numpy() / NS_PER_US for column in ("low_ns", "estimate_ns", "high_ns")
    )
    reach = np.nan_to_num(np.abs([middle - low, high - middle]))
    ax.errorbar(
        x, middle, yerr=reach, color=color, linestyle=style, marker="o", markersize=3.5,
        linewidth=1.2, elinewidth=1, label=name,
    )  # fmt: skip


def _finish_levels(ax: Axes, results: Results, y: str, title: str) -> Axes:
    levels = results.values.levels
    ax.set_xticks(range(len(levels)), [str(flows) for flows in levels])
    finish(ax, "background flows", y, title)
    note(ax, "with 95 % intervals")
    return ax
