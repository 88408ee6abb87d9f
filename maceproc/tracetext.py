"""ftrace text into the same tables as trace.dat.

Reads what people have lying around: the kernel's ``trace`` and ``trace_pipe`` (also with
``latency-format``), ``trace-cmd report`` (also -t, -R, -l, -N), and ``perf script``, from kernels
3.10 to 6.18. A line's form is declared by the patterns below; fields are found by their names,
never by their place.

What text cannot say: it has no types, so integers come as int64 (uint64 where they do not fit) and
everything else as categoricals; no clock's name; and often microseconds only
(``info["resolution_ns"]``). Lines at the same time keep the order of the file.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maceproc.errors import TraceFormatError
from maceproc.schema import EVENTS, LOST, Trace

# A comm can hold dashes and spaces.
TASK = r"(?P<comm>.+?)-(?P<pid>\d{1,9})\s+(?:\(\s*[\d-]+\)\s+)?"
TIME = r"(?P<seconds>[0-8]?\d{1,9})\.(?P<fraction>\d{3,9})"
# trace-cmd report puts the name of an instance before its lines, in the first column. A comm such
# as "tmux: server" is never there: comms are set to the right.
BUFFER = r"(?:(?P<buffer>\S+):\s+)?"
EVENT = r"(?P<event>[A-Za-z_]\w*)"
REST = r"(?P<text>.*)$"

LONGEST_LINE = 2000  # [characters]: the patterns below look at some texts in n steps a character
LINES = [
    # ping-5166    [000] b..1.  6699.925070: net_dev_queue: dev=lo ...
    # ping-5166    [000]-0x80 6699.925070: net_dev_queue: dev=lo ...      (trace-cmd 3.3 report -R)
    re.compile(
        rf"^{BUFFER}\s*{TASK}\[(?P<cpu>\d{{1,5}})\](?:\s+|(?=-0x))(?:(?P<flags>\S{{4,6}})\s+)?{TIME}:\s+"
        rf"{EVENT}(?::\s*|(?=[( ])){REST}"
    ),
    # ping-5166    0b..1.  6699.925070: net_dev_queue: dev=lo ...          (trace-cmd report -l)
    # ping-5166    0b..1.    12us+: net_dev_queue: dev=lo ...              (latency-format)
    re.compile(
        rf"^{BUFFER}\s*{TASK}(?P<cpu>\d{{1,5}})(?P<flags>[^\s\d]\S{{3,5}})\s+"
        rf"(?:{TIME}|(?P<us>\d{{1,15}})us\s*[+!#*@$]?)\s*:\s+{EVENT}(?::\s*|(?=[( ])){REST}"
    ),
    # ping  5166 [000]  6699.925070: net:net_dev_queue: dev=lo ...         (perf script)
    re.compile(
        rf"^\s*(?P<comm>\S.*?)\s+(?:\d+/)?(?P<pid>\d{{1,9}})\s+\[(?P<cpu>\d{{1,5}})\]\s+{TIME}:\s+(?:\d+\s+)?"
        rf"[\w-]+:{EVENT}:\s*{REST}"
    ),
]
LOST_LINE = re.compile(
    r"^(?:(?P<buffer>\S+):\s+)?\s*CPU:\s*(?P<cpu>\d{1,5})\s+"
    r"\[(?:LOST\s+)?(?P<count>\d{1,18})?\s*EVENTS(?: DROPPED)?\]"
)
OVERWRITTEN = re.compile(r"^# entries-in-buffer/entries-written:\s*(?P<kept>\d+)/(?P<all>\d+)")

# name=value, and name: value as in system calls and in kfree_skb's reason.
FIELD = re.compile(r"(?:^|(?<=[\s,(]))(?P<name>\w+)(?:=|:\s)")

# What the kernel prints under another name than the field's: include/trace/events/net.h, v6.8.
DEVICE_EVENT = re.compile(r"^(net_dev|netif)_")
SYSTEM_CALL = re.compile(r"^sys_(?!enter_|exit_)")

# Addresses are printed with and without 0x, and with an x behind (FORMAT "%px" through an older
# libtraceevent); an address without 0x can look like a decimal number.
ADDRESS_FIELDS = frozenset(("skbaddr", "skaddr", "rx_sk", "sk", "napi"))
ADDRESS = re.compile(r"^(?:0x)?([0-9a-f]{1,16})x?$")
NUMBER = re.compile(r"^(?:-?\d{1,20}|0x[0-9a-f]{1,16})$")

RAW_FLAGS = re.compile(r"^-0x([0-9a-f]{1,2})$")
# common_flags, include/linux/trace_events.h, from the letters of kernel/trace/trace_output.c
# (trace_print_lat_fmt), v6.8: one table per column.
FLAG_LETTERS = (
    {"d": 0x01, "D": 0x81, "b": 0x80, "X": 0x02},
    {"N": 0x24, "n": 0x04, "p": 0x20, "B": 0x24, "b": 0x20, "g": 0x20, "l": 0x00},
    {"H": 0x18, "h": 0x08, "s": 0x10, "Z": 0x48, "z": 0x40},
)


@dataclass(frozen=True)
class _Line:
    """One event, as text."""

    number: int  # of the line in the file
    time_ns: int
    cpu: int
    pid: int
    flags: int
    comm: str
    buffer: str
    fields: dict[str, str]


@dataclass
class _Text:
    """All that a file said, in its order."""

    events: dict[str, list[_Line]] = field(default_factory=lambda: defaultdict(list))
    lost: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last_ns: dict[tuple[str, int], int] = field(default_factory=dict)
    resolution_ns: int = 1_000_000_000
    skipped: Counter[str] = field(default_factory=Counter)


def read_text(path: str | os.PathLike[str], events: Iterable[str] | None = None) -> Trace:
    """Read ftrace text into one typed table per event.

    `events` are names or shell patterns; all when None. Lines that are cut short are left out, with
    a note. System calls get their events' names back (``sys_enter_sendto``, ``sys_exit_sendto``
    with ``ret``), devices the field's name ``name``, and markers are the event ``print``.

    Raises TraceFormatError when the file cannot be read or no line of it is an event.
    """
    file = Path(path)
    wanted = None if events is None else [events] if isinstance(events, str) else list(events)
    text = _Text()
    lines = 0
    for lines, line in enumerate(_lines_of(file, text), 1):
        _take_line(text, line, lines, wanted)
    if not text.last_ns:
        raise TraceFormatError(
            file,
            offset=0,
            found=f"no event in {lines} lines",
            expected="output of trace, trace-cmd report or perf script",
        )
    _leave_out_cut_lines(text)
    if text.skipped:
        shown = next(iter(text.skipped))
        text.notes.append(f"{text.skipped.total()} lines not understood, such as {shown!r}")
    return Trace(
        events=_tables(text),
        lost=_lost_table(text.lost),
        clock="",
        info={"version": "text", "compression": "none", "resolution_ns": text.resolution_ns},
        notes=tuple(text.notes),
    )


# --- lines ----------------------------------------------------------------------------------------


def _lines_of(file: Path, text: _Text) -> Iterator[str]:
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
            file, offset=None, found=error.strerror or str(error), expected="ftrace text"
        ) from error


def _take_line(text: _Text, line: str, number: int, wanted: list[str] | None) -> None:
    if len(line) > LONGEST_LINE:
        text.skipped[line[:60]] += 1
        return
    match = next(filter(None, (pattern.match(line) for pattern in LINES)), None)
    if match is not None:
        _take_event(text, match, number, wanted)
    elif lost := LOST_LINE.match(line):
        _take_lost(text, lost)
    elif overwritten := OVERWRITTEN.match(line):
        missing = int(overwritten["all"]) - int(overwritten["kept"])
        if missing > 0:
            text.notes.append(f"{missing} events were overwritten in the buffer before it was read")
    elif re.match(r"^\s*\S.*-\d+\s.*\d:", line):
        text.skipped[line[:60]] += 1


def _take_event(text: _Text, match: re.Match[str], number: int, wanted: list[str] | None) -> None:
    found = match.groupdict()
    cpu, buffer = int(found["cpu"]), found.get("buffer") or ""
    time_ns = _time_of(text, found)
    _close_gap(text, (buffer, cpu), time_ns)
    text.last_ns[buffer, cpu] = time_ns
    name, fields = _event_of(found["event"], found["text"])
    if wanted is None or any(fnmatchcase(name, w.rpartition(":")[2]) for w in wanted):
        flags, comm = _flags_of(found.get("flags") or ""), found["comm"].strip()
        text.events[name].append(
            _Line(number, time_ns, cpu, int(found["pid"]), flags, comm, buffer, fields)
        )


def _time_of(text: _Text, found: dict[str, str | None]) -> int:
    if found.get("us"):
        text.resolution_ns = min(text.resolution_ns, 1000)
        return int(found["us"] or 0) * 1000
    fraction = found["fraction"] or ""
    text.resolution_ns = min(text.resolution_ns, 10 ** (9 - len(fraction)))
    return int(found["seconds"] or 0) * 10**9 + int(fraction.ljust(9, "0"))


def _flags_of(letters: str) -> int:
    if raw := RAW_FLAGS.match(letters):
        return int(raw[1], 16)
    flags = 0
    for table, letter in zip(FLAG_LETTERS, letters, strict=False):
        flags |= table.get(letter, 0)
    return flags


# --- events ---------------------------------------------------------------------------------------


def _event_of(event: str, text: str) -> tuple[str, dict[str, str]]:
    """Return an event's own name and its fields under the kernel's names."""
    if event in ("tracing_mark_write", "print"):
        return "print", _marker(event, text)
    if SYSTEM_CALL.match(event):  # the kernel's own output: sys_sendto(fd: 3, ...), sys_sendto -> 8
        call = event.removeprefix("sys_")
        if text.lstrip().startswith("->"):
            return f"sys_exit_{call}", {"ret": text.replace("->", "").strip()}
        return f"sys_enter_{call}", _fields_of(text.strip().strip("()"))
    fields = _fields_of(text)
    if event.startswith("sys_exit_") and not fields:
        fields = {"ret": text.strip()}
    if DEVICE_EVENT.match(event) and "dev" in fields:
        fields = {"name" if name == "dev" else name: value for name, value in fields.items()}
    return event, fields


def _marker(event: str, text: str) -> dict[str, str]:
    if event == "tracing_mark_write":
        return {"ip": event, "buf": text}
    raw = re.match(r"^ip=(\S+) buf=(.*)$", text) or re.match(r"^([\w.+]+): (.*)$", text)
    return {"ip": raw[1], "buf": raw[2]} if raw else {"ip": "", "buf": text}


def _fields_of(text: str) -> dict[str, str]:
    names = list(FIELD.finditer(text))
    ends = [match.start() for match in names[1:]] + [len(text)] * bool(names)
    return {m["name"]: text[m.end() : end].strip(" ,") for m, end in zip(names, ends, strict=True)}


def _leave_out_cut_lines(text: _Text) -> None:
    """Leave out lines that stop before the fields their event always has.

    Their last value may be cut, too, and half an address is a wrong address.
    """
    cut = 0
    for name, lines in text.events.items():
        shapes = Counter(tuple(line.fields) for line in lines)
        whole = max(shapes, key=lambda shape: (shapes[shape], len(shape)))
        short = {s for s in shapes if len(s) < len(whole) and s == whole[: len(s)]}
        if name != "print" and short:
            kept = [line for line in lines if tuple(line.fields) not in short]
            cut += len(lines) - len(kept)
            text.events[name] = kept
    if cut:
        text.notes.append(f"{cut} lines are cut short, left out")


# --- lost events ----------------------------------------------------------------------------------


def _take_lost(text: _Text, match: re.Match[str]) -> None:
    cpu, buffer = int(match["cpu"]), match["buffer"] or ""
    text.lost.append(
        {
            "buffer": buffer,
            "cpu": cpu,
            "after_ns": text.last_ns.get((buffer, cpu)),
            "before_ns": None,
            "count": int(match["count"]) if match["count"] else None,
        }
    )


def _close_gap(text: _Text, place: tuple[str, int], time_ns: int) -> None:
    """Give the gaps of a CPU that are still open their end."""
    for row in reversed(text.lost):
        if (row["buffer"], row["cpu"]) == place:
            if row["before_ns"] is not None:
                break
            row["before_ns"] = time_ns


def _lost_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return LOST.frame({name: [row[name] for row in rows] for name in LOST.names})


# --- tables ---------------------------------------------------------------------------------------


def _tables(text: _Text) -> dict[str, pd.DataFrame]:
    lines = sorted((line for own in text.events.values() for line in own), key=lambda x: x.number)
    order = np.argsort(np.array([line.time_ns for line in lines], np.int64), kind="stable")
    rank = {lines[place].number: rank for rank, place in enumerate(order.tolist())}
    several = len({line.buffer for line in lines}) > 1
    return {
        name: _table(sorted(own, key=lambda line: rank[line.number]), rank, several)
        for name, own in sorted(text.events.items())
        if own
    }


def _table(lines: list[_Line], rank: dict[int, int], several: bool) -> pd.DataFrame:
    data: dict[str, Any] = {
        column.name: pd.Series([getattr(line, column.name) for line in lines], dtype=column.dtype)
        for column in EVENTS.columns
    }
    if several:
        data["buffer"] = pd.Series([line.buffer for line in lines], dtype="category")
    for name in dict.fromkeys(name for line in lines for name in line.fields):
        column = name if name not in data else f"{name}_"
        data[column] = _typed(name, [line.fields.get(name) for line in lines])
    frame = pd.DataFrame(data)
    frame.index = pd.Index([rank[line.number] for line in lines], dtype="int64")
    return frame


def _typed(name: str, values: list[str | None]) -> pd.Series[Any]:
    """Type a column by its values: addresses, integers, or names; missing where a line has none."""
    present = [value for value in values if value is not None]
    if name in ADDRESS_FIELDS:
        return _integers([None if v is None else _address(v) for v in values], unsigned=True)
    if all(NUMBER.match(value) for value in present):
        numbers = [None if v is None else int(v, 0 if v.startswith("0x") else 10) for v in values]
        if name == "ret":  # a long, printed as an address
            numbers = [n - 2**64 if n is not None and n >= 2**63 else n for n in numbers]
        return _integers(numbers)
    return pd.Series(values, dtype="category")


def _address(text: str) -> int | None:
    if text == "(nil)":
        return 0
    match = ADDRESS.match(text)
    return int(match[1], 16) if match else None


def _integers(values: list[int | None], *, unsigned: bool = False) -> pd.Series[Any]:
    present = [value for value in values if value is not None]
    large = unsigned or max(present, default=0) >= 2**63
    if max(present, default=0) >= 2**64 or min(present, default=0) < (0 if large else -(2**63)):
        return pd.Series([None if v is None else str(v) for v in values], dtype="category")
    dtype = ("UInt64" if large else "Int64") if None in values else "uint64" if large else "int64"
    return pd.Series(values, dtype=dtype)
