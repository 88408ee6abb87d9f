"""The slowest pings: in which segments they lost their time, and what their events show of why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from maceproc.following.coverage import traced_pings
from maceproc.ledger import LEDGER
from maceproc.reporting.ping_steps import ping_steps
from maceproc.series import CONTAINER_TRACED

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

SLOWEST = 0.01
FEWEST = 3


def tail(analysis: Analysis) -> dict[str, Any]:
    """Return what the slowest 1 % of the corrected pings, three at least, have more than usual.

    Keys: ``pings`` and ``of``, how many; ``from_ns``, the least of their RTTs; ``segments``, a row
    each with the usual median, the mean of the slowest, and its excess, the largest first;
    ``causes``, how many show which cause. Empty where too few pings were corrected.
    """
    rtts = traced_pings(analysis.rtts)
    settled = rtts[rtts["status"].isin(["corrected", "native"]) & rtts["rtt_ns"].notna()]
    number = max(FEWEST, round(SLOWEST * len(settled)))
    if len(settled) < 10 * FEWEST:
        return {}
    slow = settled.nlargest(number, "rtt_ns")
    segments = []
    for segment in LEDGER:
        usual, mine = (part[segment.column].astype("float64") for part in (settled, slow))
        if mine.notna().any():
            excess_ns = mine.mean() - usual.median()
            segments.append(
                {
                    "segment": segment.name,
                    "usual_ns": usual.median(),
                    "slow_ns": mine.mean(),
                    "excess_ns": excess_ns,
                }
            )
    segments.sort(key=lambda row: -row["excess_ns"])
    lost_ns = sum(max(row["excess_ns"], 0.0) for row in segments)
    for row in segments:
        row["width"] = round(100 * max(row["excess_ns"], 0.0) / lost_ns, 1) if lost_ns else 0.0
    causes = slow["causes"].str.split(", ").explode()
    causes = causes[causes.fillna("") != ""].value_counts()
    return {
        "pings": len(slow),
        "of": len(settled),
        "from_ns": float(slow["rtt_ns"].min()),
        "segments": segments,
        "causes": [(str(cause), int(count)) for cause, count in causes.items()],
        "unexplained": int((slow["causes"] == "").sum()),
        "list": [
            (int(row.round), int(row.seq), float(row.rtt_ns)) for row in slow.head(5).itertuples()
        ],
    }


def hop_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Return how every step of the usual way is distributed: places of a box plot in percent.

    A row has the segment, the ends of the step, p5, median and p95 [ns], and the places of p5, p25,
    p50, p75 and p95 on a logarithmic scale that all rows share.
    """
    steps = analysis.steps
    ends = zip(steps["start"], steps["end"], strict=True)
    segments = dict(zip(ends, steps["segment"], strict=True))
    taken = ping_steps(analysis)
    taken = taken[taken["arm"] == CONTAINER_TRACED]
    by_step = {
        (str(start), str(end)): part["took_ns"].to_numpy()
        for (start, end), part in taken.groupby(["start", "end"], sort=False)
    }
    known = [step for step in segments if step in by_step]
    levels_of = {step: np.percentile(by_step[step], [5, 25, 50, 75, 95]) for step in known}
    if not known:
        return []
    low = np.log(max(min(levels[0] for levels in levels_of.values()), 100.0))
    high = np.log(max(1000.0, *(levels[-1] for levels in levels_of.values())))

    def at(time_ns: float) -> float:
        return round(
            float(np.clip(100 * (np.log(max(time_ns, 1)) - low) / (high - low), 0, 100)), 2
        )

    return [
        {
            "segment": segments[step],
            "start": step[0],
            "end": step[1],
            "places": [at(level) for level in levels_of[step]],
            "p5_ns": float(levels_of[step][0]),
            "median_ns": float(levels_of[step][2]),
            "p95_ns": float(levels_of[step][4]),
        }
        for step in known
    ]
