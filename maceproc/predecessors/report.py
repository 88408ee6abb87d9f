"""The authors' series of an import, with our statistics beside: report.md, a picture per study."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.predecessors.importing import Imported
from maceproc.predecessors.matching import latency_by_authors, latency_for_certain
from maceproc.reporting.plots import require_matplotlib
from maceproc.statistics import Estimate, Pair, difference, location
from maceproc.units import NS_PER_US

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROL = "native control"
ARMS = (CONTROL, "native monitored", "container control", "container monitored")
BY_AUTHORS, BY_US = "corrected, the authors' way", "corrected where certain"
ENOUGH = 3  # pings, for an interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One series of RTTs at one level of traffic, as the authors and as we summarize it."""

    study: str
    level: str
    name: str
    pings: int
    mean_ns: float
    deviation_ns: float
    median: Estimate
    mean_beside_native_ns: float  # mean - mean of native control; NaN without one
    beside_native: Estimate  # difference of the medians


def summarize(imported: Imported) -> list[Series]:
    """Return every series of every study; AnalysisError when the import has no pings."""
    pings = imported.tables.get("pings")
    if pings is None:
        raise AnalysisError("the import has no pings", hint="import the .ping files too")
    latencies = imported.tables.get("latencies", pd.DataFrame(columns=["study", "level", "arm"]))
    answered = pings[pings["rtt_ns"].notna() & (pings["status"] == "replied")]
    found: list[Series] = []
    for study, level in _levels(answered):
        here = answered[(answered["study"] == study) & (answered["level"] == level)]
        there = latencies[(latencies["study"] == study) & (latencies["level"] == level)]
        found += _at_level(str(study), str(level), here, there)
    return found


def _levels(pings: pd.DataFrame) -> list[tuple[str, str]]:
    """Return study and level of every ping, the levels by their rate."""
    pairs = pings[["study", "level"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(pairs, key=lambda pair: (pair[0], _rate(pair[1]), pair[1]))


def _rate(level: str) -> float:
    number = re.fullmatch(r"(\d+)([KMG]?)", level)
    return float(number[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[number[2]] if number else -1.0


def _at_level(
    study: str, level: str, pings: pd.DataFrame, latencies: pd.DataFrame
) -> Iterator[Series]:
    values = {
        str(arm): rows[["round", "rtt_ns"]].rename(columns={"rtt_ns": "value_ns"})
        for arm, rows in pings.groupby("arm")
    }
    for arm in [arm for arm in values if arm.endswith("monitored")]:
        own = latencies[latencies["arm"] == arm]
        mine = pings[pings["arm"] == arm]
        if not len(own):
            continue
        for name, match in ((BY_AUTHORS, latency_by_authors), (BY_US, latency_for_certain)):
            corrected = mine["rtt_ns"].to_numpy(np.float64) - match(mine, own)
            table = pd.DataFrame({"round": mine["round"].to_numpy(), "value_ns": corrected})
            values[f"{arm.partition(' ')[0]}, {name}"] = table.dropna()
    native = values.get(CONTROL)
    order = [*ARMS, *sorted(set(values) - set(ARMS))]
    for name in [name for name in order if name in values]:
        yield _series((study, level, name), values[name], None if name == CONTROL else native)


def _series(
    label: tuple[str, str, str], table: pd.DataFrame, native: pd.DataFrame | None
) -> Series:
    by_round = _by_round(table)
    everything = np.concatenate(by_round) if by_round else np.empty(0)
    mean, deviation = (np.nan, np.nan)
    beside, apart = np.nan, difference([])
    if len(everything) >= ENOUGH:
        mean, deviation = float(everything.mean()), float(everything.std(ddof=1))
        if native is not None and len(native) >= ENOUGH:
            theirs = _by_round(native)
            beside = mean - float(np.concatenate(theirs).mean())
            pairs: list[Pair] = list(zip(by_round, theirs, strict=False))
            apart = difference(pairs)
    else:
        by_round = []
    centre = location(by_round) if by_round else difference([])
    return Series(*label, len(everything), mean, deviation, centre, beside, apart)


def _by_round(table: pd.DataFrame) -> list[Floats]:
    return [rows.to_numpy(np.float64) for _, rows in table.groupby("round")["value_ns"]]


# --- text -----------------------------------------------------------------------------------------


def as_markdown(imported: Imported, series: Sequence[Series]) -> str:
    """Return the report: what was imported, and every study's series."""
    lines = ["# The predecessors' series, with our statistics beside", "", *_sources(imported), ""]
    for study in dict.fromkeys(each.study for each in series):
        own = [each for each in series if each.study == study]
        lines += [f"## {study}", "", f"![{study}]({picture_name(study)})", ""]
        lines += ["RTT [us]:", "", _HEAD, _RULE, *map(_table_row, own), ""]
    lines += _costs(imported.tables.get("costs"))
    return "\n".join([*lines, *_LEGEND]) + "\n"


_HEAD = (
    "| traffic | series | pings | mean | sd | median | 95 % interval "
    "| mean - native | median - native | 95 % interval |"
)
_RULE = "|---|---|--:|--:|--:|--:|---|--:|--:|---|"
_LEGEND = [
    "`mean`, `sd` and `mean - native` are what the authors' scripts compute; `median`, its",
    "interval and `median - native` are ours. `native` is the native control at the same traffic.",
    "The authors' way gives a ping the latency whose time is nearest, whatever it is; `where",
    "certain` uses a latency only if each is the other's nearest and they are close, or if it has",
    "the ping's number, once in its run: its count of pings says how many that are. Intervals come",
    "from resampling runs, where there are enough, else pings in blocks.",
]


def _us(value_ns: float, *, sign: bool = False) -> str:
    if np.isnan(value_ns):
        return ""
    return f"{value_ns / NS_PER_US:{'+' if sign else ''}.1f}"


def _interval(estimate: Estimate, *, sign: bool = False) -> str:
    if np.isnan(estimate.low_ns):
        return ""
    return f"{_us(estimate.low_ns, sign=sign)} to {_us(estimate.high_ns, sign=sign)}"


def _table_row(each: Series) -> str:
    cells = (
        each.level or "-",
        each.name,
        str(each.pings),
        _us(each.mean_ns),
        _us(each.deviation_ns),
        _us(each.median.estimate_ns),
        _interval(each.median),
        _us(each.mean_beside_native_ns, sign=True),
        _us(each.beside_native.estimate_ns, sign=True),
        _interval(each.beside_native, sign=True),
    )
    return f"| {' | '.join(cells)} |"


def _sources(imported: Imported) -> Iterator[str]:
    """Yield how many files were imported, by format, and what was not understood."""
    formats = pd.Series([file["format"] for file in imported.files]).value_counts()
    yield f"{len(imported.files)} files; `provenance.json` names each with its SHA-256."
    yield ""
    for name, count in formats.items():
        own = [file for file in imported.files if file["format"] == name]
        rows = sum(file.get("rows", 0) for file in own)
        strange = sum(file.get("not_understood", 0) for file in own)
        lines = sum(file.get("lines", 0) for file in own)
        empty = sum(not file["imported"] for file in own)
        what = f"{rows} rows, {strange} of {lines} lines not understood" if lines else "not read"
        yield f"* {name}: {count} files, {what}" + (f", {empty} without any" if empty else "")


def _costs(costs: pd.DataFrame | None) -> Iterator[str]:
    """Yield what MACE's hooks cost by its own counters."""
    if costs is None:
        return
    yield from ("## MACE's own cost [ns]", "")
    yield from ("| study | place | hook | runs | mean | median |", "|---|---|---|--:|--:|--:|")
    for (study, arm, hook), rows in costs.groupby(["study", "arm", "hook"]):
        values = rows["cost_ns"].astype("float64")
        cells = (study, arm, hook, len(rows), f"{values.mean():.0f}", f"{values.median():.0f}")
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


# --- picture --------------------------------------------------------------------------------------


def picture_name(study: str) -> str:
    """Return the file name of a study's picture."""
    return re.sub(r"[^\w.-]+", "_", study).strip("_.") + ".png" if study != "." else "series.png"


def draw(axes: Axes, series: Sequence[Series]) -> Axes:
    """Draw one study: the authors' means over traffic, and beside them our medians."""
    levels = list(dict.fromkeys(each.level for each in series))
    names = list(dict.fromkeys(each.name for each in series))
    for number, name in enumerate(names):
        own = [each for each in series if each.name == name and not np.isnan(each.mean_ns)]
        at = np.array([levels.index(each.level) for each in own]) + 0.06 * number
        means = [each.mean_ns / NS_PER_US for each in own]
        (line,) = axes.plot(at, means, marker="o", label=name)
        middle = np.array([each.median.estimate_ns for each in own]) / NS_PER_US
        ends = np.array([(each.median.low_ns, each.median.high_ns) for each in own]) / NS_PER_US
        reach = np.abs(ends.T - middle) if own else None
        axes.errorbar(at + 0.03, middle, reach, fmt="x", color=line.get_color(), capsize=2)
    axes.set_xticks(range(len(levels)), [level or "-" for level in levels])
    axes.set(xlabel="traffic", ylabel="RTT [us]", ylim=(0, None))
    axes.set_title("o: the authors' mean; x: median with 95 % interval", fontsize="small")
    axes.legend(fontsize="x-small")
    return axes


def save_report(imported: Imported, output: Path) -> tuple[str, list[Path]]:
    """Write report.md and the pictures; return the report, and the files."""
    require_matplotlib()
    from matplotlib.figure import Figure

    series = summarize(imported)
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for study in dict.fromkeys(each.study for each in series):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        draw(figure.subplots(), [each for each in series if each.study == study])
        written.append(output / picture_name(study))
        figure.savefig(written[-1], dpi=110)
    text = as_markdown(imported, series)
    (output / "report.md").write_text(text)
    return text, [output / "report.md", *written]
