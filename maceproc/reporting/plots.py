"""Pictures of one analysis, with matplotlib: ``analysis.plot.rtt()``.

Every plot draws into the Axes given, or into a new one, and returns it. What it shows can be had as
a DataFrame from the method of the same name of `maceproc.reporting.views.Views`:
``analysis.view.rtt()``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.reporting.colors import BASE_COLORS, SEGMENT_COLORS, SERIES_COLORS, light
from maceproc.reporting.views import Views, usual_ping
from maceproc.units import NS_PER_MS, NS_PER_S, NS_PER_US
from maceproc.whole_file import check_free, opened_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from maceproc.analysis import Analysis

COLORS = light(SERIES_COLORS)
SEGMENTS = light(SEGMENT_COLORS)
INK, QUIET = (BASE_COLORS[name][0] for name in ("text", "quiet"))
FEW = 50
CLOSE_TOGETHER = 0.06  # share of the picture's width within which events have one label
WIDE_SPREAD = 5.0  # ratio of the 99.5th percentile to the median from which an axis is logarithmic


@dataclass(frozen=True)
class Plots:
    """The pictures of one analysis: ``analysis.plot``."""

    analysis: Analysis

    def rtt(self, ax: Axes | None = None) -> Axes:
        """Plot every RTT over time; pings that could not be corrected are marked."""
        rows = Views(self.analysis).rtt()
        rows = rows[~rows["series"].str.startswith("wire")]
        ax = ax or new_axes(10, 4.2)
        unit_ns, unit = unit_of(rows["rtt_ns"])
        x, label = _time_axis(rows)
        for name, part in _by_series(rows):
            y = part["rtt_ns"] / unit_ns
            ax.scatter(x[part.index], y, label=name, color=COLORS[name], **_dots(part))
        missed = rows[rows["status"].isin(["incomplete", "ambiguous"])]
        if len(missed):
            y = missed["rtt_ns"] / unit_ns
            ax.scatter(
                x[missed.index],
                y,
                marker="x",
                s=28,
                color=COLORS["not corrected"],
                label="not corrected",
            )
        _spread(ax, "y", rows["rtt_ns"])
        _when_empty(ax, rows, "no RTT")
        return finish(ax, label, f"RTT [{unit}]", "RTT of every ping", legend="points")

    def ecdf(self, ax: Axes | None = None) -> Axes:
        """Plot the distribution of every series, the wire's too."""
        rows = Views(self.analysis).ecdf()
        ax = ax or new_axes(9, 4.2)
        unit_ns, unit = unit_of(rows["rtt_ns"])
        for name, part in _by_series(rows):
            x, y = part["rtt_ns"] / unit_ns, part["fraction"]
            dashed = "--" if "untraced" in name else "-"
            ax.step(x, y, where="post", color=COLORS[name], linestyle=dashed, label=name)
        _spread(ax, "x", rows["rtt_ns"])
        ax.set_ylim(0, 1.02)
        _when_empty(ax, rows, "no RTT")
        return finish(ax, f"RTT [{unit}]", "fraction of pings", "Distribution of RTTs")

    def crossings(self, ax: Axes | None = None) -> Axes:
        """Plot how long every ping took to cross, outbound and inbound."""
        rows = Views(self.analysis).crossings()
        ax = ax or new_axes(10, 4.2)
        unit_ns, unit = unit_of(rows["latency_ns"])
        x, label = _time_axis(rows)
        for direction, part in rows.groupby("direction", sort=False):
            y, color = part["latency_ns"] / unit_ns, COLORS[str(direction)]
            name = f"{direction}, median {y.median():.1f} {unit}"
            ax.scatter(x[part.index], y, color=color, label=name, **_dots(part))
            ax.axhline(y.median(), color=color, linewidth=1)
        _spread(ax, "y", rows["latency_ns"])
        _when_empty(ax, rows, "no ping crossed a namespace, or none was corrected")
        return finish(ax, label, f"crossing [{unit}]", "Crossings of every ping", legend="points")

    def path(self, ax: Axes | None = None) -> Axes:
        """Plot the usual ping's way: how long each step takes, one after the other."""
        rows = Views(self.analysis).path()
        ax = ax or new_axes(9, 1.1 + 0.42 * max(len(rows), 3))
        unit_ns, unit = unit_of(rows["median_ns"])
        width = rows["median_ns"] / unit_ns
        left = width.cumsum() - width
        colors = [SEGMENTS[segment] for segment in rows["segment"]]
        y = np.arange(len(rows))
        late = (rows["p95_ns"] - rows["median_ns"]) / unit_ns
        ax.barh(y, width, left=left, color=colors, height=0.62)
        ax.errorbar(left + width, y, xerr=[0 * late, late], fmt="none", ecolor=QUIET, lw=1)
        for height, end, text in zip(y, left + width + late, width, strict=True):
            ax.annotate(
                f"{text:.1f}", (end, height), (4, 0), textcoords="offset points", va="center"
            )
        ax.set_yticks(y, [_step_label(row) for row in rows.itertuples()], fontsize="small")
        ax.invert_yaxis()
        ax.margins(x=0.1)
        ax.set_xlim(left=0)
        _when_empty(ax, rows, "no ping was corrected")
        finish(ax, f"time since the send call [{unit}]", "", "The usual ping's way", legend="")
        note(ax, "bars: medians; whiskers: to the 95th percentile")
        return ax

    def waterfall(
        self,
        seq: int | None = None,
        round: int | None = None,  # noqa: A002
        ax: Axes | None = None,
    ) -> Axes:
        """Plot one ping as a train's timetable: time across, the devices it passes downwards.

        Events close together share one label, with the first one's name: ``netif_rx +1``. Without
        `seq` it is the ping whose RTT is nearest the median. Raises AnalysisError when there is no
        such ping.
        """
        if seq is None:
            seq, round = usual_ping(self.analysis)  # noqa: A001
        rows = Views(self.analysis).waterfall(seq, round)
        if rows.empty:
            raise AnalysisError(f"no event of the ping {seq} was found")
        devices = order_of_devices(self.analysis, rows)
        ax = ax or new_axes(10.5, 1.4 + 0.6 * len(devices))
        unit_ns, unit = unit_of(rows["after_ns"])
        x = (rows["after_ns"] / unit_ns).to_numpy()
        y = np.array([devices.index(device) for device in rows["device"]])
        on_way = ~rows["event"].isin(["consume_skb", "kfree_skb"]).to_numpy()
        _draw_way(ax, x[on_way], y[on_way], list(rows["segment"][on_way]))
        softirq = rows["softirq"].fillna(False).to_numpy(bool)
        style: dict[str, Any] = {"s": 34, "zorder": 3, "edgecolors": INK}
        for mask, fill, name in (
            (~softirq, "white", "in a system call"),
            (softirq, INK, "in softirq"),
        ):
            if mask.any():
                ax.scatter(x[mask], y[mask], color=fill, label=name, **style)
        _label_events(ax, x, y, rows["event"])
        ax.set_yticks(range(len(devices)), devices)
        ax.set_ylim(len(devices) - 0.4, -0.9)
        ax.margins(x=0.12)
        title = f"icmp_seq {seq}" + (f", round {round}" if round else "")
        finish(ax, f"time since the send call [{unit}]", "", title, legend="")
        ax.legend(
            frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16 - 0.3 / len(devices)), ncols=4
        )
        return ax

    def perturbation(self, ax: Axes | None = None) -> Axes:
        """Plot what tracing and the container cost, and what the correction leaves, by round."""
        rows, comparisons = Views(self.analysis).perturbation(), self.analysis.comparisons
        ax = ax or new_axes(8, 1.2 + 0.6 * max(len(comparisons), 1))
        unit_ns, unit = unit_of(rows["difference_ns"].abs())
        for y, row in enumerate(comparisons.itertuples()):
            ours = rows.loc[rows["comparison"] == row.comparison, "difference_ns"] / unit_ns
            ax.scatter(ours, np.full(len(ours), y + 0.22), s=12, color=QUIET, linewidths=0)
            low, middle, high = (v / unit_ns for v in (row.low_ns, row.estimate_ns, row.high_ns))
            ax.plot([low, high], [y, y], color=SEGMENTS["outbound crossing"], linewidth=2.5)
            ax.plot([middle], [y], "o", color=SEGMENTS["outbound crossing"], markersize=7)
            text = f"{middle:+.1f}"
            ax.annotate(text, (middle, y), (0, 8), textcoords="offset points", ha="center")
        ax.axvline(0, color=QUIET, linewidth=0.8)
        ax.set_yticks(range(len(comparisons)), list(comparisons["comparison"]))
        ax.set_ylim(len(comparisons) - 0.4, -0.6)
        _when_empty(ax, comparisons, "nothing to compare with: only traced runs")
        finish(ax, f"difference of medians [{unit}]", "", "What it costs", legend="")
        note(ax, "line: 95 % interval; grey: one round each")
        return ax


def unit_of(times_ns: pd.Series) -> tuple[int, str]:
    """Return the unit that suits most of these times: its length [ns] and its name."""
    typical_ns = float(times_ns.median()) if len(times_ns) else 0.0
    if typical_ns >= 10 * NS_PER_S:
        return NS_PER_S, "s"
    return (NS_PER_MS, "ms") if typical_ns >= 10 * NS_PER_MS else (NS_PER_US, "us")


def is_wide(times_ns: pd.Series) -> bool:
    """Tell whether times spread so wide that an axis should be logarithmic; not if one is 0."""
    values: npt.NDArray[np.float64] = times_ns.to_numpy(np.float64)
    if not len(values) or values.min() <= 0:
        return False
    return bool(np.percentile(values, 99.5) > WIDE_SPREAD * np.median(values))


def order_of_devices(analysis: Analysis, rows: pd.DataFrame) -> list[str]:
    """Return the devices of a waterfall: the path outwards, then others in order of appearance."""
    sidecar = analysis.capture.sidecar
    on_path = [str(hop) for hop in sidecar.target.path] if sidecar else []
    seen = list(dict.fromkeys(rows["device"]))
    return [one for one in on_path if one in seen] + [one for one in seen if one not in on_path]


def require_matplotlib() -> None:
    """Raise AnalysisError when matplotlib is not installed: best before any work is done."""
    if find_spec("matplotlib") is None:
        raise AnalysisError(
            "plots need matplotlib", hint="install it with: pip install 'maceproc[plot]'"
        )


def new_axes(width: float, height: float) -> Axes:
    """Make a figure of that size [inch]; AnalysisError when matplotlib is not installed."""
    require_matplotlib()
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def check_picture(path: Path) -> None:
    """Raise AnalysisError when matplotlib knows no format that ends like this, or is not installed.

    CaptureError is raised when nothing can be written there.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    ending = path.suffix.removeprefix(".").lower()
    if path.suffix and ending not in Figure().canvas.get_supported_filetypes():
        raise AnalysisError(
            f"{path}: no picture's name ends in .{ending}",
            hint="end the name in .png, .svg or .pdf",
        )
    check_free(path, force=True)


def save(ax: Axes, path: str) -> None:
    """Write the picture of these Axes, whole or not at all; its format is the name's ending.

    Raises AnalysisError when that is none matplotlib knows, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = ax.figure
    assert isinstance(figure, Figure)
    check_picture(Path(path))
    ending = Path(path).suffix.removeprefix(".").lower()
    try:
        with opened_whole(Path(path)) as file:
            figure.savefig(file, dpi=150, format=ending or "png")
    except OSError as error:
        raise AnalysisError(f"{path}: {error.strerror}") from error


def _by_series(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Go through the series from the back of the picture to its front."""
    for name in COLORS:
        part = rows[rows["series"] == name] if "series" in rows else rows
        if len(part):
            yield name, part


def _time_axis(rows: pd.DataFrame) -> tuple[pd.Series, str]:
    """Return the x values and their label: time where ping -D printed it, else the number."""
    if rows["after_ns"].notna().all():
        return rows["after_ns"].astype("float64") / NS_PER_S, "time [s]"
    kind = "series" if "series" in rows else "direction"
    return rows.groupby(kind).cumcount() + 1, "number of the ping"


def _spread(ax: Axes, axis: str, times_ns: pd.Series) -> None:
    """Make an axis logarithmic when its values spread wide, and start it at 0 when not."""
    if times_ns.empty:
        return
    if is_wide(times_ns):
        getattr(ax, f"set_{axis}scale")("log")
        getattr(ax, f"{axis}axis").set_major_formatter("{x:g}")
    else:
        getattr(ax, f"set_{axis}lim")(0, None)


def _dots(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the style of points: larger where there are few."""
    return {"s": 9 if len(rows) > FEW else 24, "alpha": 0.65, "linewidths": 0}


def finish(ax: Axes, x: str, y: str, title: str, *, legend: str = "lines") -> Axes:
    """Label the axes and the plot, with its legend beside it."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title, loc="left")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    if legend and ax.get_legend_handles_labels()[0]:
        # The legend is beside the picture, where it covers no points.
        position: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        ax.legend(frameon=False, markerscale=2 if legend == "points" else 1, **position)
    return ax


def _when_empty(ax: Axes, rows: pd.DataFrame, why: str) -> None:
    """Say why there is nothing to see, instead of an axis with made-up numbers."""
    if rows.empty:
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": ax.transAxes}
        ax.text(0.5, 0.5, why, color=QUIET, **middle)
        ax.set_xticks([])
        ax.set_yticks([])


def note(ax: Axes, text: str) -> None:
    """Write a remark above the plot, at its right end."""
    style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": "small", "color": "#666666"}
    ax.text(1, 1.01, text, transform=ax.transAxes, **style)


def _step_label(row: Any) -> str:
    if not row.segment.endswith("crossing"):
        return row.segment
    (start, from_event), (end, to_event) = (text.rsplit(" ", 1) for text in (row.start, row.end))
    places = start if start == end else f"{start} → {end}"
    return f"{places}\n{from_event} → {to_event}"


def _draw_way(
    ax: Axes, x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], segments: list[str]
) -> None:
    """Draw the line from event to event in the colours of the ledger's segments."""
    named = set()
    for i, segment in enumerate(segments[1:], 1):
        style: dict[str, Any] = {"color": SEGMENTS.get(segment, QUIET), "linewidth": 2, "zorder": 2}
        if segment and segment not in named:
            style["label"] = segment
        ax.plot(x[i - 1 : i + 1], y[i - 1 : i + 1], **style)
        named.add(segment)


def _label_events(
    ax: Axes, x: npt.NDArray[np.float64], y: npt.NDArray[np.int64], names: pd.Series
) -> None:
    """Write the events' names slanted beside their points; one label for events close together."""
    near = CLOSE_TOGETHER * float(np.ptp(x)) if len(x) else 0.0
    style: dict[str, Any] = {"rotation": 25, "fontsize": "x-small", "va": "bottom"}
    left = list(range(len(x)))
    while left:
        first = left[0]
        group = [i for i in left if y[i] == y[first] and x[i] - x[first] <= near]
        others = f" +{len(group) - 1}" if len(group) > 1 else ""
        text = f"{names.iloc[first]}{others}"
        ax.annotate(text, (x[first], y[first]), (2, 5), textcoords="offset points", **style)
        left = [i for i in left if i not in group]
