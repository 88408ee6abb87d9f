"""Echoes as the tracer's rows tell them: times, statuses, histograms, series and files."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Sample

from maceproc.echo_rows import ANSWERED, COUNTS, MAGIC, RECEIVED, REPEATED, ROW_FLAGS, TWIN
from maceproc.echoes import (
    AMBIGUOUS,
    COMPLETE,
    INCOMPLETE,
    REASONS,
    STATUSES,
    UNANSWERED,
    address_text,
    durations,
    judge,
    read_echo_file,
)
from maceproc.errors import CaptureError, TraceFormatError
from maceproc.pairing import POINT_DTYPE
from maceproc.recording.bpf.memory import Point
from maceproc.watching.columns import COLUMNS, echo_columns, echo_records
from maceproc.watching.histograms import GROWTH, CumulativeHistogram, RecentHistogram
from maceproc.watching.live_table import plain_lines
from maceproc.watching.parquet_files import ParquetFiles
from maceproc.watching.prometheus import Exporter
from maceproc.watching.series import MORE_TARGETS, AllSeries, Key
from maceproc.watching.watcher import Losses
from tests.echo_samples import echo_rows, points_of

ROOT = Path(__file__).parent.parent
NO_LOSSES = Losses(0, dict.fromkeys(COUNTS, 0), 0)


def test_numpy_and_ctypes_have_the_same_point() -> None:
    assert POINT_DTYPE.itemsize == len(bytes(Point()))
    assert [(name, POINT_DTYPE.fields[name][1]) for name in POINT_DTYPE.names or ()] == [
        (name, getattr(Point, name).offset) for name, *_ in Point._fields_
    ]


def test_the_kernels_rtt_is_outbound_corrected_and_inbound() -> None:
    spans = durations(echo_rows(3))
    assert spans.outbound.tolist() == [8_000] * 3
    assert spans.corrected.tolist() == [101_000] * 3
    assert spans.wire.tolist() == [100_000] * 3
    assert (spans.kernel_rtt == spans.outbound + spans.corrected + spans.inbound).all()


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (ANSWERED | RECEIVED, COMPLETE),
        (ANSWERED, INCOMPLETE),
        (0, UNANSWERED),
        (ANSWERED | RECEIVED | TWIN, AMBIGUOUS),
        (TWIN, AMBIGUOUS),
        (ANSWERED | RECEIVED | REPEATED, AMBIGUOUS),
    ],
)
def test_a_row_is_judged_by_its_flags(flags: int, status: int) -> None:
    statuses, reasons = judge(echo_rows(2, flags=flags))
    assert statuses.tolist() == [status] * 2
    assert bool(REASONS[reasons[0]]) == (status != COMPLETE)
    if flags & TWIN:
        assert REASONS[reasons[0]] == ROW_FLAGS[TWIN]


@given(st.ip_addresses())
def test_addresses_are_read_back(address: object) -> None:
    rows = echo_rows(1, target=str(address))
    words = (int(rows["target"][0][0]), int(rows["target"][0][1]))
    assert address_text(int(rows["family"][0]), words) == str(address)


@given(st.lists(st.integers(1_000, 10**11), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_are_within_half_a_bucket(values: list[int], share: float) -> None:
    histogram = RecentHistogram()
    histogram.add(np.array(values, np.int64))
    (found,) = histogram.percentiles((share,))
    exact = sorted(values)[max(0, int(np.ceil(share * len(values))) - 1)]
    assert exact / GROWTH < found < exact * GROWTH


def test_a_recent_histogram_forgets() -> None:
    histogram = RecentHistogram()
    histogram.add(np.array([5_000]))
    histogram.age()
    assert not np.isnan(histogram.percentiles((0.5,))[0])
    histogram.age()
    assert np.isnan(histogram.percentiles((0.5,))[0])


def test_a_duration_on_a_bound_belongs_below_it() -> None:
    histogram = CumulativeHistogram()
    histogram.add(histogram.BOUNDS_NS)
    assert histogram.counts.tolist() == [1] * len(histogram.BOUNDS_NS) + [0]
    assert histogram.sum_ns == histogram.BOUNDS_NS.sum()


def test_series_are_by_container_and_target() -> None:
    series = AllSeries()
    rows = np.concatenate(
        [
            echo_rows(5),
            echo_rows(4, target="192.0.2.9"),
            echo_rows(3, container=2),
            echo_rows(2, target="fd00::2"),
            echo_rows(1, flags=0),
        ]
    )
    series.add(rows, 10**9)
    assert {key: found.echoes for key, found in series.series.items()} == {
        Key(1, "192.0.2.2"): 6,
        Key(1, "192.0.2.9"): 4,
        Key(2, "192.0.2.2"): 3,
        Key(1, "fd00::2"): 2,
    }
    first = series.series[Key(1, "192.0.2.2")]
    assert (first.unanswered, first.not_certain) == (1, 0)
    assert int(first.total["container"].counts.sum()) == 5
    series.forget(1)
    assert list(series.series) == [Key(2, "192.0.2.2")]


def test_no_more_series_than_allowed_and_none_lost() -> None:
    series = AllSeries(limit=10)
    for number in range(50):
        series.add(echo_rows(2, target=f"192.0.2.{number}"), 10**9)
    assert len(series.series) == 11
    assert series.series[Key(1, MORE_TARGETS)].echoes == 80 == series.shared_targets
    assert sum(found.echoes for found in series.series.values()) == 100
    lines = plain_lines(series, str, NO_LOSSES, 2 * 10**9)
    assert "80 echoes to targets beyond the first 10" in lines[-1]


def test_columns_say_what_is_not_known() -> None:
    rows = np.concatenate([echo_rows(1), echo_rows(1, flags=0), echo_rows(1, flags=ANSWERED)])
    columns = echo_columns(rows, lambda number: f"c{number}", 5)
    assert list(columns) == [column.name for column in COLUMNS]
    whole, unanswered, stuck = echo_records(columns)
    assert whole["time_utc_ns"] == 1_000_000_005
    assert whole["container"] == "c1"
    assert whole["kernel_rtt_ns"] == whole["corrected_rtt_ns"] + 12_000
    assert unanswered["status"] == STATUSES[UNANSWERED]
    assert unanswered["outbound_ns"] == 8_000
    assert unanswered["wire_ns"] is unanswered["kernel_rtt_ns"] is None
    assert stuck["corrected_rtt_ns"] == 101_000
    assert stuck["kernel_rtt_ns"] is stuck["inbound_ns"] is None


def columns_of(count: int) -> dict[str, object]:
    return echo_columns(echo_rows(count), lambda number: f"c{number}", 0)


def test_parquet_files_hold_every_echo_and_the_facts(tmp_path: Path) -> None:
    files = ParquetFiles(tmp_path, lambda: {"kernel": "6.1"}, rotate_s=1e9)
    files.add(columns_of(10))
    files.add(echo_columns(echo_rows(1, flags=0), str, 0))
    assert list(tmp_path.iterdir()) == []  # no name before it is whole
    files.close()
    files.add(columns_of(7))
    files.close()
    first, second = sorted(tmp_path.iterdir())
    table = pq.read_table(first)
    assert table.num_rows == 11
    assert table["kernel_rtt_ns"].null_count == 1
    facts = pq.read_metadata(first).metadata[b"maceproc"]
    assert json.loads(facts) == {"kernel": "6.1"}
    assert table.schema.field("wire_ns").metadata[b"unit"] == b"ns"
    assert pq.read_table(second).num_rows == 7


def test_parquet_files_rotate_by_size(tmp_path: Path) -> None:
    files = ParquetFiles(tmp_path, dict, rotate_s=1e9, rotate_bytes=1)
    for _ in range(3):
        files.add(columns_of(60_000))
    assert len(files.files) == 3
    assert sum(pq.read_metadata(path).num_rows for path in tmp_path.iterdir()) == 180_000


def test_what_a_killed_watch_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True, check=True, text=True).stdout.strip()  # fmt: skip
    left = tmp_path / f".maceproc-{ended}.partial"
    left.touch()
    running = tmp_path / f".maceproc-{os.getpid()}.partial"
    running.touch()
    assert ParquetFiles(tmp_path, dict).removed == [left]
    assert list(tmp_path.iterdir()) == [running]


KILLED = """
import os, sys, time
from maceproc.watching.parquet_files import ParquetFiles
from tests.test_echoes import columns_of
files = ParquetFiles(sys.argv[1], dict)
files.add(columns_of(60_000))
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_disk_is_one_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        files = ParquetFiles(tmp_path, dict)
        rows = echo_rows(100_000)
        rows["queued_ns"] = np.random.default_rng(1).integers(0, 2**62, len(rows))
        with pytest.raises(CaptureError, match=os.strerror(errno.ENOSPC)) as caught:
            files.add(echo_columns(rows, str, 0))
        assert "the last 100000 echoes are not kept" in str(caught.value)
        assert list(tmp_path.iterdir()) == []
        files.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_prometheus_is_served_what_was_counted() -> None:
    from urllib.request import urlopen

    from prometheus_client.parser import text_string_to_metric_families

    series = AllSeries()
    series.add(echo_rows(5), 10**9)
    series.add(echo_rows(2, flags=0), 10**9)
    losses = replace(NO_LOSSES, stayed_inside=3, inside={(1, "172.17.0.1"): 3})
    exporter = Exporter("127.0.0.1", 0, series, lambda number: f'c"{number}', lambda: losses)
    try:
        with urlopen(f"http://127.0.0.1:{exporter.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        exporter.close()
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    found = {(s.name, s.labels.get("status", s.labels.get("le", ""))): s for s in samples}
    assert found["maceproc_echoes_total", "complete"].value == 5
    assert found["maceproc_echoes_total", "unanswered"].value == 2
    assert found["maceproc_echo_container_seconds_sum", ""].value == pytest.approx(5 * 12e-6)
    assert found["maceproc_echo_container_seconds_bucket", "2e-05"].value == 5
    assert found["maceproc_echo_container_seconds_bucket", "1e-05"].value == 0
    assert found["maceproc_echo_rtt_seconds_count", ""].labels == {
        "container": 'c"1',
        "target": "192.0.2.2",
    }
    inside = found["maceproc_requests_without_outer_device_total", ""]
    assert (inside.value, inside.labels["target"]) == (3, "172.17.0.1")
    _grafana_asks_for_what_is_there(samples)


def _grafana_asks_for_what_is_there(samples: list[Sample]) -> None:
    dashboard = json.loads((ROOT / "docs/recipes/grafana-panel.json").read_text())
    labels = {sample.name: set(sample.labels) for sample in samples}
    asked = set()
    for target in (target for panel in dashboard["panels"] for target in panel["targets"]):
        for name, chosen in re.findall(r"\b(maceproc_\w+)(?:{([^}]*)})?", target["expr"]):
            asked.add(name)
            wanted = set(re.findall(r"(\w+)=", chosen))
            wanted |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert wanted <= labels[name], target
    assert len(asked) >= 5


def test_a_cut_file_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    head = MAGIC + json.dumps({"point_bytes": POINT_DTYPE.itemsize}).encode() + b"\n"
    content = head + np.sort(points_of(echo_rows(5)), order="time_ns").tobytes()
    path.write_bytes(content)
    assert len(read_echo_file(path).rows) == 5
    path.write_bytes(content[:-1])
    cut = read_echo_file(path)
    assert len(cut.rows) == 5
    assert cut.rows["received_ns"].tolist()[-1] == 0
    assert cut.cut_bytes == POINT_DTYPE.itemsize - 1
    path.write_bytes(content[: len(MAGIC) + 3])
    with pytest.raises(TraceFormatError, match="a line of JSON"):
        read_echo_file(path)
    path.write_bytes(MAGIC + b'{"point_bytes": 1}\n')
    with pytest.raises(TraceFormatError, match="points of another form"):
        read_echo_file(path)
