"""Where and by how much the series of an experiment differ in detail.

Ratios of what tracers cost, segments of the ledger, and deciles of the distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.experiment.differences import sums_by_round
from maceproc.experiment.series import DIFFERENCES
from maceproc.experiment.values import SeriesValues
from maceproc.ledger import SHARED


def cost_ratio_rows(values: SeriesValues, tracers: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Yield rows of COST_RATIOS: what the first tracer costs against every other one."""
    first, *others = tracers
    for flows in values.levels:
        costs = {
            tracer: sums_by_round(values, flows, DIFFERENCES["perturbation, container"], tracer)
            for tracer in (first, *others)
        }
        for other in others:
            rounds = sorted(costs[first].keys() & costs[other])
            pair = (np.array([costs[tracer][n] for n in rounds]) for tracer in (first, other))
            yield (flows, first, other, *statistics.ratio(*pair))


def segment_rows(values: SeriesValues, tracer: str) -> Iterator[tuple[object, ...]]:
    """Yield rows of SEGMENTS: the ledger of the container's pings against that of native ones."""
    for flows in values.levels:
        container, native = (
            values.rows(flows, f"{place} corrected", tracer) for place in ("container", "native")
        )
        container, native = (
            rows[rows["status"].isin(["corrected", "native"])] for rows in (container, native)
        )
        for segment in SHARED:
            ours, theirs = (
                pd.DataFrame(
                    {"round": rows["round"], "value_ns": rows[segment.column].astype("float64")}
                )
                for rows in (container, native)
            )
            pairs = statistics.pair_rounds(ours.dropna(), theirs.dropna())
            if pairs:
                both = (float(table["value_ns"].mean()) for table in (ours, theirs))
                found = statistics.difference(list(pairs.values()), statistics.mean)
                yield (flows, segment.name, *both, *found)


SHIFTED = ("container overhead", "perturbation, container", "corrected - native untraced")


def shift_rows(values: SeriesValues, tracer: str) -> Iterator[tuple[object, ...]]:
    """Yield rows of SHIFTS: how far the deciles of two series are apart."""
    for flows in values.levels:
        for name in SHIFTED:
            (first, _), (second, _) = DIFFERENCES[name]
            pairs = statistics.pair_rounds(
                values.table(flows, first, tracer),
                values.table(flows, second, tracer),
            )
            for row in zip(*statistics.shift_function(list(pairs.values())), strict=True):
                yield (flows, name, *row)
