"""What a trace file holds, without making a table of any event."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from maceproc.schema import Trace
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import EventFormat, read_formats, read_layout, require_formats
from maceproc.tracedat.lost import lost_table
from maceproc.tracedat.pages import load_pages
from maceproc.tracedat.reader import (
    note_damage,
    note_others,
    read_info,
    read_tables,
    specs_of,
)
from maceproc.tracedat.ringbuffer import TYPES, Int64s, Pages, Stream
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.stepwise import Recording, Tables
from maceproc.tracedat.timing import Clock, read_clock
from maceproc.tracedat.tracefile import TraceFile


@dataclass(frozen=True)
class EventSummary:
    """One event type: how often it occurred, and what it tells."""

    event: str
    system: str
    count: int
    rate: float  # [1/s], over the whole recording; 0 when it has no duration
    fields: tuple[str, ...]  # as declared: "unsigned int len"


@dataclass(frozen=True)
class Summary:
    """A whole file."""

    events: tuple[EventSummary, ...]  # most frequent first
    lost: int  # events known to be lost
    gaps: int  # places where some were lost, also an unknown number
    buffers: tuple[dict[str, Any], ...]
    duration_ns: int
    info: dict[str, Any]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``maceproc events --json`` prints."""
        return {
            "events": [
                {
                    "event": e.event,
                    "system": e.system,
                    "count": e.count,
                    "rate_per_s": round(e.rate, 3),
                    "fields": list(e.fields),
                }
                for e in self.events
            ],
            "lost": self.lost,
            "gaps": self.gaps,
            "duration_ns": self.duration_ns,
            "buffers": list(self.buffers),
            "info": {key: value for key, value in self.info.items() if key != "buffers"},
            "notes": list(self.notes),
        }


def summarize(path: str | os.PathLike[str]) -> Summary:
    """Count the events of a trace.dat, of all its buffers; raises as `read_events`."""
    with open_trace(path) as trace:
        layout = read_layout(trace)
        formats = read_formats(trace, layout.commit_size)
        require_formats(trace, formats)
        data, streams = load_pages(trace, list(trace.buffers), layout)
        clock = read_clock(trace)
        everything = np.ones(TYPES, bool)
        specs = specs_of(formats, Selection())
        read = read_tables(
            Recording(data, streams, layout, trace.order, clock, everything, specs, count_only=True)
        )
        pages, counts = read.pages, _counts(formats, read)
        note_damage(trace, streams, pages)
        note_others(trace, formats, read.others)
        duration = _duration_ns(pages, clock)
        lost = lost_table(streams, pages, clock, Selection())
        return Summary(
            events=_event_summaries(formats, counts, duration),
            lost=int(lost["count"].sum()),
            gaps=len(lost),
            buffers=_buffer_summaries(trace, streams, pages),
            duration_ns=duration,
            info=read_info(trace),
            notes=tuple(trace.notes),
        )


def _counts(formats: dict[int, EventFormat], read: Tables) -> Int64s:
    """Return the number of events per type: the rows of its table, or what no table can have."""
    known = np.zeros(TYPES, bool)
    known[list(formats)] = True
    counts: Int64s = np.where(known, read.rows, read.others)
    return counts


def _duration_ns(pages: list[Pages], clock: Clock) -> int:
    """Return the time from the first event to the last one [ns]."""
    full = [(own, own.counts > 0) for own in pages if own.counts.any()]
    if not full:
        return 0
    first = min(int(clock.convert(own.first[some]).min()) for own, some in full)
    last = max(int(clock.convert(own.last[some]).max()) for own, some in full)
    return last - first


def _event_summaries(
    formats: dict[int, EventFormat], counts: Any, duration_ns: int
) -> tuple[EventSummary, ...]:
    seconds = duration_ns / 1e9
    found = [
        EventSummary(
            form.name if form else f"type {number}",
            form.system if form else "",
            int(counts[number]),
            counts[number] / seconds if seconds else 0.0,
            tuple(f"{f.place} {f.type} {f.name}".strip() for f in form.fields) if form else (),
        )
        for number in np.flatnonzero(counts).tolist()
        for form in [formats.get(number)]
    ]
    return tuple(sorted(found, key=lambda e: (-e.count, e.event)))


def _buffer_summaries(
    trace: TraceFile, streams: list[Stream], pages: list[Pages]
) -> tuple[dict[str, Any], ...]:
    own = list(zip(streams, pages, strict=True))
    return tuple(
        {
            "buffer": buffer.name,
            "clock": buffer.clock,
            "cpus": [s.cpu for s, _ in own if s.buffer is buffer],
            "count": int(sum(p.counts.sum() for s, p in own if s.buffer is buffer)),
            "lost": int(sum(p.lost[p.lost > 0].sum() for s, p in own if s.buffer is buffer)),
        }
        for buffer in trace.buffers
    )


def summarize_tables(trace: Trace) -> Summary:
    """Summarize tables that were read already, as from text."""
    times = [frame["time_ns"] for frame in trace.events.values()]
    duration = int(max(t.max() for t in times) - min(t.min() for t in times)) if times else 0
    seconds = duration / 1e9
    events = [
        EventSummary(
            name, "", len(frame), len(frame) / seconds if seconds else 0.0, tuple(frame.columns[5:])
        )
        for name, frame in trace.events.items()
    ]
    return Summary(
        events=tuple(sorted(events, key=lambda e: (-e.count, e.event))),
        lost=int(trace.lost["count"].sum()),
        gaps=len(trace.lost),
        buffers=(),
        duration_ns=duration,
        info=dict(trace.info),
        notes=trace.notes,
    )
