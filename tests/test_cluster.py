"""A cluster of namespaces: one worker killed, one added, the scheduler restarted.

Every capture is in the dataset exactly once. Scheduler, workers and the collector are processes in
network namespaces of their own, joined by a bridge.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from maceproc.capture_files import open_capture, save_sidecar, sidecar_path
from maceproc.errors import MaceprocError
from maceproc.fleet.cluster import run_on_cluster
from maceproc.fleet.collecting import Job
from maceproc.fleet.dataset import open_dataset
from maceproc.fleet.store import LocalStore, open_store
from tests.recorded import analyzed, path_of

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
CAPTURES = 10
PATIENCE_S = 240.0  # for what takes seconds on an idle machine


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """Namespaces on one bridge, 10.77.0.0/24; ended with every process in them."""

    def __init__(self, logs: Path) -> None:
        self._prefix = f"mpc{os.getpid()}"
        self._logs = logs
        self._hosts: list[str] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.hub = f"{self._prefix}-hub"
        ip("netns", "add", self.hub)
        ip("-n", self.hub, "link", "set", "lo", "up")
        ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        ip("-n", self.hub, "address", "add", "10.77.0.254/24", "dev", "br0")
        ip("-n", self.hub, "link", "set", "br0", "up")

    def host(self, name: str) -> str:
        """Make a namespace with an address of its own; return the address."""
        self._hosts.append(name)
        netns, number = f"{self._prefix}-{name}", len(self._hosts)
        ip("netns", "add", netns)
        ip("-n", self.hub, "link", "add", f"v{number}", "type", "veth",
           "peer", "name", "eth0", "netns", netns)  # fmt: skip
        ip("-n", self.hub, "link", "set", f"v{number}", "master", "br0", "up")
        ip("-n", netns, "link", "set", "lo", "up")
        ip("-n", netns, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        ip("-n", netns, "link", "set", "eth0", "up")
        return f"10.77.0.{number}"

    def start(self, name: str, *words: str) -> None:
        """Start a Python module in a namespace."""
        netns = f"{self._prefix}-{name}"
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", netns, sys.executable, "-m", *words],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kill a process, without a chance to say goodbye."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for name in list(self._processes):
            self.kill(name)
        for name in ("hub", *self._hosts):
            ip("netns", "delete", f"{self._prefix}-{name}")


@contextmanager
def network(logs: Path) -> Iterator[Network]:
    made = Network(logs)
    try:
        yield made
    finally:
        made.close()


def captures(directory: Path) -> list[Path]:
    """Write captures that differ in their host's name."""
    directory.mkdir()
    data = path_of("every_event").read_bytes()
    sidecar = open_capture(path_of("every_event")).sidecar
    assert sidecar is not None
    sidecar.trace = None
    made = []
    for number in range(CAPTURES):
        trace = directory / f"{number}.dat"
        assert data.count(b"Linux vm ") == 1
        trace.write_bytes(data.replace(b"Linux vm ", b"Linux h%d " % number))
        save_sidecar(sidecar_path(trace), sidecar)
        made.append(trace)
    return made


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a condition while a process runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.kernel
@NEEDS_ROOT
def test_every_capture_once_whatever_dies(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    traces = captures(tmp_path / "captures")
    data = tmp_path / "fleet"
    store = LocalStore(data)

    def collected() -> int:
        return len(store.files("captures"))

    with ExitStack() as stack:
        net = stack.enter_context(network(tmp_path))
        address = net.host("scheduler")
        scheduler = ("distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")

        def worker(name: str) -> None:
            at = f"tcp://{address}:8786"
            net.start(name, "distributed.cli.dask_worker", at, "--no-nanny", "--nthreads", "1",
                      "--no-dashboard", "--local-directory", str(tmp_path / name))  # fmt: skip

        for name in ("w1", "w2", "w3", "w4"):
            net.host(name)
        net.start("scheduler", *scheduler)
        for name in ("w1", "w2", "w3"):
            worker(name)
        words = ["ip", "netns", "exec", net.hub, sys.executable, "-m", "maceproc", "collect"]
        words += [str(tmp_path / "captures"), "-o", str(data), "--json"]
        words += ["--scheduler", f"tcp://{address}:8786"]
        pipe = subprocess.PIPE
        client = stack.enter_context(subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True))
        stack.callback(client.kill)
        until(lambda: collected() >= 1, client)
        net.kill("w1")  # in the middle of a capture, or just before one
        worker("w4")
        until(lambda: collected() >= 3, client)
        net.kill("scheduler")
        for name in ("w2", "w3", "w4"):
            net.kill(name)
        before = collected()
        assert before < CAPTURES
        net.start("scheduler", *scheduler)
        for name in ("w2", "w4"):  # as whatever watches over workers does
            worker(name)
        out, err = client.communicate(timeout=PATIENCE_S)
        assert client.returncode == 0, err
    receipts = json.loads(out)
    assert [receipt["source"] for receipt in receipts] == [str(trace) for trace in traces]
    assert {receipt["state"] for receipt in receipts} <= {"collected", "present"}
    fleet = open_dataset(data)
    assert (len(fleet.captures), len(fleet.failures)) == (CAPTURES, 0)
    counts = fleet.sql("select host, count(*) as rows from rtts group by host")
    assert set(counts["rows"]) == {len(analyzed("every_event").rtts)}
    assert sorted(counts["host"]) == [f"h{number}" for number in range(CAPTURES)]


def test_without_a_scheduler_it_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    store = open_store(tmp_path, create=True)
    job = Job(str(path_of("native")), str(tmp_path), ("rtts",))
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(MaceprocError, match="scheduler"):
            run_on_cluster(address, [job], lambda _: None, store, patience_s=0.1)
