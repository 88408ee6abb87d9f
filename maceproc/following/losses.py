"""How many events were lost, as the trace shows and as the kernel counted.

The ring buffer marks in the trace where it lost events, often without a number, and it cannot mark
what it lost after the last page that was read. The recorder reads the kernel's counters when it
ends, and notes them in the sidecar. These counters include both kinds of losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from maceproc.capture import Sidecar
from maceproc.schema import Trace


class Losses(NamedTuple):
    """What is known of lost events.

    Attributes
    ----------
    places
        Places in the trace where events were lost: rows of `LOST`.
    uncounted
        Those of them where the trace does not say how many.
    counted
        How many were lost in the others.
    by_kernel
        How many were lost in all, by the kernel's counters; 0 also when nobody noted them.
    missing
        How many events the kernel handed over and the trace does not hold, by the sidecar.
    """

    places: int
    uncounted: int
    counted: int
    by_kernel: int
    missing: int

    @property
    def known(self) -> int:
        """How many are known to be lost: the larger count, as neither count includes all losses."""
        return max(self.counted, self.by_kernel)

    @property
    def sentence(self) -> str:
        """What was lost, for people; empty when nothing was."""
        if not self.places and not self.known:
            return ""
        where = _count(self.places, "place") if self.places else "a place that the trace lacks"
        if self.by_kernel > self.counted:
            return f"{_count(self.by_kernel, 'event')} lost, by the kernel's count, in {where}"
        if not self.counted:
            return f"events were lost in {where}, and nobody counted them"
        more = f"; in {self.uncounted} of them nobody counted" if self.uncounted else ""
        return f"{_count(self.counted, 'event')} lost in {where}{more}"


def losses(trace: Trace, sidecar: Sidecar | None) -> Losses:
    """Return what is known of the events that a trace lacks."""
    count = trace.lost["count"]
    tracing = sidecar.tracing if sidecar else None
    return Losses(
        places=len(count),
        uncounted=int(count.isna().sum()),
        counted=int(count.sum()),
        by_kernel=sum(tracing.events_lost.values()) if tracing else 0,
        missing=sum(tracing.events_missing.values()) if tracing else 0,
    )


def _count(number: int, what: str) -> str:
    verb = {"event": " were" if number != 1 else " was"}.get(what, "")
    return f"{number:,} {what}{'s' * (number != 1)}{verb}"


COUNTED = "events_counted"
"""In `Trace.info`: how many events of each name there are, where the tables hold only some."""


def event_counts(trace: Trace) -> Mapping[str, int]:
    """Return how many events of each name a trace has; its tables may hold only some of them."""
    counted: Mapping[str, int] | None = trace.info.get(COUNTED)
    return counted or {name: len(table) for name, table in trace.events.items()}


def is_partial(trace: Trace) -> bool:
    """Tell whether the tables hold only some of the events: it was read in windows of time."""
    return COUNTED in trace.info
