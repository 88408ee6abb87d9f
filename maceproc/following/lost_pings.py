"""Which pings got no reply, in which arm, and where their requests were last seen."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from maceproc.following.checks import Finding
from maceproc.series import TRACED_ARMS

MUCH = 0.01
"""From this share of lost pings in an arm on, a finding warns about its RTTs."""

LOST_STATUSES = ("unanswered", "error")
"""Statuses of PINGS that say that no reply came."""


def lost_by_arm(pings: pd.DataFrame) -> pd.DataFrame:
    """Count the pings that were sent and those without a reply: a row per arm of PINGS.

    The columns are ``sent`` and ``lost``. Duplicates of a reply are not counted.
    """
    rows = pings[pings["status"] != "duplicate"]
    lost = rows["status"].isin(LOST_STATUSES)
    by_arm = lost.groupby(rows["arm"], observed=True)
    return pd.DataFrame({"sent": by_arm.size(), "lost": by_arm.sum()})


def last_seen(rtts: pd.DataFrame, hops: pd.DataFrame) -> pd.Series:
    """Count where the traced requests without a reply were last seen: ``namespace:device event``.

    A request that no event shows is counted as ``not seen``. The most frequent place is first.
    """
    lost = rtts[(rtts["status"] == "unanswered") & rtts["arm"].isin(TRACED_ARMS)]
    journeys = hops[hops["journey"].isin(lost["outbound_journey"].dropna())]
    at_device = journeys[journeys["dev"].notna()].astype({"dev": str, "event": str})
    last = at_device.groupby("journey").tail(1).set_index("journey")
    place = last["dev"].where(last["netns"].isna(), last["netns"].astype(str) + ":" + last["dev"])
    place = place + " " + last["event"]
    return lost["outbound_journey"].map(place).astype(object).fillna("not seen").value_counts()


def loss_doubts(pings: pd.DataFrame, rtts: pd.DataFrame, hops: pd.DataFrame) -> Iterator[Finding]:
    """Yield a finding about the pings without a reply; it is a problem if no ping got a reply."""
    counts = lost_by_arm(pings)
    sent, lost = int(counts["sent"].sum()), int(counts["lost"].sum())
    if not lost:
        return
    by_arm = ", ".join(f"{row.lost} of {row.sent} {arm}" for arm, row in counts.iterrows())
    places = last_seen(rtts, hops)
    seen = "; ".join(f"{place} ({count})" for place, count in places.head(3).items())
    where = f"; traced requests were last seen at {seen}" if seen else ""
    if lost == sent:
        yield Finding(
            "no reply",
            "problem",
            f"none of {sent} pings got a reply{where}",
            "check the address and the routes of the target, and the rules on the way",
        )
        return
    much = (counts["lost"] / counts["sent"]).max() > MUCH
    yield Finding(
        "loss",
        "warning" if much else "note",
        f"no reply came to {lost} of {sent} pings: {by_arm}{where}",
        "RTTs are those of the pings that came back",
    )
