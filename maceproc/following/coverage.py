"""How many pings were corrected, and how far the others can change the results."""

from __future__ import annotations

from typing import Any

import pandas as pd

from maceproc.series import CONTAINER_TRACED, CORRECTED, NATIVE_TRACED


def traced_pings(rtts: pd.DataFrame) -> pd.DataFrame:
    """Return the container's traced pings of RTTS; where there are none, the native ones.

    A capture is about these; native pings beside the container's are there to compare with.
    """
    inside = rtts["arm"] == CONTAINER_TRACED
    return rtts[inside] if inside.any() else rtts[rtts["arm"] == NATIVE_TRACED]


def coverage(rtts: pd.DataFrame) -> dict[str, Any]:
    """Count the container's traced pings; where there are none, the native ones.

    Counted are those corrected, of how many answered, by status, direction and round. ``bounds``
    says where the corrected median and mean would lie whatever the others were.
    """
    traced = traced_pings(rtts)
    settled = traced["status"].isin(["corrected", "native"])
    answered = traced["rtt_ns"].notna() | settled
    answered &= traced["status"] != "duplicate"
    statuses = traced["status"].value_counts()
    by_round = settled[answered].groupby(traced["round"]).agg(["sum", "size"])
    return {
        "corrected": int((settled & answered).sum()),
        "answered": int(answered.sum()),
        "by_status": {str(name): int(count) for name, count in statuses.items() if count},
        "outbound": int((traced["outbound_ns"].notna() & answered).sum()),
        "inbound": int((traced["inbound_ns"].notna() & answered).sum()),
        "by_round": [
            {"round": int(number), "corrected": int(row["sum"]), "answered": int(row["size"])}
            for number, row in by_round.iterrows()
        ],
        "bounds": corrected_bounds(rtts),
    }


def corrected_bounds(rtts: pd.DataFrame) -> dict[str, float]:
    """Bound the corrected median and mean [ns], for any values of the pings without a correction.

    A crossing takes at least 0 and at most the RTT, so each missing value lies between 0 and the
    RTT of its ping. Returns median_low_ns, median_high_ns, mean_low_ns and mean_high_ns, empty
    when no ping was answered.
    """
    answered = rtts[(rtts["arm"] == CORRECTED.arm) & rtts["rtt_ns"].notna()]
    answered = answered[answered["status"] != "duplicate"]
    if answered.empty:
        return {}
    known = answered["bare_metal_rtt_ns"]
    low, high = known.fillna(0).astype(float), known.fillna(answered["rtt_ns"]).astype(float)
    return {
        "median_low_ns": float(low.median()),
        "median_high_ns": float(high.median()),
        "mean_low_ns": float(low.mean()),
        "mean_high_ns": float(high.mean()),
    }
