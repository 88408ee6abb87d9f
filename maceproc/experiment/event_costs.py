"""What one event costs, from the pings of tracers that record more events or fewer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.experiment.tables import EVENT_COSTS
from maceproc.following.perturbation import spread_ties
from maceproc.units import NS_PER_US

# The line is supported when its RTT at zero events and the untraced RTT are equivalent within the
# larger of these margins.
SUPPORT_NS, SUPPORT_SHARE = 1 * NS_PER_US, 0.05


def event_costs(pings: pd.DataFrame) -> pd.DataFrame:
    """Return EVENT_COSTS: the slope of the RTT over the events on the path, and the RTT at zero.

    Each run is a point: the mean number of its events, and the median of its RTTs. The line is
    fitted to the traced runs only. It is supported when it meets the untraced runs at zero events.
    """
    rows = []
    for (flows, place), part in pings.groupby(["flows", "place"], observed=True):
        runs = _runs_of(part)
        untraced = runs[runs["tracer"] == ""].set_index("round")["rtt_ns"]
        counted = (runs["tracer"] != "") & runs["events"].notna()  # a BPF tracer has no events
        traced = runs[counted & runs["round"].isin(untraced.index)]
        if traced["tracer"].nunique() < 2 or untraced.empty:
            continue
        above = traced["rtt_ns"] - traced["round"].map(untraced)
        line = statistics.slope_within_rounds(
            traced["events"].to_numpy(), above.to_numpy(), traced["round"].to_numpy()
        )
        untraced_ns, off = float(untraced.mean()), line.at_zero
        allowed_ns = max(SUPPORT_NS, SUPPORT_SHARE * untraced_ns)
        supported = bool(line.slope.low_ns > 0 and off.margin_ns <= allowed_ns)
        found = (untraced_ns + off.estimate_ns, untraced_ns, *off[:3], supported)
        rows.append((flows, str(place), *line.slope[:3], *found))
    return EVENT_COSTS.from_rows(rows)


def _runs_of(pings: pd.DataFrame) -> pd.DataFrame:
    """Return for every run the median RTT [ns] and the mean number of events."""
    answered = pings[pings["rtt_ns"].notna() & (pings["status"] != "duplicate")]
    spread = spread_ties(
        answered["rtt_ns"].astype("float64"), answered["rtt_resolution_ns"], answered["started_ns"]
    )
    table = answered.assign(rtt_ns=spread, events=answered["events"].astype("float64"))
    grouped = table.groupby(["round", "tracer"], observed=True)
    runs = grouped.agg(rtt_ns=("rtt_ns", "median"), events=("events", "mean"))
    return runs.reset_index().astype({"tracer": str})


def add_untraced(pings: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Add `untraced_rtt_ns` [ns]: the corrected RTT without the cost of the events left in it."""
    outside = (pings["events"] - pings["events_inside"]).astype("Float64")
    cost_ns = pd.Series(np.nan, index=pings.index, dtype="float64")
    for row in costs[costs["supported"]].itertuples():
        cost_ns[(pings["flows"] == row.flows) & (pings["place"] == row.place)] = row.cost_ns
    reduced = pings["bare_metal_rtt_ns"].astype("Float64") - outside * cost_ns
    return pings.assign(untraced_rtt_ns=reduced.where(cost_ns.notna()).round().astype("Int64"))
