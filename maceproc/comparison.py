"""Captures side by side: what differs between them, by how much, and how sure that is.

Every other capture is compared with the first one, quantity by quantity. The round is what was
repeated. Where both captures have at least five rounds, the medians of the rounds are compared by
Welch's t test, which also gives the interval of the difference. With fewer rounds the pings are
compared: by the bootstrap interval of the difference of medians, and by Brunner and Munzel's test.
The pings do not show the drift from one round to the next, so these intervals are too narrow.

The effect size is Cliff's delta over all pings: the probability that a ping of this capture is
slower than a ping of the first one, minus the probability that it is faster. 0 means no difference,
+1 means that every ping is slower. P values are adjusted for the number of tests by Holm's method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.analysis import CAPTURES, CONTRASTS, QUANTITIES
from maceproc.analysis import Comparison as ComparisonTables
from maceproc.errors import AnalysisError
from maceproc.following.calibrating import CALIBRATION
from maceproc.following.coverage import coverage
from maceproc.following.perturbation import values_of
from maceproc.foreign_text import clean
from maceproc.pipeline import Analysis, analyze
from maceproc.reporting.document import capture_facts
from maceproc.schema import SCHEMA_VERSION, rows_of
from maceproc.series import NATIVE, NATIVE_RTT, OVERHEAD
from maceproc.series import QUANTITIES as QUANTITIES_COMPARED
from maceproc.statistics import (
    CONFIDENCE,
    ROUNDS_TO_RESAMPLE,
    Values,
    brunner_munzel,
    cliffs_delta,
    holm,
    welch,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Conditions that should be the same. Where captures differ in one, a note says so.
CONDITIONS: dict[str, Callable[[Analysis], object]] = {
    "the command": lambda a: _options(a.capture.sidecar.command) if a.capture.sidecar else None,
    "the kernel": lambda a: a.capture.sidecar and a.capture.sidecar.machine.kernel,
    "the CPU": lambda a: a.capture.sidecar and a.capture.sidecar.machine.cpu,
    "what was recorded": lambda a: a.capture.sidecar and a.capture.sidecar.tracing.event_set,
    "whether the CPUs were kept awake": lambda a: (
        a.capture.sidecar and a.capture.sidecar.machine.awake
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison(ComparisonTables):
    """Captures side by side, with ways to show them.

    The tables are those of `maceproc.analysis.Comparison`.
    """

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

    def as_html(self) -> str:
        """Return the page that ``maceproc compare --html`` writes."""
        from maceproc.reporting.comparison_page import as_html

        return as_html(self)

    def __str__(self) -> str:
        from maceproc.reporting.side_by_side import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from maceproc.reporting.notebook import comparison_html

        return comparison_html(self)


def compare(*captures: str | Path | Analysis, labels: Sequence[str] | None = None) -> Comparison:
    """Compare captures with the first one: paths, or analyses already made.

    `labels` names them; by default the labels are the parts in which their paths differ. Raises
    AnalysisError when fewer than two are given or one has no pings, and what `analyze` raises.

    >>> c = compare("trace.dat", "other.dat")                                 # doctest: +SKIP
    >>> c.contrasts[c.contrasts["p_adjusted"] < 0.05]                         # doctest: +SKIP
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
    quantities = QUANTITIES.from_rows([row for item in named.items() for row in describe(*item)])
    notes = tuple(_differences(named))
    return Comparison(
        analyses=named,
        captures=_captures(named),
        quantities=quantities,
        contrasts=_contrasts(named),
        notes=notes,
    )


def labels_of(paths: Sequence[Path]) -> list[str]:
    """Return the parts in which the paths differ: a and b for ``a/t.dat`` and ``b/t.dat``."""
    parts = [(*path.parts[:-1], path.name.removesuffix(".dat")) for path in paths]
    while len(parts) > 1 and min(map(len, parts)) > 1 and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    last = [p[-1] for p in parts]
    labels = last if len(set(last)) == len(last) else ["/".join(p) for p in parts]
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: i + 1].count(label)})"
        for i, label in enumerate(labels)
    ]


def describe(name: str, analysis: Analysis) -> Iterator[tuple[object, ...]]:
    """Yield the rows of QUANTITIES of one capture, which is called `name`."""
    for quantity, values in _quantities(analysis).items():
        if len(values):
            p5, median, p95 = np.percentile(values["value_ns"], [5, 50, 95])
            yield name, quantity, len(values), values["round"].nunique(), median, p5, p95


def _quantities(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Return round and value [ns] of everything that is compared ping by ping."""
    return {series.name: values_of(analysis.rtts, series) for series in QUANTITIES_COMPARED}


def _contrasts(named: dict[str, Analysis]) -> pd.DataFrame:
    first, *others = named
    against = _quantities(named[first])
    rows = []
    for name in others:
        for quantity, mine in _quantities(named[name]).items():
            if len(mine) and len(against[quantity]):
                contrast = _contrast(mine, against[quantity])
                if quantity == NATIVE_RTT.name:
                    contrast = _with_corrections(contrast, named[name], named[first])
                rows.append((name, first, quantity, *contrast))
        rows += [(name, first, OVERHEAD.name, *row) for row in _overhead(named[name], named[first])]
    table = pd.DataFrame(rows, columns=[n for n in CONTRASTS.names if n != "p_adjusted"])
    return CONTRASTS.frame(table.assign(p_adjusted=holm(table["p_value"].to_numpy(float))))


def _contrast(mine: pd.DataFrame, other: pd.DataFrame) -> tuple[object, ...]:
    """Compare one quantity: the columns of CONTRASTS from the estimate on, unadjusted."""
    medians = [part.groupby("round")["value_ns"].median().to_numpy() for part in (mine, other)]
    delta = cliffs_delta(mine, other)
    if min(map(len, medians)) >= ROUNDS_TO_RESAMPLE:
        estimate, low, high, p_value = welch(*medians)
        units = ("rounds", *map(len, medians))
    else:
        estimate, low, high, p_value = brunner_munzel(mine["value_ns"], other["value_ns"])
        units = ("pings", len(mine), len(other))
    return estimate, low, high, *delta, p_value, *units


def _with_corrections(
    contrast: tuple[Any, ...], mine: Analysis, other: Analysis
) -> tuple[object, ...]:
    """Return a contrast of native RTTs with the uncertainty of what was added to each.

    Where both have the same calibration the same was added, and its error is in both.
    """
    from scipy.stats import norm

    natives = (mine.native, other.native)
    given = [native.calibration for native in natives if native.source == CALIBRATION]
    if len(given) == 2 and given[0] == given[1]:
        return contrast
    variance = sum(n.correction.variance_ns2 for n in natives if n.correction)
    estimate, low, high, *delta, _, unit, units, units_against = contrast
    quantile = float(norm.ppf((1 + CONFIDENCE) / 2))
    error = float(np.hypot((high - low) / 2 / quantile, np.sqrt(variance)))
    ends = (estimate - quantile * error, estimate + quantile * error)
    p_value = 2 * float(norm.sf(abs(estimate) / error)) if error else float(not estimate)
    return estimate, *ends, *delta, p_value, unit, units, units_against


def _overhead(mine: Analysis, other: Analysis) -> Iterator[tuple[object, ...]]:
    """Compare what the container adds to the native ping, round by round."""
    by_round = [_overhead_by_round(analysis.rtts) for analysis in (mine, other)]
    if min(map(len, by_round)) < 2:
        return
    estimate, low, high, p_value = welch(*by_round)
    delta = (np.nan, np.nan, np.nan)  # a single ping has no overhead, only medians differ
    yield estimate, low, high, *delta, p_value, "rounds", *map(len, by_round)


def _overhead_by_round(rtts: pd.DataFrame) -> Values:
    medians = [
        values_of(rtts, s).groupby("round")["value_ns"].median()
        for s in (OVERHEAD.series, OVERHEAD.against)
    ]
    return np.asarray((medians[0] - medians[1]).dropna().to_numpy(float))


def _captures(named: dict[str, Analysis]) -> pd.DataFrame:
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
    """Yield in which conditions the captures differ: they may explain a difference as well."""
    first, *others = named
    for what, of in CONDITIONS.items():
        unlike = [name for name in others if of(named[name]) != of(named[first])]
        if unlike:
            yield f"{what} is not the same in {first} and {_and(unlike)}"
    for name in others:
        native = [values_of(named[one].rtts, NATIVE) for one in (name, first)]
        if all(map(len, native)) and _p_value(*native) < 1 - CONFIDENCE:
            yield (
                f"the native ping differs too between {first} and {name}: the machine or the "
                f"network was not the same; look at the {OVERHEAD.name}"
            )


def _p_value(mine: pd.DataFrame, other: pd.DataFrame) -> float:
    row = dict(zip(CONTRASTS.names[3:], _contrast(mine, other), strict=False))
    return float(row["p_value"])  # type: ignore[arg-type]


def _options(command: Iterable[str]) -> list[str]:
    """Return a command without its last word, which is usually the destination."""
    return list(command)[:-1]


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
