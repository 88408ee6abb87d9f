"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from maceproc import Lab
from maceproc.capture import open_capture
from maceproc.cli import cli
from maceproc.lab import NETNS_DIR
from maceproc.record import record
from maceproc.targets import lab_site

pytestmark = pytest.mark.kernel

README = Path(__file__).parent.parent / "README.md"
COMMANDS = re.findall(r"^    maceproc (.*?)(?:\s+#.*)?$", README.read_text(), re.MULTILINE)
PYTHON = re.findall(r"^    >>> (.*)$", README.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def here(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the files that the README speaks of, and go there."""
    monkeypatch.chdir(tmp_path)
    argv = ["ping", "-i", "0.01", "-c", "20"]
    record(argv, lab_site(lab), "trace.dat", baseline=False, events="full")
    for suffix in ("", ".json"):
        shutil.copy(f"trace.dat{suffix}", f"other.dat{suffix}")
    with Path("trace.txt").open("wb") as text:
        report = ["trace-cmd", "report", "-t", "-l", "trace.dat"]
        subprocess.run(report, stdout=text, check=True)
    sidecar = open_capture("trace.dat").sidecar
    assert sidecar is not None
    Path("ping.txt").write_text(sidecar.runs[0].output)
    return tmp_path


def test_the_readme_has_commands() -> None:
    verbs = {command.split()[0] for command in COMMANDS}
    assert {"record", "analyze", "explain", "events", "export", "compare"} <= verbs
    assert PYTHON


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--container" not in c])
def test_command(command: str, here: Path, lab: Lab) -> None:
    inside = ["nsenter", f"--net={NETNS_DIR / lab.netns('container')}", "--", "sleep", "60"]
    with subprocess.Popen(inside) as process:
        try:
            told = in_the_lab(command, lab, process.pid)
            result = CliRunner().invoke(cli, told, catch_exceptions=False)
        finally:
            process.kill()
    assert result.exit_code == 0, result.output


def in_the_lab(command: str, lab: Lab, pid: int) -> list[str]:
    """Put the lab's names in place of the README's, and make the runs short."""
    short = {"web": lab.netns("container"), "4711": str(pid), "100": "5", "200": "5", "5": "1"}
    short |= {"192.0.2.1": "192.0.2.2", "eno1": "eth0"}
    words = [short.get(word, word) for word in shlex.split(command)]
    if words[0] == "record":
        words.insert(1, "--force")
    if "--host" in words:  # the machine's own namespace has no way to the lab
        words[words.index("192.0.2.2")] = "127.0.0.1"
    return words


def test_python_lines(here: Path) -> None:
    names: dict[str, object] = {}
    for line in PYTHON:
        exec(line, names)
