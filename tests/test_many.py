"""Many captures at once: all outcomes, in order, whatever happens to one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from maceproc import many
from maceproc.errors import CaptureError, MaceprocError, TraceFormatError
from maceproc.many import Outcome, analyze_many
from tests.recorded import analyzed, path_of


def test_outcomes_are_in_the_order_given() -> None:
    told: list[int] = []
    names = ["native", "every_event", "native"]
    outcomes = analyze_many(map(path_of, names), workers=2, tell=lambda done, _: told.append(done))
    assert [outcome.path for outcome in outcomes] == [path_of(name) for name in names]
    assert told == list(range(1, len(names) + 1))
    for name, outcome in zip(names, outcomes, strict=True):
        assert outcome.analysis is not None
        pd.testing.assert_frame_equal(outcome.analysis.rtts, analyzed(name).rtts)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_capture_that_fails_takes_nothing_from_the_others(workers: int, tmp_path: Path) -> None:
    broken = tmp_path / "broken.dat"
    broken.write_bytes(b"\x17\x08\x44tracing6\0")
    paths = [path_of("native"), tmp_path / "none.dat", broken, path_of("every_event")]
    first, missing, bad, last = analyze_many(paths, workers=workers)
    assert isinstance(missing.error, CaptureError)
    assert "none.dat: no such file" in str(missing.error)
    assert isinstance(bad.error, TraceFormatError)
    assert bad.error.file == broken
    assert (missing.analysis, bad.analysis) == (None, None)
    assert first.analysis is not None
    assert last.analysis is not None


def die(path: Path) -> Outcome:
    if path.name == "killed":
        os.kill(os.getpid(), 9)
    return Outcome(path)


def test_a_worker_that_is_killed_takes_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(many, "_analyze", die)
    names = ["a", "killed", "b", "c"]
    outcomes = analyze_many(names, workers=2)
    assert [outcome.path.name for outcome in outcomes] == names
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, True]
    assert "was killed" in str(outcomes[1].error)


def test_a_fault_of_ours_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(many, "analyze", fail)
    (outcome,) = analyze_many(["x.dat"])
    assert isinstance(outcome.error, MaceprocError)
    assert "x.dat: this is a bug in maceproc: ZeroDivisionError: by nought" in str(outcome.error)


def test_a_script_without_a_main_guard_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    paths = [str(path_of("native")), str(path_of("every_event"))]
    script.write_text(
        "print('begun')\n"
        "from maceproc import analyze_many\n"
        f"print([outcome.error for outcome in analyze_many({paths!r}, workers=2)])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("begun\n[None, None]\n", "")


def test_no_captures_no_outcomes() -> None:
    assert analyze_many([]) == []
