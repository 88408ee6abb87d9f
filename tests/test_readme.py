"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from maceproc import Lab
from maceproc.capture_files import open_capture
from maceproc.cli import cli
from maceproc.recording.lab import NETNS_DIR
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from tests.engine import BUSYBOX_IMAGE, IMAGE, Engine
from tests.perfdata_from_trace import converted

pytestmark = pytest.mark.kernel

README = (Path(__file__).parent.parent / "README.md").read_text()
CONTAINERS = re.findall(r"^## In containers\n.*?(?=^## )", README, re.MULTILINE | re.DOTALL)[0]
COMMAND = re.compile(r"^    ((?:maceproc|docker) .*?)(?:\s+#.*)?$", re.MULTILINE)
COMMANDS = COMMAND.findall(README.replace(CONTAINERS, ""))
IN_CONTAINERS = COMMAND.findall(CONTAINERS)
PYTHON = re.findall(r"^    >>> (.*)$", README, re.MULTILINE)


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
    Path("perf.data").write_bytes(converted(Path("trace.dat")))
    Path("captures").mkdir()
    for suffix in ("", ".json"):
        shutil.copy(f"trace.dat{suffix}", f"captures/trace.dat{suffix}")
    return tmp_path


def test_the_readme_has_commands() -> None:
    verbs = {command.split()[1] for command in COMMANDS}
    assert {"record", "analyze", "explain", "events", "export", "compare", "collect"} <= verbs
    assert any("--tracer perf" in command for command in COMMANDS)
    assert any("perf.data --ping" in command for command in COMMANDS)
    assert len(IN_CONTAINERS) > 5
    assert PYTHON


def test_commands_in_containers(engine: Engine, tmp_path: Path) -> None:
    # One after the other, as they are read: the container stays, the trace is analyzed.
    names = {"192.0.2.1": "192.0.2.2", "debian": IMAGE, "alpine": BUSYBOX_IMAGE, "infinity": "600"}
    short = {"100": "5", "10": "2", "record": "record --force --rounds 1"}
    try:
        for command in IN_CONTAINERS:
            line = " ".join((names | short).get(word, word) for word in command.split())
            line = re.sub(r"^maceproc", f"{sys.executable} -m maceproc", line)
            engine.shell(f"cd {tmp_path}; {line}")
    finally:
        engine.docker("rm", "--force", "web")


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, here: Path, lab: Lab) -> None:
    if "--tracer perf" in command and not shutil.which("perf"):
        pytest.skip("needs perf (Debian: linux-perf)")
    if "--pod" in command and not shutil.which("crictl"):
        pytest.skip("needs crictl, and a pod of its runtime")
    if "fleet" in command and "collect" not in command:
        collected = CliRunner().invoke(cli, ["collect", "captures", "-o", "fleet"])
        assert collected.exit_code == 0, collected.output
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
    words = shlex.split(command)[1:]
    if "--container" in words:  # of Docker: here it is the lab's
        words[words.index("--container")] = "--netns"
    short = {"web": lab.netns("container"), "4711": str(pid), "100": "5", "200": "5", "5": "1"}
    short |= {"192.0.2.1": "192.0.2.2", "eno1": "eth0"}
    words = [short.get(word, word) for word in words]
    if words[0] in ("record", "run"):
        words[1:1] = ["--force", "--rounds", "1"]
    if "--host" in words:  # the machine's own namespace has no way to the lab
        words[words.index("192.0.2.2")] = "127.0.0.1"
    return words


def test_python_lines(here: Path) -> None:
    names: dict[str, object] = {}
    for line in PYTHON:
        exec(line, names)
