"""Why a ping took longer than its neighbours, where the events show it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following.crossings import INBOUND, OUTBOUND
from maceproc.following.due import RESIDUAL_TOLERANCE_NS
from maceproc.units import NS_PER_US

QUEUE_WAIT_NS = 10 * NS_PER_US
"""Without a wait, a packet passes the queue of the outer device in less time than this."""

KSOFTIRQD = "ksoftirqd/"

Bools = npt.NDArray[np.bool_]


def label_causes(
    rtts: pd.DataFrame,
    hops: pd.DataFrame,
    crossings: pd.DataFrame,
    events: Mapping[str, pd.DataFrame],
) -> pd.Series:
    """Return a string per row of RTTS: the causes that events show, separated by commas."""
    found = pd.Series("", index=rtts.index, dtype="str")
    for cause, shown in _causes(rtts, hops, crossings, events).items():
        rows = np.asarray(shown)
        found[rows] = found[rows].where(found[rows] == "", found[rows] + ", ") + cause
    return found


def _causes(
    rtts: pd.DataFrame,
    hops: pd.DataFrame,
    crossings: pd.DataFrame,
    events: Mapping[str, pd.DataFrame],
) -> dict[str, Bools]:
    runs = rtts.groupby(["round", "arm"], observed=True)
    usual_residual_ns = runs["residual_ns"].transform("median")
    late_ns = rtts["residual_ns"] - usual_residual_ns - rtts["rtt_resolution_ns"]
    deferred, moved = _deferred(hops, crossings, events), _moved(hops, crossings)
    waited = crossings["softirq"].to_numpy() & (crossings["direction"] == OUTBOUND).to_numpy()
    return {
        "first packet": _true(rtts["sent_ns"] == runs["sent_ns"].transform("min")),
        "waited for a neighbour's address": _of_pings(waited, rtts, crossings),
        "deferred to ksoftirqd": _of_pings(deferred, rtts, crossings),
        "changed CPU": _of_pings(moved, rtts, crossings),
        "queued on the outer device": _true(rtts["outer_queue_ns"] > QUEUE_WAIT_NS),
        "held up before its send call": _true(late_ns > RESIDUAL_TOLERANCE_NS),
    }


def _deferred(
    hops: pd.DataFrame, crossings: pd.DataFrame, events: Mapping[str, pd.DataFrame]
) -> Bools:
    """Tell for each crossing whether ksoftirqd took part in it."""
    tables = [t[["pid", "comm"]].drop_duplicates() for t in events.values() if len(t)]
    tasks = pd.concat([table.astype({"comm": str}) for table in tables]) if tables else None
    if tasks is None:
        return np.zeros(len(crossings), dtype=np.bool_)
    daemons = tasks["pid"][tasks["comm"].str.startswith(KSOFTIRQD)].unique()
    return _count_within(crossings, hops["pid"].isin(daemons).to_numpy()) > 0


def _moved(hops: pd.DataFrame, crossings: pd.DataFrame) -> Bools:
    """Tell for each crossing whether the packet changed CPU during it."""
    cpu = hops["cpu"].to_numpy()
    return _count_within(crossings, np.append(False, cpu[1:] != cpu[:-1])[: len(cpu)], skip=1) > 0


def _count_within(crossings: pd.DataFrame, marked: Bools, skip: int = 0) -> npt.NDArray[np.int64]:
    """Count the marked hops within each crossing, without the first `skip`."""
    before = np.append(0, np.cumsum(marked))
    first, last = crossings["first_hop"].to_numpy(), crossings["last_hop"].to_numpy()
    return before[last + 1] - before[np.minimum(first + skip, last + 1)]


def _of_pings(marked: Bools, rtts: pd.DataFrame, crossings: pd.DataFrame) -> Bools:
    """Tell for each ping whether the crossing of its request or of its reply is marked."""
    shown = np.zeros(len(rtts), dtype=np.bool_)
    for direction, column in ((OUTBOUND, "outbound_journey"), (INBOUND, "inbound_journey")):
        rows = crossings[marked & (crossings["direction"] == direction)]
        shown |= _true(rtts[column].isin(rows["journey"]) & rtts[column].notna())
    return shown


def _true(values: pd.Series) -> Bools:
    return values.fillna(False).to_numpy(dtype=np.bool_)
