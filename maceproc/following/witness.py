"""Check what was matched by hop and by time against what the packets carry.

Where both tracers ran at once, the one in the kernel has recorded which packets belong to each
echo, by their content. Each match of the analysis of the events is one of four checks:

    outbound   the request that was queued on the outer device is that of the container's device
    inbound    the reply received on the container's device is that of the outer device
    request    the request given to a ping carries the ping's number, and its process sent it
    reply      the reply given to a ping answers the echo of that number and process

An event and a row are of the same packet when they are of the same tracepoint: the same address of
the sk_buff, at the nearest time, and no second event is as near to that row. The two
ends of a match are looked for separately. A match whose row cannot be found in this way is not
witnessed: packets with one address may follow one another faster than an interrupt between the two
tracers lasts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maceproc.capture import Run
from maceproc.pairing import Rows
from maceproc.schema import WITNESSED

SAME_EVENT_NS = 50_000
"""Two tracers read the time of one tracepoint in turn; an interrupt may come in between."""
RIGHT, WRONG, NOT_WITNESSED = "right", "wrong", "not witnessed"


def witness(
    rtts: pd.DataFrame,
    crossings: pd.DataFrame,
    hops: pd.DataFrame,
    runs: Iterable[Run],
    rows: Rows,
) -> pd.DataFrame:
    """Return WITNESSED: a row for every match that was checked.

    Parameters
    ----------
    rtts, crossings, hops
        The analysis of the events: RTTS, CROSSINGS and HOPS.
    runs
        The runs of the capture: their pids tell whose echoes are whose.
    rows
        The rows of the tracer in the kernel from the same time.
    """
    whole = crossings[crossings["status"] == "complete"].reset_index(drop=True)
    outbound = (whole["direction"] == "outbound").to_numpy()
    begin, end = (_row_of_events(whole, hops, rows, outbound, name) for name in ("entered", "left"))
    witnessed = (begin >= 0) & (end >= 0)
    there = rows[np.maximum(begin, 0)] if len(rows) else np.zeros(len(whole), rows.dtype)
    by_hop = pd.DataFrame(
        {
            "check": np.where(outbound, "outbound", "inbound"),
            "round": 0,
            "seq": there["seq"].astype(np.int64),
            "journey": whole["journey"].to_numpy(),
            "outcome": _outcome(witnessed, begin == end),
        }
    )
    # A ping sends and receives on the container's device: that end of a crossing tells its ping.
    inside = np.where(outbound, begin, end)
    row_of_journey = dict(
        zip(zip(by_hop["check"], whole["journey"], strict=True), inside.tolist(), strict=True)
    )
    ids = {(run.round, run.arm): _id_of(run, rows) for run in runs}
    of_pings = [
        _of_pings(rtts, "request", "outbound_journey", row_of_journey, ids, rows),
        _of_pings(rtts, "reply", "inbound_journey", row_of_journey, ids, rows),
    ]
    return WITNESSED.frame(pd.concat([by_hop, *of_pings], ignore_index=True))


def rows_of_crossings(crossings: pd.DataFrame, hops: pd.DataFrame, rows: Rows) -> NDArray[np.int64]:
    """Return the row that both ends of each complete crossing are of; -1 where it is not told."""
    outbound = (crossings["direction"] == "outbound").to_numpy()
    begin, end = (
        _row_of_events(crossings, hops, rows, outbound, name) for name in ("entered", "left")
    )
    return np.where(begin == end, begin, -1)


def _of_pings(
    rtts: pd.DataFrame,
    name: str,
    column: str,
    row_of_journey: dict[tuple[str, int], int],
    ids: dict[tuple[int, str], int],
    rows: Rows,
) -> pd.DataFrame:
    """Check the packets that pings of the container were corrected by."""
    corrected = (rtts["arm"] == "container traced") & (rtts["status"] == "corrected")
    given = rtts[rtts[column].notna() & corrected]
    direction = "outbound" if name == "request" else "inbound"
    journeys = given[column].to_numpy(np.int64)
    row_of = np.array([row_of_journey.get((direction, j), -1) for j in journeys.tolist()], np.int64)
    there = rows[np.maximum(row_of, 0)] if len(rows) else np.zeros(len(given), rows.dtype)
    runs = zip(given["round"], given["arm"], strict=True)
    own = np.array([ids.get(run, -1) for run in runs], np.int64)
    seq = given["seq"].to_numpy(np.int64)
    same = (there["seq"] == (seq & 0xFFFF)) & (there["id"] == own)
    return pd.DataFrame(
        {
            "check": name,
            "round": given["round"].to_numpy(),
            "seq": seq,
            "journey": journeys,
            "outcome": _outcome((row_of >= 0) & (own >= 0), same),
        }
    )


def _id_of(run: Run, rows: Rows) -> int:
    """Return the ICMP identifier of a run's process: that of most echoes it sent; -1 for none.

    Not every echo has its pid: one that waits for a neighbour's address is sent in softirq.
    """
    ids, counts = np.unique(rows["id"][rows["pid"] == (run.pid or 0)], return_counts=True)
    return int(ids[np.argmax(counts)]) if len(ids) else -1


def _row_of_events(
    crossings: pd.DataFrame,
    hops: pd.DataFrame,
    rows: Rows,
    outbound: NDArray[np.bool_],
    end: str,
) -> NDArray[np.int64]:
    """Return the row that one end of each crossing is of; -1 where that is not told."""
    first = hops["skbaddr"].to_numpy()[crossings["first_hop"].to_numpy()]
    at_ns = crossings[f"{end}_ns"].to_numpy(np.int64)
    names = _TIMES[end]
    found = np.full(len(crossings), -1, np.int64)
    for chosen, address, time in zip(
        (outbound, ~outbound), ("request_skb", "reply_skb"), names, strict=True
    ):
        there = rows[time] > 0
        places = np.flatnonzero(there)
        near = _nearest(rows[address][there], rows[time][there], first[chosen], at_ns[chosen])
        found[chosen] = np.where(near >= 0, places[near] if len(places) else -1, -1)
        claimed, times = np.unique(found[chosen], return_counts=True)
        several = claimed[(times > 1) & (claimed >= 0)]
        found[chosen & np.isin(found, several)] = -1
    return found


_TIMES = {
    "entered": ("queued_ns", "outer_received_ns"),
    "left": ("outer_queued_ns", "received_ns"),
}


def _outcome(witnessed: NDArray[np.bool_], right: NDArray[np.bool_]) -> NDArray[np.object_]:
    return np.where(~witnessed, NOT_WITNESSED, np.where(right, RIGHT, WRONG)).astype(object)


def _nearest(
    addresses: NDArray[np.uint64],
    times_ns: NDArray[np.uint64],
    wanted: NDArray[np.uint64],
    at_ns: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return for each wanted address and time the place of the nearest one; -1 if none is near."""
    if not len(addresses):
        return np.full(len(wanted), -1, np.int64)
    times = times_ns.astype(np.int64)
    order = np.lexsort((times, addresses))
    sorted_addresses, sorted_times = addresses[order], times[order]
    # Addresses by their rank, so that address and time are one number that can be searched.
    unique, rank = np.unique(sorted_addresses, return_inverse=True)
    wanted_rank = np.searchsorted(unique, wanted)
    known = wanted_rank < len(unique)
    known[known] = unique[wanted_rank[known]] == wanted[known]
    base = min(int(sorted_times.min()), int(at_ns.min(initial=sorted_times.min())))
    span = max(int(sorted_times.max()), int(at_ns.max(initial=0))) - base + 1
    if span * (len(unique) + 1) >= 2**63:
        raise ValueError("too long a time for so many addresses")
    keys = rank.astype(np.int64) * span + (sorted_times - base)
    right = np.searchsorted(keys, wanted_rank * span + (at_ns - base))
    best = np.full(len(wanted), -1, np.int64)
    distance = np.full(len(wanted), SAME_EVENT_NS + 1, np.int64)
    for place in (right - 1, right):
        inside = known & (place >= 0) & (place < len(keys))
        at = np.clip(place, 0, len(keys) - 1)
        near = np.abs(sorted_times[at] - at_ns)
        better = inside & (rank[at] == wanted_rank) & (near < distance)
        best[better], distance[better] = order[at[better]], near[better]
    return best
