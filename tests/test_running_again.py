"""A test that records and fails runs again, with a recording of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = "from tests.conftest import pytest_collection_modifyitems, pytest_runtest_setup\n"
TESTS = """
import pytest
made, ended = [], []

@pytest.fixture(scope="session")
def once():
    made.append("session")
    yield

@pytest.fixture(scope="module")
def lab(once):
    made.append("lab")
    yield
    ended.append("lab")

@pytest.fixture(scope="module")
def recording(lab):
    made.append("recording")
    return made.count("recording")

@pytest.mark.kernel
def test_the_first_recording_will_do(recording):
    assert recording == 1

@pytest.mark.kernel
def test_only_the_third_recording_will_do(recording):
    assert recording == 3

@pytest.mark.kernel
def test_the_others_have_the_last_one(recording):
    assert recording == 3
    assert (made.count("session"), made.count("lab"), ended.count("lab")) == (1, 3, 2)

def test_what_does_not_record_runs_once(recording):
    assert False
"""


def test_a_test_that_runs_again_has_another_recording(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = kernel: records\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    root = Path(__file__).parent.parent
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert "1 failed, 3 passed, 2 rerun" in done.stdout, done.stdout
    assert "FAILED" in done.stdout
    assert "test_what_does_not_record_runs_once" in done.stdout.split("short test summary")[1]
