"""Check the matches of the events' analysis against what the packets carry, in many pings.

    python -m benchmarks.witness [PINGS] [DIRECTORY]

Records floods in the lab with both tracers at once: alone, beside rivals in the same container and
in another, with loss, and without the outer device's queue. Prints a line for each regime: matches
checked, right, wrong and not witnessed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

import maceproc
from maceproc.echoes import points_from
from maceproc.following.witness import witness
from maceproc.pairing import Rows, pair
from maceproc.recording.bpf.devices import inner_device, outer_devices
from maceproc.recording.bpf.echo_tracer import EchoTracer
from maceproc.recording.lab import REMOTE_IPV4, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import Netns, lab_site
from maceproc.recording.survey import survey

PINGS_A_RUN = 20_000
READ_EVERY_S = 0.1


class Rowing:
    """The echoes that the tracer in the kernel saw; its points are read while they come."""

    def __init__(self, tracer: EchoTracer) -> None:
        self._tracer = tracer
        self._data = bytearray()
        self.lost = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Rowing:
        self._tracer.start()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._tracer.stop()
        self._take()

    @property
    def rows(self) -> Rows:
        """What has come until now."""
        return pair(points_from(bytes(self._data))).rows

    def _read(self) -> None:
        while not self._over.wait(READ_EVERY_S):
            self._take()

    def _take(self) -> None:
        data, lost, _ = self._tracer.read_points()
        self._data += data
        self.lost += lost


@contextmanager
def both_tracers(lab: Lab) -> Iterator[Rowing]:
    """Give the rows of a lab's containers, while the block records events."""
    site = lab_site(lab)
    with EchoTracer() as tracer:
        devices = set()
        for number, netns in enumerate([site.inside, *site.around], 1):
            if netns.name.startswith("container"):
                around = tuple(n for n in (site.inside, *site.around) if n is not netns)
                devices |= _devices_of(netns, around, lab, number)
        tracer.watch(devices)
        with Rowing(tracer) as rowing:
            yield rowing


def _devices_of(netns: Netns, around: tuple[Netns, ...], lab: Lab, number: int) -> set[object]:
    from dataclasses import replace

    site = replace(lab_site(lab), inside=netns, around=around)
    found = survey(site, REMOTE_IPV4)
    assert found.host is not None
    inside = next(n for n in found.namespaces if n.name == netns.name)
    link = next(link for link in inside.links if link.name == "eth0")
    inwards = [hop.dev for hop in found.target.path[1:-1]]
    return {inner_device(inside.inode, link, number), *outer_devices(found.host, inwards)}


@contextmanager
def rivals(lab: Lab, *commands: tuple[str, list[str]]) -> Iterator[None]:
    """Run pings in containers while the block runs."""
    with ExitStack() as stack:
        for role, words in commands:
            argv = ["ip", "netns", "exec", lab.netns(role), "ping", *words]
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield


@contextmanager
def loss(lab: Lab, probability: float) -> Iterator[None]:
    """Drop requests at the remote host."""
    rule = f"INPUT -p icmp -m statistic --mode random --probability {probability} -j DROP"
    netns = ["ip", "netns", "exec", lab.netns("remote")]
    subprocess.run([*netns, "iptables", "-w", "-A", *rule.split()], check=True)
    try:
        yield
    finally:
        subprocess.run([*netns, "iptables", "-w", "-D", *rule.split()], check=True)


FLOOD = ["-f", "-q", REMOTE_IPV4]
PRINTED = ["-i", "0.0005"]  # rounded to 0: as fast as a flood, and every RTT is printed
REGIMES: dict[str, tuple[tuple[tuple[str, list[str]], ...], float, list[str]]] = {
    "flood alone": ((), 0.0, ["-f"]),
    "printed, two rivals in the container": ((("container", FLOOD),) * 2, 0.0, PRINTED),
    "a rival in another container": ((("container2", FLOOD),), 0.0, ["-f"]),
    "printed, 5 % loss, a rival in the container": ((("container", FLOOD),), 0.05, PRINTED),
    "four in flight": ((), 0.0, ["-f", "-l", "4"]),
}


def one_run(lab: Lab, regime: str, pings: int, directory: Path) -> pd.DataFrame:
    """Record pings in a regime with both tracers; return WITNESSED, with pings by status."""
    commands, probability, options = REGIMES[regime]
    path = directory / "trace.dat"
    with ExitStack() as stack:
        rowing = stack.enter_context(both_tracers(lab))
        if probability:
            stack.enter_context(loss(lab, probability))
        stack.enter_context(rivals(lab, *commands))
        command = ["ping", *options, "-c", str(pings), REMOTE_IPV4]
        if probability:
            command[1:1] = ["-W", "0.2"]
        record(command, lab_site(lab), path, baseline=False, force=True, buffer_kb=65536)
    analysis = maceproc.analyze(path)
    assert rowing.lost == 0
    runs = analysis.capture.sidecar.runs if analysis.capture.sidecar else []
    found = witness(analysis.rtts, analysis.crossings, analysis.hops, runs, rowing.rows)
    _keep_wrong(found, path, rowing.rows)
    statuses = analysis.rtts["status"].value_counts()
    print(f"  {regime}: {statuses.to_dict()}; rows {len(rowing.rows)}", flush=True)
    return found


def _keep_wrong(found: pd.DataFrame, path: Path, rows: Rows) -> None:
    """Print what is wrong, and keep its capture and rows beside the others'."""
    wrong = found[found["outcome"] == "wrong"]
    if len(wrong):
        print(wrong.to_string(), flush=True)
        kept = path.with_name(f"wrong-{time.time_ns()}.dat")
        for suffix in ("", ".json"):
            shutil.copy(f"{path}{suffix}", f"{kept}{suffix}")
        np.save(kept.with_suffix(".npy"), rows)


def main(pings: int, directory: Path) -> None:
    """Record until so many pings were checked; print a table."""
    tables: dict[str, list[pd.DataFrame]] = {regime: [] for regime in REGIMES}
    checked = 0
    with Lab(containers=2) as lab:
        while checked < pings:
            for regime in REGIMES:
                tables[regime].append(one_run(lab, regime, PINGS_A_RUN, directory))
                checked += PINGS_A_RUN
                _print_table(tables, checked)


def _print_table(tables: dict[str, list[pd.DataFrame]], checked: int) -> None:
    print(f"{checked} pings")
    for regime, found in tables.items():
        if found:
            whole = pd.concat(found)
            counts = pd.crosstab(whole["check"].astype(str), whole["outcome"].astype(str))
            print(f"{regime}\n{counts.to_string()}", flush=True)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    if len(sys.argv) > 2:
        main(wanted, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(wanted, Path(made))
