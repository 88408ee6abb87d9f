"""Recordings as people have them: text without a sidecar, and what the ping printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import maceproc
from maceproc.cli import cli
from maceproc.tracedat import merge_events
from tests.recorded import analyzed

OUTER = "eno1d1"


def latency_letters(flags: int, width: int) -> str:
    """Write common_flags as the kernel does; five letters since v5.18, four before."""
    irqs = "b" if flags & 0x80 else "d" if flags & 1 else "."
    letters = irqs + "." + ("s" if flags & 0x10 else ".") + "1"
    return letters.ljust(width, ".")


def printed(row: Any, address: str, old_calls: bool) -> str:
    """Write what an event tells, in its own print format."""
    if row.event == "sys_enter_sendto":
        name = "sys_sendto(" if old_calls else "sys_enter_sendto: "
        fields = f"fd: {row.fd:#x}, buff: {row.buff:#x}, len: {row.len:#x}, flags: 0x0"
        return f"{name}{fields}{')' if old_calls else ''}"
    if row.event == "sys_exit_recvmsg":
        ret = f"{int(row.ret) % 2**64:#x}"
        return f"sys_recvmsg -> {ret}" if old_calls else f"sys_exit_recvmsg: {ret}"
    return f"{row.event}: dev={row.dev} skbaddr={address.format(row.skbaddr)} len={row.len}"


def kernel_3_10(row: Any) -> str:
    time = f"{row.time_ns / 1e9:.6f}"
    letters = latency_letters(row.flags, 4)
    return f"{row.comm:>16}-{row.pid:<5} [{row.cpu:03}] {letters} {time}: " + printed(
        row, "{:x}", old_calls=True
    )


def kernel_6_18(row: Any) -> str:
    time = f"{row.time_ns / 1e9:.6f}"
    letters = latency_letters(row.flags, 5)
    return f"{row.comm:>16}-{row.pid:<7} [{row.cpu:03}] {letters} {time:>13}: " + printed(
        row, "0x{:x}", old_calls=True
    )


def report(row: Any) -> str:
    seconds, fraction = divmod(row.time_ns, 10**9)
    return f"{row.comm:>16}-{row.pid:<5} [{row.cpu:03}] {seconds:5}.{fraction:09}: " + printed(
        row, "0x{:x}x", old_calls=False
    )


def perf_script(row: Any) -> str:
    system = "syscalls" if row.event.startswith("sys_") else "net"
    time = f"{row.time_ns / 1e9:.6f}"
    return f"{row.comm:>16} {row.pid:5} [{row.cpu:03}] {time:>13}: {system:>16}:" + printed(
        row, "0x{:x}", old_calls=False
    )


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    """The idle capture's events, with an outer device of another name than the container's."""
    analysis = analyzed("idle")
    hops = analysis.hops[["event", "skbaddr", "time_ns", "netns"]]
    merged = merge_events(analysis.trace)
    placed = merged.merge(hops, on=["event", "skbaddr", "time_ns"], how="left", validate="m:1")
    dev = placed["name"].astype(object)
    return placed.assign(dev=dev.mask((dev == "eth0") & (placed["netns"] == "host"), OUTER))


@pytest.fixture(scope="module")
def ping_txt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all runs of the ping printed, one after another."""
    path = tmp_path_factory.mktemp("old") / "ping.txt"
    sidecar = analyzed("idle").capture.sidecar
    assert sidecar is not None
    path.write_text("".join(run.output for run in sidecar.runs if run.traced))
    return path


@pytest.mark.parametrize("spelling", [kernel_3_10, kernel_6_18, report, perf_script])
def test_an_old_recording_is_analyzed_as_the_capture(
    tmp_path: Path, events: pd.DataFrame, ping_txt: Path, spelling: Callable[[Any], str]
) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("\n".join(map(spelling, events.itertuples())) + "\n")
    by_hand = maceproc.analyze(path, ping=ping_txt, inner="eth0", outer=OUTER)
    rtts = analyzed("idle").rtts
    ours = rtts[(rtts["arm"] == "container traced") & (rtts["status"] == "corrected")]
    theirs = by_hand.rtts[by_hand.rtts["status"] == "corrected"]
    assert len(ours) == 200
    assert len(theirs) >= 0.99 * len(ours)
    both = ours.merge(theirs, on=["round", "seq"], validate="1:1")
    assert len(both) == len(theirs)
    difference_ns = (both["bare_metal_rtt_ns_x"] - both["bare_metal_rtt_ns_y"]).abs()
    step_ns = 0 if spelling is report else 1000  # text with microseconds: two ends of two crossings
    assert difference_ns.max() <= 2 * step_ns


def test_command_line(tmp_path: Path, events: pd.DataFrame, ping_txt: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("\n".join(map(kernel_3_10, events.itertuples())) + "\n")
    command = ["analyze", str(path), "--ping", str(ping_txt), "--inner", "eth0", "--outer", OUTER]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "200 of 200 answered pings" in result.output
