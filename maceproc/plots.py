"""Pictures of one analysis, with matplotlib: ``analysis.plot.rtt()``.

Every plot draws into the Axes given, or into a new one, and returns it. What it shows can be had as
a DataFrame from the method of the same name of `maceproc.views.Views`: ``analysis.view.rtt()``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.units import NS_PER_MS, NS_PER_S, NS_PER_US
from maceproc.views import usual_ping

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from maceproc.pipeline import Analysis

# Colours that people who confuse red and green tell apart: M. Okabe, K. Ito, "Color Universal
# Design", 2008. A pair of traced and untraced shares a hue.
COLORS = {
    "container, traced": "#d55e00",
    "container, untraced": "#e69f00",
    "container, corrected": "#0072b2",
    "native, untraced": "#009e73",
    "native, traced": "#005c43",
    "wire": "#7f7f7f",
    "wire, native": "#a0a0a0",
    "outbound": "#0072b2",
    "inbound": "#d55e00",
}
SEGMENT_COLORS = {
    "tx stack": "#999999",
    "outbound crossing": "#0072b2",
    "outer queue": "#f0e442",
    "wire": "#009e73",
    "inbound crossing": "#d55e00",
    "delivery": "#666666",
    "residual": "#cc79a7",
}
WIDE_SPREAD = 5.0  # 99.5th percentile over median, from which an axis is logarithmic


@dataclass(frozen=True)
class Plots:
    """The pictures of one analysis: ``analysis.plot``."""

    analysis: Analysis

    def rtt(self, ax: Axes | None = None) -> Axes:
        """Plot every RTT over time; pings that could not be corrected are marked."""
        rows = self.analysis.view.rtt()
        rows = rows[~rows["series"].str.startswith("wire")]
        ax = ax or new_axes(10, 4.2)
        unit_ns, unit = unit_of(rows["rtt_ns"])
        x, label = _time_axis(rows)
        for name, part in _by_series(rows):
            style: dict[str, Any] = {"s": 9, "alpha": 0.65, "linewidths": 0, "color": COLORS[name]}
            ax.scatter(x[part.index], part["rtt_ns"] / unit_ns, label=name, **style)
        missed = rows[rows["status"].isin(["incomplete", "ambiguous"])]
        if len(missed):
            y = missed["rtt_ns"] / unit_ns
            ax.scatter(x[missed.index], y, marker="x", s=28, color="#aa0000", label="not corrected")
        _spread(ax, "y", rows["rtt_ns"])
        return finish(ax, label, f"RTT [{unit}]", "RTT of every ping", legend="points")

    def ecdf(self, ax: Axes | None = None) -> Axes:
        """Plot the distribution of every series, the wire's too."""
        rows = self.analysis.view.ecdf()
        ax = ax or new_axes(9, 4.2)
        unit_ns, unit = unit_of(rows["rtt_ns"])
        for name, part in _by_series(rows):
            x, y = part["rtt_ns"] / unit_ns, part["fraction"]
            dashed = "--" if "untraced" in name else "-"
            ax.step(x, y, where="post", color=COLORS[name], linestyle=dashed, label=name)
        _spread(ax, "x", rows["rtt_ns"])
        ax.set_ylim(0, 1.02)
        return finish(ax, f"RTT [{unit}]", "fraction of pings", "Distribution of RTTs")

    def crossings(self, ax: Axes | None = None) -> Axes:
        """Plot how long every ping took to cross, outbound and inbound."""
        rows = self.analysis.view.crossings()
        ax = ax or new_axes(10, 4.2)
        unit_ns, unit = unit_of(rows["latency_ns"])
        x, label = _time_axis(rows)
        for direction, part in rows.groupby("direction", sort=False):
            y, color = part["latency_ns"] / unit_ns, COLORS[str(direction)]
            name = f"{direction}, median {y.median():.1f} {unit}"
            ax.scatter(x[part.index], y, s=9, alpha=0.65, linewidths=0, color=color, label=name)
            ax.axhline(y.median(), color=color, linewidth=1)
        _spread(ax, "y", rows["latency_ns"])
        return finish(ax, label, f"crossing [{unit}]", "Crossings of every ping", legend="points")

    def path(self, ax: Axes | None = None) -> Axes:
        """Plot the usual ping's way: how long each step takes, one after the other."""
        rows = self.analysis.view.path()
        ax = ax or new_axes(9, 0.9 + 0.38 * max(len(rows), 3))
        unit_ns, unit = unit_of(rows["median_ns"])
        width = rows["median_ns"] / unit_ns
        left = width.cumsum() - width
        colors = [SEGMENT_COLORS[segment] for segment in rows["segment"]]
        y = np.arange(len(rows))
        late = (rows["p95_ns"] - rows["median_ns"]) / unit_ns
        ax.barh(y, width, left=left, color=colors, height=0.62)
        ax.errorbar(left + width, y, xerr=[0 * late, late], fmt="none", ecolor="#555555", lw=1)
        for place, end, text in zip(y, left + width + late, width, strict=True):
            ax.annotate(
                f"{text:.1f}", (end, place), (4, 0), textcoords="offset points", va="center"
            )
        ax.set_yticks(y, [_step_label(row) for row in rows.itertuples()])
        ax.invert_yaxis()
        ax.margins(x=0.1)
        ax.set_xlim(left=0)
        finish(ax, f"time since the send call [{unit}]", "", "The usual ping's way", legend="")
        note(ax, "bars: medians, whiskers: to the 95th percentile")
        return ax

    def waterfall(
        self,
        seq: int | None = None,
        round: int | None = None,  # noqa: A002
        ax: Axes | None = None,
    ) -> Axes:
        """Plot one ping as a train's timetable: time across, the devices it passes downwards.

        Without `seq` it is the ping whose RTT is nearest the median. Raises AnalysisError when
        there is no such ping.
        """
        if seq is None:
            seq, round = usual_ping(self.analysis)  # noqa: A001
        rows = self.analysis.view.waterfall(seq, round)
        if rows.empty:
            raise AnalysisError(f"no event of the ping {seq} was found")
        places = order_of_places(self.analysis, rows)
        ax = ax or new_axes(10.5, 1.4 + 0.6 * len(places))
        unit_ns, unit = unit_of(rows["after_ns"])
        x = (rows["after_ns"] / unit_ns).to_numpy()
        y = np.array([places.index(place) for place in rows["place"]])
        ax.plot(x, y, color="#0072b2", linewidth=1.5, zorder=2)
        softirq = rows["softirq"].fillna(False).to_numpy(bool)
        for mask, fill, name in (
            (~softirq, "white", "in a system call"),
            (softirq, "#0072b2", "in softirq"),
        ):
            if mask.any():
                ax.scatter(
                    x[mask], y[mask], s=34, zorder=3, color=fill, edgecolors="#0072b2", label=name
                )
        _label_events(ax, x, y, rows["event"])
        ax.set_yticks(range(len(places)), places)
        ax.set_ylim(len(places) - 0.4, -0.9)
        ax.margins(x=0.08)
        title = f"icmp_seq {seq}" + (f", round {round}" if round else "")
        return finish(ax, f"time since the send call [{unit}]", "", title)

    def perturbation(self, ax: Axes | None = None) -> Axes:
        """Plot what tracing and the container cost, and what the correction leaves, by round."""
        rows, comparisons = self.analysis.view.perturbation(), self.analysis.comparisons
        ax = ax or new_axes(8, 1.2 + 0.6 * max(len(comparisons), 1))
        unit_ns, unit = unit_of(rows["difference_ns"].abs())
        for y, row in enumerate(comparisons.itertuples()):
            ours = rows.loc[rows["comparison"] == row.comparison, "difference_ns"] / unit_ns
            ax.scatter(ours, np.full(len(ours), y + 0.22), s=12, color="#999999", linewidths=0)
            low, middle, high = (v / unit_ns for v in (row.low_ns, row.estimate_ns, row.high_ns))
            ax.plot([low, high], [y, y], color="#0072b2", linewidth=2.5)
            ax.plot([middle], [y], "o", color="#0072b2", markersize=7)
            text = f"{middle:+.1f}"
            ax.annotate(text, (middle, y), (0, 8), textcoords="offset points", ha="center")
        ax.axvline(0, color="#555555", linewidth=0.8)
        ax.set_yticks(range(len(comparisons)), list(comparisons["comparison"]))
        ax.set_ylim(len(comparisons) - 0.4, -0.6)
        finish(ax, f"difference of medians [{unit}]", "", "What it costs", legend="")
        note(ax, "line: 95 % interval; grey: one round each")
        return ax


def unit_of(times_ns: pd.Series) -> tuple[int, str]:
    """Return the unit that suits most of these times: its length [ns] and its name."""
    typical_ns = float(times_ns.median()) if len(times_ns) else 0.0
    if typical_ns >= 10 * NS_PER_S:
        return NS_PER_S, "s"
    return (NS_PER_MS, "ms") if typical_ns >= 10 * NS_PER_MS else (NS_PER_US, "µs")


def order_of_places(analysis: Analysis, rows: pd.DataFrame) -> list[str]:
    """Return the places of a waterfall from the container outwards, others where first seen."""
    sidecar = analysis.capture.sidecar
    on_path = [str(hop) for hop in sidecar.target.path] if sidecar else []
    seen = list(dict.fromkeys(rows["place"]))
    return [p for p in on_path if p in seen] + [p for p in seen if p not in on_path]


def new_axes(width: float, height: float) -> Axes:
    """Make a figure of that size [inch]; AnalysisError when matplotlib is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise AnalysisError(
            "plots need matplotlib", hint="install it with: pip install 'maceproc[plot]'"
        ) from error
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def _by_series(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Go through the series from the back of the picture to its front."""
    for name in COLORS:
        part = rows[rows["series"] == name] if "series" in rows else rows
        if len(part):
            yield name, part


def _time_axis(rows: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return where each row is across, and what that means: time where ping -D told it."""
    if rows["after_ns"].notna().all():
        return rows["after_ns"].astype("float64") / NS_PER_S, "time [s]"
    kind = "series" if "series" in rows else "direction"
    return rows.groupby(kind).cumcount() + 1, "number of the ping"


def _spread(ax: Axes, axis: str, times_ns: pd.Series) -> None:
    """Make an axis logarithmic when its values spread wide, and start it at 0 when not."""
    values: npt.NDArray[np.float64] = times_ns.to_numpy(np.float64)
    if not len(values):
        return
    wide = np.percentile(values, 99.5) > WIDE_SPREAD * np.median(values)
    if wide and values.min() > 0:
        getattr(ax, f"set_{axis}scale")("log")
        getattr(ax, f"{axis}axis").set_major_formatter("{x:g}")
    else:
        getattr(ax, f"set_{axis}lim")(0, None)


def finish(ax: Axes, x: str, y: str, title: str, *, legend: str = "lines") -> Axes:
    """Label the axes and the plot, with its legend beside it."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, loc="left")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    if legend and ax.get_legend_handles_labels()[0]:
        # Beside the picture: wherever points can be, a legend would cover some.
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        ax.legend(frameon=False, markerscale=2 if legend == "points" else 1, **place)
    return ax


def note(ax: Axes, text: str) -> None:
    """Write a remark above the plot, at its right end."""
    style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": "small", "color": "#666666"}
    ax.text(1, 1.01, text, transform=ax.transAxes, **style)


def _step_label(row: Any) -> str:
    if row.segment.endswith("crossing"):
        return f"{row.start} → {row.end}"
    return row.segment


def _label_events(
    ax: Axes, x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], names: pd.Series
) -> None:
    """Write the events' names slanted beside their points, so that neighbours stay readable."""
    for at_x, at_y, name in zip(x, y, names, strict=True):
        style: dict[str, Any] = {"rotation": 25, "fontsize": "x-small", "va": "bottom"}
        ax.annotate(name, (at_x, at_y), (2, 5), textcoords="offset points", **style)
