"""Any trace through one function: what the file is gets found out."""

from __future__ import annotations

from pathlib import Path

import pytest

import maceproc
from maceproc import read_events
from maceproc.errors import TraceFormatError
from maceproc.traces import Kind, kind_of, read_other_times, read_trace, summarize_trace
from tests.perfdata_from_trace import converted
from tests.recorded import path_of

LINE = "{:<17}{:>16}-7   [001] 10.00000{}: sched_wakeup: comm=a pid=9 prio=120"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "trace.txt"
    lines = [LINE.format("", "ping", 1), LINE.format("web:", "ping", 2), LINE.format("", "b", 3)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_kind_is_known_by_its_start(tmp_path: Path, text: Path) -> None:
    perf = tmp_path / "perf.data"
    perf.write_bytes(converted(path_of("idle")))
    assert kind_of(path_of("idle")) is Kind.TRACE_DAT
    assert kind_of(perf) is Kind.PERF_DATA
    assert kind_of(text) is Kind.TEXT
    for path in (path_of("idle"), perf, text):
        counts = {event.event: event.count for event in summarize_trace(path).events}
        used = [] if path == text else ["netif_rx"]  # of a text, all events are read at once
        times = {**read_trace(path, used or None).events, **read_other_times(path, used)}
        assert counts == {name: len(table) for name, table in times.items()}


def test_of_text_rows_and_columns_are_selected(text: Path) -> None:
    table = read_events(text).events["sched_wakeup"]
    assert list(table) == [
        "time_ns",
        "cpu",
        "pid",
        "flags",
        "comm",
        "buffer",
        "comm_",
        "pid_",
        "prio",
    ]
    own = read_events(text, fields="pid", start_ns=10_000_002_000, end_ns=10_000_003_000)
    assert list(own.events["sched_wakeup"]) == [*list(table)[:6], "pid_"]
    assert own.events["sched_wakeup"].time_ns.tolist() == [10_000_002_000]
    assert own.events["sched_wakeup"].index.tolist() == [1]
    web = read_events(text, buffer="web").events["sched_wakeup"]
    assert web.time_ns.tolist() == [10_000_002_000]
    assert len(read_events(text, events="sched_wakeup", end_ns=5).events["sched_wakeup"]) == 0
    assert read_events(text, end_ns=5).events == {}


def test_mistakes_are_said(text: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="no buffer 'lab', expected one of '', 'web'"):
        read_events(text, buffer="lab")
    with pytest.raises(TraceFormatError, match="text, which trace-cmd's module cannot read"):
        read_events(text, reader="tracecmd")
    with pytest.raises(ValueError, match="reader is"):
        read_events(text, reader="perl")  # type: ignore[arg-type]
    with pytest.raises(maceproc.MaceprocError, match="No such file"):
        read_events(tmp_path / "none")
