"""Reasons to doubt the results of an experiment: rows of `maceproc.schema.FINDINGS`."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from maceproc import statistics
from maceproc.experiment.values import SeriesValues
from maceproc.statistics import ROUNDS_TO_RESAMPLE
from maceproc.units import NS_PER_US, format_share, format_us

Finding = tuple[str, str, str, str]

WANTED_NS = 1 * NS_PER_US  # the half width for which the number of rounds needed is computed
ENOUGH_CORRECTED = 0.99  # the share of answered pings that must be corrected


def unfinished(blocks: int, planned: int) -> Iterator[Finding]:
    """Yield a finding when blocks of the plan are missing."""
    if blocks < planned:
        yield (
            "unfinished",
            "warning",
            f"{blocks} of {planned} blocks are finished",
            "run the same command again: it goes on where it ended",
        )


def few_rounds(rounds: int) -> Iterator[Finding]:
    """Yield a finding when there are too few rounds to resample."""
    if rounds < ROUNDS_TO_RESAMPLE:
        yield (
            "few rounds",
            "warning",
            f"{rounds} rounds prove little: the intervals come from the pings within a round",
            f"go on with --rounds {ROUNDS_TO_RESAMPLE} or more",
        )


def drifts(comparisons: pd.DataFrame) -> Iterator[Finding]:
    """Yield a finding for every difference of medians that is refused, from COMPARISONS."""
    refused = comparisons[comparisons["refused"] != ""]
    for row in refused[refused["statistic"] == "median"].itertuples():
        tracer = f" of {row.tracer}" if row.tracer else ""
        yield (
            "drift",
            "problem",
            f"{row.comparison}{tracer} at {row.flows} flows is no evidence: {row.refused}",
            "repeat it on a quieter machine",
        )


def lost_events(events: pd.DataFrame) -> Iterator[Finding]:
    """Yield a finding for every tracer that lost events, from EVENTS."""
    for row in events[events["lost"] > 0].drop_duplicates("tracer").itertuples():
        yield (
            "lost events",
            "warning",
            f"{row.tracer} lost events, {row.lost} at {row.flows} flows",
            "give a larger --buffer-kb",
        )


def too_few_corrected(series: pd.DataFrame, values: SeriesValues, tracer: str) -> Iterator[Finding]:
    """Yield a finding for every level at which pings could not be corrected, from SERIES."""
    medians = series[(series["statistic"] == "median") & (series["tracer"] == tracer)]
    for row in medians[medians["series"] == "container corrected"].itertuples():
        if row.used < ENOUGH_CORRECTED * row.of:
            rows = values.rows(row.flows, row.series, row.tracer)
            reasons = rows.loc[rows["bare_metal_rtt_ns"].isna(), "reason"].value_counts()
            yield (
                "coverage",
                "warning",
                f"at {row.flows} flows only {row.used} of {row.of} answered pings could be "
                f"corrected; most often: {reasons.index[0]} ({reasons.iloc[0]})",
                "see the column `reason` of pings.parquet",
            )


def rounds_needed(values: SeriesValues, tracer: str) -> Iterator[Finding]:
    """Say how many rounds it takes to know corrected - native with a half width of `WANTED_NS`."""
    for flows in values.levels:
        pairs = statistics.pair_rounds(
            values.table(flows, "container corrected", tracer),
            values.table(flows, "native untraced"),
        )
        needed = statistics.precision_needed(list(pairs.values()), WANTED_NS)
        if needed is not None:
            yield (
                "precision",
                "note",
                f"at {flows} flows, corrected - native to +-{format_us(WANTED_NS)} us takes "
                f"{needed.rounds} rounds as long as these ({needed.pings} pings an arm); "
                f"{format_share(needed.within_share)} of the variance comes from the pings within "
                "a round",
                "",
            )
