"""The values of an experiment's series, by level of traffic, tracer and round."""

from __future__ import annotations

import pandas as pd

from maceproc.experiment.series import SOURCES, is_printed
from maceproc.following.perturbation import spread_ties
from maceproc.statistics import Values


class SeriesValues:
    """The values of every series, round by round.

    Printed RTTs are spread over the step they were rounded to, see
    `maceproc.following.perturbation.spread_ties`.
    """

    def __init__(self, pings: pd.DataFrame) -> None:
        self.levels = sorted(int(flows) for flows in pings["flows"].unique())
        groups = pings.groupby(["flows", "place", "tracer"], observed=True, sort=False)
        self._rows = dict(iter(groups))

    def rows(self, flows: int, series: str, tracer: str = "") -> pd.DataFrame:
        """Return the rows of PINGS that a series is taken from; a control has untraced rows."""
        source = SOURCES[series]
        key = (flows, source.place, tracer if source.traced else "")
        return self._rows.get(key, next(iter(self._rows.values())).iloc[:0])

    def table(self, flows: int, series: str, tracer: str = "") -> pd.DataFrame:
        """Return columns ``round`` and ``value_ns`` of the pings that have a value."""
        rows, column = self.rows(flows, series, tracer), SOURCES[series].column
        rows = rows[rows[column].notna() & (rows["status"] != "duplicate")]
        value_ns = rows[column].astype("float64")
        if is_printed(SOURCES[series]):
            value_ns = spread_ties(value_ns, rows["rtt_resolution_ns"], rows["round"])
        return pd.DataFrame({"round": rows["round"], "value_ns": value_ns})

    def by_round(self, flows: int, series: str, tracer: str = "") -> dict[int, Values]:
        """Return the values of every round."""
        table = self.table(flows, series, tracer)
        return {
            int(number): values.to_numpy() for number, values in table.groupby("round")["value_ns"]
        }

    def started(self, flows: int, series: str, tracer: str = "") -> pd.Series:
        """Return when the series' run of each round began [ns]."""
        return self.rows(flows, series, tracer).groupby("round")["started_ns"].first()
