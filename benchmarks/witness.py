"""Check the matches of the events' analysis against what the packets carry, in many pings.

    python -m benchmarks.witness OUT.json --pings N [--regime NAME]
    python -m benchmarks.witness OUT.json

records floods of N pings in the lab with both tracers at once, one for each regime or for the one
that is named, and appends to OUT.json what was checked: alone, beside rivals in the same container
and in another, with loss, with several in flight, by IPv6, by datagram sockets. Without --pings it
prints what OUT.json holds: pings by status, and matches that were right, wrong and not witnessed.
Captures of wrong matches are kept beside OUT.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import maceproc
from maceproc.echoes import points_from
from maceproc.following.witness import witness
from maceproc.pairing import Rows, pair
from maceproc.recording.bpf.devices import inner_device, outer_devices
from maceproc.recording.bpf.echo_tracer import EchoTracer
from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import Netns, lab_site
from maceproc.recording.survey import survey

READ_EVERY_S = 0.05


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
        while not self._over.wait(self._tracer.pause_s(READ_EVERY_S)):
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


@contextmanager
def datagram_sockets(lab: Lab) -> Iterator[None]:
    """Let the pings of the container use them: the kernel then chooses their identifiers."""
    words = ["ip", "netns", "exec", lab.netns("container"), "sysctl", "-qw"]
    setting = "net.ipv4.ping_group_range"
    subprocess.run([*words, f"{setting}=0 2147483647"], check=True)
    try:
        yield
    finally:
        subprocess.run([*words, f"{setting}=1 0"], check=True)


class Regime(NamedTuple):
    """What is pinged and how, and what runs beside it."""

    options: tuple[str, ...]
    rivals: tuple[tuple[str, list[str]], ...] = ()
    loss: float = 0.0
    target: str = REMOTE_IPV4
    datagram: bool = False


FLOOD, FLOOD_V6 = ["-f", "-q", REMOTE_IPV4], ["-f", "-q", REMOTE_IPV6]
PRINTED = ("-i", "0.0005")  # rounded to 0: as fast as a flood, and every RTT is printed
REGIMES = {
    "flood alone": Regime(("-f",)),
    "four in flight": Regime(("-f", "-l", "4")),
    "a rival in another container": Regime(("-f",), (("container2", FLOOD),)),
    "two rivals in the container": Regime(PRINTED, (("container", FLOOD),) * 2),
    "a rival in the container, 5 % loss": Regime(PRINTED, (("container", FLOOD),), 0.05),
    "IPv6, a rival in the container": Regime(
        PRINTED, (("container", FLOOD_V6),), target=REMOTE_IPV6
    ),
    "datagram sockets, a rival in the container": Regime(
        PRINTED, (("container", FLOOD),), datagram=True
    ),
}


def one_run(lab: Lab, name: str, pings: int, directory: Path) -> dict[str, Any]:
    """Record pings in a regime with both tracers; return what was checked, as OUT.json has it."""
    regime = REGIMES[name]
    path = directory / f"witness-{time.time_ns()}.dat"
    with ExitStack() as stack:
        rowing = stack.enter_context(both_tracers(lab))
        if regime.loss:
            stack.enter_context(loss(lab, regime.loss))
        if regime.datagram:
            stack.enter_context(datagram_sockets(lab))
        stack.enter_context(rivals(lab, *regime.rivals))
        command = ["ping", *regime.options, "-c", str(pings), regime.target]
        if regime.loss:
            command[1:1] = ["-W", "0.2"]
        record(command, lab_site(lab), path, baseline=False, force=True, buffer_kb=65536)
    analysis = maceproc.analyze(path)
    runs = analysis.capture.sidecar.runs if analysis.capture.sidecar else []
    rows = rowing.rows
    found = witness(analysis.rtts, analysis.crossings, analysis.hops, runs, rows)
    wrong = found[found["outcome"] == "wrong"]
    if len(wrong):
        print(wrong.to_string(), flush=True)
        np.save(path.with_suffix(".npy"), rows)
    else:
        for suffix in ("", ".json"):
            Path(f"{path}{suffix}").unlink()
    return {
        "regime": name,
        "pings": len(analysis.rtts),
        "statuses": analysis.rtts["status"].value_counts().to_dict(),
        "reasons": analysis.rtts["reason"].value_counts().to_dict(),
        "checks": {
            check: group["outcome"].value_counts().to_dict()
            for check, group in found.groupby("check", observed=True)
        },
        "echoes": len(rows),
        "addresses": len(np.unique(rows["request_skb"])),
        "points_lost": rowing.lost,
    }


def show(runs: list[dict[str, Any]]) -> None:
    """Print, for every regime and for all, pings by status and checks by outcome."""
    for name in [*dict.fromkeys(run["regime"] for run in runs), "all"]:
        chosen = [run for run in runs if name in (run["regime"], "all")]
        total = {key: sum(run[key] for run in chosen) for key in ("pings", "echoes", "addresses")}
        lost = sum(run["points_lost"] for run in chosen)
        print(
            f"{name}: {total['pings']} pings in {len(chosen)} runs; {total['echoes']} echoes, "
            f"on {total['addresses']} addresses of their runs; {lost} points lost"
        )
        print(f"    {dict(sum((Counter(run['statuses']) for run in chosen), Counter()))}")
        for check in ("outbound", "inbound", "request", "reply"):
            outcomes = sum((Counter(run["checks"].get(check, {})) for run in chosen), Counter())
            print(f"    {check:8} {dict(outcomes)}")


def main() -> None:
    """Record and check regimes, or print what was checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pings", type=int, default=0)
    parser.add_argument("--regime", action="append", choices=list(REGIMES))
    options = parser.parse_args()
    runs = json.loads(options.out.read_text()) if options.out.exists() else []
    if options.pings:
        with Lab(containers=2, remote="kernel") as lab:
            for name in options.regime or REGIMES:
                runs.append(one_run(lab, name, options.pings, options.out.parent))
                options.out.write_text(json.dumps(runs, indent=1))
                print(f"{name}: {runs[-1]['checks']}", flush=True)
    else:
        show(runs)


if __name__ == "__main__":
    main()
