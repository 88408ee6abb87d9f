"""The start of a line: task, CPU, flags and time.

Each program prints them in its own form. A form is found by the part that no command name can
imitate (``-771 [001] ..... 10.000001: ``); what stands before that part is the command name, which
can hold spaces, dashes, colons and brackets.

Every pattern starts at a character that cannot occur in the part before it, so a search takes time
in proportion to the length of the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

SECOND_NS = 1_000_000_000
UNKNOWN_COMM = "<...>"  # as the kernel and trace-cmd print it

TIME = r"(?:(?P<seconds>[0-8]?\d{1,9})\.(?P<fraction>\d{3,9})|(?P<count>\d{1,18}))"
TGID = r"(?:\(\s*[\d-]+\)\s+)?"
FLAGS = r"(?P<flags>-0x[0-9a-f]{1,2}|[^\s\d\[(:-][^\s:]{3,11})"

FORMS = (
    # ping-5166    [000] b..1.  6699.925070: net_dev_queue: dev=lo ...    trace, trace-cmd report
    # ping-5166    (   5166) [000] 6699.925070: net_dev_queue: ...    record-tgid, no irq-info
    # ping-5166    [000]6699925070123: net_dev_queue: dev=lo ...    trace-cmd report --raw-ts
    # ping-5166    [000]-0x80 6699.925070: net_dev_queue: dev=lo ...    trace-cmd 3.3 report -R
    re.compile(
        rf"(?<=\S)-(?P<pid>\d{{1,9}})\s+{TGID}\[(?P<cpu>\d{{1,5}})\]\s*(?:{FLAGS}\s+)?{TIME}:(?:\s+|$)"
    ),
    # ping-5166    0b..1.  6699.925070: net_dev_queue: dev=lo ...    trace-cmd report -l
    # ping-5166    0b..1.    12us+: net_dev_queue: dev=lo ...    latency-format
    re.compile(
        rf"(?<=\S)-(?P<pid>\d{{1,9}})\s+(?P<cpu>\d{{1,5}}){FLAGS}\s+"
        rf"(?:(?P<us>\d{{1,15}})us\s*[+!#*@$]?|{TIME})\s*:(?:\s+|$)"
    ),
    # ping    5166   0 128 00000000 000002c5 [3a93d7e0] 9.182ms (+0.315ms): net_dev_queue: ...
    #                                                          latency-format with verbose
    re.compile(
        r"(?:(?<=\S)|^)\s+(?P<pid>\d{1,9})\s+(?P<cpu>\d{1,5})\s+(?P<raw_flags>\d{1,3})\s+"
        r"[0-9a-f]{8}\s+[0-9a-f]{8,16}\s+\[(?P<stamp>[0-9a-f]{1,16})\]\s+"
        r"-?\d+(?P<in_ms>\.\d{3}ms)?\s+\(\+?-?\d+(?:\.\d{3}ms)?\):(?:\s+|$)"
    ),
    # ping  5166 [000]  6699.925070:     1 net:net_dev_queue: dev=lo ...    perf script
    re.compile(
        rf"(?:(?<=\S)|^)\s*(?<!\S)(?:-?\d{{1,9}}/)?(?P<pid>-1|\d{{1,9}})\s+\[(?P<cpu>\d{{1,5}})\]\s+"
        rf"{TIME}:\s+(?:\d+\s+)?"
        r"(?P<system>[\w-]+):(?P<event>[A-Za-z_]\w*):(?:\s+|$)"
    ),
)

# What perf script printed with other columns: everything before the event can be missing.
PERF_EVENT = re.compile(r"(?:^|(?<=\s))(?P<system>[a-z][\w-]*):(?P<event>[A-Za-z_]\w*):(?:\s|$)")
PERF_COLUMNS = {
    "time": re.compile(r"(?:^|\s)\d{1,10}\.\d{3,9}:\s*(?:\d{1,20}\s*)?$"),
    "cpu": re.compile(r"\[\d{1,5}\]"),
    "tid": re.compile(r"(?:^|\s)(?:\d{1,9}/)?\d{1,9}(?=\s+\[|\s+\d+\.\d{3,9}:|\s*$)"),
}

# trace-cmd report puts the name of an instance, set to the right, before its lines. A command name
# follows, itself set to the right in 16 columns, or in 8 with -l (trace-cmd 3.1.6,
# tracecmd/trace-read.c): so "tmux: server" is none.
INSTANCE = re.compile(r"^\s*(?P<buffer>[^\s:]\S*):\s(?P<comm>.*)$")

# common_flags, include/linux/trace_events.h, from the letters of kernel/trace/trace_output.c,
# trace_print_lat_fmt(), v6.18. Real-time kernels have more columns; the header says which.
IRQS_OFF = {"d": 0x01, "D": 0x81, "b": 0x80, "X": 0x02}
NEED_RESCHED = {"N": 0x24, "n": 0x04, "p": 0x20, "B": 0x26, "b": 0x06, "L": 0x22, "l": 0x02}
NEED_RESCHED |= {"g": 0x20}  # of some real-time kernels
NEED_RESCHED_LAZY = {"N": 0x02, "n": 0x02, "L": 0x02, "l": 0x02, "p": 0x20, "g": 0x22}
HARDIRQ_SOFTIRQ = {"H": 0x18, "h": 0x08, "s": 0x10, "Z": 0x48, "z": 0x40}
Letters = dict[str, int]

LEGEND = re.compile(r"^#[\s|/]*_-+=>\s*(?P<column>\S+)")
LEGEND_LETTERS: dict[str, Letters] = {
    "irqs-off": IRQS_OFF,
    "irqs-off/BH-disabled": IRQS_OFF,
    "need-resched": NEED_RESCHED,
    "need-resched-lazy": NEED_RESCHED_LAZY,
    "need-resched_lazy": NEED_RESCHED_LAZY,
    "hardirq/softirq": HARDIRQ_SOFTIRQ,
}
USUAL_COLUMNS = (IRQS_OFF, NEED_RESCHED, HARDIRQ_SOFTIRQ)
# Without a header: from six columns on, the third is that of need-resched-lazy.
REAL_TIME_COLUMNS = (IRQS_OFF, NEED_RESCHED, NEED_RESCHED_LAZY, HARDIRQ_SOFTIRQ)


class Head(NamedTuple):
    """The start of a line, and what is behind it."""

    comm: str
    pid: int
    cpu: int
    flags: int
    time_ns: int
    resolution_ns: int  # of the printed time; 0 for a clock that does not count nanoseconds
    buffer: str  # instance; empty for the top one
    event: str  # the event's name where the form itself has it, as perf script; else empty
    body: str
    is_relative: bool = False  # the time counts from the first event of the buffer


@dataclass
class Heads:
    """Reads the start of lines; remembers the header's columns and the form of the last line."""

    columns: list[Letters] = field(default_factory=list)
    form: int = 0

    def take_legend(self, line: str) -> None:
        """Learn from a comment which column of flags means what."""
        if line.startswith("# tracer:"):
            self.columns = []
        elif (legend := LEGEND.match(line)) and legend["column"] != "CPU#":
            self.columns.append(LEGEND_LETTERS.get(legend["column"], {}))

    def head_of(self, line: str) -> Head | None:
        """Read the start of a line; None when it has none of the known forms.

        Where two forms occur in a line, as in a marker that quotes another trace, the first in the
        line counts.
        """
        best = FORMS[self.form].search(line)
        end = best.end() if best else len(line)
        # Every form ends with a colon and a space: no other one can end before the first of them.
        if best and line.find(": ", 0, len(line[:end].rstrip()) - 1) < 0:
            return self._head(line, best)
        for number, form in enumerate(FORMS):
            match = form.search(line, 0, end) if number != self.form else None
            if match and (best is None or match.end() < end):
                best, end, self.form = match, match.end(), number
        return None if best is None else self._head(line, best)

    def _head(self, line: str, match: re.Match[str]) -> Head:
        found = match.groupdict()
        comm, buffer = _comm_and_buffer(line[: match.start()], narrow="us" in found)
        time_ns, resolution_ns = _time_of(found)
        return Head(
            comm=comm or UNKNOWN_COMM,
            pid=int(found["pid"]),
            cpu=int(found["cpu"]),
            flags=self._flags_of(found),
            time_ns=time_ns,
            resolution_ns=resolution_ns,
            buffer=buffer,
            event=found.get("event") or "",
            body=line[match.end() :],
            is_relative=bool(found.get("us")),
        )

    def _flags_of(self, found: dict[str, str | None]) -> int:
        """Return ``common_flags``; 0 where none are printed."""
        if raw := found.get("raw_flags"):
            return int(raw) & 0xFF
        letters = found.get("flags") or ""
        if letters.startswith("-0x"):
            return int(letters[1:], 16)
        usual = REAL_TIME_COLUMNS if len(letters) >= 6 else USUAL_COLUMNS
        flags = 0
        for table, letter in zip(self.columns or usual, letters, strict=False):
            flags |= table.get(letter, 0)
        return flags


def _comm_and_buffer(text: str, *, narrow: bool) -> tuple[str, str]:
    """Split what stands before the pid into command name and instance."""
    match = INSTANCE.match(text)
    if match and len(match["comm"]) >= (8 if narrow else 16):
        return match["comm"].strip(), match["buffer"]
    return text.strip(), ""


def _time_of(found: dict[str, str | None]) -> tuple[int, int]:
    """Return a line's time [ns] and its resolution [ns].

    A clock without a fraction (counter, x86-tsc, uptime; also trace-cmd report --raw-ts) keeps its
    own numbers, and has the resolution 0.
    """
    if stamp := found.get("stamp"):
        # kernel/trace/trace_output.c, lat_print_timestamp(), v6.18: microseconds if the clock
        # counts nanoseconds, else the clock's own number.
        number = min(int(stamp, 16), (1 << 63) - 1)
        return (min(number * 1000, (1 << 63) - 1), 1000) if found.get("in_ms") else (number, 0)
    if us := found.get("us"):
        return int(us) * 1000, 1000
    if count := found.get("count"):
        return int(count), 0
    fraction = found["fraction"] or ""
    time_ns = int(found["seconds"] or 0) * SECOND_NS + int(fraction.ljust(9, "0"))
    return time_ns, int(10 ** (9 - len(fraction)))


def missing_perf_columns(line: str) -> tuple[str, ...] | None:
    """Return which of perf script's columns a line lacks; None when it is no line of perf script.

    It is asked only about lines that are in no complete form.
    """
    match = PERF_EVENT.search(line)
    if match is None:
        return None
    before = line[: match.start()]
    missing = tuple(name for name, form in PERF_COLUMNS.items() if not form.search(before))
    return missing or None
