"""What to read of a file: events, fields, a span of time, a buffer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from maceproc.tracedat.formats import EventFormat, Field


@dataclass(frozen=True)
class Selection:
    """What to read of a file; None means all."""

    events: tuple[str, ...] | None = None  # names, system:name, or shell patterns of either
    fields: frozenset[str] | None = None
    start_ns: int | None = None
    end_ns: int | None = None  # the first moment not wanted
    buffer: str | None = None

    @classmethod
    def of(
        cls,
        events: Iterable[str] | None,
        fields: Iterable[str] | None,
        start_ns: int | None,
        end_ns: int | None,
        *,
        buffer: str | None,
    ) -> Selection:
        """Build from what a caller gives: a single name counts as a list of one."""
        if isinstance(events, str):
            events = (events,)
        if isinstance(fields, str):
            fields = (fields,)
        return cls(
            None if events is None else tuple(events),
            None if fields is None else frozenset(fields),
            None if start_ns is None else int(start_ns),
            None if end_ns is None else int(end_ns),
            buffer,
        )

    def names(self, form: EventFormat) -> bool:
        """Whether the event is named without a pattern: it gets a table even when empty."""
        return bool({form.name, f"{form.system}:{form.name}"} & set(self.events or ()))

    def takes(self, form: EventFormat) -> bool:
        """Whether the event is wanted."""
        return self.events is None or any(_matches(form, name) for name in self.events)

    def fields_of(self, form: EventFormat) -> list[Field]:
        """Return the event's own fields that are wanted."""
        return [f for f in form.fields if self.fields is None or f.name in self.fields]

    @property
    def limits_time(self) -> bool:
        """Whether only a span of time is wanted."""
        return self.start_ns is not None or self.end_ns is not None

    def has_moment(self, time_ns: int) -> bool:
        """Whether a time [ns] is wanted."""
        return (self.start_ns is None or time_ns >= self.start_ns) and (
            self.end_ns is None or time_ns < self.end_ns
        )


def _matches(form: EventFormat, pattern: str) -> bool:
    return fnmatchcase(form.name if ":" not in pattern else f"{form.system}:{form.name}", pattern)
