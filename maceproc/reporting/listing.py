"""What ``maceproc events`` shows of a file, as text."""

from __future__ import annotations

import glob
import json
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.foreign_text import clean, clean_lines
from maceproc.reporting.export.tables import csv_ready
from maceproc.reporting.text_table import beside
from maceproc.schema import SCHEMA_VERSION, Trace
from maceproc.tracedat.windows import WHOLE, Window
from maceproc.traces import read_trace, summarize_trace, windows_for

CSV_ROWS = 100_000  # written at a time


def listing_json(path: Path) -> str:
    """Return the list of events as one JSON object."""
    summary = {"schema_version": SCHEMA_VERSION, **summarize_trace(path).as_dict()}
    return json.dumps(summary, indent=1)


def listing(path: Path) -> str:
    """Return the list of events for people: count, rate and fields; then what is missing."""
    summary = summarize_trace(path)
    total = sum(event.count for event in summary.events)
    width = max([len(event.event) for event in summary.events], default=5)
    lines = [f"{'event':<{width}} {'count':>10} {'per second':>12}  fields"]
    for event in summary.events:
        names = ", ".join(name.rpartition(" ")[2] for name in event.fields)
        counts = f"{event.event:<{width}} {event.count:>10} {event.rate:>12.1f}"
        lines.extend(beside(f"{counts}  ", names))
    lines.append(f"{total} events in {summary.duration_ns / 1e9:.6f} s")
    for buffer in [b for b in summary.buffers if b["cpus"]]:
        name = f"buffer {buffer['buffer']!r}" if buffer["buffer"] else "top buffer"
        lines.append(
            f"{name}: {buffer['count']} events on {len(buffer['cpus'])} CPUs, clock "
            f"{buffer['clock'] or 'unknown'}, {buffer['lost']} lost"
        )
    if summary.gaps:
        lines.append(f"{summary.lost} events are known to be lost, in {summary.gaps} places")
    return "\n".join(map(clean, [*lines, *(f"note: {note}" for note in summary.notes)]))


def rows(path: Path, event: str, head: int) -> str:
    """Return the first rows of an event's table for people; then what is missing."""
    trace, frame = _read_event(path, event)
    shown = frame.head(head).copy()
    for column in shown.columns:
        if shown[column].dtype == "uint64":  # addresses are known by their hexadecimal form
            shown[column] = shown[column].map("{:#x}".format)
    more = f"... {len(frame)} rows in all\n" if len(frame) > head else ""
    notes = "".join(f"note: {note}\n" for note in trace.notes)
    return clean_lines(f"{shown.to_string(index=False)}\n{more}{notes}")


def rows_csv(
    path: Path, event: str, memory: int | None = None
) -> tuple[Iterator[str], Collection[str]]:
    """Return an event's table as parts of CSV text, and the file's notes.

    Text is made safe as in exports. A trace that is too large for `memory` [bytes], by default half
    of what is free, is read in windows of time, while the parts are taken; the notes are complete
    when all have been.
    """
    windows = [] if glob.has_magic(event) else windows_for(path, memory)
    notes: dict[str, None] = {}
    parts = _csv_parts(path, event, windows or [WHOLE], notes)
    first = next(parts)  # errors are raised before anything is written
    return chain([first], parts), notes.keys()


def _csv_parts(
    path: Path, event: str, windows: Sequence[Window], notes: dict[str, None]
) -> Iterator[str]:
    for number, window in enumerate(windows):
        trace, frame = _read_event(path, event, window)
        notes |= dict.fromkeys(trace.notes)
        rows = csv_ready(frame)
        for start in range(0, max(len(rows), 1), CSV_ROWS):
            head = number == 0 and start == 0
            yield rows[start : start + CSV_ROWS].to_csv(index=False, header=head)


def _read_event(path: Path, event: str, window: Window = WHOLE) -> tuple[Trace, pd.DataFrame]:
    """Read the one event of a name or pattern; AnalysisError if there is none, or several."""
    trace = read_trace(path, [event], *window)
    if not trace.events:
        names = [known.event for known in summarize_trace(path).events]
        close = get_close_matches(event.rpartition(":")[2], names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else ""
        raise AnalysisError(
            f"{path}: no event {event!r}",
            hint=hint or f"`maceproc events {path}` lists what is there",
        )
    if len(trace.events) > 1:
        raise AnalysisError(
            f"{event!r} is {len(trace.events)} events: {', '.join(trace.events)}", hint="name one"
        )
    return trace, next(iter(trace.events.values()))
