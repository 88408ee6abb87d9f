"""Where the ring buffer lost events, and how many: the `LOST` table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from maceproc.schema import LOST
from maceproc.tracedat.ringbuffer import Pages, Stream
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.timing import Clock

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Gap:
    """A row of `LOST`."""

    buffer: str
    cpu: int
    after_ns: int | None
    before_ns: int
    count: int | None


def lost_table(
    streams: list[Stream], pages: list[Pages], clock: Clock, selection: Selection
) -> pd.DataFrame:
    """Build the `LOST` table: a row per page that says events before it were lost."""
    gaps = [gap for s, p in zip(streams, pages, strict=True) for gap in _gaps(s, p, clock)]
    return gaps_table(gaps, selection)


def gaps_table(gaps: Iterable[Gap], selection: Selection) -> pd.DataFrame:
    """Build the `LOST` table of those gaps that touch the selected span of time."""
    inside = [gap for gap in gaps if _is_inside(gap, selection)]
    inside.sort(key=lambda gap: (gap.before_ns, gap.cpu))
    return LOST.from_rows([astuple(gap) for gap in inside])


def _gaps(stream: Stream, pages: Pages, clock: Clock) -> list[Gap]:
    places = np.flatnonzero(pages.lost)
    first = clock.convert(pages.first[places]).tolist()
    last = clock.convert(pages.last[places - 1]).tolist()
    return [
        Gap(
            stream.buffer.name,
            stream.cpu,
            after if place else None,
            before,
            count if count > 0 else None,
        )
        for place, after, before, count in zip(
            places.tolist(), last, first, pages.lost[places].tolist(), strict=True
        )
    ]


def _is_inside(gap: Gap, selection: Selection) -> bool:
    """Whether a gap touches the selected span of time."""
    ends_before = selection.start_ns is not None and gap.before_ns < selection.start_ns
    after = gap.after_ns if gap.after_ns is not None else gap.before_ns
    starts_behind = selection.end_ns is not None and after >= selection.end_ns
    return not ends_before and not starts_behind
