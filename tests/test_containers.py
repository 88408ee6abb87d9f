"""Real containers of a real engine, recorded and analyzed."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maceproc.capture import Sidecar, load_sidecar, sidecar_path
from tests.engine import BUSYBOX_IMAGE, Engine

pytestmark = pytest.mark.kernel

REMOTE = "192.0.2.2"
REMOTE_IPV6 = "fd6d:6163:6500:2::2"
PING = ("ping", "-i", "0.005", "-c", "20")


@pytest.fixture(scope="module")
def web(engine: Engine) -> Iterator[str]:
    """A container on the default bridge."""
    with engine.container("web") as name:
        yield name


def record(engine: Engine, trace: Path, *words: str) -> Sidecar:
    """Record on the engine's host; return the sidecar."""
    done = engine.maceproc("record", "-o", trace, "--force", *words)
    assert done.returncode == 0, done.stderr
    return load_sidecar(sidecar_path(trace))


def analyze(engine: Engine, trace: Path) -> dict[str, Any]:
    done = engine.maceproc("analyze", "--json", trace)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_corrected(engine: Engine, trace: Path, pings: int = 20) -> None:
    """Every traced ping of the container is corrected, by a crossing that took time."""
    rtts = [r for r in analyze(engine, trace)["rtts"] if r["arm"] == "container traced"]
    assert [(r["status"], r["reason"]) for r in rtts] == [("corrected", "")] * pings
    assert all(r["outbound_ns"] > 0 and r["inbound_ns"] > 0 for r in rtts)
    assert all(r["bare_metal_rtt_ns"] < r["rtt_ns"] for r in rtts)


def devices(sidecar: Sidecar) -> str:
    """The path, with the engine's random names made plain."""
    return re.sub(r"\b(veth|br-)[0-9a-f]{7,12}\b", r"\1N", sidecar.target.route)


def notes(sidecar: Sidecar) -> list[str]:
    """What was noted, except that somebody else traces on this machine."""
    noted = (*sidecar.target.notes, *sidecar.notes)
    return [note for note in noted if "by somebody else" not in note]


def sender(trace: Path, sidecar: Sidecar) -> set[int]:
    """The pids that sent anything in traced runs, as trace-cmd reads the file."""
    argv = ["trace-cmd", "report", "-t", str(trace)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    sends = re.findall(r"ping-(\d+)\s+\[\d+\].*: sys_enter_sendto:", text)
    return {int(pid) for pid in sends}


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The default bridge


def test_default_bridge_with_nat(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    made = record(engine, trace, "--container", web, "--", *PING, REMOTE)
    assert devices(made) == "web:eth0 -> host:vethN -> docker0 -> (NAT) -> eth0"
    assert [run.arm for run in made.runs] == [
        "container traced", "container untraced", "native untraced",
    ]  # fmt: skip
    assert made.target.kind == "container"
    assert notes(made) == []
    assert_corrected(engine, trace)


def test_the_pid_is_the_one_in_the_events(engine: Engine, web: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    made = record(engine, trace, "--container", web, "--no-baseline", "--", *PING, REMOTE)
    assert sender(trace, made) == {made.runs[0].pid}


def test_the_path_is_told_before_anything_runs(engine: Engine, web: str, tmp_path: Path) -> None:
    done = engine.maceproc(
        "record", "-o", tmp_path / "a.dat", "--container", web, "--", *PING, REMOTE
    )
    assert re.match(r"path: web:eth0 -> host:veth\w+ -> docker0 -> \(NAT\) -> eth0\n", done.stderr)


def test_the_native_control_runs_the_container_s_own_ping(engine: Engine, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with engine.container("tiny", image=BUSYBOX_IMAGE) as tiny:
        made = record(engine, trace, "--container", tiny, "--", "ping", "-c", "3", "-A", REMOTE)
    for run in made.runs:
        assert run.argv == ["ping", "-c", "3", "-A", REMOTE]  # this one knows no -D
        assert "seq=0" in run.output  # and counts from 0
    assert made.runs[-1].arm == "native untraced"
    assert_corrected(engine, trace, pings=3)
