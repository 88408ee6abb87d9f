"""What docs/reading-trace-dat.md tells people to type works."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from maceproc.cli import cli
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import read_layout
from maceproc.tracedat.pages import load_pages
from tests.perfdata_from_trace import converted
from tests.recorded import path_of
from tests.tracing import has_trace_cmd

pytestmark = pytest.mark.skipif(not has_trace_cmd, reason="needs trace-cmd, for a text to read")

PAGE = (Path(__file__).parent.parent / "docs/reading-trace-dat.md").read_text()
COMMANDS = re.findall(r"^    maceproc (.*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
PYTHON = re.findall(r"^    >>> (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the files that the page speaks of, and go there."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(path_of("idle"), "trace.dat")
    with Path("trace.txt").open("wb") as text:
        subprocess.run(["trace-cmd", "report", "-t", "trace.dat"], stdout=text, check=True)
    Path("perf.data").write_bytes(converted(path_of("idle")))
    with open_trace("trace.dat") as trace:  # as a recorder leaves them that was killed
        data, streams = load_pages(trace, list(trace.buffers), read_layout(trace))
        for stream in streams:
            pages = [data[at : at + stream.page_size].tobytes() for at in stream.starts]
            Path(f"lost.dat.cpu{stream.cpu}").write_bytes(b"".join(pages))
    return tmp_path


def test_there_is_something_to_type() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"events", "salvage"}
    assert len(COMMANDS) >= 6
    assert len(PYTHON) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, here: Path) -> None:
    result = CliRunner().invoke(cli, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output


def test_salvaged_events_are_those_that_were_recorded(here: Path) -> None:
    from maceproc import read_events

    salvage = next(command for command in COMMANDS if command.startswith("salvage"))
    CliRunner().invoke(cli, shlex.split(salvage), catch_exceptions=False)
    saved, whole = read_events("saved.dat"), read_events("trace.dat")
    assert {name: len(frame) for name, frame in saved.events.items()} == {
        name: len(frame) for name, frame in whole.events.items()
    }


def test_python_lines(here: Path) -> None:
    names: dict[str, object] = {}
    for line in PYTHON:
        exec(line, names)
