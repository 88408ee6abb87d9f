"""Rows of PINGS: what lines say, and the requests that no line speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from maceproc.pings.output import GAP_BELIEVED, ROWS_MADE_UP, PingOutput
from maceproc.schema import PINGS

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.capture import Run


def pings_table(runs: Iterable[tuple[Run, PingOutput]]) -> pd.DataFrame:
    """Build PINGS: a row per answer, and one per request that no line speaks of."""
    rows: list[dict[str, Any]] = []
    made_up: dict[tuple[int, str], int] = {}  # a run's text may count many times
    for run, printed in runs:
        identity = {"round": run.round, "arm": run.arm, "target": printed.target}
        left = ROWS_MADE_UP - made_up.get((run.round, run.arm), 0)
        own = rows_of_run(printed, left)
        made_up[run.round, run.arm] = ROWS_MADE_UP - left + len(own) - len(printed.answers)
        rows += [identity | row for row in own]
    rows.sort(key=lambda row: (row["round"], row["arm"]))
    return PINGS.frame({name: [row.get(name) for row in rows] for name in PINGS.names})


def rows_of_run(printed: PingOutput, most: int = ROWS_MADE_UP) -> list[dict[str, Any]]:
    """Return the rows of one run and target: its answers, then what no line speaks of.

    More than `most` of the latter are told instead.
    """
    return [*printed.answers, *_unseen(printed, most)]


def _unseen(printed: PingOutput, most: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every request that was sent, as far as is known, and has no line."""
    seen = {row["seq"] for row in printed.answers if not row.get("strange")}
    if printed.sent is not None and printed.first_seq is not None:
        end = printed.first_seq + printed.sent
        if printed.sent > most + len(seen):
            _remark(
                printed, f"{printed.sent} requests are counted: those without a line get no row"
            )
            return
        gaps: Iterable[range] = [range(printed.first_seq, end)]
    else:
        gaps = _gaps(printed, seen)
    state = _what_is_known(printed)
    yield from ({"seq": seq} | state for gap in gaps for seq in gap if seq not in seen)


def _gaps(printed: PingOutput, seen: set[int]) -> Iterator[range]:
    """Yield the numbers between those seen; a gap too wide to be believed is only told."""
    if printed.sent is not None:
        _remark(printed, "the first icmp_seq is not known: no rows for requests before and after")
    if not seen:
        return
    edges = sorted(seen)
    if printed.begins and printed.first_seq is not None:
        edges = [printed.first_seq - 1, *edges]
    elif edges[0] > (printed.first_seq or 0) + 1:
        _remark(printed, f"the text begins at icmp_seq {edges[0]}: nothing is known before it")
    for before, after in pairwise(edges):
        if after - before - 1 <= GAP_BELIEVED:
            yield range(before + 1, after)
        else:
            gap = f"no line speaks of icmp_seq {before + 1} to {after - 1}"
            _remark(printed, f"{gap}, and no summary counts them: they get no row")


def _remark(printed: PingOutput, text: str) -> None:
    if text not in printed.remarks:
        printed.remarks.append(text)


def _what_is_known(printed: PingOutput) -> dict[str, Any]:
    """Return status and message of a request that no line speaks of."""
    replies = sum(row["status"] == "replied" for row in printed.answers)
    misread = printed.misread
    unknown = "; not all lines were understood" if misread else ""
    if printed.received is None:
        text = f"no line was read for it, and no summary tells whether a reply came{unknown}"
        return {"status": "unprinted" if misread else "unanswered", "message": text}
    if printed.received <= replies:
        return {"status": "unanswered", "message": "no reply"}
    counts = f"{printed.received} of {printed.sent} requests were answered"
    if replies == 0 and not misread:
        all_answered = printed.received == printed.sent
        if printed.quiet or (printed.begins and all_answered):
            some = "" if all_answered else f": {counts}"
            return {"status": "unprinted", "message": f"ping printed no line for it{some}"}
        if all_answered:
            text = f"no line was read for it; as the summary says, {counts}"
            return {"status": "unprinted", "message": text}
    text = f"the summary counts {printed.received} replies, lines were read of {replies}{unknown}"
    return {"status": "unprinted", "message": f"{text}: whether it was answered is not known"}
