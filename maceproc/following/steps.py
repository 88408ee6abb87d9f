"""Where the time of a crossing goes, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from maceproc import ledger
from maceproc.following.crossings import INBOUND, OUTBOUND
from maceproc.schema import STEPS


def steps_of(hops: pd.DataFrame, crossings: pd.DataFrame, rtts: pd.DataFrame) -> pd.DataFrame:
    """Return STEPS: the corrected pings' crossings hop by hop, for the way that most took."""
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
    usual = crossings[length == length.mode().iloc[0]]["first_hop"].to_numpy()
    times_ns = hops["time_ns"].to_numpy()
    for step in range(int(length.mode().iloc[0]) - 1):
        here = usual + step
        took_ns = times_ns[here + 1] - times_ns[here]
        median, p95 = np.percentile(took_ns, [50, 95])
        start, end = _label(hops, here[0]), _label(hops, here[0] + 1)
        rows.append((direction, step, start, end, len(here), median, p95, CROSSING[direction]))
    if rows and _waits_to_be_sent(*rows[-1][:1], *rows[-1][2:4]):
        rows[-1] = (*rows[-1][:-1], ledger.OUTER_QUEUE.name)
    return rows


CROSSING = {OUTBOUND: ledger.OUTBOUND.name, INBOUND: ledger.INBOUND.name}


def _waits_to_be_sent(direction: object, start: object, end: object) -> bool:
    """Tell whether a last step is the wait in the outer device's queue, after the crossing."""
    (here, queued), (there, sent) = (str(label).rsplit(" ", 1) for label in (start, end))
    events = ("net_dev_queue", "net_dev_start_xmit")
    return direction == OUTBOUND and here == there and (queued, sent) == events


def _label(hops: pd.DataFrame, row: int) -> str:
    hop = hops.iloc[row]
    where = f"{hop['netns']}:{hop['dev']}" if pd.notna(hop["netns"]) else str(hop["dev"])
    return f"{where} {hop['event']}"
