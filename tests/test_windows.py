"""A trace read, followed and analyzed in windows of time gives what it gives in one go."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import maceproc
from maceproc import pipeline
from maceproc.capture_files import load_sidecar, save_sidecar, sidecar_path
from maceproc.cli import cli
from maceproc.errors import AnalysisError, MaceprocError
from maceproc.fleet.collecting import Job, collect_one
from maceproc.following.every_packet import IN_WINDOWS, InWindows, Part, every_packet
from maceproc.following.follow import EVENTS_USED
from maceproc.following.hop_arrays import HOP_EVENTS
from maceproc.following.journeys import Links, follow_packets
from maceproc.following.losses import event_counts, is_partial
from maceproc.following.streaming import PacketFollower, SoftirqIsTold, all_packets
from maceproc.following.topology import Way
from maceproc.memory import parse_size
from maceproc.reporting import listing
from maceproc.reporting.export import in_windows
from maceproc.reporting.export.in_windows import OF_EVERY_PACKET, FileShelf
from maceproc.reporting.export.tables import csv_ready
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.windows import WHOLE, unpacked_bytes, windows_of
from maceproc.traces import read_trace
from tests.recorded import NAMES, analyzed, path_of

EVENTS = {name: read_trace(path_of(name), EVENTS_USED).events for name in ("loaded", "every_event")}
RECORDED = {name: list(tables) for name, tables in EVENTS.items()}
LINKS = Links(dead_ends=frozenset([("veth96b51", "eth0"), ("veth74e51", "eth0")]))
ENDS = {
    name: (
        min(int(t["time_ns"].min()) for t in tables.values() if len(t)),
        max(int(t["time_ns"].max()) for t in tables.values() if len(t)),
    )
    for name, tables in EVENTS.items()
}


def between(tables: dict[str, pd.DataFrame], start: int, end: int) -> dict[str, pd.DataFrame]:
    return {n: t[(t["time_ns"] >= start) & (t["time_ns"] < end)] for n, t in tables.items()}


@given(st.sampled_from(sorted(EVENTS)), st.lists(st.floats(0, 1), max_size=12))
@settings(deadline=None, max_examples=40)
def test_packets_followed_in_windows_are_the_same(name: str, cuts: list[float]) -> None:
    first, last = ENDS[name]
    moments = sorted({first, last + 1, *(first + int(c * (last - first)) for c in cuts)})
    tells = any(bool((t["flags"] & 0x10).any()) for t in EVENTS[name].values())
    follower = PacketFollower(RECORDED[name], LINKS, all_packets, tells_softirq=tells)
    for start, end in pairwise(moments):
        follower.feed(between(dict(EVENTS[name]), start, end))
    expected = follow_packets(EVENTS[name], RECORDED[name], LINKS)
    pd.testing.assert_frame_equal(follower.finish(), expected)


def test_what_is_kept_has_the_numbers_of_the_whole() -> None:
    tables = EVENTS["loaded"]
    whole = follow_packets(tables, RECORDED["loaded"], LINKS)

    def keep(hops: object) -> np.ndarray:
        return np.asarray(hops["len"] == 98)  # type: ignore[index]

    follower = PacketFollower(RECORDED["loaded"], LINKS, keep)
    follower.feed(tables)
    found = follower.finish()
    wanted = whole["journey"].isin(whole["journey"][whole["len"] == 98])
    pd.testing.assert_frame_equal(found, whole[wanted].reset_index(drop=True))
    assert 0 < len(found) < len(whole)


def test_a_first_hop_in_softirq_is_told() -> None:
    tables = EVENTS["loaded"]
    follower = PacketFollower(RECORDED["loaded"], LINKS, all_packets, tells_softirq=False)
    with pytest.raises(SoftirqIsTold):
        follower.feed(tables)


@pytest.mark.parametrize("window", [1, 5_000, 30_000, 1 << 30])
def test_windows_hold_every_event_once(window: int) -> None:
    path = path_of("loaded")
    windows = windows_of(path, window)
    assert (windows[0].start_ns, windows[-1].end_ns) == WHOLE
    for before, after in pairwise(windows):
        assert before.end_ns == after.start_ns
    assert (len(windows) == 1) == (window >= unpacked_bytes(path))
    assert Path(path).stat().st_size < unpacked_bytes(path)


TABLES = ("rtts", "pings", "steps", "series", "comparisons", "findings", "events_on_path",
          "event_costs")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("window", [8192])
def test_an_analysis_in_windows_is_the_same(
    name: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = analyzed(name)
    assert not is_partial(expected.trace)
    windows = windows_of(path_of(name), window)
    assert len(windows) > 1
    monkeypatch.setattr(pipeline, "windows_for", lambda *_: windows)
    found = maceproc.analyze(path_of(name))
    assert is_partial(found.trace), "it was read as a whole"
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(found, table), getattr(expected, table))
    pd.testing.assert_frame_equal(found.trace.lost, expected.trace.lost)
    assert found.as_dict() == expected.as_dict()


@pytest.mark.parametrize("role", ["inner", "outer", "peer"])
@pytest.mark.parametrize("window", [0, 8192])
def test_a_device_that_no_event_has_is_refused(
    role: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = windows_of(path_of("idle"), window) if window else []
    monkeypatch.setattr(pipeline, "windows_for", lambda *_: windows)
    with pytest.raises(AnalysisError, match=r"no event .* device 'eth9'; .* have br0, eth0, veth"):
        maceproc.analyze(path_of("idle"), **{role: "eth9"})


def with_losses(name: str, directory: Path, pages: slice) -> Path:
    """Copy a capture that is not compressed, and lose the events of these pages of every CPU.

    The page header is a time stamp, then the length of the data, in which bit 31 says that events
    were lost before it: struct buffer_data_page and RB_MISSED_EVENTS in
    kernel/trace/ring_buffer.c, v6.8.
    """
    path = directory / "t.dat"
    words = ["trace-cmd", "convert", "-i", str(path_of(name)), "-o", str(path)]
    subprocess.run([*words, "--file-version", "6"], check=True, capture_output=True)
    sidecar = load_sidecar(sidecar_path(path_of(name)))
    sidecar.trace = None  # its digest was that of the original
    save_sidecar(sidecar_path(path), sidecar)
    data = bytearray(path.read_bytes())
    with open_trace(path) as trace:
        (buffer,) = (buffer for buffer in trace.buffers if buffer.cpus)
        for cpu in buffer.cpus:
            offsets = range(cpu.offset, cpu.offset + cpu.size, 4096)
            for lost, after in pairwise([*offsets[pages], None]):
                length = int.from_bytes(data[lost + 8 : lost + 12], "little")
                data[lost + 8 : lost + 12] = bytes(4)  # an empty page
                following = lost + 4096
                if length and following in offsets and after != following:
                    data[following + 11] |= 0x80
    path.write_bytes(data)
    return path


@pytest.mark.skipif(not shutil.which("trace-cmd"), reason="needs trace-cmd")
@pytest.mark.parametrize("pages", [slice(3, 4), slice(2, None, 5)])
def test_an_analysis_in_windows_has_the_same_losses(
    pages: slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_losses("every_event", tmp_path, pages)
    expected = maceproc.analyze(path, memory=1 << 40)
    assert len(expected.trace.lost)
    assert not is_partial(expected.trace)
    for window in (16_384, 60_000):
        windows = windows_of(path, window)
        monkeypatch.setattr(pipeline, "windows_for", lambda *_, w=windows: w)
        found = maceproc.analyze(path)
        assert is_partial(found.trace), "it was read as a whole"
        pd.testing.assert_frame_equal(found.trace.lost, expected.trace.lost)
        for table in TABLES:
            pd.testing.assert_frame_equal(getattr(found, table), getattr(expected, table))
        assert found.as_dict() == expected.as_dict()


def test_only_what_pings_can_have_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = analyzed("every_event")
    windows = windows_of(path_of("every_event"), 8192)
    monkeypatch.setattr(pipeline, "windows_for", lambda *_: windows)
    found = maceproc.analyze(path_of("every_event"))
    kept = expected.hops[expected.hops["journey"].isin(found.hops["journey"])]
    pd.testing.assert_frame_equal(found.hops, kept.reset_index(drop=True), check_categorical=False)
    assert len(found.hops)
    assert sum(map(len, found.trace.events.values())) < sum(event_counts(expected.trace).values())


@pytest.mark.parametrize("window", [4096, 30_000, 1 << 30])
def test_csv_in_windows_is_the_same(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for event in ("net_dev_queue", "sys_exit_recvmsg"):
        frame = csv_ready(read_trace(path_of("loaded"), [event]).events[event])
        windows = windows_of(path_of("loaded"), window)
        monkeypatch.setattr(listing, "windows_for", lambda *_, found=windows: found)
        parts, notes = listing.rows_csv(path_of("loaded"), event)
        assert "".join(parts) == frame.to_csv(index=False)
        assert list(notes) == []


def test_verbs_take_an_amount_of_memory(tmp_path: Path) -> None:
    path = str(path_of("idle"))
    for words in (
        ("analyze", path, "--json"),
        ("events", path, "net_dev_queue", "--csv"),
        ("export", path, "--table", "rtts"),
    ):
        plain = CliRunner().invoke(cli, words, catch_exceptions=False)
        small = CliRunner().invoke(cli, [*words, "--memory", "300M"], catch_exceptions=False)
        assert (plain.exit_code, small.exit_code) == (0, 0)
        assert small.stdout == plain.stdout
    for wrong in ("much", "1M", "-1G", ""):
        with pytest.raises(MaceprocError, match="memory"):
            parse_size(wrong)
    assert parse_size("1.5G") == parse_size("1.5 GiB") == 3 << 29
    words = ["export", path, "--format", "perfetto", "-o", str(tmp_path / "t"), "--memory", "1G"]
    refused = CliRunner().invoke(cli, words)
    assert refused.exit_code == 2
    assert "timeline has every packet" in refused.stderr


class MemoryShelf:
    """Rows put aside in memory."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._kept: list[dict[str, np.ndarray]] = []

    def append(self, columns: dict[str, np.ndarray]) -> None:
        address = columns["skbaddr"]
        begins = np.flatnonzero(np.append(True, address[1:] != address[:-1]))[: len(address)]
        behind = self.parts[-1].starts[-1] if self.parts else 0
        self.parts.append(Part(address[begins], np.append(begins, len(address)) + behind))
        self._kept.append(columns)

    def rows(self, first: int, last: int) -> dict[str, np.ndarray]:
        whole = {n: np.concatenate([k[n] for k in self._kept]) for n in self._kept[0]}
        return {name: values[first:last] for name, values in whole.items()}


@pytest.mark.parametrize("name", ["every_event", "native"])
@given(st.lists(st.floats(0, 1), max_size=5), st.sampled_from([300, 1000, 1 << 20]))
@settings(deadline=None, max_examples=5)
def test_every_packet_of_windows_is_that_of_one_pass(
    name: str, cuts: list[float], most: int
) -> None:
    expected = analyzed(name)
    sidecar = expected.capture.sidecar
    assert sidecar is not None
    way = settled_way(name)
    tables = {n: t for n, t in expected.trace.events.items() if n in HOP_EVENTS}
    times = [t["time_ns"] for t in tables.values() if len(t)]
    first, last = min(map(min, times)), max(map(max, times))
    moments = sorted({first, last + 1, *(first + int(c * (last - first)) for c in cuts)})
    traces = [replace(expected.trace, events=between(tables, *ends)) for ends in pairwise(moments)]
    tells = any(bool((t["flags"] & 0x10).any()) for t in tables.values())
    known = InWindows([], way, tells)
    for shelf in (MemoryShelf(), FileShelf(None)):
        found = list(every_packet(sidecar, known, traces, shelf, most))
        for number, table in enumerate((expected.hops, expected.crossings)):
            whole = pd.concat([pair[number] for pair in found], ignore_index=True)
            pd.testing.assert_frame_equal(whole, table)
        assert most > 300 or len(found) > 1


def settled_way(name: str) -> Way:
    """Return the way that an analysis in windows has learnt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "windows_for", lambda *_: windows_of(path_of(name), 8192))
        way: Way = maceproc.analyze(path_of(name)).trace.info[IN_WINDOWS].way
    return way


def test_an_export_in_windows_has_every_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    given = [(table, form) for table in OF_EVERY_PACKET for form in ("csv", "json", "parquet")]
    for analysis, directory in ((analyzed("loaded"), whole), (in_small_windows(monkeypatch), part)):
        directory.mkdir()
        for table, form in given:
            maceproc.export(analysis, directory / f"{table}.{form}", table=table)
    assert sorted(p.name for p in part.iterdir()) == sorted(p.name for p in whole.iterdir())
    for expected in whole.iterdir():
        found = part / expected.name
        if expected.suffix == ".parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(found), pd.read_parquet(expected))
        else:
            assert found.read_bytes() == expected.read_bytes()


def in_small_windows(monkeypatch: pytest.MonkeyPatch) -> maceproc.Analysis:
    monkeypatch.setattr(pipeline, "windows_for", lambda *_: windows_of(path_of("loaded"), 8192))
    monkeypatch.setattr(in_windows, "MOST_ROWS", 400)
    return maceproc.analyze(path_of("loaded"))


def test_a_large_capture_is_collected_with_every_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dataset in ("whole", "part"):
        job = Job(str(path_of("loaded")), str(tmp_path / dataset), tables=OF_EVERY_PACKET)
        assert collect_one(job).state == "collected"
        in_small_windows(monkeypatch)
    for table in OF_EVERY_PACKET:
        (found,), (expected,) = (
            list((tmp_path / dataset / f"table={table}").rglob("*.parquet"))
            for dataset in ("part", "whole")
        )
        pd.testing.assert_frame_equal(pd.read_parquet(found), pd.read_parquet(expected))


def test_a_timeline_of_an_analysis_in_windows_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    windows = windows_of(path_of("in_flight"), 40_000)
    monkeypatch.setattr(pipeline, "windows_for", lambda *_: windows)
    found = maceproc.analyze(path_of("in_flight"))
    with pytest.raises(AnalysisError, match="windows"):
        maceproc.export(found, tmp_path / "t.pftrace")
    assert maceproc.export(found, tmp_path / "r.csv", table="rtts")
