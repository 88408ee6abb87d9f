"""Corrected against native RTTs in a container of Docker, idle and loaded: the README's table.

    python -m benchmarks.containers [--rounds 12] [--load idle] [--awake yes]

It starts a Docker Engine of its own, as the tests do; the load is iperf3 from a second container
on the same bridge to the same remote.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import maceproc
from tests.engine import Engine, started_engine

REMOTE = "192.0.2.2"
PING = ("ping", "-i", "0.02", "-c", "50", REMOTE)
LOADS = {"idle": "", "iperf3, 500 Mbit/s": "500M", "iperf3, as fast as it goes": "0"}
HEADER = (
    "| load | CPUs | native | container | corrected | overhead [95 %] | corrected - native [95 %] "
    "| of the overhead | corrected pings |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--load", choices=[*LOADS], action="append")
    parser.add_argument("--awake", choices=["yes", "no"], action="append")
    arguments = parser.parse_args()
    print(HEADER, "|---" * (HEADER.count("|") - 1) + "|", sep="\n")
    with started_engine() as engine, engine.container("web") as web, engine.container("db") as db:
        for load in arguments.load or LOADS:
            for awake in arguments.awake or ("no", "yes"):
                with loaded(engine, db, LOADS[load]):
                    print(measured(engine, web, load, awake == "yes", arguments.rounds), flush=True)


@contextlib.contextmanager
def loaded(engine: Engine, container: str, rate: str) -> Iterator[None]:
    """Send with iperf3 from a container to the remote while the block runs."""
    if not rate:
        yield
        return
    remote = ["nsenter", f"--net=/run/netns/{engine.lab.netns('remote')}", "--"]
    inside = ["nsenter", f"--net=/proc/{engine.pid(container)}/ns/net", "--"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    client = [*inside, "iperf3", "-c", REMOTE, "-t", "3600", "-b", rate]
    with subprocess.Popen([*remote, "iperf3", "-s", "-1"], **quiet) as server:
        subprocess.run(["sleep", "1"], check=True)
        with subprocess.Popen(client, **quiet) as sender:
            subprocess.run(["sleep", "1"], check=True)
            assert sender.poll() is None, "iperf3 has ended"
            try:
                yield
            finally:
                sender.kill()
                server.kill()


def measured(engine: Engine, container: str, load: str, awake: bool, rounds: int) -> str:
    """Record and analyze; return a row of the table."""
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace.dat"
        options = ["--rounds", str(rounds), *["--awake"] * awake, "--container", container]
        done = engine.maceproc("record", "-o", trace, *options, "--", *PING)
        assert done.returncode == 0, done.stderr
        analysis = maceproc.analyze(trace)
    median_us = analysis.series.set_index("series")["median_ns"] / 1e3
    ends = ["estimate_ns", "low_ns", "high_ns"]
    compared = analysis.comparisons.set_index("comparison")[ends].astype("float64") / 1e3
    overhead, left = compared.loc["container overhead"], compared.loc["corrected - native"]
    traced = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    corrected = (traced["status"] == "corrected").sum()
    share = abs(left["estimate_ns"]) / overhead["estimate_ns"]
    columns = [
        load,
        "awake" if awake else "may sleep",
        f"{median_us['native, untraced']:.1f}",
        f"{median_us['container, untraced']:.1f}",
        f"{median_us['container, corrected']:.1f}",
        interval(overhead),
        interval(left),
        f"{share:.0%}",
        f"{corrected} of {len(traced)}",
    ]
    return f"| {' | '.join(columns)} |"


def interval(row: pd.Series) -> str:
    """Return an estimate with its interval [us]."""
    return f"{row['estimate_ns']:+.1f} [{row['low_ns']:+.1f}, {row['high_ns']:+.1f}]"


if __name__ == "__main__":
    main()
