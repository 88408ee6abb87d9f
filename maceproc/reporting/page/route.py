"""The path as it is drawn: places in their order, with the time between them on the edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from maceproc.following.crossings import INBOUND, OUTBOUND
from maceproc.ledger import WIRE

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.analysis import Analysis


def lanes(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the way out and the way back, each as nodes and edges in the order of the way.

    A node has a ``place``, and in ``at_ns`` what passed at that place; an edge has the median in
    ``took_ns``. The way out ends with the wire. Empty where nothing was crossed.
    """
    steps = analysis.steps
    if steps.empty:
        return []
    wire = analysis.rtts.loc[analysis.rtts["status"] == "corrected", WIRE.column].dropna()
    made = []
    for direction in (OUTBOUND, INBOUND):
        parts = list(_parts(steps[steps["direction"] == direction]))
        if direction == OUTBOUND and len(wire):
            parts.append({"edge": "wire", "took_ns": float(wire.astype("float64").median())})
            parts.append({"place": "remote", "at_ns": 0.0})
        made.append({"direction": direction, "parts": parts})
    return made


def _parts(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    place, at_ns = "", 0.0
    for row in steps.itertuples():
        start, end = (label.rsplit(" ", 1)[0] for label in (row.start, row.end))
        place = place or start
        if start == end:
            at_ns += row.median_ns
            continue
        yield {"place": place, "at_ns": at_ns}
        yield {"edge": row.segment, "took_ns": row.median_ns}
        place, at_ns = end, 0.0
    if place:
        yield {"place": place, "at_ns": at_ns}
