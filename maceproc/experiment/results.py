"""The results of an experiment, from its files alone.

Estimates are means over rounds, with intervals from resampling rounds: `maceproc.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from maceproc.errors import CaptureError
from maceproc.experiment import findings
from maceproc.experiment.details import cost_ratio_rows, segment_rows, shift_rows
from maceproc.experiment.differences import comparison_rows, series_rows
from maceproc.experiment.event_costs import add_untraced, event_costs
from maceproc.experiment.plan import Block, Experiment, finished, load_experiment
from maceproc.experiment.read import read_pings
from maceproc.experiment.tables import (
    COMPARISONS,
    COST_RATIOS,
    RATES,
    SEGMENTS,
    SERIES,
    SHIFTS,
)
from maceproc.experiment.traffic import rate_rows
from maceproc.experiment.values import SeriesValues
from maceproc.schema import FINDINGS
from maceproc.statistics import NOTHING, Estimate


@dataclass(frozen=True)
class Results:
    """An experiment's tables; each is computed when it is first asked for."""

    directory: Path
    experiment: Experiment
    blocks: list[Block]  # those that are finished
    raw_pings: pd.DataFrame
    events: pd.DataFrame

    @cached_property
    def event_costs(self) -> pd.DataFrame:
        """What an event costs, by place and level: `EVENT_COSTS`."""
        return event_costs(self.raw_pings)

    @cached_property
    def pings(self) -> pd.DataFrame:
        """Every ping: `PINGS`, and two columns more [ns].

        `off_wire_ns` is the corrected RTT without the wire: the time spent on this host.
        `untraced_rtt_ns` is the corrected RTT minus the cost of the events outside the crossings.
        It is unknown where the cost of an event is not supported, see `EVENT_COSTS`.
        """
        pings = add_untraced(self.raw_pings, self.event_costs)
        return pings.assign(off_wire_ns=pings["bare_metal_rtt_ns"] - pings["wire_rtt_ns"])

    @cached_property
    def values(self) -> SeriesValues:
        """The values of every series, by level, tracer and round."""
        return SeriesValues(self.pings)

    @cached_property
    def series(self) -> pd.DataFrame:
        """Location and spread of every series: `SERIES`."""
        return SERIES.from_rows(list(series_rows(self.values, self.tracers)))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Every difference between series: `COMPARISONS`."""
        return COMPARISONS.from_rows(list(comparison_rows(self.values, self.tracers)))

    @cached_property
    def cost_ratios(self) -> pd.DataFrame:
        """What the first tracer costs against every other: `COST_RATIOS`."""
        return COST_RATIOS.from_rows(list(cost_ratio_rows(self.values, self.tracers)))

    @cached_property
    def shifts(self) -> pd.DataFrame:
        """Differences of the deciles: `SHIFTS`."""
        return SHIFTS.from_rows(list(shift_rows(self.values, self.tracer)))

    @cached_property
    def segments(self) -> pd.DataFrame:
        """Where corrected and native RTTs of the first tracer differ: `SEGMENTS`."""
        return SEGMENTS.from_rows(list(segment_rows(self.values, self.tracer)))

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The traffic of every level: `RATES`."""
        return RATES.from_rows(list(rate_rows(self.directory, self.blocks)))

    @cached_property
    def findings(self) -> pd.DataFrame:
        """Reasons to doubt the results: `maceproc.schema.FINDINGS`."""
        rows = [
            *findings.unfinished(len(self.blocks), len(list(self.experiment.blocks()))),
            *findings.few_rounds(self.rounds),
            *findings.drifts(self.comparisons),
            *findings.lost_events(self.events),
            *findings.too_few_corrected(self.series, self.values, self.tracer),
            *findings.rounds_needed(self.values, self.tracer),
        ]
        return FINDINGS.from_rows(rows)

    @property
    def rounds(self) -> int:
        """How many rounds are finished, at one level at least."""
        return len({block.round for block in self.blocks})

    @property
    def tracer(self) -> str:
        """The tracer that the corrected series are of: the first one."""
        return self.tracers[0]

    @property
    def tracers(self) -> list[str]:
        """Every tracer of the plan."""
        return self.experiment.plan.tracers

    def comparison(
        self, flows: int, name: str, tracer: str = "", statistic: str = "median"
    ) -> Estimate:
        """Return one difference; `maceproc.statistics.NOTHING` when it was not measured."""
        table = self.comparisons
        found = table[
            (table["flows"] == flows)
            & (table["comparison"] == name)
            & (table["tracer"] == tracer)
            & (table["statistic"] == statistic)
        ]
        columns = list(Estimate._fields)
        return Estimate(*found[columns].iloc[0]) if len(found) else NOTHING


def read_results(directory: Path, tell: Callable[[int, int], None] = lambda *_: None) -> Results:
    """Read the captures of an experiment, and follow the packets of each.

    `tell` is called with the number of captures read so far, and the number of all. Raises
    CaptureError when there is no experiment or no finished block.
    """
    experiment = load_experiment(directory)
    kept = finished(directory)
    blocks = [block for block in experiment.blocks() if (block.round, block.flows) in kept]
    if not blocks:
        raise CaptureError(
            f"{directory}: no block is finished", hint="run the experiment first, or further"
        )
    pings, events = read_pings(directory, blocks, experiment.plan.tracers, tell)
    return Results(directory, experiment, blocks, pings, events)
