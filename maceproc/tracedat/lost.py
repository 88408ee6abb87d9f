"""Where the ring buffer lost events, and how many: the `LOST` table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from maceproc.schema import LOST
from maceproc.tracedat.ringbuffer import Pages, Stream
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.timing import Clock


def lost_table(
    streams: list[Stream], pages: list[Pages], clock: Clock, selection: Selection
) -> pd.DataFrame:
    """Build the `LOST` table: a row per page that says events before it were lost."""
    rows = [row for s, p in zip(streams, pages, strict=True) for row in _gaps(s, p, clock)]
    rows = [row for row in rows if _is_inside(row, selection)]
    rows.sort(key=lambda row: (row["before_ns"], row["cpu"]))
    return LOST.frame({name: [row[name] for row in rows] for name in LOST.names})


def _gaps(stream: Stream, pages: Pages, clock: Clock) -> list[dict[str, Any]]:
    places = np.flatnonzero(pages.lost)
    first = clock.convert(pages.first[places]).tolist()
    last = clock.convert(pages.last[places - 1]).tolist()
    return [
        {
            "buffer": stream.buffer.name,
            "cpu": stream.cpu,
            "after_ns": after if place else None,
            "before_ns": before,
            "count": count if count > 0 else None,
        }
        for place, after, before, count in zip(
            places.tolist(), last, first, pages.lost[places].tolist(), strict=True
        )
    ]


def _is_inside(row: dict[str, Any], selection: Selection) -> bool:
    """Whether a gap touches the selected span of time."""
    ends_before = selection.start_ns is not None and row["before_ns"] < selection.start_ns
    after = row["after_ns"] if row["after_ns"] is not None else row["before_ns"]
    starts_behind = selection.end_ns is not None and after >= selection.end_ns
    return not ends_before and not starts_behind
