"""Whether two runs of the experiment agree, from the results that their reports wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd

from maceproc.errors import CaptureError
from maceproc.experiment.report import JSON_FILE, table_lines
from maceproc.experiment.shown import interval_text
from maceproc.sidecar_checks import read_bounded
from maceproc.statistics import CONFIDENCE, holm
from maceproc.units import format_share, format_us

_KEYS = ["flows", "comparison", "tracer", "statistic"]
_Flows = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class _Comparison(msgspec.Struct):
    """What is read of a row of COMPARISONS."""

    flows: _Flows
    comparison: str
    tracer: str
    statistic: str
    estimate_ns: float | None
    low_ns: float | None
    high_ns: float | None
    rounds: _Flows


class _Series(msgspec.Struct):
    """What is read of a row of SERIES."""

    flows: _Flows
    series: str
    statistic: str
    estimate_ns: float | None
    low_ns: float | None
    high_ns: float | None


class _Results(msgspec.Struct):
    """What is read of the results that a report wrote."""

    comparisons: list[_Comparison]
    series: list[_Series]


CONTROLS = ("native untraced", "container untraced")


def load_results(directory: Path) -> dict[str, Any]:
    """Read the results that a report wrote; CaptureError when they are not there, or damaged."""
    path = directory / JSON_FILE
    again = f"write it with: maceproc experiment report {directory}"
    if not path.exists():
        raise CaptureError(f"{path}: no such file", hint=again)
    try:
        results = msgspec.json.decode(read_bounded(path), type=_Results)
    except (ValueError, RecursionError) as error:  # also msgspec's errors
        raise CaptureError(f"{path}: not the results of a report: {error}", hint=again) from error
    compared = [tuple(getattr(row, key) for key in _KEYS) for row in results.comparisons]
    controls = [(r.flows, r.series, r.statistic) for r in results.series if r.series in CONTROLS]
    for name, keys in (("comparisons", compared), ("series", controls)):
        if len(set(keys)) < len(keys):
            raise CaptureError(f"{path}: {name}: two rows for the same", hint=again)
    data: dict[str, Any] = msgspec.to_builtins(results)
    return data


def agreement(first: dict[str, Any], second: dict[str, Any]) -> pd.DataFrame:
    """Compare the differences that two experiments found: a row for each one that both have.

    Takes two results of `maceproc.experiment.report.as_dict`. Returns the columns of COMPARISONS;
    those that can differ exist twice, ending in ``_first`` and ``_second``. The column ``p`` is the
    probability that the estimates are at least so far apart if nothing changed: Welch's t test,
    with standard errors computed from the intervals. Where a run has no interval there is no row.
    """
    from scipy.stats import t, ttest_ind_from_stats

    tables = [_rows(data["comparisons"], _Comparison) for data in (first, second)]
    tables = [table.dropna(subset=["estimate_ns", "low_ns", "high_ns"]) for table in tables]
    found = tables[0].merge(tables[1], on=_KEYS, suffixes=("_first", "_second"))
    numbers: list[Any] = []
    for run in ("_first", "_second"):
        estimate_ns, low_ns, high_ns, rounds = (
            found[f"{name}{run}"].to_numpy(np.float64)
            for name in ("estimate_ns", "low_ns", "high_ns", "rounds")
        )
        error_ns = (high_ns - low_ns) / 2 / t.ppf((1 + CONFIDENCE) / 2, rounds - 1)
        numbers += [estimate_ns, error_ns * np.sqrt(rounds), rounds]
    return found.assign(p=ttest_ind_from_stats(*numbers, equal_var=False).pvalue)


def agreement_lines(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """Yield, as Markdown, how far two experiments agree, and every difference of medians."""
    table = agreement(first, second)
    yield "# Do two runs of the experiment agree?\n"
    for statistic in ("median", "mean"):
        p = table.loc[table["statistic"] == statistic, "p"].to_numpy()
        apart = int((p < 1 - CONFIDENCE).sum())
        together = int((holm(p) < 1 - CONFIDENCE).sum())
        yield (
            f"* **{statistic}s**: {len(p) - apart} of {len(p)} differences agree within their "
            f"{format_share(CONFIDENCE)} intervals; if nothing changed, "
            f"{math.floor(CONFIDENCE * len(p))} or so would. "
            + (f"{together} differ" if together else "None differs")
            + " by more than chance allows among so many (Holm)"
        )
    yield from state_lines(first, second)
    yield "\nAll differences of medians [us]; p is the probability of such a distance by chance.\n"
    rows = []
    for row in table[table["statistic"] == "median"].itertuples():
        runs = (
            interval_text(row.estimate_ns_first, row.low_ns_first, row.high_ns_first, signed=True),
            interval_text(
                row.estimate_ns_second, row.low_ns_second, row.high_ns_second, signed=True
            ),
        )
        told = f"{row.p:.2f}" if row.p >= 1 - CONFIDENCE else f"**{row.p:.2g}**"
        rows.append([str(row.flows), row.comparison, row.tracer, *runs, told])
    yield from table_lines(["flows", "difference", "tracer", "first", "second", "p"], rows, {0, 5})


def state_lines(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """Yield where the controls of two experiments differ: the machine was in another state.

    A difference at such a level of traffic does not speak against either experiment.
    """
    for name in CONTROLS:
        tables = []
        for data in (first, second):
            rows = _rows(data["series"], _Series)
            rows = rows[(rows["series"] == name) & (rows["statistic"] == "median")]
            tables.append(rows.set_index("flows"))
        for flows in tables[0].index.intersection(tables[1].index):
            one, other = (table.loc[flows] for table in tables)
            if one["low_ns"] > other["high_ns"] or other["low_ns"] > one["high_ns"]:
                medians = (format_us(row["estimate_ns"]) for row in (one, other))
                yield (
                    f"* {flows} flows: the median of {name} is {' and '.join(medians)} us: the "
                    "machine was not in the same state"
                )


def _rows(rows: list[dict[str, Any]], form: type[msgspec.Struct]) -> pd.DataFrame:
    """Return rows as a table with the columns of their form, also where there are none."""
    table = pd.DataFrame(rows, columns=list(form.__struct_fields__))
    numbers = [name for name in ("estimate_ns", "low_ns", "high_ns") if name in table]
    return table.astype(dict.fromkeys(numbers, "float64"))
