"""Where both tracers recorded, the content of packets tells what events alone do not tell.

Every ping of a traced run has its echo by identity (`maceproc.following.by_identity`). A ping that
the events left `ambiguous` or `incomplete` takes it; its send call and its delivery are then in the
residual. A ping that was corrected by the packets of another echo takes it too: that would be a
mistake of ours, and is told as one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from maceproc.capture import Run, Sidecar
from maceproc.following.by_identity import find_echoes, followed_as, rtts_by_identity
from maceproc.following.follow import Followed
from maceproc.following.witness import RIGHT, WRONG, rows_of_crossings, witness
from maceproc.pairing import Rows
from maceproc.pings import PingOutput
from maceproc.schema import RTTS

Finding = tuple[str, str, str, str]
OPEN = ("ambiguous", "incomplete")


def settle(followed: Followed, sidecar: Sidecar, rows: Rows) -> tuple[pd.DataFrame, list[Finding]]:
    """Return RTTS corrected by identity where the events did not tell, and findings about that.

    `rows` are the echoes that were recorded beside the events of `followed`.
    """
    rtts = followed.rtts
    own = rtts_by_identity(followed.pings, followed.outputs, rows, sidecar)
    runs = [run for run, _ in followed.outputs if run.traced]
    names = pd.Series({run.arm: followed_as(run) for run in runs}, dtype=object)
    followed_by_identity = own["status"].astype(object) == own["arm"].astype(object).map(names)
    found = witness(rtts, followed.crossings, followed.hops, runs, rows)
    of_pings = found[found["check"].isin(["request", "reply"])]
    wrong = of_pings[of_pings["outcome"] == WRONG]
    refuted = (
        rtts.set_index(["round", "seq"]).index.isin(
            pd.MultiIndex.from_frame(wrong[["round", "seq"]])
        )
        & (rtts["arm"] == "container traced").to_numpy()
    )
    open_ = rtts["status"].isin(OPEN).to_numpy()
    settled = (open_ | refuted) & followed_by_identity.to_numpy()
    mended = _with_journeys(own[settled], followed, sidecar, rows)
    result = rtts.astype(object)
    result.loc[settled] = mended.astype(object)
    result.loc[refuted & ~settled, ["status", "reason"]] = [
        "ambiguous",
        "its packets carry another number, and its own echo is not certain",
    ]
    checked = of_pings["outcome"].isin([RIGHT, WRONG]).sum()
    return RTTS.frame(result), _findings(int(settled.sum()), int(checked), len(wrong))


def _with_journeys(
    settled: pd.DataFrame, followed: Followed, sidecar: Sidecar, rows: Rows
) -> pd.DataFrame:
    """Give settled pings the journeys of their packets in the events, where those are known."""
    place = _places(followed.outputs, followed.pings, rows, sidecar).loc[settled.index]
    crossings = followed.crossings[followed.crossings["status"] == "complete"]
    outbound = (crossings["direction"] == "outbound").to_numpy()
    row = rows_of_crossings(crossings, followed.hops, rows)
    for direction, chosen in (("outbound", outbound), ("inbound", ~outbound)):
        known = chosen & (row >= 0)
        journeys = pd.Series(crossings["journey"].to_numpy()[known], index=row[known])
        journeys = journeys[~journeys.index.duplicated(keep=False)]
        there = journeys.reindex(place.to_numpy()).astype("Int64")
        settled = settled.assign(**{f"{direction}_journey": there.to_numpy()})
    return settled


def _places(
    outputs: Iterable[tuple[Run, PingOutput]], pings: pd.DataFrame, rows: Rows, sidecar: Sidecar
) -> pd.Series[int]:
    """Return the place in `rows` of every ping's echo; -1: none."""
    places = pd.Series(-1, index=pings.index, dtype=np.int64)
    by_run = dict(list(pings.groupby(["round", "arm"], observed=True, sort=False)))
    for run, _ in outputs:
        mine = by_run.get((run.round, run.arm))
        if run.traced and mine is not None:
            places.loc[mine.index] = find_echoes(mine, run, rows, sidecar).place
    return places


def _findings(settled: int, checked: int, wrong: int) -> list[Finding]:
    told = [
        (
            "identity",
            "note",
            f"{checked} matches of pings with packets were checked by what the packets carry, "
            f"{wrong} were wrong; {settled} pings were settled by it",
            "the send call and the delivery of those that were settled are in the residual",
        )
    ]
    if wrong:
        told.append(
            (
                "identity",
                "problem",
                f"the events' analysis gave {wrong} packets to pings that are not theirs",
                "those pings were corrected by their own; please report it with the capture",
            )
        )
    return told
