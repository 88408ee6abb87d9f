"""A file of text into tables."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from maceproc.errors import TraceFormatError
from maceproc.schema import LOST, Trace
from maceproc.tracetext.bodies import CALLER, TEXT, Body, body_of
from maceproc.tracetext.lines import SECOND_NS, UNKNOWN_COMM, Head, Heads, missing_perf_columns
from maceproc.tracetext.tables import Line, tables_of

PERF_FIELDS = "comm,tid,cpu,time,event,trace"
LOST_LINE = re.compile(
    r"^\s*+(?:(?P<buffer>\S+):)?\s*CPU:\s*(?P<cpu>\d{1,5})\s+"
    r"\[(?:LOST\s+)?(?P<count>\d{1,18})?\s*EVENTS(?: DROPPED)?\]"
)
# perf script --show-lost-events
PERF_LOST = re.compile(
    r"\[(?P<cpu>\d{1,5})\]\s+\d+\.\d+:\s+PERF_RECORD_LOST lost (?P<count>\d{1,18})"
)
OVERWRITTEN = re.compile(
    r"^# entries-in-buffer/entries-written:\s*(?P<kept>\d{1,18})/(?P<all>\d{1,18})(?!\d)"
)
# What programs say beside the events: counts, empty CPUs, plugins.
ASIDE = re.compile(
    r"^\s*(?:cpus=\d+|version = \d+|CPU \d+ is empty|registering plugin: .*|overriding event .*"
    r"|trace-cmd: .*|\[[\w:]+\] function \S+ not found|={3,}.*|-{3,}.*)\s*$"
)
PERF_CALLER = re.compile(r"^\s+[0-9a-f]{5,16}\s+\S")  # and (the module) at the end
# function_graph: " 0)   1.382 us    |    }", with a time before it (funcgraph-abstime) or without
# the CPU (nofuncgraph-cpu); and " 0)   ping-771    =>   sh-12" where the task changes.
GRAPH = re.compile(r"^\s*(?:\d+\.\d+\s+\|\s*)?\d{1,5}\)\s|^[\s\d.*!+#@$]*+(?:us)?\s*+\|\s\s")

# Events with the same fields in every line of a kernel: one that stops earlier was cut.
FIXED_FORM = re.compile(r"^(?:net_dev_(?:queue|xmit|start_xmit)|netif_|napi_gro_|consume_skb$)")
# Events whose text can have several lines: markers, and what programs and drivers print.
SEVERAL_LINES = {"print": "buf", "bprint": "buf", "bputs": "buf", "bpf_trace_printk": TEXT}
SEVERAL_LINES |= {"console": TEXT}
STACKS = ("kernel_stack", "user_stack")
# Tracers beside which all lines are events, functions or markers; another one has its own lines.
EVENT_TRACERS = ("", "nop", "function", "function_graph")


@dataclass
class Text:
    """All that a file said, in its order."""

    heads: Heads = field(default_factory=Heads)
    events: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    lost: list[dict[str, Any]] = field(default_factory=list)
    open_gaps: dict[tuple[str, int], list[int]] = field(default_factory=dict)  # places in `lost`
    notes: list[str] = field(default_factory=list)
    last_ns: dict[tuple[str, int], int] = field(default_factory=dict)
    resolution_ns: int = SECOND_NS
    last: Line | None = None  # the event that the next line may go on with
    blank_lines: int = 0  # behind `last`
    tracer: str = ""
    not_understood: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)  # of what gets a note


def read_text(path: str | os.PathLike[str], events: Iterable[str] | None = None) -> Trace:
    """Read ftrace or perf text into one typed table per event.

    `events` are names or shell patterns; all when None. System calls get their events' names back
    (``sys_enter_sendto``, ``sys_exit_sendto`` with ``ret``), devices the field's name ``name``, and
    markers are the event ``print``. Text that is in no field is in the column ``text``. Lines that
    were cut, or that are not understood, are left out and counted in the notes.

    Raises TraceFormatError when the file cannot be read, or no line of it is an event: it then says
    what the file has instead (function_graph, lines of ``perf script`` without a column).
    """
    file = Path(path)
    wanted = None if events is None else [events] if isinstance(events, str) else list(events)
    text = Text()
    lines = 0
    for lines, line in enumerate(_lines_of(file, text), 1):
        _take_line(text, line, lines, wanted)
    if not text.last_ns:
        raise _no_event(file, text, lines)
    _leave_out_cut_lines(text)
    _join_lines(text)
    _add_notes(text)
    tables, notes = tables_of(text.events)
    return Trace(
        events=tables,
        lost=LOST.frame({name: [row[name] for row in text.lost] for name in LOST.names}),
        clock="",
        info={"version": "text", "compression": "none", "resolution_ns": text.resolution_ns},
        notes=(*text.notes, *notes),
    )


# --- lines ----------------------------------------------------------------------------------------


def _lines_of(file: Path, text: Text) -> Iterator[str]:
    """Yield the lines; the last one only when it is whole."""
    try:
        with file.open(encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            for line in stream:
                if line.endswith("\n"):
                    yield line.rstrip("\r\n")
                else:
                    text.notes.append("the last line is cut, left out")
    except OSError as error:
        raise TraceFormatError(
            file,
            offset=None,
            found=error.strerror or str(error),
            expected="a trace.dat, a perf.data, or their text",
        ) from error


def _take_line(text: Text, line: str, number: int, wanted: list[str] | None) -> None:
    """Take a line as what it is: a comment, an event, lost events, or more of the last event."""
    if line.startswith("#"):
        _take_comment(text, line)
    elif head := text.heads.head_of(line):
        _take_event(text, head, line, number, wanted)
    elif lost := LOST_LINE.match(line) or PERF_LOST.search(line):
        _take_lost(text, lost)
    elif ASIDE.match(line):
        pass
    elif not line.strip():
        text.blank_lines += 1
    elif not _goes_on(text, line):
        _take_other(text, line)


def _take_comment(text: Text, line: str) -> None:
    text.last = None
    text.heads.take_legend(line)
    if line.startswith("# tracer:"):
        text.tracer = line.partition(":")[2].strip()
    elif overwritten := OVERWRITTEN.match(line):
        missing = int(overwritten["all"]) - int(overwritten["kept"])
        if missing > 0:
            text.notes.append(f"{missing} events were overwritten in the buffer before it was read")


def _goes_on(text: Text, line: str) -> bool:
    """Add a line to the last event, if that can have several: a marker's text, a stack."""
    last = text.last
    if last is None:
        return False
    if last.event in STACKS:
        if caller := CALLER.match(line):
            last.further.append(caller["caller"].strip())
        return bool(caller)
    if last.event not in SEVERAL_LINES or GRAPH.match(line):
        return False
    last.further += [""] * text.blank_lines + [line]
    text.blank_lines = 0
    return True


def _join_lines(text: Text) -> None:
    """Put the further lines of an event into its text, and those of a stack into ``caller``."""
    for event in text.events.keys() & {*SEVERAL_LINES, *STACKS}:
        for line in text.events[event]:
            if event in STACKS:
                line.fields["caller"] = tuple(line.further)
            elif line.further:
                column = SEVERAL_LINES[event]
                line.fields[column] = "\n".join([str(line.fields.get(column, "")), *line.further])


def _take_other(text: Text, line: str) -> None:
    """Count a line that is no event."""
    if GRAPH.match(line) or (text.tracer == "function_graph" and "|" in line):
        text.counts["function_graph"] += 1
    elif PERF_CALLER.match(line) and line.rstrip().endswith(")"):
        text.counts["callers"] += 1
    elif missing := missing_perf_columns(line):
        text.counts["perf without " + ", ".join(missing)] += 1
    else:
        text.not_understood[line.strip()[:60]] += 1


# --- events ---------------------------------------------------------------------------------------


def _take_event(text: Text, head: Head, line: str, number: int, wanted: list[str] | None) -> None:
    body = body_of(head.body, head.event)
    if body is None and text.tracer not in EVENT_TRACERS:
        body = Body(text.tracer, {TEXT: head.body.strip()})  # such as timerlat: #1 context irq ...
    text.last, text.blank_lines = None, 0
    if body is None:
        text.not_understood[line.strip()[:60]] += 1
        return
    _take_time(text, head)
    if body.is_cut:
        text.counts["cut"] += 1
        return
    _count_columns(text, head, body)
    row = Line(number, head, body.event, body.fields)
    text.last = row
    if wanted is None or any(fnmatchcase(body.event, w.rpartition(":")[2]) for w in wanted):
        text.events[body.event].append(row)


def _take_time(text: Text, head: Head) -> None:
    """Close the gaps of the event's CPU, and learn how fine its time is."""
    place = head.buffer, head.cpu
    for row in text.open_gaps.pop(place, ()):
        text.lost[row]["before_ns"] = head.time_ns
    text.last_ns[place] = head.time_ns
    if head.resolution_ns:
        text.resolution_ns = min(text.resolution_ns, head.resolution_ns)
    else:
        text.counts["without a unit"] += 1
    text.counts["relative"] += head.is_relative


def _count_columns(text: Text, head: Head, body: Body) -> None:
    """Count what lines of perf script lack, where they can be read without it."""
    if head.event:
        text.counts["perf"] += 1
        text.counts["perf without comm"] += head.comm == UNKNOWN_COMM
        text.counts["perf without trace"] += not body.fields


def _leave_out_cut_lines(text: Text) -> None:
    """Leave out lines that stop before the fields their event has in every line.

    Their last value may be cut, too, and half an address is a wrong address.
    """
    for name, lines in text.events.items():
        if not FIXED_FORM.match(name):
            continue
        shapes = Counter(tuple(line.fields) for line in lines)
        whole = max(shapes, key=lambda shape: (shapes[shape], len(shape)))
        short = {s for s in shapes if len(s) < len(whole) and s == whole[: len(s)]}
        if short:
            kept = [line for line in lines if tuple(line.fields) not in short]
            text.counts["cut"] += len(lines) - len(kept)
            text.events[name] = kept


# --- lost events ----------------------------------------------------------------------------------


def _take_lost(text: Text, match: re.Match[str]) -> None:
    found = match.groupdict()
    place = found.get("buffer") or "", int(found["cpu"])
    text.open_gaps.setdefault(place, []).append(len(text.lost))
    text.lost.append(
        {
            "buffer": place[0],
            "cpu": place[1],
            "after_ns": text.last_ns.get(place),
            "before_ns": None,
            "count": int(found["count"]) if found["count"] else None,
        }
    )


# --- what to say ----------------------------------------------------------------------------------


def _no_event(file: Path, text: Text, lines: int) -> TraceFormatError:
    """Return the error of a file without any event: what it has, and what to do."""
    is_empty = lines == 0 and file.stat().st_size == 0
    count = f"{lines} lines" if lines > 1 else "1 line"  # one without an end is not counted
    found, hint = "an empty file" if is_empty else f"no event in {count}", ""
    perf = [count for count in text.counts if count.startswith("perf without ")]
    if perf:
        found = f"{perf[0].replace('perf', 'lines of perf script')} in {count}"
        hint = f"print them with `perf script -F {PERF_FIELDS}`"
    elif text.counts["function_graph"] or text.tracer == "function_graph":
        found = f"the text of the function_graph tracer in {count}"
        hint = "calls of functions are not read; record events, such as net:*"
    return TraceFormatError(
        file,
        offset=0,
        found=found,
        expected="events, as trace, trace-cmd report or perf script prints them",
        hint=hint,
    )


def _add_notes(text: Text) -> None:
    """Say what was left out, and what the times are."""
    counts = text.counts
    if counts["cut"]:
        text.notes.append(f"{counts['cut']} lines are cut short, left out")
    if counts["function_graph"]:
        text.notes.append(f"{counts['function_graph']} lines of function_graph, left out")
    if counts["callers"]:
        text.notes.append(f"{counts['callers']} lines of call chains, left out")
    if counts["without a unit"]:
        text.notes.append(
            "times without a fraction are the clock's own numbers, not nanoseconds (counter, "
            "x86-tsc, uptime, or raw times)"
        )
    if counts["relative"]:
        text.notes.append("times of latency-format count from the start of the buffer")
    for column in ("comm", "trace"):
        if counts["perf"] and counts[f"perf without {column}"] == counts["perf"]:
            text.notes.append(f"perf script printed no column {column}")
    for what, number in counts.items():
        if what.startswith("perf without ") and what.partition("without ")[2] not in (
            "comm",
            "trace",
        ):
            text.notes.append(f"{number} lines of {what.replace('perf', 'perf script')}, left out")
    if text.not_understood:
        shown = next(iter(text.not_understood))
        total = text.not_understood.total()
        text.notes.append(f"{total} lines not understood, such as {shown!r}")
