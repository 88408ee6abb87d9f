"""Captures side by side: what differs between them, by how much, and how sure that is.

Every capture after the first is compared with the first, quantity by quantity. What was repeated is
the round, so rounds are the unit where both captures have at least five: their medians are compared
by Welch's t test, and its interval is that of the difference. With fewer, the pings are the unit:
bootstrap interval of the difference of medians, and Brunner-Munzel's test of delta; then nothing is
known of the drift from one round to the next, and the intervals are too narrow by that.

The effect is Cliff's delta, over all pings: the probability that a ping of this capture is slower
than one of the first, minus that of the opposite. 0: no difference; +1: every ping is slower.
P values are adjusted for the number of tests by Holm's method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.following.perturbation import (
    CORRECTED,
    NATIVE,
    NATIVE_RAW,
    NATIVE_WIRE,
    RAW,
    UNTRACED,
    WIRE,
    Series,
)
from maceproc.foreign_text import clean
from maceproc.pipeline import Analysis, analyze
from maceproc.reporting.report import capture_facts
from maceproc.schema import SCHEMA_VERSION, Column, Table, rows_of
from maceproc.statistics import (
    BLOCK_RESAMPLES,
    CONFIDENCE,
    ROUNDS_TO_RESAMPLE,
    SEED,
    difference,
    holm,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = npt.NDArray[np.float64]

CAPTURES = Table(
    "captures",
    "one capture of a comparison",
    (
        Column("capture", "str", "", "its label: what tells its path from the others'"),
        Column("file", "str", "", "its path"),
        Column("command", "str", "", "what ran"),
        Column("path", "str", "", "the devices its packets pass"),
        Column("event_set", "str", "", "what was recorded: minimal, full or list"),
        Column("kernel", "str", "", "kernel release"),
        Column("rounds", "int64", "", "rounds"),
        Column("answered", "int64", "", "traced pings that were answered"),
        Column("corrected", "int64", "", "those of them that were corrected"),
        Column("events_lost", "int64", "", "events known to be lost"),
    ),
)

QUANTITIES = Table(
    "quantities",
    "one quantity in one capture",
    (
        Column("capture", "str", "", "label of the capture"),
        Column("quantity", "str", "", "a series of RTTs, or a crossing"),
        Column("used", "int64", "", "pings with a value"),
        Column("rounds", "int64", "", "rounds they are from"),
        Column("median_ns", "float64", "ns", "median of all pings"),
        Column("p5_ns", "float64", "ns", "5th percentile"),
        Column("p95_ns", "float64", "ns", "95th percentile"),
    ),
)

CONTRASTS = Table(
    "contrasts",
    "one quantity in one capture, against the first capture",
    (
        Column("capture", "str", "", "label of the capture"),
        Column("against", "str", "", "label of the first capture"),
        Column("quantity", "str", "", "what is compared"),
        Column("estimate_ns", "float64", "ns", "difference of the medians: capture - against"),
        Column("low_ns", "float64", "ns", "lower end of its 95 % interval"),
        Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("delta", "float64", "", "Cliff's delta over all pings, -1 to 1"),
        Column("delta_low", "float64", "", "lower end of its 95 % interval"),
        Column("delta_high", "float64", "", "upper end of its 95 % interval"),
        Column("p_value", "float64", "", "of no difference, two-sided"),
        Column("p_adjusted", "float64", "", "the same, adjusted for all tests (Holm)"),
        Column("unit", "str", "", "what was counted as repeated: rounds or pings"),
        Column("units", "int64", "", "of these, in the capture"),
        Column("units_against", "int64", "", "of these, in the first capture"),
    ),
)

OUTBOUND = Series("outbound crossing", CORRECTED.arm, "outbound_ns")
INBOUND = Series("inbound crossing", CORRECTED.arm, "inbound_ns")
OVERHEAD = "container overhead"
QUANTITIES_COMPARED = (
    UNTRACED,
    RAW,
    CORRECTED,
    NATIVE,
    NATIVE_RAW,
    WIRE,
    NATIVE_WIRE,
    OUTBOUND,
    INBOUND,
)

# Unlike in these, captures differ in more than what is compared.
CONDITIONS: dict[str, Callable[[Analysis], object]] = {
    "the command": lambda a: _options(a.capture.sidecar.command) if a.capture.sidecar else None,
    "the kernel": lambda a: a.capture.sidecar and a.capture.sidecar.machine.kernel,
    "the CPU": lambda a: a.capture.sidecar and a.capture.sidecar.machine.cpu,
    "what was recorded": lambda a: a.capture.sidecar and a.capture.sidecar.tracing.event_set,
    "whether the CPUs were kept awake": lambda a: (
        a.capture.sidecar and a.capture.sidecar.machine.awake
    ),
}


@dataclass(frozen=True)
class Comparison:
    """Captures side by side.

    Attributes
    ----------
    analyses
        The analyses by label, the first being the one that the others are compared with.
    captures, quantities, contrasts
        The tables `CAPTURES`, `QUANTITIES` and `CONTRASTS`.
    notes
        In what else the captures differ, one sentence each.
    """

    analyses: dict[str, Analysis]
    captures: pd.DataFrame
    quantities: pd.DataFrame
    contrasts: pd.DataFrame
    notes: tuple[str, ...]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot every quantity of every capture; see `maceproc.reporting.side_by_side`."""
        from maceproc.reporting.side_by_side import plot

        return plot(self, ax)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``maceproc compare --json`` prints: unknown values are null, times in ns."""
        return {
            "schema_version": SCHEMA_VERSION,
            "captures": rows_of(self.captures),
            "quantities": rows_of(self.quantities),
            "contrasts": rows_of(self.contrasts),
            "notes": list(self.notes),
        }

    def as_json(self) -> str:
        """Return `as_dict` as JSON text."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)

    def __str__(self) -> str:
        from maceproc.reporting.side_by_side import as_text

        return as_text(self)


def compare(*captures: str | Path | Analysis, labels: Sequence[str] | None = None) -> Comparison:
    """Compare captures with the first one: paths, or analyses already made.

    `labels` names them; by default they are called by what tells their paths apart. Raises
    AnalysisError when fewer than two are given or one has no pings, and what `analyze` raises.
    """
    if len(captures) < 2:
        raise AnalysisError("a comparison needs two captures", hint="give two or more trace.dat")
    analyses = [c if isinstance(c, Analysis) else analyze(c) for c in captures]
    for analysis in analyses:
        if analysis.series.empty:
            raise AnalysisError(
                f"{analysis.capture.trace}: no ping to compare",
                hint="was it recorded by hand? analyze() takes what the ping printed",
            )
    given = labels or labels_of([analysis.capture.trace for analysis in analyses])
    names = [clean(name) for name in given]  # bytes that are not UTF-8 fit in no table
    if len(set(names)) != len(analyses):
        raise AnalysisError(f"{len(analyses)} captures, labels {', '.join(names)}")
    named = dict(zip(names, analyses, strict=True))
    quantities = QUANTITIES.from_rows([row for name in named for row in _describe(name, named)])
    notes = tuple(_differences(named))
    return Comparison(named, _captures(named), quantities, _contrasts(named), notes)


def labels_of(paths: Sequence[Path]) -> list[str]:
    """Return what tells the paths apart: ``a/trace.dat``, ``b/trace.dat`` are a and b."""
    parts = [(*path.parts[:-1], path.name.removesuffix(".dat")) for path in paths]
    while len(parts) > 1 and min(map(len, parts)) > 1 and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    last = [p[-1] for p in parts]
    labels = last if len(set(last)) == len(last) else ["/".join(p) for p in parts]
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: i + 1].count(label)})"
        for i, label in enumerate(labels)
    ]


def cliffs_delta(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float]:
    """Return Cliff's delta of two sets of values and its 95 % interval.

    Both have columns ``round`` and ``value_ns``. Where both have five rounds or more, these are
    resampled; otherwise the interval is the normal one of the pings' placements (E. DeLong et al.,
    Biometrics 44, 1988).
    """
    won, sizes, others = _wins(mine, other)
    delta = float(won.sum() / np.outer(sizes, others).sum())
    if min(won.shape) >= ROUNDS_TO_RESAMPLE:
        random = np.random.default_rng(SEED)
        i, j = (random.integers(n, size=(BLOCK_RESAMPLES, n)) for n in won.shape)
        drawn = won[i[:, :, None], j[:, None, :]].sum(axis=(1, 2))
        draws = drawn / (sizes[i].sum(axis=1) * others[j].sum(axis=1))
        low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return delta, float(low), float(high)
    margin = _placement_margin(*(part["value_ns"].to_numpy() for part in (mine, other)))
    return delta, max(delta - margin, -1.0), min(delta + margin, 1.0)


def _wins(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[Values, Values, Values]:
    """Return, for every pair of rounds, pairs of pings won minus lost; and the rounds' sizes."""
    rounds = [rows["value_ns"].to_numpy() for _, rows in mine.groupby("round")]
    against = [np.sort(rows["value_ns"].to_numpy()) for _, rows in other.groupby("round")]
    won = np.array([[_placements(a, b).sum() for b in against] for a in rounds], dtype=float)
    sizes, others = (
        np.array([len(v) for v in values], dtype=float) for values in (rounds, against)
    )
    return won, sizes, others


def _placements(values: Values, ordered: Values) -> Values:
    """Return, for each value, how many of the ordered ones are below it minus above it."""
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray(below + upto - len(ordered), dtype=float)


def _placement_margin(mine: Values, other: Values) -> float:
    from scipy.stats import norm

    parts = [(mine, other), (other, mine)]
    variance = sum(
        np.var(_placements(a, np.sort(b)) / len(b), ddof=1) / len(a) for a, b in parts if len(a) > 1
    )
    return float(norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance))


def _describe(name: str, named: dict[str, Analysis]) -> Iterator[tuple[object, ...]]:
    for quantity, values in _quantities(named[name]).items():
        if len(values):
            p5, median, p95 = np.percentile(values["value_ns"], [5, 50, 95])
            yield name, quantity, len(values), values["round"].nunique(), median, p5, p95


def _quantities(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Return round and value [ns] of everything that is compared ping by ping."""
    return {series.name: series.of(analysis.rtts) for series in QUANTITIES_COMPARED}


def _contrasts(named: dict[str, Analysis]) -> pd.DataFrame:
    first, *others = named
    against = _quantities(named[first])
    rows = []
    for name in others:
        for quantity, mine in _quantities(named[name]).items():
            if len(mine) and len(against[quantity]):
                rows.append((name, first, quantity, *_contrast(mine, against[quantity])))
        rows += [(name, first, OVERHEAD, *row) for row in _overhead(named[name], named[first])]
    table = pd.DataFrame(rows, columns=[n for n in CONTRASTS.names if n != "p_adjusted"])
    return CONTRASTS.frame(table.assign(p_adjusted=holm(table["p_value"].to_numpy(float))))


def _contrast(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[object, ...]:
    """Compare one quantity: the columns of CONTRASTS from the estimate on, unadjusted."""
    medians = [part.groupby("round")["value_ns"].median().to_numpy() for part in (mine, other)]
    delta = cliffs_delta(mine, other)
    if min(map(len, medians)) >= ROUNDS_TO_RESAMPLE:
        estimate, low, high, p_value = _welch(*medians)
        units = ("rounds", *map(len, medians))
    else:
        estimate, low, high, p_value = _by_ping(mine["value_ns"], other["value_ns"])
        units = ("pings", len(mine), len(other))
    return estimate, low, high, *delta, p_value, *units


def _overhead(mine: Analysis, other: Analysis) -> Iterator[tuple[object, ...]]:
    """Compare what the container adds to the native ping, round by round."""
    by_round = [_overhead_by_round(analysis.rtts) for analysis in (mine, other)]
    if min(map(len, by_round)) < 2:
        return
    estimate, low, high, p_value = _welch(*by_round)
    delta = (np.nan, np.nan, np.nan)  # it is a difference of medians: no ping has one
    yield estimate, low, high, *delta, p_value, "rounds", *map(len, by_round)


def _overhead_by_round(rtts: pd.DataFrame) -> Values:
    medians = [s.of(rtts).groupby("round")["value_ns"].median() for s in (UNTRACED, NATIVE)]
    return np.asarray((medians[0] - medians[1]).dropna().to_numpy(float))


def _welch(mine: Values, other: Values) -> tuple[float, float, float, float]:
    """Return difference of the means, its interval and p, for unequal variances."""
    from scipy.stats import ttest_ind

    if not np.ptp(mine) and not np.ptp(other):
        shift = float(mine.mean() - other.mean())
        return shift, shift, shift, float(not shift)
    result = ttest_ind(mine, other, equal_var=False)
    low, high = result.confidence_interval(CONFIDENCE)
    return float(mine.mean() - other.mean()), float(low), float(high), float(result.pvalue)


def _by_ping(mine: pd.Series, other: pd.Series) -> tuple[float, float, float, float]:
    """Return difference of the medians, its interval and p, with pings as the unit."""
    from scipy.stats import brunnermunzel

    estimate, low, high, *_ = difference([(mine.to_numpy(), other.to_numpy())])
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = brunnermunzel(mine, other).pvalue
    if np.isnan(p_value):  # they do not overlap at all, or are all equal
        p_value = float(mine.median() == other.median())
    return estimate, low, high, float(p_value)


def _captures(named: dict[str, Analysis]) -> pd.DataFrame:
    from maceproc.reporting.report import coverage

    rows = []
    for name, analysis in named.items():
        facts, counts = capture_facts(analysis), coverage(analysis.rtts)
        texts = (" ".join(facts.get("command", ())), " -> ".join(facts.get("path", ())))
        known = (facts.get("event_set", ""), facts.get("kernel", ""))
        rounds = int(analysis.rtts["round"].nunique())
        numbers = (rounds, counts["answered"], counts["corrected"], facts["events_lost"])
        rows.append((name, clean(analysis.capture.trace), *texts, *known, *numbers))
    return CAPTURES.from_rows(rows)


def _differences(named: dict[str, Analysis]) -> Iterator[str]:
    """Say in what else the captures differ: then the difference may be due to that."""
    first, *others = named
    for what, of in CONDITIONS.items():
        unlike = [name for name in others if of(named[name]) != of(named[first])]
        if unlike:
            yield f"{what} is not the same in {first} and {_and(unlike)}"
    for name in others:
        native = [NATIVE.of(named[one].rtts) for one in (name, first)]
        if all(map(len, native)) and _p_value(*native) < 1 - CONFIDENCE:
            yield (
                f"the native ping differs too between {first} and {name}: the machine or the "
                f"network was not the same; look at the {OVERHEAD}"
            )


def _p_value(mine: pd.DataFrame, other: pd.DataFrame) -> float:
    row = dict(zip(CONTRASTS.names[3:], _contrast(mine, other), strict=False))
    return float(row["p_value"])  # type: ignore[arg-type]


def _options(command: Iterable[str]) -> list[str]:
    """Return a command without its last word, which is usually the destination."""
    return list(command)[:-1]


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
