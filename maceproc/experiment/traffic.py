"""Traffic beside the ping: background flows, each pinned to a CPU."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from maceproc.errors import CommandError
from maceproc.experiment.plan import TRAFFIC_FILE, Block
from maceproc.recording.command import find_program, parse_command
from maceproc.recording.sites import Netns
from maceproc.whole_file import opened_whole

IPERF_PORT = 5201
WARM_UP_S = 0.3  # time until the flows run at their full rate
STOP_TIMEOUT_S = 5.0

_PING_COUNT = re.compile(r"\b(\d{1,18}) packets transmitted, (\d{1,18}) received")


class FlowReport(msgspec.Struct, kw_only=True):
    """What one background flow did during a block."""

    argv: list[str]
    cpu: int
    netns: str
    seconds: float
    sent: int | None = None  # packets; None when it does not say
    received: int | None = None


@dataclass(frozen=True)
class Traffic:
    """What the flows are: ``flood``, ``flood:SECONDS`` between pings, or ``iperf3:RATE``.

    A flood is ``ping -f``, as in the paper: the next request follows the reply at once. iperf3
    sends UDP at a rate (``100M`` bit/s), each flow to a server of its own, from port 5201 on. In a
    lab these servers are started; elsewhere they have to be running.
    """

    kind: str
    detail: str = ""

    @classmethod
    def parse(cls, text: str) -> Traffic:
        """Understand ``--traffic``; CommandError when it is not one of the three."""
        kind, _, detail = text.partition(":")
        if kind == "flood" and (not detail or re.fullmatch(r"\d*\.?\d+", detail)):
            return cls(kind, detail)
        if kind == "iperf3" and re.fullmatch(r"\d+(\.\d+)?[KMG]?", detail):
            return cls(kind, detail)
        raise CommandError(
            f"traffic {text!r}", hint="say flood, flood:0.001 (seconds between), or iperf3:100M"
        )

    def argv(self, address: str, number: int) -> list[str]:
        """Return the command line of a flow; flows count from 0."""
        if self.kind == "flood":
            pace = ["-i", self.detail] if self.detail else []
            return ["ping", "-f", "-q", *pace, address]
        port = str(IPERF_PORT + number)
        return ["iperf3", "-u", "-b", self.detail, "-t", "86400", "-c", address, "-p", port]

    def server_argv(self, number: int) -> list[str]:
        """Return the command line of the server that a flow needs; empty when it needs none."""
        return ["iperf3", "-s", "-p", str(IPERF_PORT + number)] if self.kind == "iperf3" else []


@dataclass
class _Flow:
    """A program that runs in a namespace until it is stopped."""

    argv: list[str]
    cpu: int
    netns: Netns
    output: int = field(default_factory=lambda: os.memfd_create("flow"))
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    def start(self) -> None:
        pinned = ["taskset", "--cpu-list", str(self.cpu), *self.argv]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", *self.netns.enter(pinned)],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            env=os.environ | {"LC_ALL": "C"},
            process_group=0,
        )
        self.started = time.monotonic()

    def said(self) -> str:
        return os.pread(self.output, 1 << 16, 0).decode(errors="replace").strip()

    def check_running(self) -> None:
        """Raise CommandError with its last line of output when it has ended."""
        if self.process is not None and self.process.poll() is not None:
            said = (self.said().splitlines() or ["it said nothing"])[-1]
            raise CommandError(
                f"background flow `{' '.join(self.argv)}` in {self.netns.name} ended: {said}",
                hint="run it by hand in the same place",
            )

    def stop(self) -> FlowReport:
        seconds = time.monotonic() - self.started
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        counted = _PING_COUNT.search(self.said())
        os.close(self.output)
        sent, received = (int(counted[1]), int(counted[2])) if counted else (None, None)
        return FlowReport(
            argv=self.argv,
            cpu=self.cpu,
            netns=self.netns.name,
            seconds=seconds,
            sent=sent,
            received=received,
        )


@contextlib.contextmanager
def running_flows(
    traffic: Traffic,
    flows: int,
    address: str,
    sources: Sequence[Netns],
    server: Netns | None = None,
    cpus: Sequence[int] = (),
) -> Iterator[Running]:
    """Run so many flows to an address as long as the block lasts.

    They start from `sources` in turn, pinned in turn to `cpus`, by default those we may use. Where
    `server` is given, what answers them is started there. Raises CommandError when one cannot be
    started or ends.
    """
    cpus = cpus or usable_cpus()
    clients = [
        _Flow(traffic.argv(address, n), cpus[n % len(cpus)], sources[n % len(sources)])
        for n in range(flows)
    ]
    servers = []
    if server is not None and traffic.server_argv(0):
        servers = [_Flow(traffic.server_argv(n), cpus[n % len(cpus)], server) for n in range(flows)]
    running = Running(clients)
    try:
        for group in (servers, clients):
            for flow in group:
                find_program(parse_command(flow.argv))
                flow.start()
            time.sleep(WARM_UP_S if group else 0)
        running.check()
        yield running
        running.check()
    finally:
        running.reports += [flow.stop() for flow in clients]
        for flow in servers:
            flow.stop()


@dataclass
class Running:
    """Flows that run; `reports` says afterwards what they did."""

    flows: list[_Flow]
    reports: list[FlowReport] = field(default_factory=list)

    def check(self) -> None:
        """Raise CommandError when one has ended."""
        for flow in self.flows:
            flow.check_running()


def usable_cpus(taken: int | None = None) -> list[int]:
    """Return the CPUs that this process may run on; without the one taken, if there are others."""
    usable = os.sched_getaffinity(0)
    return sorted(usable - {taken} or usable)


def save_reports(path: Path, reports: list[FlowReport]) -> None:
    """Write what the flows did."""
    with opened_whole(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(reports), indent=1) + b"\n")


def load_reports(path: Path) -> list[Any]:
    """Read what the flows did; nothing when the file is not there."""
    if not path.exists():
        return []
    return list(msgspec.json.decode(path.read_bytes(), type=list[FlowReport]))


def rate_rows(directory: Path, blocks: Sequence[Block]) -> Iterator[tuple[object, ...]]:
    """Yield a row of RATES for each level of traffic: how many packets a second its flows sent."""
    levels: dict[int, list[float]] = {}
    for block in blocks:
        reports = load_reports(directory / block.path / TRAFFIC_FILE)
        rate = sum((r.sent if r.sent is not None else math.nan) / r.seconds for r in reports)
        levels.setdefault(block.flows, []).append(rate)
    for flows in sorted(levels):
        yield (flows, len(levels[flows]), math.fsum(levels[flows]) / len(levels[flows]))
