"""Where the time of a crossing goes, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from maceproc import ledger
from maceproc.following.crossings import INBOUND, OUTBOUND
from maceproc.schema import STEPS


def steps_of(hops: pd.DataFrame, crossings: pd.DataFrame, rtts: pd.DataFrame) -> pd.DataFrame:
    """Return STEPS: the crossings of the corrected pings, hop by hop, on the most common path."""
    corrected = rtts[rtts["status"] == "corrected"]
    rows = []
    for direction, column in ((OUTBOUND, "outbound_journey"), (INBOUND, "inbound_journey")):
        ours = crossings["journey"].isin(corrected[column]) & (crossings["status"] == "complete")
        ours &= crossings["direction"] == direction
        rows += _steps_of_direction(hops, crossings[ours], direction)
    return STEPS.from_rows(rows)


def _steps_of_direction(
    hops: pd.DataFrame, crossings: pd.DataFrame, direction: str
) -> list[Sequence[object]]:
    length = crossings["last_hop"] - crossings["first_hop"] + 1
    if crossings.empty:
        return []
    rows: list[Sequence[object]] = []
    usual = crossings[length == length.mode().iloc[0]]
    first, left_ns = usual["first_hop"].to_numpy(), usual["left_ns"].to_numpy("int64")
    times_ns = hops["time_ns"].to_numpy()
    for step in range(int(length.mode().iloc[0]) - 1):
        here = first + step
        took_ns = times_ns[here + 1] - times_ns[here]
        median, p95 = np.percentile(took_ns, [50, 95])
        start, end = _label(hops, here[0]), _label(hops, here[0] + 1)
        # The hops go on to the card's driver; the crossing ends where the outer device queues.
        after = np.mean(times_ns[here] >= left_ns) > 0.5
        segment = ledger.OUTER_QUEUE.name if after else CROSSING[direction]
        rows.append((direction, step, start, end, len(here), median, p95, segment))
    return rows


CROSSING = {OUTBOUND: ledger.OUTBOUND.name, INBOUND: ledger.INBOUND.name}


def _label(hops: pd.DataFrame, row: int) -> str:
    hop = hops.iloc[row]
    where = f"{hop['netns']}:{hop['dev']}" if pd.notna(hop["netns"]) else str(hop["dev"])
    return f"{where} {hop['event']}"
