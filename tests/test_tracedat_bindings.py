"""Our tables against those through trace-cmd's own Python module, wherever that can be had."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from maceproc.errors import MaceprocError
from maceproc.schema import Trace
from maceproc.tracedat import read_events
from tests.recorded import CAPTURES, NAMES, path_of
from tests.tracedat_recordings import RECORDINGS, record_everything
from tests.tracing import can_record

try:
    import tracecmd
except ImportError:
    tracecmd = None

needs_bindings = pytest.mark.skipif(
    tracecmd is None, reason="needs trace-cmd's Python module: trace-cmd-python3, on PYTHONPATH"
)


def assert_same(ours: Trace, theirs: Trace) -> None:
    assert list(ours.events) == list(theirs.events)
    for name, frame in ours.events.items():
        pd.testing.assert_frame_equal(frame, theirs.events[name])
    pd.testing.assert_frame_equal(ours.lost, theirs.lost)
    assert (ours.clock, ours.info, ours.notes) == (theirs.clock, theirs.info, theirs.notes)


@needs_bindings
@pytest.mark.parametrize("name", NAMES)
def test_captures_are_the_same_tables(name: str) -> None:
    assert_same(read_events(path_of(name)), read_events(path_of(name), reader="tracecmd"))


@needs_bindings
def test_a_selection_is_the_same_rows() -> None:
    path = path_of("in_flight")
    times = read_events(path).events["net_dev_queue"].time_ns
    selection = {
        "events": ["net:netif_*", "net_dev_queue", "print"],
        "fields": ["skbaddr", "len"],
        "start_ns": int(times.iloc[len(times) // 3]),
        "end_ns": int(times.iloc[len(times) // 2]),
    }
    ours = read_events(path, **selection)
    assert 0 < len(ours.events["net_dev_queue"]) < len(times) // 2
    assert_same(ours, read_events(path, reader="tracecmd", **selection))


@needs_bindings
@pytest.mark.kernel
@pytest.mark.skipif(not can_record, reason="needs root, trace-cmd and tracefs")
@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_recordings_are_the_same_tables(tmp_path: Path, recording) -> None:
    path = record_everything(tmp_path / "trace.dat", recording)
    ours = read_events(path)
    assert len(ours.events) > 50
    assert len(ours.lost) or not recording.tiny
    assert_same(ours, read_events(path, reader="tracecmd"))


def test_without_the_module_the_error_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tracecmd", None)
    with pytest.raises(MaceprocError, match="trace-cmd-python3"):
        read_events(CAPTURES / "idle.dat", reader="tracecmd")
