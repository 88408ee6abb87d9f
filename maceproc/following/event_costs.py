"""What watching cost: the events that fell into each ping's time, and what they took of its RTT.

Every event that is recorded while a packet is handled delays that packet. An event between the send
call and the receive stamp on a CPU that handled the ping's packets is on its path. Those inside a
crossing go with it when the RTT is corrected; those outside stay in the corrected RTT.

What the events cost is measured where the same ping ran untraced too, and the cost of an event is
that divided by their number. Without untraced runs it is only estimated, from what an event is
known to cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.schema import OBSERVED, OBSERVER

Counts = npt.NDArray[np.int64]
Times = npt.NDArray[np.int64]

# What an event costs where nothing measures it: hot, and at most with cold caches. Measured with
# 2 to 34 events per ping on kernel 6.18, see docs/experiment.
USUAL_COST_NS = (100.0, 1300.0)
UNTOLD = "not told from nothing"
SMALL_SHARE, LARGE_SHARE = 0.02, 0.10  # of the RTT

# Segments of the ledger in the order of time, and what part of the way they are.
_SEGMENTS: Mapping[str, str] = {
    "tx_stack_ns": "outside",
    "outbound_ns": "inside",
    "outer_queue_ns": "outside",
    "wire_rtt_ns": "wire",
    "inbound_ns": "inside",
    "delivery_ns": "outside",
}
_RETURNING = ("inbound_ns", "delivery_ns")


def times_by_cpu(events: Mapping[str, pd.DataFrame]) -> dict[int, Times]:
    """Return when events were recorded on each CPU [ns], sorted; from all tables of a trace."""
    parts: dict[int, list[Times]] = {}
    for table in events.values():
        cpus, times = table["cpu"].to_numpy(), table["time_ns"].to_numpy(np.int64)
        for cpu in np.unique(cpus):
            parts.setdefault(int(cpu), []).append(times[cpus == cpu])
    sorted_times = {}
    for cpu in sorted(parts):
        merged = np.concatenate(parts.pop(cpu))
        merged.sort()
        sorted_times[cpu] = merged
    return sorted_times


def count_events(
    rtts: pd.DataFrame, hops: pd.DataFrame, times: Mapping[int, Times]
) -> pd.DataFrame:
    """Return OBSERVED: for every traced ping that was matched, the events in its time.

    `times` are those of `times_by_cpu`, of every event that was enabled. What happens while the
    packets are on the wire delays them only where the remote host is in this kernel, as in the lab:
    where the request is seen to be received again.
    """
    rows = rtts[rtts["status"].isin(["corrected", "native"]) & rtts["received_ns"].notna()]
    ways = _ways(hops)
    out, back = (
        ways.reindex(rows[f"{direction}_journey"].to_numpy(np.int64, na_value=-1))
        for direction in ("outbound", "inbound")
    )
    counts: dict[str, Counts] = dict.fromkeys(
        ("inside", "outside", "wire"), np.zeros(len(rows), np.int64)
    )
    start = rows["sent_ns"].to_numpy(np.int64)
    received_here = np.zeros(len(rows), np.bool_)
    for segment, part in _SEGMENTS.items():
        end = start + rows[segment].fillna(0).to_numpy(np.int64)
        cpus = (
            [back["first"], back["last"]] if segment in _RETURNING else [out["first"], out["last"]]
        )
        if segment == "wire_rtt_ns":
            cpus.append(back["first"])
            received_here = (out["received_ns"].to_numpy() > start) & (
                out["received_ns"].to_numpy() <= end
            )
        counts[part] = counts[part] + _count_on(times, start, end, cpus)
        start = end
    span = (rows["sent_ns"].to_numpy(np.int64), rows["received_ns"].to_numpy(np.int64))
    everywhere = [_between(recorded, *span) for recorded in times.values()]
    on_wire = np.where(received_here, counts["wire"], 0)
    return OBSERVED.frame(
        {
            **{name: rows[name] for name in ("round", "arm", "seq")},
            "events": counts["inside"] + counts["outside"] + on_wire,
            **{f"events_{part}": count for part, count in counts.items()},
            "events_anywhere": np.sum(everywhere, axis=0) if everywhere else counts["wire"],
        }
    )


def _ways(hops: pd.DataFrame) -> pd.DataFrame:
    """Return of every journey the CPU of its first and last hop, and its last reception [ns]."""
    ways = hops.groupby("journey", sort=False)["cpu"].agg(["first", "last"])
    received = hops[hops["event"].isin(["netif_rx", "netif_receive_skb"])]
    ways["received_ns"] = received.groupby("journey")["time_ns"].last()
    return ways


def _count_on(
    times: Mapping[int, Times], start: Times, end: Times, cpus: Sequence[pd.Series[Any]]
) -> Counts:
    """Count the events from start to before end on each of these CPUs, none of them twice."""
    counts = np.zeros(len(start), np.int64)
    for number, recorded in times.items():
        here = np.any([cpu.to_numpy() == number for cpu in cpus], axis=0)
        counts[here] += _between(recorded, start[here], end[here])
    return counts


def _between(times: Times, start: Times, end: Times) -> Counts:
    return np.searchsorted(times, end) - np.searchsorted(times, start)


def summarize(
    observed: pd.DataFrame, series: pd.DataFrame, comparisons: pd.DataFrame
) -> pd.DataFrame:
    """Return OBSERVER: for every traced arm, what its events cost.

    `series` and `comparisons` are those of the same analysis.
    """
    medians = series.set_index("series")["median_ns"]
    by_name = comparisons.set_index("comparison")
    rows = []
    for place, comparison in (
        ("container", "perturbation"),
        ("native", "perturbation, native"),
    ):
        pings = observed[observed["arm"] == f"{place} traced"]
        traced_ns = medians.get(f"{place}, traced", math.nan)
        if pings.empty or math.isnan(traced_ns):
            continue
        means = pings[["events", "events_inside", "events_anywhere"]].mean()
        cost, basis = _cost(by_name, comparison, means["events"])
        untraced_ns = medians.get(f"{place}, untraced", traced_ns - cost[0])
        inside = means["events_inside"] / means["events"] if means["events"] else 0.0
        rows.append(
            (
                f"{place} traced",
                len(pings),
                *means,
                *cost,
                cost[0] / means["events"] if means["events"] else math.nan,
                cost[0] * (1 - inside),
                cost[0] / untraced_ns,
                basis,
                _verdict(cost, untraced_ns),
            )
        )
    return OBSERVER.from_rows(rows)


def _cost(
    comparisons: pd.DataFrame, name: str, events: float
) -> tuple[tuple[float, float, float], str]:
    """Return what the events cost [ns], with its interval, and how that is known."""
    if name in comparisons.index and comparisons.loc[name, "refused"] == "":
        row = comparisons.loc[name]
        return (row["estimate_ns"], row["low_ns"], row["high_ns"]), "measured"
    low, high = (events * cost_ns for cost_ns in USUAL_COST_NS)
    return (math.sqrt(low * high), low, high), "assumed"


def _verdict(cost: tuple[float, float, float], untraced_ns: float) -> str:
    estimate_ns, low_ns, high_ns = cost
    if low_ns <= 0 <= high_ns:
        return UNTOLD
    share = abs(estimate_ns) / untraced_ns
    if share < SMALL_SHARE:
        return "negligible"
    return "small" if share < LARGE_SHARE else "large"
