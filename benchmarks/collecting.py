"""How many captures a second are collected, by how many workers, and what memory that takes.

    python benchmarks/collecting.py                                   # some minutes
    python benchmarks/collecting.py --capture captures/loaded.dat --captures 200 --counts 10 100

The captures are copies of a recorded one; bytes behind their end tell one from the other. Every
measurement is a `maceproc collect` into a new dataset. The efficiency is the rate of one worker
times their number, or that of the CPUs if those are fewer, of which the rate reaches so much. Peak
memory is the largest resident set of the collector, and of the largest of its workers.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from maceproc.capture_files import sidecar_path

CAPTURES = Path(__file__).parent.parent / "captures"
LOOK_EVERY_S = 0.05


def copies(capture: Path, directory: Path, count: int) -> None:
    """Write captures that differ in nothing but their SHA-256."""
    trace, sidecar = capture.read_bytes(), sidecar_path(capture)
    for number in range(count):
        copy = directory / f"{number:06d}.dat"
        copy.write_bytes(trace + number.to_bytes(8, "little"))
        sidecar_path(copy).write_bytes(sidecar.read_bytes())


def collect(captures: Path, dataset: Path, workers: int) -> tuple[float, dict[str, int]]:
    """Collect captures; return the time it took [s], and peak memory by kind of process [bytes]."""
    words = [sys.executable, "-m", "maceproc", "collect", str(captures), "-o", str(dataset)]
    peaks = {"collector": 0, "worker": 0}
    began = time.perf_counter()
    with subprocess.Popen(
        [*words, "--workers", str(workers)], stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            for pid in (process.pid, *children_of(process.pid)):
                kind = "collector" if pid == process.pid else "worker"
                peaks[kind] = max(peaks[kind], peak_of(pid))
            time.sleep(LOOK_EVERY_S)
    assert process.returncode == 0, "collecting failed"
    return time.perf_counter() - began, peaks


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, thread.read_text().split())
        except OSError:  # it has ended
            continue
    return found


def peak_of(pid: int) -> int:
    """Return the largest resident set that a process had [bytes]; 0 when it has ended."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", type=Path, default=CAPTURES / "idle.dat")
    parser.add_argument("--captures", type=int, default=60, help="for the rates")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100, 1000], help="for memory")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="for copies")
    options = parser.parse_args()
    cpus = len(os.sched_getaffinity(0))
    print(f"{cpus} CPUs, {options.capture.name}")
    runs = [(options.captures, workers) for workers in options.workers]
    runs += [(count, cpus) for count in options.counts]
    print(f"{'captures':>9} {'workers':>8} {'s':>7} {'1/s':>6} {'efficiency':>10} "
          f"{'collector':>10} {'worker':>8}")  # fmt: skip
    single = 0.0
    for count, workers in runs:
        with tempfile.TemporaryDirectory(dir=options.directory) as name:
            captures = Path(name) / "captures"
            captures.mkdir()
            copies(options.capture, captures, count)
            took_s, peaks = collect(captures, Path(name) / "dataset", workers)
        rate = count / took_s
        single = single or rate / min(workers, cpus)
        print(f"{count:9} {workers:8} {took_s:7.1f} {rate:6.2f} "
              f"{rate / single / min(workers, cpus):10.0%} {peaks['collector'] / 1e6:7.0f} MB "
              f"{peaks['worker'] / 1e6:5.0f} MB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
