"""The system calls that a ping sends and receives with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from maceproc.following.crossings import OUTBOUND
from maceproc.schema import DELIVERIES, SENDS, Table

# Only the event of sendto has the length of the datagram.
SEND_CALLS = ("sys_enter_sendto", "sys_enter_sendmsg")
RECEIVE_CALLS = ("sys_exit_recvmsg", "sys_exit_recvfrom")


def sends_table(events: Mapping[str, pd.DataFrame], crossings: pd.DataFrame) -> pd.DataFrame:
    """Return SENDS, in order of time, from the tables of a trace.

    Where no send call was recorded, a request's first event stands in its place: what a task
    queued on the container's device. Then the residual holds the way through the stack too.
    """
    if any(name in events for name in SEND_CALLS):
        return _calls(events, SEND_CALLS, SENDS)
    whole = (crossings["direction"] == OUTBOUND) & (crossings["status"] == "complete")
    requests = crossings[whole & ~crossings["softirq"]].sort_values("entered_ns")
    data = {"time_ns": requests["entered_ns"], "pid": requests["pid"]}
    unknown = pd.array([None] * len(requests), dtype="Int64")
    return SENDS.frame(data | {"fd": np.zeros(len(requests)), "len": unknown})


def deliveries_table(events: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return DELIVERIES, in order of time: receive calls that returned data."""
    # A ping that spins has hundreds of calls without data for every one with some.
    returned = {
        name: events[name][(events[name]["ret"] > 0).fillna(False).to_numpy(bool)]
        for name in RECEIVE_CALLS
        if name in events and "ret" in events[name]
    }
    return _calls(returned, RECEIVE_CALLS, DELIVERIES)


def _calls(
    events: Mapping[str, pd.DataFrame], names: tuple[str, ...], table: Table
) -> pd.DataFrame:
    calls = [events[name] for name in names if name in events]
    if not calls:
        return table.frame()
    merged = pd.concat([call.reindex(columns=table.names) for call in calls])
    # In damaged text a field can be missing: what such a call did is not known.
    needed = [column.name for column in table.columns if not column.dtype[0].isupper()]
    merged = merged.dropna(subset=needed)
    if not merged["time_ns"].is_monotonic_increasing:
        merged = merged.sort_values("time_ns", kind="stable")
    return table.frame(merged)
