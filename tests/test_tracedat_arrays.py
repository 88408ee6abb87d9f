"""Arrays at the end of a record: as long as the record says, whatever the format declares."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from maceproc.cli import cli
from maceproc.errors import TraceFormatError
from maceproc.tracedat import native, read_events
from maceproc.tracedat.bindings import Library
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.tracefile import CPUCOUNT
from tests.tracedat_samples import COMMON, field_line
from tests.tracedat_writer import Buffer, File, Machine, Page, Record
from tests.tracing import can_record, record, report

CALLER = 0xFFFFFFFF81000000


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def _both_readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(native, "loops", None)


def event_format(name: str, number: int, *lines: str) -> str:
    return f'name: {name}\nID: {number}\nformat:\n{COMMON}{"".join(lines)}\nprint fmt: ""\n'


def write(tmp_path: Path, text: str, payloads: list[bytes], machine: Machine, **more: Any) -> Path:
    records = [Record(1000 + n, payload) for n, payload in enumerate(payloads)]
    path = tmp_path / "trace.dat"
    buffers = [Buffer("", {0: [Page(1000, records)]})]
    path.write_bytes(File(buffers, {"test": [text]}, machine, **more).write())
    return path


def head(machine: Machine, number: int = 300) -> bytes:
    return machine.pack("HBBi", number, 0, 0, 771)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("long_size", [4, 8])
def test_a_stack_has_all_its_callers(tmp_path: Path, order: str, long_size: int) -> None:
    machine, letter = Machine(order, long_size), "Q" if long_size == 8 else "I"
    at = 16 if long_size == 8 else 12
    text = event_format(
        "kernel_stack",
        4,
        field_line("int size", 8, 4, 1),
        field_line("unsigned long caller[8]", at, 8 * long_size, 0),
    )
    callers = [
        tuple((CALLER + n) % 256**long_size for n in range(depth)) for depth in (0, 1, 3, 8, 9, 13)
    ]
    payloads = [
        (head(machine, 4) + machine.pack("i", len(own))).ljust(at, b"\0")
        + b"".join(machine.pack(letter, caller) for caller in own)
        for own in callers
    ]
    trace = read_events(write(tmp_path, text, payloads, machine))
    assert trace.events["kernel_stack"]["caller"].tolist() == callers
    assert trace.notes == ()


@pytest.mark.parametrize(
    ("declaration", "size", "lengths", "expected"),
    [
        ("u32 ports[2]", 8, [4, 8, 12, 16, 20], [1, 2, 2, 4, 5]),  # 4 bytes can be padding
        ("u8 lladdr[6]", 6, [4, 6, 8, 12, 16], [4, 6, 6, 6, 16]),
        ("u64 values[1]", 8, [0, 4, 8, 16, 24], [0, 0, 1, 2, 3]),
    ],
)
def test_any_last_array_is_as_long_as_its_record(
    tmp_path: Path, declaration: str, size: int, lengths: list[int], expected: list[int]
) -> None:
    text = event_format("sample", 300, field_line(declaration, 8, size, 0))
    payloads = [head(Machine()) + bytes(range(1, length + 1)) for length in lengths]
    trace = read_events(write(tmp_path, text, payloads, Machine()))
    name = declaration.rsplit(maxsplit=1)[-1].partition("[")[0]
    values = trace.events["sample"][name].tolist()
    assert [len(value) for value in values] == expected


def test_an_array_before_dynamic_data_keeps_its_size(tmp_path: Path) -> None:
    text = event_format(
        "sample",
        300,
        field_line("__data_loc char[] name", 8, 4, 0),
        field_line("u8 saddr[4]", 12, 4, 0),
    )
    name = b"a long name of a device\0"
    payload = head(Machine()) + Machine().pack("I", len(name) << 16 | 16) + b"\1\2\3\4" + name
    row = read_events(write(tmp_path, text, [payload], Machine())).events["sample"].iloc[0]
    assert (row.saddr, row["name"]) == (b"\1\2\3\4", "a long name of a device")


# --- the list and the tables ----------------------------------------------------------------------


def test_the_list_counts_the_rows_and_says_what_is_left_out(tmp_path: Path) -> None:
    text = event_format("sample", 300, field_line("u64 number", 8, 8, 0))
    machine = Machine()
    whole, short = head(machine) + bytes(8), head(machine) + bytes(4)
    unknown = head(machine, 999) + bytes(8)
    path = write(tmp_path, text, [whole, short, whole, unknown, short], machine)
    listed = CliRunner().invoke(cli, ["events", str(path)]).output
    assert "sample            2" in listed
    notes = ["note: 2 records of sample too short, left out\n"]
    assert notes[0] in listed
    assert "note: 1 records left out: no format for type 999\n" in listed
    shown = CliRunner().invoke(cli, ["events", str(path), "sample"]).output
    assert notes[0] in shown
    csv = CliRunner().invoke(cli, ["events", str(path), "sample", "--csv"])
    assert len(csv.stdout.splitlines()) == 3
    assert csv.stderr == notes[0]


# --- options of other programs --------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"771 771\n772 771\n", b"1 1\n", b"", b"\1\0", b"\0\0\0\0"])
def test_option_8_of_other_programs_is_passed_over(tmp_path: Path, data: bytes) -> None:
    text = event_format("sample", 300, field_line("u64 number", 8, 8, 0))
    payload = head(Machine()) + bytes(8)
    path = write(tmp_path, text, [payload], Machine(), version=6, options=[(CPUCOUNT, data)])
    trace = read_events(path)
    assert len(trace.events["sample"]) == 1
    assert len(trace.notes) == 1
    assert "option 8 is no number of CPUs" in trace.notes[0]


# --- trace-cmd's module ---------------------------------------------------------------------------


def test_an_instance_that_trace_cmd_cannot_open_is_refused(tmp_path: Path) -> None:
    class Top:
        def __init__(self, path: str) -> None:
            self._handle = path

    c = SimpleNamespace(
        tracecmd_buffer_instances=lambda _: 1,
        tracecmd_buffer_instance_name=lambda *_: "web",
        tracecmd_buffer_instance_handle=lambda *_: None,  # NULL
    )
    text = event_format("sample", 300, field_line("u64 number", 8, 8, 0))
    path = write(tmp_path, text, [head(Machine()) + bytes(8)], Machine())
    refused = pytest.raises(TraceFormatError, match="'web', which libtracecmd cannot open")
    with open_trace(path) as trace, refused:
        Library(SimpleNamespace(Trace=Top), c).open(trace)


# --- recordings -----------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.skipif(not can_record, reason="needs root, trace-cmd and tracefs")
def test_the_stacks_of_a_recording_are_those_that_trace_cmd_report_prints(tmp_path: Path) -> None:
    ping = ["ping", "-q", "-c", "3", "-i", "0.002", "127.0.0.1"]
    path = record(tmp_path / "trace.dat", ["net:net_dev_queue", "net:netif_rx"], ping, "-T")
    printed: list[int] = []
    for line in report(path):
        if "kernel_stack:" in line:
            printed.append(0)
        elif line.startswith("=>"):
            printed[-1] += 1
    stacks = read_events(path).events["kernel_stack"]["caller"].map(len).tolist()
    assert len(stacks) >= 6
    assert max(stacks) > 8
    assert stacks == printed
