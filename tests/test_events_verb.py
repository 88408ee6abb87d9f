"""`maceproc events`: what is in a file, counted another way."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from maceproc.cli import cli
from maceproc.tracedat import read_events
from tests.recorded import NAMES, path_of
from tests.test_tracedat_damaged import FORMAT, ticks
from tests.tracedat_writer import Buffer, File


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["events", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_list_counts_what_the_tables_hold(name: str) -> None:
    trace = read_events(path_of(name))
    listed = json.loads(run(path_of(name), "--json").output)
    assert {e["event"]: e["count"] for e in listed["events"]} == {
        event: len(frame) for event, frame in trace.events.items()
    }
    assert listed["lost"] == 0
    assert sum(buffer["count"] for buffer in listed["buffers"]) == sum(
        map(len, trace.events.values())
    )
    times = pd.concat([frame.time_ns for frame in trace.events.values()])
    assert listed["duration_ns"] == times.max() - times.min()
    seconds = listed["duration_ns"] / 1e9
    for event in listed["events"]:
        assert event["rate_per_s"] == pytest.approx(event["count"] / seconds, abs=0.001)
        frame = trace.events[event["event"]]
        assert len(event["fields"]) == len(frame.columns) - 5


def test_lost_events_and_instances_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    pages, web = ticks(5000, 300), ticks(9000, 200)
    pages[1].lost, pages[2].lost, web[1].lost = 12, -1, 5
    buffers = [Buffer("", {0: pages}), Buffer("web", {3: web})]
    path.write_bytes(File(buffers, {"test": [FORMAT]}).write())
    listed = json.loads(run(path, "--json").output)
    assert [(e["event"], e["count"]) for e in listed["events"]] == [("tick", 500)]
    assert (listed["lost"], listed["gaps"]) == (17, 3)
    counted = [(b["buffer"], b["count"], b["lost"]) for b in listed["buffers"]]
    assert counted == [("", 300, 12), ("web", 200, 5)]
    text = run(path).output
    assert "tick" in text
    assert "17 events are known to be lost, in 3 places" in text
    assert "buffer 'web': 200 events on 1 CPUs" in text


def test_rows_and_csv_are_the_table() -> None:
    frame = read_events(path_of("idle")).events["net_dev_queue"]
    shown = run(path_of("idle"), "net_dev_queue", "--head", "3").output.splitlines()
    assert shown[0].split() == list(frame.columns)
    assert len(shown) == 5
    assert hex(frame.skbaddr.iloc[0]) in shown[1]
    assert f"{len(frame)} rows" in shown[4]
    csv = pd.read_csv(io.StringIO(run(path_of("idle"), "net_dev_queue", "--csv").output))
    assert csv.time_ns.tolist() == frame.time_ns.tolist()
    assert csv.skbaddr.tolist() == frame.skbaddr.tolist()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["trace.dat", "no_such_event"], "no event 'no_such_event'"),
        (["trace.dat", "net:*"], "name one"),
        (["trace.dat", "netif_rx", "--json"], "--csv"),
        (["none.dat"], "none.dat"),
        (["noise.dat"], "found"),
    ],
)
def test_mistakes_get_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "trace.dat").symlink_to(path_of("idle"))
    (tmp_path / "noise.dat").write_bytes(bytes(range(256)))
    done = subprocess.run(
        [sys.executable, "-m", "maceproc", "events", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
