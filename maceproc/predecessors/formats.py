"""What a line of the predecessors' files means, and what a file's name says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
DIRECTIONS = {
    "egress": "outbound",
    "ingress": "inbound",
    "send": "outbound",
    "recv": "inbound",
    "rtt": "both",
}
SUFFIXES = (".ping", ".lat", ".latency", ".pert", ".trace")
DERIVED = (".ping_raw", ".lat_raw", ".latency_raw", ".trace_raw", ".data")
FIRST_LINES = 3  # of those not understood, that are kept

_STAMP = r"\[(?P<s>\d+)\.(?P<frac>\d+)\]"


class Name(NamedTuple):
    """What a file's name says: ``container_monitored_10.10.1.2_100M.latency``."""

    arm: str  # native control, container monitored, ...; of a .pert, native or container
    level: str  # of traffic: a rate, "nop" for none; the number of other containers
    hook: str = ""  # of a .pert: what was timed


@dataclass
class Lines:
    """The rows of a file, and how much of it was not understood."""

    format: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)  # what it says of how it was made
    lines: int = 0
    not_understood: int = 0
    not_understood_first: list[str] = field(default_factory=list)

    def wonder(self, line: str) -> None:
        """Count a line that is not understood."""
        self.not_understood += 1
        if len(self.not_understood_first) < FIRST_LINES:
            self.not_understood_first.append(line[:200])


def name_of(path: PurePath) -> Name:
    """Read a file's name; what it does not say is empty."""
    words = path.stem.split("_")
    tracer = words.pop(0) + " " if words[0] in ("mace", "ftrace") else ""
    if words[0] not in ("native", "container"):
        return Name("", _level(path, []))
    place = words.pop(0)
    if path.suffix == ".pert":
        return Name(place, _level(path, []), "_".join(words))
    kind = words.pop(0) if words else ""
    return Name(f"{place} {tracer}{kind}".strip(), _level(path, words))


def _level(path: PurePath, words: list[str]) -> str:
    """Return the last word behind the target; else the directory, where that is a number."""
    if len(words) > 1:
        return "_".join(words[1:])
    return path.parent.name if path.parent.name.isdigit() and len(path.parent.name) < 5 else ""


def nanoseconds(text: str, unit: str) -> tuple[int, int]:
    """Return a printed number and the step of its last digit [ns], without a float between."""
    whole, _, fraction = text.partition(".")
    scale = NS[unit]
    step = max(scale // 10 ** len(fraction), 1)
    return int(whole) * scale + int(fraction or 0) * scale // 10 ** len(fraction), step


def _stamp(found: re.Match[str]) -> int:
    return nanoseconds(f"{found['s']}.{found['frac']}", "s")[0]


# --- latencies ------------------------------------------------------------------------------------

_MACE = re.compile(_STAMP + r" \((?P<seq>\d+)\) (?P<direction>ingress|egress): (?P<value>\d+)")
_TRACED = re.compile(
    _STAMP + r" (?P<direction>rtt|send|recv) (?:raw_)?latency: (?P<value>-?\d+)(?P<more>.*)"
)
_OVERHEAD = re.compile(r"events_overhead: (\d+(?:\.\d+)?)")
_DAEMON = re.compile(r"(?P<direction>send|recv) latency: (?P<value>-?\d+\.\d+)")
_PCAP = re.compile(r"seq: (?P<seq>\d+), outbound: (?P<out>\d+\.\d+), inbound: (?P<in>\d+\.\d+)")
_SETTING = re.compile(r"(?P<name>[A-Za-z][\w ]{0,80}?)\s{0,80}: {0,80}(?P<value>.+)")
_DISCARDED = re.compile(r"discarded (?:send|recv): ")
_SAID = re.compile(
    r"Watching for|Listening for|Latency stats|Done|Activated capture|Starting capture|"
    r"Cleaning up|\s*$"
)


def _row(direction: str, value: int, step: int, **more: Any) -> dict[str, Any]:
    return {"direction": direction, "latency_ns": value, "resolution_ns": step, **more}


def _mace(found: re.Match[str]) -> list[dict[str, Any]]:
    value, step = nanoseconds(found["value"], "ns")
    direction = DIRECTIONS[found["direction"]]
    return [_row(direction, value, step, at_ns=_stamp(found), seq=int(found["seq"]))]


def _traced(found: re.Match[str]) -> list[dict[str, Any]]:
    overhead = _OVERHEAD.search(found["more"])
    own = nanoseconds(overhead[1], "us")[0] if overhead else None
    direction = DIRECTIONS[found["direction"]]
    value = int(found["value"]) * NS["us"]
    return [_row(direction, value, NS["us"], at_ns=_stamp(found), tracer_ns=own)]


def _daemon(found: re.Match[str]) -> list[dict[str, Any]]:
    text = found["value"]
    value, step = nanoseconds(text.lstrip("-"), "s")
    return [_row(DIRECTIONS[found["direction"]], -value if text[0] == "-" else value, step)]


def _pcap(found: re.Match[str]) -> list[dict[str, Any]]:
    values = (("outbound", found["out"]), ("inbound", found["in"]))
    seq = int(found["seq"])
    return [_row(name, *nanoseconds(text, "s"), seq=seq) for name, text in values]


LATENCY_FORMS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], list[dict[str, Any]]]]]
LATENCY_FORMS = {
    "MACE's latencies": (_MACE, _mace),
    "contools' latencies of traced events": (_TRACED, _traced),
    "contools' latencies of its daemon": (_DAEMON, _daemon),
    "contools' latencies of captured packets": (_PCAP, _pcap),
}


def read_latencies(text: str) -> Lines:
    """Read a ``.lat`` or ``.latency``: a row per latency; ``direction`` both is out and in at once.

    Lines that count what their program discarded, or say how it was set, are kept as settings.
    """
    read = Lines("latencies of no known form")
    discarded = 0
    for line in text.splitlines():
        read.lines += 1
        for name, (pattern, rows_of) in LATENCY_FORMS.items():
            if found := pattern.fullmatch(line):
                read.format = name
                read.rows += rows_of(found)
                break
        else:
            if _DISCARDED.match(line):
                discarded += 1
            elif setting := _SETTING.fullmatch(line.strip()):
                read.settings[setting["name"]] = setting["value"].strip()
            elif not _SAID.match(line):
                read.wonder(line)
    if discarded:
        read.settings["discarded by its program"] = str(discarded)
    return read


def read_costs(text: str) -> Lines:
    """Read a ``.pert``: a mean cost of a MACE hook per run [ns]."""
    read = Lines("MACE's own cost")
    for line in text.splitlines():
        read.lines += 1
        if line.strip().isdigit():
            read.rows.append({"run": len(read.rows) + 1, "cost_ns": int(line)})
        elif line.strip():
            read.wonder(line)
    return read


_CALL = re.compile(_STAMP + r" (?P<call>(?:enter|exit)_\w+)")


def read_calls(text: str) -> Lines:
    """Read contools' ``.trace``: when ping entered and left its calls."""
    read = Lines("contools' calls of ping")
    for line in text.splitlines():
        read.lines += 1
        if found := _CALL.fullmatch(line.strip()):
            read.rows.append({"time_ns": _stamp(found), "call": found["call"]})
        elif line.strip():
            read.wonder(line)
    return read


_HARDWARE = re.compile(_STAMP + r" HW RTT (?P<value>\d+\.\d+)")
_STARTED = re.compile(r"PING ")


def read_hardware_pings(text: str) -> Lines:
    """Read the RTTs of MACE's ping with stamps of the network card: ``[...] HW RTT 0.000031``."""
    read = Lines("MACE's ping with hardware stamps")
    run = 0
    for line in text.splitlines():
        read.lines += 1
        run += bool(_STARTED.match(line))
        if found := _HARDWARE.match(line):
            value, step = nanoseconds(found["value"], "s")
            read.rows.append(
                {
                    "round": max(run, 1),
                    "rtt_ns": value,
                    "rtt_resolution_ns": step,
                    "received_at_ns": _stamp(found),
                    "status": "replied",
                }
            )
    return read


def has_hardware_rtts(text: str) -> bool:
    """Tell whether a ping's output has RTTs of the network card."""
    return _HARDWARE.search(text) is not None
