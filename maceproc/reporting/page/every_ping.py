"""The events of every traced ping, as small as can be: page.js shows the one that is clicked on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.ledger import LEDGER
from maceproc.reporting.ping_steps import ping_steps
from maceproc.series import CONTAINER_TRACED, TRACED_ARMS

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

MOST_PINGS = 3_000
SLOWEST = 300


def key_of(arm: str, number: int, seq: int) -> str:
    """Return the name of a ping in the page: ``c-1-17`` is the container's of round 1."""
    return f"{'c' if arm == CONTAINER_TRACED else 'n'}-{number}-{seq}"


def every_ping(analysis: Analysis) -> dict[str, Any]:
    """Return ``labels`` (places with events), ``segments``, and by ping its numbers and events.

    A ping is ``[status, reason, RTT, segments in the order of the way, label, after, ...]``, with
    times in ns after the send call. Of more than `MOST_PINGS` there are the slowest, and others
    evenly over the rest.
    """
    kept = _kept(analysis.rtts[analysis.rtts["arm"].isin(TRACED_ARMS)])
    steps = ping_steps(analysis)
    begun = steps.groupby(["arm", "round", "seq", "direction"], sort=False, observed=True).head(1)
    points = pd.concat(
        [
            begun.assign(label=begun["start"], at_ns=begun["began_ns"]),
            steps.assign(label=steps["end"], at_ns=steps["began_ns"] + steps["took_ns"]),
        ]
    ).sort_values("at_ns", kind="stable")
    codes, labels = pd.factorize(points["label"])
    points = points.assign(code=codes)
    events = {
        key: (part["code"].to_numpy(), part["at_ns"].to_numpy())
        for key, part in points.groupby(["arm", "round", "seq"], sort=False, observed=True)
    }
    pings = {}
    for row in kept.to_dict("records"):
        found = events.get((row["arm"], row["round"], row["seq"]))
        if found is None:
            continue
        sent_ns = found[1][0] if pd.isna(row["sent_ns"]) else row["sent_ns"]
        after = np.column_stack([found[0], found[1] - int(sent_ns)]).ravel().tolist()
        times = [row["rtt_ns"], *(row[segment.column] for segment in LEDGER)]
        known = [None if pd.isna(time_ns) else int(time_ns) for time_ns in times]
        name = key_of(row["arm"], row["round"], row["seq"])
        pings[name] = [row["status"], row["reason"], *known, after]
    segments = [segment.name for segment in LEDGER]
    return {"labels": labels.tolist(), "segments": segments, "pings": pings}


def _kept(rtts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of RTTS whose events the page holds."""
    if len(rtts) <= MOST_PINGS:
        return rtts
    slow = rtts["rtt_ns"].astype("float64").nlargest(SLOWEST).index
    others = rtts.index.difference(slow, sort=False)
    even = others[np.linspace(0, len(others) - 1, MOST_PINGS - SLOWEST).astype(int)]
    return rtts.loc[slow.union(even)]
