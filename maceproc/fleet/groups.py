"""Hosts, paths or kernels side by side, with captures as the unit.

What was repeated is the capture: a quantity of a group is the median of its captures' medians, with
the distribution-free interval of that median. A group is compared with all other captures, or with
one group, by Welch's t test of the captures' medians; p values are adjusted by Holm's method.

With thousands of captures a difference of a few nanoseconds is significant. So a group stands out
only if its difference is both significant and larger than the usual scatter between groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.fleet.collecting import CROSSED
from maceproc.fleet.dataset import Dataset
from maceproc.fleet.declared import ABOUT, PARTITIONS
from maceproc.schema import SCHEMA_VERSION, Column, Table, rows_of
from maceproc.statistics import CONFIDENCE, Values, holm, welch

BY = (
    *(column.name for column in PARTITIONS),
    *(column.name for column in ABOUT if column.unit == ""),
)
"""Columns that captures can be grouped by."""

OTHERS = "all others"
UNKNOWN = "(unknown)"
SCATTER = 3.0  # robust standard deviations between groups from which one is unusual
NORMAL_MAD = 1.4826  # a normal distribution's standard deviation in median absolute deviations
GROUPS_FOR_SCATTER = 4  # fewer have no usual scatter
DIFFERS = 0.05

GROUPS = Table(
    "groups",
    "one quantity in the captures of one group",
    (
        Column("group", "str", "", "the host, path, ... that its captures have in common"),
        Column("quantity", "str", "", "a series of RTTs, a crossing, or the container overhead"),
        Column("captures", "int64", "", "captures that have it"),
        Column("pings", "int64", "", "pings in them with a value"),
        Column("median_ns", "float64", "ns", "median of the captures' medians"),
        Column("low_ns", "float64", "ns", "lower end of its 95 % interval; 6 captures are needed"),
        Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("p5_ns", "float64", "ns", "5th percentile of the captures' medians"),
        Column("p95_ns", "float64", "ns", "95th percentile of the captures' medians"),
    ),
)

CONTRASTS = Table(
    "contrasts",
    "one quantity of one group, against other captures",
    (
        Column("group", "str", "", "the group"),
        Column("against", "str", "", f"the group it is compared with, or {OTHERS}"),
        Column("quantity", "str", "", "what is compared"),
        Column("estimate_ns", "float64", "ns", "difference of the mean capture medians"),
        Column("low_ns", "float64", "ns", "lower end of its 95 % interval"),
        Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("p_value", "float64", "", "of no difference, two-sided"),
        Column("p_adjusted", "float64", "", "the same, adjusted for all tests (Holm)"),
        Column("captures", "int64", "", "captures of the group"),
        Column("captures_against", "int64", "", "captures it is compared with"),
        Column("stands_out", "bool", "", "differs, and by more than groups usually do"),
    ),
)

OVER_TIME = Table(
    "over_time",
    "the captures of one day",
    (
        Column("date", "str", "", "UTC; empty when not known"),
        Column("captures", "int64", "", "captures with a value"),
        Column("median_ns", "float64", "ns", "median of their medians"),
        Column("p10_ns", "float64", "ns", "10th percentile of their medians"),
        Column("p90_ns", "float64", "ns", "90th percentile of their medians"),
    ),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """The captures of a dataset, by host or by anything else that they tell.

    Attributes
    ----------
    by
        The columns that the captures are grouped by.
    groups, contrasts
        The tables `GROUPS` and `CONTRASTS`.
    medians
        A row per capture and quantity: group, quantity, date, used, median_ns.
    captures, failures
        How many captures there are, and how many could not be analyzed.
    """

    by: tuple[str, ...]
    groups: pd.DataFrame
    contrasts: pd.DataFrame
    medians: pd.DataFrame
    captures: int
    failures: int

    def as_dict(self) -> dict[str, Any]:
        """Return what ``maceproc compare DATASET --by ... --json`` prints; times in ns."""
        return {
            "schema_version": SCHEMA_VERSION,
            "by": list(self.by),
            "captures": self.captures,
            "failures": self.failures,
            "groups": rows_of(self.groups),
            "contrasts": rows_of(self.contrasts),
        }

    def over_time(self, group: str | None = None, quantity: str = CROSSED) -> pd.DataFrame:
        """Return OVER_TIME of a quantity: of one group, or of all captures."""
        rows = self.medians[self.medians["quantity"] == quantity]
        if group is not None:
            rows = rows[rows["group"] == group]
        days = rows.groupby("date")["median_ns"]
        quantiles = {f"p{p}_ns": days.quantile(p / 100) for p in (10, 90)}
        table = pd.DataFrame({"captures": days.size(), "median_ns": days.median(), **quantiles})
        return OVER_TIME.frame(table.reset_index().to_dict("series"))


def compare_groups(dataset: Dataset, by: Sequence[str] = ("host",), *, against: str = "") -> Groups:
    """Compare the captures of a dataset by host, or by other columns together.

    Every group is compared with all other captures, or with the group `against`. Raises
    AnalysisError when captures do not tell such a thing, or there is no such group.
    """
    for name in by:
        if name not in BY:
            raise AnalysisError(f"captures are not grouped by {name}", hint=f"use {', '.join(BY)}")
    medians = _medians(dataset, by)
    named = sorted(set(medians["group"]))
    if against and against not in named:
        shown = ", ".join(named[:10]) + (", ..." if len(named) > 10 else "")
        raise AnalysisError(f"no group {against!r}", hint=f"there are {shown or 'none'}")
    return Groups(
        by=tuple(by),
        groups=_groups(medians),
        contrasts=_contrasts(medians, against),
        medians=medians,
        captures=len(dataset.captures),
        failures=len(dataset.failures),
    )


def _medians(dataset: Dataset, by: Sequence[str]) -> pd.DataFrame:
    wanted = list(dict.fromkeys([*by, "date", "quantity", "used", "median_ns"]))
    rows = dataset.quantities.df(*wanted)
    names = [rows[name].astype(object).where(rows[name].notna(), UNKNOWN) for name in by]
    texts = [name.map(lambda value: str(value) or UNKNOWN) for name in names]
    group = texts[0].str.cat(texts[1:], sep=" · ") if len(texts) > 1 else texts[0]
    date = rows["date"].astype(object).where(rows["date"].notna(), "").map(str)
    columns = rows[["quantity", "used", "median_ns"]].assign(group=group, date=date)
    return columns.sort_values(["group", "quantity"], kind="stable", ignore_index=True)


def _groups(medians: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (group, quantity), own in medians.groupby(["group", "quantity"], sort=True):
        values = own["median_ns"].to_numpy(float)
        p5, median, p95 = np.percentile(values, [5, 50, 95])
        ends = median_interval(values)
        rows.append((group, quantity, len(own), int(own["used"].sum()), median, *ends, p5, p95))
    return GROUPS.from_rows(rows)


def median_interval(values: Values) -> tuple[float, float]:
    """Return the distribution-free 95 % interval of a median; NaN where values are too few.

    Its ends are order statistics: W. R. Thompson, Ann. Math. Stat. 7, 1936.
    """
    from scipy.stats import binom

    n = len(values)
    rank = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    if rank < 1:
        return np.nan, np.nan
    ordered = np.sort(values)
    return float(ordered[rank - 1]), float(ordered[n - rank])


def _contrasts(medians: pd.DataFrame, against: str) -> pd.DataFrame:
    rows = []
    for quantity, own in medians.groupby("quantity", sort=True):
        rows += list(_contrasts_of(str(quantity), own, against))
    table = pd.DataFrame(
        rows, columns=[name for name in CONTRASTS.names if name not in ("p_adjusted", "stands_out")]
    )
    known = table["p_value"].notna().to_numpy()
    adjusted = np.full(len(table), np.nan)
    adjusted[known] = holm(table["p_value"].to_numpy(float)[known])
    table = table.assign(p_adjusted=adjusted)
    return CONTRASTS.frame(table.assign(stands_out=_standing_out(table, medians)))


def _contrasts_of(
    quantity: str, medians: pd.DataFrame, against: str
) -> Iterator[tuple[object, ...]]:
    values = {name: rows["median_ns"].to_numpy(float) for name, rows in medians.groupby("group")}
    everything = medians["median_ns"].to_numpy(float)
    groups = medians["group"].to_numpy()
    for name, mine in values.items():
        if name == against or (not against and len(values) < 2) or against not in (*values, ""):
            continue
        other = values[against] if against else everything[groups != name]
        contrast = (np.nan,) * 4
        if min(len(mine), len(other)) > 1:
            contrast = welch(mine, other)
        yield name, against or OTHERS, quantity, *contrast, len(mine), len(other)


def _standing_out(table: pd.DataFrame, medians: pd.DataFrame) -> Values:
    """Tell which groups differ, and by more than groups usually do."""
    of_groups = medians.groupby(["quantity", "group"])["median_ns"].median()
    centre = of_groups.groupby("quantity").median()
    deviation = (of_groups - centre.reindex(of_groups.index, level="quantity")).abs()
    scatter = NORMAL_MAD * deviation.groupby("quantity").median()
    enough = of_groups.groupby("quantity").size() >= GROUPS_FOR_SCATTER
    usual = (SCATTER * scatter).where(enough, 0.0)
    key = pd.MultiIndex.from_frame(table[["quantity", "group"]])
    beyond = deviation.reindex(key).to_numpy() > usual.reindex(table["quantity"]).to_numpy()
    return np.asarray((table["p_adjusted"].to_numpy(float) < DIFFERS) & beyond)
