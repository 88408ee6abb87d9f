"""A ping without a sidecar, beside pings of other containers whose devices have the same name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import maceproc
from maceproc import Analysis, Lab
from maceproc.recording.lab import NETNS_DIR, REMOTE_IPV4
from tests.tracing import can_record, instance, trace_cmd

EVENTS = (
    "net:net_dev_queue", "net:netif_rx", "syscalls:sys_enter_sendto", "syscalls:sys_exit_recvmsg",
)  # fmt: skip
CONTAINERS = 3
PINGS = 40


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record pings of several containers at once; every one's output is beside the trace."""
    if not can_record:
        pytest.skip("needs root and trace-cmd")
    directory = tmp_path_factory.mktemp("neighbours")
    with Lab(containers=CONTAINERS) as lab, instance() as name:
        commands = []
        for number, role in enumerate(roles(), start=1):
            enter = f"nsenter --net={NETNS_DIR / lab.netns(role)} -- "
            output = shlex.quote(str(directory / f"ping{number}.txt"))
            commands.append(f"{enter} ping -i 0.02 -c {PINGS} {REMOTE_IPV4} > {output} &")
        script = "\n".join([*commands, "wait"])
        options = [word for event in EVENTS for word in ("-e", event)]
        trace_cmd(
            "record", "-q", "-o", directory / "trace.dat", "-C", "mono", "-B", name, *options,
            "sh", "-c", script, covered=name,
        )  # fmt: skip
    return directory


def roles() -> list[str]:
    return ["container", *(f"container{number}" for number in range(2, CONTAINERS + 1))]


def analyzed(recorded: Path, number: int) -> Analysis:
    ping = recorded / f"ping{number}.txt"
    return maceproc.analyze(recorded / "trace.dat", ping=ping, inner="eth0", outer="eth0")


@pytest.mark.kernel
def test_every_ping_finds_its_own_veth_by_its_task(recorded: Path) -> None:
    analyses = [analyzed(recorded, number) for number in range(1, CONTAINERS + 1)]
    packets: set[int] = set()
    for analysis in analyses:
        rtts = analysis.rtts
        assert (rtts["status"] == "corrected").mean() >= 0.9, rtts["reason"].value_counts()
        times = set(rtts["sent_ns"].dropna())
        assert not packets & times  # no two pings are given the same task
        packets |= times
    assert len({analysis.crossings["peer"].iloc[0] for analysis in analyses}) == CONTAINERS


@pytest.mark.kernel
@pytest.mark.parametrize(
    "time",
    [
        pytest.param("", id="any task may have printed it"),
        pytest.param(" time=950 ms", id="no task can have printed it"),
    ],
)
def test_what_tells_no_task_is_refused(recorded: Path, tmp_path: Path, time: str) -> None:
    lines = (recorded / "ping1.txt").read_text().splitlines()
    ping = tmp_path / "ping.txt"
    ping.write_text("\n".join(re.sub(" time=.*", time, line) for line in lines))
    with pytest.raises(maceproc.MaceprocError, match="is received by veth"):
        maceproc.analyze(recorded / "trace.dat", ping=ping, inner="eth0", outer="eth0")
