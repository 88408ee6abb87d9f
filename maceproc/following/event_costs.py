"""What tracing cost: the events recorded during each ping, and how much they delayed it.

Every event that is recorded while a packet is handled delays that packet. An event is on the path
of a ping when it was recorded between the send call and the receive stamp, on a CPU that handled
one of the ping's packets. The correction takes out the events inside the crossings with the
crossings. The events outside of them stay in the corrected RTT.

Where the same ping also ran untraced, the total cost is measured as the difference, and the cost of
one event is the total divided by the number of events. Without untraced runs the cost is only
estimated, from `USUAL_COST_NS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.ledger import LEDGER
from maceproc.schema import EVENT_COSTS, EVENTS_ON_PATH
from maceproc.series import NATIVE_PERTURBATION, PERTURBATION

Counts = npt.NDArray[np.int64]
Times = npt.NDArray[np.int64]

# What one event costs where no untraced run measures it: the first value is with warm caches, the
# second one is the most with cold caches. Measured with 2 to 34 events per ping on kernel 6.18, see
# docs/experiment.
USUAL_COST_NS = (100.0, 1300.0)
UNTOLD = "not told from nothing"
IMPOSSIBLE = "tracing cannot speed a ping up: the rounds differ by more than the interval knows"
SMALL_SHARE, LARGE_SHARE = 0.02, 0.10  # of the RTT


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
    """Return EVENTS_ON_PATH: how many events were recorded during every traced, matched ping.

    `times` are those of `times_by_cpu`, of every enabled event. Events recorded while the packets
    are on the wire delay them only where the remote host is in the same kernel, as in the lab. That
    is so where the request is seen to be received again.
    """
    rows = rtts[rtts["status"].isin(["corrected", "native"]) & rtts["received_ns"].notna()]
    handled = _handled_on(hops)
    out, back = (
        handled.reindex(rows[f"{direction}_journey"].to_numpy(np.int64, na_value=-1))
        for direction in ("outbound", "inbound")
    )
    counts: dict[str, Counts] = dict.fromkeys(
        ("inside", "outside", "wire"), np.zeros(len(rows), np.int64)
    )
    start = rows["sent_ns"].to_numpy(np.int64)
    received_here = np.zeros(len(rows), np.bool_)
    for segment in LEDGER:
        if segment.part == "unseen":
            continue
        end = start + rows[segment.column].fillna(0).to_numpy(np.int64)
        inbound = segment.direction == "inbound"
        cpus = [back["first"], back["last"]] if inbound else [out["first"], out["last"]]
        if segment.part == "wire":
            cpus.append(back["first"])
            received_here = (out["received_ns"].to_numpy() > start) & (
                out["received_ns"].to_numpy() <= end
            )
        counts[segment.part] = counts[segment.part] + _count_on(times, start, end, cpus)
        start = end
    span = (rows["sent_ns"].to_numpy(np.int64), rows["received_ns"].to_numpy(np.int64))
    everywhere = [_between(recorded, *span) for recorded in times.values()]
    on_wire = np.where(received_here, counts["wire"], 0)
    return EVENTS_ON_PATH.frame(
        {
            **{name: rows[name] for name in ("round", "arm", "seq")},
            "events": counts["inside"] + counts["outside"] + on_wire,
            **{f"events_{part}": count for part, count in counts.items()},
            "events_anywhere": np.sum(everywhere, axis=0) if everywhere else counts["wire"],
        }
    )


def points_on_path(rtts: pd.DataFrame, hops: pd.DataFrame) -> pd.DataFrame:
    """Return EVENTS_ON_PATH of pings that the tracer in the kernel followed: their packets' hops.

    For a container's ping, the first hop of the request and that of the reply are within the
    crossings.
    """
    rows = rtts[rtts["status"].isin(["corrected", "native"])]
    count = hops.groupby("journey")["hop"].size()
    points = sum(
        count.reindex(
            rows[f"{direction}_journey"].to_numpy(np.int64, na_value=-1), fill_value=0
        ).to_numpy(np.int64)
        for direction in ("outbound", "inbound")
    )
    inside = np.where(rows["status"] == "corrected", 2, 0)
    return EVENTS_ON_PATH.frame(
        {
            **{name: rows[name] for name in ("round", "arm", "seq")},
            "events": points,
            "events_inside": inside,
            "events_outside": points - inside,
            "events_wire": np.zeros(len(rows), np.int64),
            "events_anywhere": points,
        }
    )


def _handled_on(hops: pd.DataFrame) -> pd.DataFrame:
    """Return for every journey the CPUs of its first and last hop, and its last reception [ns]."""
    journeys = hops.groupby("journey", sort=False)["cpu"].agg(["first", "last"])
    received = hops[hops["event"].isin(["netif_rx", "netif_receive_skb"])]
    journeys["received_ns"] = received.groupby("journey")["time_ns"].last()
    return journeys


def _count_on(
    times: Mapping[int, Times], start: Times, end: Times, cpus: Sequence[pd.Series[Any]]
) -> Counts:
    """Count the events from `start` up to but not including `end` on these CPUs, each CPU once."""
    counts = np.zeros(len(start), np.int64)
    for number, recorded in times.items():
        here = np.any([cpu.to_numpy() == number for cpu in cpus], axis=0)
        counts[here] += _between(recorded, start[here], end[here])
    return counts


def _between(times: Times, start: Times, end: Times) -> Counts:
    return np.searchsorted(times, end) - np.searchsorted(times, start)


def summarize(
    events_on_path: pd.DataFrame, series: pd.DataFrame, comparisons: pd.DataFrame
) -> pd.DataFrame:
    """Return EVENT_COSTS: for every traced arm, what its events cost.

    `series` and `comparisons` are those of the same analysis.
    """
    medians = series.set_index("series")["median_ns"]
    by_name = comparisons.set_index("comparison")
    rows = []
    for added in (PERTURBATION, NATIVE_PERTURBATION):
        arm = added.series.arm
        pings = events_on_path[events_on_path["arm"] == arm]
        traced_ns = medians.get(added.series.name, math.nan)
        if pings.empty or math.isnan(traced_ns):
            continue
        means = pings[["events", "events_inside", "events_anywhere"]].mean()
        cost, basis = _cost(by_name, added.name, means["events"])
        untraced_ns = medians.get(added.against.name, traced_ns - cost[0])
        inside = means["events_inside"] / means["events"] if means["events"] else 0.0
        rows.append(
            (
                arm,
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
    return EVENT_COSTS.from_rows(rows)


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
    if low_ns <= 0:  # also where the whole interval is negative: tracing cannot speed a ping up
        return UNTOLD if high_ns >= 0 else IMPOSSIBLE
    share = abs(estimate_ns) / untraced_ns
    if share < SMALL_SHARE:
        return "negligible"
    return "small" if share < LARGE_SHARE else "large"
