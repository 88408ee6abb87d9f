"""How near `native_rtt_ns` is to what the host's own ping prints, regime by regime.

    python -m benchmarks.native_rtt record DIR [--regime lab ...] [--recordings 10] [--seconds 60]
    python -m benchmarks.native_rtt table DIR

`record` makes recordings of each regime, in turn, with all four arms; what exists is not made again,
so the same command goes on where it was ended. Every second recording pings another address.
`table` corrects each recording by a calibration made of *another* one of the same regime, which
pinged the other address, and judges it against its own untraced natives.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from maceproc.recording.lab import (
    NETNS_DIR,
    REMOTE_IPV4,
    REMOTE_IPV6,
    SECOND_IPV4,
    SECOND_IPV6,
    Lab,
)
from maceproc.recording.lab_remote import spinning
from maceproc.recording.record import record
from maceproc.recording.targets import lab_site

TARGETS, TARGETS_IPV6 = (REMOTE_IPV4, SECOND_IPV4), (REMOTE_IPV6, SECOND_IPV6)
ARMS = 4
PINGS_OF_A_RUN = 10


class Regime(NamedTuple):
    """A way of pinging; the words of `ping` without its target."""

    interval_s: float = 0.02
    awake: bool = False
    nat: bool = True
    flows: int = 0
    remote: Literal["kernel", "program"] = "program"
    program: str = "ping"
    targets: tuple[str, str] = TARGETS
    docker: bool = False


REGIMES = {
    "lab": Regime(),
    "lab awake": Regime(awake=True),
    "every 10 ms": Regime(0.01),
    "every 200 ms": Regime(0.2),
    "every second": Regime(1.0),
    "every second, awake": Regime(1.0, awake=True),
    "no NAT": Regime(nat=False),
    "no NAT, awake": Regime(nat=False, awake=True),
    "4 flows": Regime(flows=4),
    "4 flows, awake": Regime(flows=4, awake=True),
    "IPv6": Regime(targets=TARGETS_IPV6),
    "busybox": Regime(0.2, program="busybox ping"),
    "kernel remote": Regime(remote="kernel"),
    "kernel remote, awake": Regime(remote="kernel", awake=True),
    "Docker": Regime(docker=True),
    "Docker, awake": Regime(docker=True, awake=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("verb", choices=["record", "table"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--regime", choices=[*REGIMES], action="append")
    parser.add_argument("--recordings", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60, help="of pinging, for each recording")
    parser.add_argument("--until", type=float, default=1e9, help="start none after so many seconds")
    arguments = parser.parse_args()
    names = arguments.regime or [*REGIMES]
    if arguments.verb == "record":
        deadline = time.monotonic() + arguments.until
        for number in range(arguments.recordings):
            for name in names:
                trace = arguments.directory / name.replace(" ", "-") / f"{number}.dat"
                if not finished(trace) and time.monotonic() < deadline:
                    trace.parent.mkdir(parents=True, exist_ok=True)
                    make(trace, REGIMES[name], number, arguments.seconds)


def finished(trace: Path) -> bool:
    """Tell whether a recording was made to its end."""
    return trace.with_suffix(".done").exists()


def make(trace: Path, regime: Regime, number: int, seconds: float) -> None:
    """Make one recording."""
    pings = max(5, min(PINGS_OF_A_RUN, round(seconds / regime.interval_s / ARMS / 12)))
    rounds = max(6, round(seconds / (ARMS * (pings * regime.interval_s + 0.15))))
    words = [*regime.program.split(), "-i", str(regime.interval_s), "-c", str(pings)]
    words.append(regime.targets[number % 2])
    print(trace, rounds, *words, file=sys.stderr, flush=True)
    if regime.docker:
        make_in_docker(trace, regime, rounds, words)
    else:
        with Lab(containers=1 + regime.flows, nat=regime.nat, remote=regime.remote) as lab:
            site = lab_site(lab)
            with flows(lab, regime.flows):
                record(words, site, trace, rounds=rounds, awake=regime.awake, force=True)
    trace.with_suffix(".done").touch()


@contextlib.contextmanager
def flows(lab: Lab, count: int) -> Iterator[None]:
    """Ping from other containers of the lab while the block runs."""
    argv = [
        [
            "nsenter",
            f"--net={NETNS_DIR / lab.netns(f'container{n + 2}')}",
            "--",
            "ping",
            "-q",
            "-i",
            "0.02",
            REMOTE_IPV4,
        ]
        for n in range(count)
    ]
    started = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for words in argv]
    try:
        time.sleep(0.5 * bool(count))
        yield
    finally:
        for process in started:
            process.terminate()
            process.wait()


def make_in_docker(trace: Path, regime: Regime, rounds: int, words: list[str]) -> None:
    """Record in a container of a Docker Engine of our own, as the tests start it."""
    from tests.engine import started_engine

    cpus = sorted(os.sched_getaffinity(0))
    with started_engine(regime.remote) as engine, spinning(engine.lab.remote_socket):
        with engine.container("web", "--cpuset-cpus", str(cpus[0])) as web:
            argv = ["record", "--force", "-o", trace, "--rounds", str(rounds)]
            argv += ["--awake"] * regime.awake + ["--container", web, "--", *words]
            argv = engine.maceproc_argv(*argv)
            subprocess.run(
                ["taskset", "--cpu-list", str(cpus[0]), *argv], env=engine.env, check=True
            )


if __name__ == "__main__":
    main()
