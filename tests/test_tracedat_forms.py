"""Forms of a file that cannot be recorded on every machine: clocks, and large sub-buffers."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.tracedat import read_events
from tests.test_tracedat_damaged import FORMAT, MACHINE, ticks
from tests.tracedat_writer import Buffer, File, Page, Record

DATE, OFFSET, TSC2NSEC = 1, 7, 14  # options, trace-cmd.dat.v7(5)
STARTS = [0, 1, 5_000_000_000, 2**52 - 1]


def read_times(path: Path, file: File) -> list[int]:
    path.write_bytes(file.write())
    trace = read_events(path)
    assert trace.notes == ()
    return trace.events["tick"].time_ns.tolist()


def one_page(start: int, **changes) -> File:
    records = [Record(start + 300 * n, MACHINE.pack("HBBiQ", 300, 0, 0, 1, n)) for n in range(50)]
    return File([Buffer("", {0: [Page(start, records)]})], {"test": [FORMAT]}, **changes)


@given(
    start=st.sampled_from(STARTS) | st.integers(0, 2**60),
    mult=st.integers(1, 2**32 - 1),
    shift=st.integers(0, 40),
)
def test_cycles_become_nanoseconds(tmp_path_factory, start: int, mult: int, shift: int) -> None:
    last = floor(Fraction((start + 300 * 49) * mult, 1 << shift))
    if last >= 2**63:  # no time in nanoseconds
        return
    option = (TSC2NSEC, MACHINE.pack("IIQ", mult, shift, 0))
    file = one_page(start, clock="tsc2nsec", options=[option])
    times = read_times(tmp_path_factory.mktemp("clock") / "trace.dat", file)
    assert times == [(start + 300 * n) * mult >> shift for n in range(50)]


def test_cycles_stay_cycles_under_another_clock(tmp_path: Path) -> None:
    option = (TSC2NSEC, MACHINE.pack("IIQ", 10, 3, 0))
    file = one_page(1000, clock="x86-tsc", options=[option])
    assert read_times(tmp_path / "trace.dat", file)[:2] == [1000, 1300]


@pytest.mark.parametrize("version", [6, 7])
def test_dates_are_microseconds_and_offsets_nanoseconds(tmp_path: Path, version: int) -> None:
    for option, shift in (((DATE, b"0x10\0"), 16_000), ((OFFSET, b"-123\0"), -123)):
        file = one_page(1000, version=version, options=[option])
        assert read_times(tmp_path / "trace.dat", file)[:2] == [1000 + shift, 1300 + shift]


def test_a_span_is_on_the_shifted_clock(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(one_page(1000, options=[(DATE, b"0x10\0")]).write())
    span = read_events(path, start_ns=17_300, end_ns=17_900).events["tick"]
    assert span.time_ns.tolist() == [17_300, 17_600]


@pytest.mark.parametrize("size", [8192, 65536])
def test_version_6_does_not_say_how_large_an_instances_pages_are(tmp_path: Path, size: int) -> None:
    pages = ticks(9000, 3000)
    large = [
        Page(part[0].time, [record for page in part for record in page.records])
        for part in (pages[at : at + size // 2100] for at in range(0, 30, size // 2100))
    ]
    buffers = [Buffer("", {0: ticks(5000, 500)}), Buffer("web", {1: large}, size)]
    path = tmp_path / "trace.dat"
    path.write_bytes(File(buffers, {"test": [FORMAT]}, version=6).write())
    trace = read_events(path)
    frame = trace.events["tick"]
    assert trace.notes == ()
    assert frame.buffer.value_counts().to_dict() == {"web": 3000, "": 500}
    assert frame[frame.buffer == "web"].number.tolist() == list(range(3000))
