"""What a slip of the hand gives: one line that says what, where and what to do; no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from maceproc.cli import cli
from maceproc.errors import MaceprocError
from tests.recorded import path_of
from tests.test_cli import PROGRAM


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a capture, and with what can be taken for one."""
    for suffix in ("", ".json"):
        shutil.copy(f"{path_of('native')}{suffix}", tmp_path / f"t.dat{suffix}")
    (tmp_path / "empty.dat").touch()
    (tmp_path / "word.dat").write_text("hello\n")
    (tmp_path / "dir").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(line: str) -> str:
    """Return the message of a command line that must fail."""
    result = CliRunner().invoke(cli, line.split())
    assert result.exit_code, result.output
    error = result.exception
    assert isinstance(error, SystemExit | MaceprocError), error
    return str(error) if isinstance(error, MaceprocError) else result.output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("analyze empty.dat", "found an empty file, expected"),
        ("analyze word.dat", "found no event in 1 line, expected"),
        ("analyze t.dat --html none/t.html", "there is no directory none; make it"),
        ("pings word.dat", "understood: 1 line: 'hello'"),
        ("explain t.dat 1 --round 99", "there is no traced ping in round 99; the rounds are 1 to"),
        ("export t.dat -o dir", "dir: is a directory; give a file"),
        ("export t.dat -o none/t.csv", "there is no directory none; make it"),
        ("compare t.dat t.dat -o t.doc", "no picture's name ends in .doc; end the name in .png"),
        ("compare t.dat t.dat -o none/t.png", "there is no directory none; make it"),
        ("experiment agree dir dir", "results.json: no such file; write it with: maceproc"),
    ],
)
def test_the_line_says_what_to_do(line: str, expected: str, here: Path) -> None:
    assert expected in " ".join(told(line).split())
    assert not list(here.glob("none"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_the_capture_of_another_user(here: Path) -> None:
    for directory in (here, *here.parents[:3]):
        directory.chmod(0o755)
    (here / "t.dat").chmod(0o600)
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*somebody, PROGRAM, "analyze", here / "t.dat"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "maceproc" not in done.stderr or "No module named" in done.stderr:
        pytest.skip("this Python is not for everybody")
    assert done.stderr.count("\n") == 1
    assert "t.dat: you may not read it; it was recorded by another user; `sudo chown" in done.stderr
