"""Recordings made in a PID namespace of their own, where the kernel's pids are not to be seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import maceproc
from maceproc.capture import Run
from maceproc.echoes import is_echo_file, read_echo_file
from maceproc.pings import ICMP_HEADER_BYTES
from maceproc.recording.lab import NETNS_DIR, REMOTE_IPV4, Lab
from maceproc.recording.tracing import TRACEFS
from tests.test_perfdata import needs_perf
from tests.watched import why_no_bpf

pytestmark = pytest.mark.kernel

ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
COUNT = 10
PING = ["ping", "-i", "0.01", "-s", "57", REMOTE_IPV4]  # no other test has packets of this length
TRACERS = [
    "ftrace",
    pytest.param("perf", marks=needs_perf),
    pytest.param("bpf", marks=pytest.mark.skipif(bool(why_no_bpf()), reason=why_no_bpf() or "-")),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as up:
        yield up


@pytest.fixture(scope="module")
def other(lab: Lab) -> Iterator[int]:
    """Another ping, which sends packets of the same length from the host; its pid."""
    enter = ["nsenter", f"--net={NETNS_DIR / lab.netns('host')}", "--"]
    with subprocess.Popen(
        [*enter, *PING, "-q", "-i", "0.02"], stdout=subprocess.DEVNULL
    ) as process:
        yield process.pid
        process.terminate()


@pytest.mark.parametrize("tracer", TRACERS)
def test_a_ping_is_told_from_another_of_its_length(
    lab: Lab, other: int, tmp_path: Path, tracer: str
) -> None:
    instances = set((TRACEFS / "instances").iterdir())
    trace = tmp_path / "t.dat"
    words = ["record", "--lab", lab.name, "--rounds", "1", "--tracer", tracer, "-o", str(trace)]
    argv = [*ALONE, sys.executable, "-m", "maceproc", *words, "--", *PING, "-c", str(COUNT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [
        path for path in set((TRACEFS / "instances").iterdir()) - instances if "n" in path.name[8:]
    ]
    analysis = maceproc.analyze(trace)
    assert analysis.capture.sidecar is not None
    for run in analysis.capture.sidecar.runs:
        if run.traced:
            assert pids_of_pings(analysis, run) - {other} == {run.pid}
    # On a loaded machine a reply of the other ping may come just when one is due.
    counts = analysis.rtts.groupby("arm", observed=True)["status"].value_counts()
    assert counts["container traced", "corrected"] >= COUNT - 2
    assert counts["native traced", "native"] >= COUNT - 2


def pids_of_pings(analysis: maceproc.Analysis, run: Run) -> set[int]:
    """Return the pids of the tasks that sent echo requests during a run, by the events."""
    if is_echo_file(analysis.capture.trace):
        rows = read_echo_file(analysis.capture.trace).rows
        queued_ns = rows["queued_ns"].astype(int)
        within = (run.start_ns <= queued_ns) & (queued_ns <= run.end_ns)
        return set(rows["pid"][within].tolist()) - {0}
    sent = analysis.trace.events["sys_enter_sendto"]
    sent = sent[(sent["comm"] == "ping") & (sent["len"] == 57 + ICMP_HEADER_BYTES)]
    return set(sent["pid"][sent["time_ns"].between(run.start_ns, run.end_ns)])
