"""How near `native_rtt_ns` is to what the host's own ping prints, regime by regime.

    python -m benchmarks.native_rtt record DIR [--regime lab ...] [--recordings 10] [--seconds 60]
    python -m benchmarks.native_rtt table DIR
    python -m benchmarks.native_rtt ways DIR

`record` makes recordings of each regime, in turn, with all four arms, and adds what they say to
DIR/recordings.jsonl. What is there is not made again: the same command goes on where it was ended.
Every second recording pings another address. `table` corrects each recording by a calibration made
of *another* one of the same regime, which pinged the other address, and judges it against its own
untraced natives. `ways` compares ways to correct: each recording by every other one of its regime.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from scipy.stats import norm, t

import maceproc
from maceproc.calibration import Measured
from maceproc.following.native_rounds import SIGNS, Rounds
from maceproc.following.native_rtt import Correction, estimate, left_by_another
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
from maceproc.recording.sites import lab_site
from maceproc.statistics import Estimate

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
    "busybox": Regime(0.02, program="busybox ping"),
    "kernel remote": Regime(remote="kernel"),
    "kernel remote, awake": Regime(remote="kernel", awake=True),
    "Docker": Regime(docker=True),
    "Docker, awake": Regime(docker=True, awake=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("verb", choices=["record", "table", "ways"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--regime", choices=[*REGIMES], action="append")
    parser.add_argument("--recordings", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60, help="of pinging, for each recording")
    parser.add_argument("--until", type=float, default=1e9, help="start none after so many seconds")
    arguments = parser.parse_args()
    names = arguments.regime or [*REGIMES]
    if arguments.verb == "table":
        print_table(arguments.directory, names)
        return
    if arguments.verb == "ways":
        print_ways(arguments.directory, names)
        return
    deadline = time.monotonic() + arguments.until
    for number in range(arguments.recordings):
        for name in names:
            done = {(one.regime, one.number) for one in recordings(arguments.directory)}
            if (name, number) not in done and time.monotonic() < deadline:
                trace = arguments.directory / name.replace(" ", "-") / f"{number}.dat"
                trace.parent.mkdir(parents=True, exist_ok=True)
                make(trace, REGIMES[name], number, arguments.seconds)
                keep(arguments.directory, trace, name, number)


class Recording(msgspec.Struct):
    """What one recording says: the medians of its rounds, see `native_rtt.Rounds`."""

    regime: str
    number: int
    load: float
    rounds: dict[str, list[Any] | float]
    measured: Measured

    def as_rounds(self) -> Rounds:
        """Return its rounds."""
        arrays = {k: np.array(v) if isinstance(v, list) else v for k, v in self.rounds.items()}
        return Rounds(**arrays)  # type: ignore[arg-type]


def recordings(directory: Path) -> list[Recording]:
    """Read what was kept of the recordings in a directory."""
    file = directory / "recordings.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [msgspec.json.decode(line, type=Recording) for line in lines]


def keep(directory: Path, trace: Path, regime: str, number: int) -> None:
    """Add what a recording says to the directory's file."""
    analysis = maceproc.analyze(trace)
    native, sidecar = analysis.native, analysis.capture.sidecar
    if native.own is None or sidecar is None:
        print(f"{trace}: has no natives", file=sys.stderr)
        return
    parts = {k: v if isinstance(v, float) else v.tolist() for k, v in vars(native.rounds).items()}
    overhead = native.rounds.overhead.tolist()
    parts["overhead"] = [None if math.isnan(v) else v for v in overhead]
    parts["first"] = [None if math.isnan(v) else v for v in native.rounds.first.tolist()]
    made = Recording(regime, number, sidecar.machine.load_average, parts, native.own)
    with (directory / "recordings.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(made) + b"\n")


COLUMNS = (
    "regime",
    "recordings",
    "native RTT",
    "overhead",
    "corrected - native",
    "left in all (95 %)",
    "of the overhead",
    "left in one: rms",
    "half width of its interval",
    "at most 5 %, or not told from 0",
    "above 15 % and told from 0",
)


def print_table(directory: Path, names: list[str]) -> None:
    """Print what each regime's recordings leave [us], and each recording."""
    print(as_row(COLUMNS), as_row(["---"] * len(COLUMNS)), sep="\n")
    details = []
    for name in names:
        made = [one for one in recordings(directory) if one.regime == name]
        if len(made) > 1:
            judged = [judge(one, made[i - 1]) for i, one in enumerate(made)]
            print(as_row([name, *summary(made, judged)]))
            details += [f"{name} {r.number}: {v}" for r, v in zip(made, judged, strict=True)]
    print("", *details, sep="\n")


def summary(made: list[Recording], judged: list[Verdict]) -> list[str]:
    """Return the columns of a regime, but for its name."""
    natives_us = [float(np.median(one.as_rounds().native)) / 1e3 for one in made]
    left = np.array([v.left.estimate_ns for v in judged]) / 1e3
    half = np.mean([(v.left.high_ns - v.left.low_ns) / 2 for v in judged]) / 1e3
    overhead = float(np.mean([v.overhead_ns for v in judged])) / 1e3
    reach = float(t.ppf(0.975, len(left) - 1)) * left.std(ddof=1) / math.sqrt(len(left))
    return [
        str(len(judged)),
        f"{min(natives_us):.0f} to {max(natives_us):.0f}",
        f"{overhead:.1f}",
        f"{np.mean([v.corrected_ns for v in judged]) / 1e3:+.1f}",
        f"{left.mean():+.1f} ({left.mean() - reach:+.1f} to {left.mean() + reach:+.1f})",
        f"{left.mean() / overhead:+.0%}",
        f"{np.sqrt((left**2).mean()):.1f}",
        f"{half:.1f}",
        f"{sum(v.good for v in judged)} of {len(judged)}",
        f"{sum(v.bad for v in judged)}",
    ]


def as_row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


class Verdict(NamedTuple):
    """What a calibration by another recording leaves."""

    left: Estimate
    corrected_ns: float
    overhead_ns: float

    @property
    def share(self) -> float:
        """Of the overhead."""
        return self.left.estimate_ns / self.overhead_ns

    @property
    def told(self) -> bool:
        """It is told from 0."""
        return self.left.low_ns > 0 or self.left.high_ns < 0

    @property
    def good(self) -> bool:
        """At most 5 % of the overhead, or not told from 0."""
        return abs(self.share) <= 0.05 or not self.told

    @property
    def bad(self) -> bool:
        """Above 15 % and told from 0."""
        return abs(self.share) > 0.15 and self.told

    def __str__(self) -> str:
        us = [f"{v / 1e3:+.1f}" for v in self.left[:3]]
        share = f"{abs(self.share):.0%} of {self.overhead_ns / 1e3:.1f}"
        told = " told from 0" * self.told
        corrected = f"corrected - native {self.corrected_ns / 1e3:+.1f}"
        return f"{us[0]} us ({us[1]} to {us[2]}), {share}{told}; {corrected}"


def judge(recording: Recording, calibrated_by: Recording) -> Verdict:
    """Correct a recording by another, and hold it against its own natives."""
    rounds = recording.as_rounds()
    path_ns = recording.measured.container_path_ns
    correction = estimate(
        [calibrated_by.measured],
        container_path_ns=math.nan if path_ns is None else path_ns,
    )
    left = left_by_another(rounds, correction)
    overhead = rounds.overhead.astype(float)
    known = ~np.isnan(overhead)
    return Verdict(
        left,
        float(np.average(rounds.left, weights=rounds.weights)),
        float(np.average(overhead[known], weights=rounds.weights[known])),
    )


def as_measured(measured: Measured, terms: Sequence[int]) -> Correction:
    """Return the correction by these of the terms as they were measured."""
    chosen = np.zeros(len(SIGNS))
    chosen[list(terms)] = 1
    covariance = np.array(measured.covariance_ns2) * np.outer(chosen, chosen)
    return Correction(
        chosen * np.array(measured.terms_ns), covariance, measured.rounds, np.diag(chosen)
    )


def ways_to_correct(measured: Measured, container_path_ns: float) -> dict[str, Correction]:
    """Return the corrections of a recording by another, each made in its own way."""
    return {
        "nothing added": as_measured(measured, []),
        "the host's part alone": as_measured(measured, [0]),
        "all three terms as they were measured": as_measured(measured, [0, 1, 2]),
        "all three, drawn towards what is known": estimate([measured]),
        "the same, scaled by how warm the machine is": estimate(
            [measured], container_path_ns=container_path_ns
        ),
    }


def print_ways(directory: Path, names: list[str]) -> None:
    """Print what each way leaves, and how well the uncertainty that it states holds."""
    left: dict[str, list[Estimate]] = {}
    for name in names:
        made = [one for one in recordings(directory) if one.regime == name]
        for one, other in permutations(made, 2):
            path_ns = one.measured.container_path_ns
            ways = ways_to_correct(other.measured, math.nan if path_ns is None else path_ns)
            for way, correction in ways.items():
                left.setdefault(way, []).append(left_by_another(one.as_rounds(), correction))
    columns = ("way", "pairs", "left, mean", "rms", "mean log-likelihood", "intervals that hold 0")
    print(as_row(columns), as_row(["---"] * len(columns)), sep="\n")
    for way, found in left.items():
        us = np.array([e[:3] for e in found], dtype=float) / 1e3
        deviations = (us[:, 2] - us[:, 1]) / 2 / norm.ppf(0.975)
        likelihood = norm.logpdf(us[:, 0], 0, deviations).mean()
        covered = np.mean((us[:, 1] <= 0) & (us[:, 2] >= 0))
        rms = np.sqrt((us[:, 0] ** 2).mean())
        numbers = (f"{us[:, 0].mean():+.1f}", f"{rms:.1f}", f"{likelihood:.2f}", f"{covered:.0%}")
        print(as_row([way, str(len(found)), *numbers]))


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

    cpu = str(min(os.sched_getaffinity(0)))
    with (
        started_engine(regime.remote) as engine,
        spinning(engine.lab.remote_socket),
        engine.container("web", "--cpuset-cpus", cpu) as web,
    ):
        argv = ["record", "--force", "-o", str(trace), "--rounds", str(rounds)]
        argv += ["--awake"] * regime.awake + ["--container", web, "--", *words]
        argv = ["taskset", "--cpu-list", cpu, *engine.maceproc_argv(*argv)]
        subprocess.run(argv, env=engine.env, check=True)


if __name__ == "__main__":
    main()
