"""Our events against the authority's: every field of every event of trace-cmd report -R."""

import re
from bisect import bisect_right
from pathlib import Path

import pandas as pd
import pytest

from maceproc.schema import EVENTS
from maceproc.tracedat import merge_events, read_events
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import read_formats
from maceproc.tracedat.tracefile import KALLSYMS
from tests.recorded import NAMES, path_of
from tests.tracedat_recordings import RECORDINGS, Recording, record_everything
from tests.tracing import can_record, has_trace_cmd, instance, record, report, trace_cmd

needs_tracing = pytest.mark.skipif(not can_record, reason="needs root, trace-cmd and tracefs")

LINE = re.compile(r"^(?:\S+:)?\s+(.*)-(\d+)\s+\[(\d+)\]\s+(\d+)\.(\d{9}): (\w+):\s*(.*)$")
FIELD = re.compile(r"(?:^| )([A-Za-z_]\w*)=")
BARE_HEXADECIMAL = re.compile(r"(\w+)=%\d*l*x")  # in a print format
SYMBOL = re.compile(r"^([\w.$]+)(?:\+0x([0-9a-f]+))?(?: \((0x[0-9a-f]+)\))?$")


def split_fields(text: str, names: list[str]) -> dict[str, str]:
    """Split name=value pairs whose names are known and come in any order."""
    found = [m for m in FIELD.finditer(text) if m[1] in names]
    ends = [m.start() for m in found[1:]] + [len(text)] * bool(found)
    return {m[1]: text[m.end() : end] for m, end in zip(found, ends, strict=True)}


class Symbols:
    """The kernel's symbols, as the file has them."""

    def __init__(self, path: Path) -> None:
        with open_trace(path) as trace:
            section = trace.section(KALLSYMS)
            text = bytes(section.sized("I", "kallsyms")) if section is not None else b""
        lines = text.decode().splitlines()
        self.names: dict[int, set[str]] = {}
        for address, _, name, *_ in map(str.split, lines):
            self.names.setdefault(int(address, 16), set()).add(name)
        self.addresses = sorted(self.names)

    def agree(self, printed: str, number: int) -> bool:
        """Whether a name, with its offset or without, is where the number is."""
        match = SYMBOL.match(printed)
        if not self.addresses:  # the captures have none
            return False
        start = self.addresses[max(bisect_right(self.addresses, number) - 1, 0)]
        return (
            match is not None
            and match[1] in self.names[start]
            and (match[2] is None or start + int(match[2], 16) == number)
            and (match[3] is None or int(match[3], 16) == number)
        )


def agrees(printed: str, value: object, symbols: Symbols) -> bool:
    """Whether a printed value is ours: as text, as an array, as a number, or as a symbol."""
    printed = printed.strip()
    if isinstance(value, str):
        return printed == value.strip()
    if isinstance(value, bytes) and not printed.startswith("ARRAY["):
        # Bytes that are all printable or NUL are shown as text (libtraceevent, print_field).
        return printed.encode() == value.partition(b"\0")[0]
    if isinstance(value, bytes | tuple):
        numbers = printed.removeprefix("ARRAY[").rstrip("]").split(",")
        return [int(number, 16) for number in numbers if number] == list(value)
    number = int(value)  # type: ignore[call-overload]
    if printed.startswith("(0x"):  # a symbol without a name
        printed = printed.strip("()")
    if re.fullmatch(r"-?\d+|0x[0-9a-f]+|\(nil\)", printed):
        shown = 0 if printed == "(nil)" else int(printed, 16 if printed[:2] == "0x" else 10)
        return shown in (number, number % 2**32, number % 2**64)
    return symbols.agree(printed, number)


def check_against_report(path: Path) -> int:
    """Compare all events in order: CPU, time, pid, comm, name, and every field."""
    trace = read_events(path)
    symbols = Symbols(path)
    with open_trace(path) as file:
        forms = read_formats(file).values()
    bare = {
        (form.name, name) for form in forms for name in BARE_HEXADECIMAL.findall(form.print_format)
    }
    frames = {name: frame.to_dict("index") for name, frame in trace.events.items()}
    merged = merge_events(trace, fields=[])
    lines = [match.groups() for match in map(LINE.match, report(path, "-t", "-R")) if match]
    assert len(lines) == len(merged) > 500
    several = sum(buffer["cpus"] > 0 for buffer in trace.info["buffers"]) > 1
    compared = 0
    for rank, (line, event) in enumerate(zip(lines, merged.event, strict=True)):
        comm, pid, cpu, seconds, fraction, name, text = line
        row = frames[event][rank]
        assert name == event
        assert (int(cpu), int(pid)) == (row["cpu"], row["pid"])
        assert comm.strip() == row["comm"]
        assert int(seconds) * 10**9 + int(fraction) == row["time_ns"]
        common = {*EVENTS.names, *["buffer"] * several}
        own = {key.rstrip("_") if key.rstrip("_") in common else key: key for key in row}
        printed = split_fields(text, [n for n in own if n not in common or f"{n}_" in row])
        ours = {n: row[key] for n, key in own.items() if n in printed}
        assert printed or not text.strip(), (name, text)
        for field, value in ours.items():
            shown = printed[field]
            if (name, field) in bare:  # -R keeps the print format's own way with numbers
                shown = f"0x{int(shown, 16):x}"
            assert agrees(shown, value, symbols), (name, field, shown, value)
            compared += 1
    return compared


def check_lost_against_report(path: Path) -> None:
    """Compare CPU and number of lost events, all of them."""
    dropped = re.compile(r"CPU:(\d+) \[(?:(\d+) )?EVENTS DROPPED\]")
    theirs = [(int(m[1]), int(m[2] or -1)) for m in map(dropped.search, report(path)) if m]
    lost = read_events(path).lost
    assert sorted(zip(lost.cpu, lost["count"].fillna(-1), strict=True)) == sorted(theirs)


@pytest.mark.kernel
@needs_tracing
@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_every_field_is_what_trace_cmd_report_prints(tmp_path: Path, recording: Recording) -> None:
    path = record_everything(tmp_path / "trace.dat", recording)
    assert check_against_report(path) > 3000
    check_lost_against_report(path)
    assert len(read_events(path).lost) or not recording.tiny


@pytest.mark.skipif(not has_trace_cmd, reason="needs trace-cmd")
@pytest.mark.parametrize("name", NAMES)
def test_captures_are_what_trace_cmd_report_prints(name: str) -> None:
    assert check_against_report(path_of(name)) > 1000
    check_lost_against_report(path_of(name))


@pytest.mark.kernel
@needs_tracing
def test_lost_events_are_those_of_trace_cmd_report(tmp_path: Path) -> None:
    # A buffer of a few pages, and a reader that is asleep for most of the time, loses events.
    path = record(
        tmp_path / "trace.dat", ["net", "skb"],
        ["sh", "-c", "ping -q -f -c 20000 127.0.0.1 > /dev/null"],
        "-C", "mono", "-b", "8", "-s", "100000",
    )  # fmt: skip
    trace = read_events(path)
    check_lost_against_report(path)
    assert not trace.lost.empty
    known = trace.lost.dropna()
    assert (known.before_ns > known.after_ns).all()
    kept = sum(map(len, trace.events.values()))
    assert kept == len([line for line in report(path) if "DROPPED" not in line])


@pytest.mark.kernel
@needs_tracing
def test_shifted_times_are_those_of_trace_cmd_report(tmp_path: Path) -> None:
    path = record(tmp_path / "trace.dat", ["net"], ["ping", "-c", "3", "127.0.0.1", "-i", "0.01"],
                  "--ts-offset", "123456789")  # fmt: skip
    with instance() as name:
        dated = tmp_path / "dated.dat"
        trace_cmd("record", "-o", dated, "--date", "-B", name, "-e", "net",
                  "ping", "-c", "3", "-i", "0.01", "127.0.0.1", covered=name)  # fmt: skip
    for shifted in (path, dated):
        lines = [m for m in map(LINE.match, report(shifted, "-t", "-R")) if m]
        times = [int(m[4]) * 10**9 + int(m[5]) for m in lines]
        assert merge_events(read_events(shifted)).time_ns.tolist() == times
        assert len(times) > 20
    assert pd.Timestamp(times[0]).year >= 2020
