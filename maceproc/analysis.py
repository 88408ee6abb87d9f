"""What an analysis consists of, and a comparison of analyses: their tables, and nothing else.

Everything that shows results takes these. What users hold, `maceproc.Analysis` and
`maceproc.Comparison`, are the same tables with ways to show them; see `maceproc.pipeline` and
`maceproc.comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maceproc import schema
from maceproc.schema import Column, Table

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.capture_files import Capture
    from maceproc.following.calibrating import Native
    from maceproc.schema import Trace


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Analysis:
    """The tables of one capture, from its events to corrected RTTs.

    Every table is a DataFrame; `maceproc.schema` declares its columns with unit and meaning. Two
    analyses are equal only if they are the same object.

    Attributes
    ----------
    capture
        The trace file, and its sidecar where there is one.
    trace
        The events that the analysis used, and what was lost.
    hops
        A row per event of a journey: ``a.hops[a.hops["journey"] == 7]`` is one packet's way.
    crossings
        A row per packet between the container's device and the outer one:
        ``a.crossings.groupby("direction")["latency_ns"].median()``.
    pings
        A row per ping as it was printed: ``a.pings[a.pings["status"] == "unanswered"]``.
    rtts
        A row per ping, corrected or with the reason why not:
        ``a.rtts[["seq", "rtt_ns", "bare_metal_rtt_ns", "status"]]``.
    steps
        A row per step of the usual way, with its median over the corrected pings:
        ``a.steps.nlargest(3, "median_ns")``.
    series
        A row per way of looking at the pings, raw, corrected, native:
        ``a.series.set_index("series")["median_ns"]``.
    comparisons
        A row per difference between two series, with its interval:
        ``a.comparisons[["comparison", "estimate_ns", "low_ns", "high_ns"]]``.
    findings
        A row per reason to doubt a result: ``a.findings[a.findings["level"] == "problem"]``.
    events_on_path
        A row per traced ping, with the number of events on its way:
        ``a.events_on_path["events"].median()``.
    event_costs
        A row per traced arm: ``a.event_costs[["arm", "cost_ns", "verdict"]]``.
    native
        How `native_rtt_ns` came about, and what is left of it.
    """

    capture: Capture
    trace: Trace
    hops: pd.DataFrame
    crossings: pd.DataFrame
    pings: pd.DataFrame
    rtts: pd.DataFrame
    steps: pd.DataFrame
    series: pd.DataFrame
    comparisons: pd.DataFrame
    findings: pd.DataFrame
    events_on_path: pd.DataFrame
    event_costs: pd.DataFrame
    native: Native

    @property
    def journeys(self) -> pd.DataFrame:
        """The JOURNEYS table, a row per packet."""
        from maceproc.following.journeys import journeys_table

        return journeys_table(self.hops)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Captures side by side.

    Attributes
    ----------
    analyses
        The analyses by label. The others are compared with the first one.
    captures, quantities, contrasts
        The tables `CAPTURES`, `QUANTITIES` and `CONTRASTS`.
    notes
        In what else the captures differ, one sentence each.
    """

    analyses: Mapping[str, Analysis]
    captures: pd.DataFrame
    quantities: pd.DataFrame
    contrasts: pd.DataFrame
    notes: tuple[str, ...]


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

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        schema.RTTS,
        schema.PINGS,
        schema.CROSSINGS,
        schema.JOURNEYS,
        schema.HOPS,
        schema.STEPS,
        schema.SERIES,
        schema.COMPARISONS,
        schema.FINDINGS,
        schema.LOST,
    )
}
"""The tables of an analysis, by name."""
