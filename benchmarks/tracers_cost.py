"""What the tracers cost: the median RTT of a container's ping, with each of them and with none.

    python -m benchmarks.tracers_cost OUT.json [--remote kernel|program] [--flows N]
        [--interval S] [--seconds S] [--only TRACER,...]
    python -m benchmarks.tracers_cost OUT.json

measures one regime and appends its rounds to OUT.json; without --seconds it prints the table of
what OUT.json holds. One ping runs all the time. In a round every tracer, and none, is on for half a
second, in an order that changes: so drift, and what the ping itself is like, falls on all of them
alike. Its time of day (`ping -D`) tells under which one a reply came. `empty` are programs that do
nothing on the hooks of the BPF tracer: the least that one can cost. `perf` records the events of
`minimal` by perf; `perf off` is a perf that runs with these events disabled.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, median_grouped
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maceproc.recording.bpf.echo_tracer import EchoTracer
from maceproc.recording.bpf.libbpf import BpfObject
from maceproc.recording.bpf.memory import PROGRAMS
from maceproc.recording.echo_recorder import READ_EVERY_S, devices_to_watch
from maceproc.recording.event_sets import choose_events, events_needed
from maceproc.recording.lab import REMOTE_IPV4, Lab
from maceproc.recording.lab_remote import spinning
from maceproc.recording.perf_recorder import PerfRecorder
from maceproc.recording.recorder import recorded_to
from maceproc.recording.sites import lab_site
from maceproc.recording.survey import survey
from maceproc.recording.tracing import available_events

TRACERS = ("none", "net:*", "minimal", "perf", "perf off", "bpf", "empty")
SOURCE = Path(__file__).with_name("empty.bpf.c")
SETTLE_S = 0.05
SLOT_S = 0.45
LEAST_PINGS = 10
PRINTED_STEP_US = 1.0


class Switch:
    """A tracer that is switched on and off."""

    def __init__(self, on: Callable[[], object], off: Callable[[], object]) -> None:
        self._on, self._off = on, off

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Have it on while the block runs."""
        self._on()
        time.sleep(SETTLE_S)
        try:
            yield
        finally:
            self._off()


class ReadTracer:
    """The tracer in the kernel, whose points are read as a recording does."""

    def __init__(self, tracer: EchoTracer) -> None:
        self._tracer = tracer
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Let its programs run, and begin to read."""
        self._tracer.start()
        self._over.clear()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def stop(self) -> None:
        """Take its programs out of the kernel."""
        self._over.set()
        if self._thread:
            self._thread.join()
        self._tracer.stop()
        self._tracer.read_points()

    def _read(self) -> None:
        while not self._over.wait(self._tracer.pause_s(READ_EVERY_S)):
            self._tracer.read_points()


class IdlePerf:
    """A perf whose events are disabled all the time."""

    def __init__(self, events: list[str]) -> None:
        self._events = [word for event in events for word in ("-e", event)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and give it the time to open its events."""
        words = ["perf", "record", "-q", "-o", "/dev/null", "-a", "-k", "mono", "-D", "-1"]
        self._process = subprocess.Popen([*words, *self._events], stderr=subprocess.DEVNULL)
        time.sleep(1.5)

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()


@contextmanager
def tracers(lab: Lab, directory: Path, wanted: Sequence[str]) -> Iterator[dict[str, Switch]]:
    """Give the tracers wanted, switched off."""
    site = lab_site(lab)
    surveyed = survey(site, REMOTE_IPV4)
    with ExitStack() as stack:
        made = {"none": Switch(lambda: None, lambda: None)}
        available = available_events()
        for name, events in (("net:*", "net:*"), ("minimal", "minimal")):
            chosen, _, _ = choose_events(events, available, events_needed(surveyed))
            path = directory / f"{name.replace(':*', '')}.dat"
            recorder = stack.enter_context(recorded_to(path, chosen, 4096, name=path.stem))
            made[name] = Switch(recorder.switch_on, recorder.switch_off)
        if "perf" in wanted:
            perf = stack.enter_context(PerfRecorder(directory / "perf.dat", chosen, 4096))
            made["perf"] = Switch(perf.switch_on, perf.switch_off)
        idle = IdlePerf(chosen)
        made["perf off"] = Switch(idle.start, idle.stop)
        if not {"bpf", "empty"} & set(wanted):
            yield made
            return
        tracer = stack.enter_context(EchoTracer())
        tracer.watch(devices_to_watch(surveyed))
        read = ReadTracer(tracer)
        made["bpf"] = Switch(read.start, read.stop)
        image = directory / "empty.bpf.o"
        words = ["clang", "-O2", "-g", "-mcpu=v3", "-target", "bpf", "-c", str(SOURCE), "-o"]
        subprocess.run([*words, str(image)], check=True)
        empty = stack.enter_context(BpfObject(image.read_bytes()))
        made["empty"] = Switch(lambda: empty.attach(PROGRAMS), empty.detach)
        yield made


@contextmanager
def flows(lab: Lab, count: int) -> Iterator[None]:
    """Run floods in the other containers."""
    with ExitStack() as stack:
        for number in range(count):
            netns = lab.netns(f"container{number + 2}")
            argv = ["ip", "netns", "exec", netns, "ping", "-f", "-q", "-i", "0.001", REMOTE_IPV4]
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield


class Pinging:
    """A ping of a container that runs while the block runs; its RTTs by time of day."""

    def __init__(self, lab: Lab, interval_s: float) -> None:
        words = ["ping", "-D", "-i", str(interval_s), REMOTE_IPV4]
        self._argv = ["ip", "netns", "exec", lab.netns("container"), *words]
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Pinging:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._reader.join()
        self._process.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    def replies(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return when replies came [s, time of day], and their RTTs [us]."""
        found = re.findall(r"\[([0-9.]+)\] .* time=([0-9.]+) ms", "".join(self._lines))
        table = np.array(found, float).reshape(-1, 2)
        return table[:, 0], table[:, 1] * 1000


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the rounds of one regime, as many as there is time for."""
    slots: list[dict[str, tuple[float, float]]] = []
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(containers=1 + options.flows, remote=options.remote))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        switches = stack.enter_context(tracers(lab, directory, options.only))
        stack.enter_context(spinning(lab.remote_socket))
        stack.enter_context(flows(lab, options.flows))
        pinging = stack.enter_context(Pinging(lab, options.interval))
        end_s = time.monotonic() + options.seconds
        while time.monotonic() < end_s:
            times = {}
            for name in random.sample(options.only, len(options.only)):
                with switches[name]():
                    began = time.time()
                    time.sleep(SLOT_S)
                    times[name] = (began, time.time())
            slots.append(times)
    came_s, rtts_us = pinging.replies()
    regime = f"{options.remote}, {options.flows} flows, every {options.interval} s"
    rounds = []
    for times in slots:
        medians = {}
        for name, (began, ended) in times.items():
            values = rtts_us[(came_s - rtts_us / 1e6 > began) & (came_s < ended)]
            if len(values) >= LEAST_PINGS:
                medians[name] = median_grouped(values.tolist(), interval=PRINTED_STEP_US)
        if len(medians) == len(options.only):
            rounds.append({"regime": regime, "median_us": medians})
    return rounds


def show(rounds: list[dict[str, Any]]) -> None:
    """Print, for every regime, what each tracer adds and its share of `net:*`."""
    random_state = np.random.default_rng(1)
    for regime in dict.fromkeys(entry["regime"] for entry in rounds):
        table = [entry["median_us"] for entry in rounds if entry["regime"] == regime]
        there = [n for n in TRACERS[1:] if all(n in row for row in table)]
        added = {n: np.array([r[n] - r["none"] for r in table]) for n in there}
        base = median(row["none"] for row in table)
        print(f"{regime}: {len(table)} rounds, untraced median {base:.1f} us")
        picks = random_state.integers(0, len(table), (2000, len(table)))
        for name, values in added.items():
            drawn = np.median(values[picks], axis=1)
            low, high = np.percentile(drawn, (2.5, 97.5))
            line = f"  {name:8} {np.median(values):+6.1f} us [{low:+.1f}, {high:+.1f}]"
            if "net:*" in added:
                of_net = drawn / np.median(added["net:*"][picks], axis=1)
                share = np.median(values) / np.median(added["net:*"])
                ends = np.percentile(of_net, (2.5, 97.5))
                line += f"  {share:.2f} of net:* [{ends[0]:.2f}, {ends[1]:.2f}]"
            print(line)


def main() -> None:
    """Measure a regime, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--remote", choices=("kernel", "program"), default="kernel")
    parser.add_argument("--flows", type=int, default=0)
    parser.add_argument("--interval", type=float, default=0.005)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(TRACERS))
    options = parser.parse_args()
    rounds = json.loads(options.out.read_text()) if options.out.exists() else []
    if options.seconds:
        rounds += measure(options)
        options.out.write_text(json.dumps(rounds, indent=1))
    show(rounds)


if __name__ == "__main__":
    main()
