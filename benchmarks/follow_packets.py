"""How long following packets takes, against decoding them, and how both grow with the trace.

    python benchmarks/follow_packets.py               # records a loaded lab, as root
    python benchmarks/follow_packets.py --trace trace.dat --rounds 5

Every measurement is a process of its own that takes the first part of the capture; the rounds are
interleaved. Decoding is reading every field of every event; following is everything from there to
corrected RTTs. Memory is the process's peak, decoding included, without what it had when it began.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

PARTS = (0.25, 0.5, 1.0)

MEASURE = """
import json, re, sys, time
from maceproc.capture_files import open_capture
from maceproc.following.follow import follow_pings
from maceproc.tracedat import read_events

def peak():
    # Not ru_maxrss, which begins with what the parent had.
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

path, end_ns = sys.argv[1], int(sys.argv[2])
capture, before = open_capture(path), peak()
start = time.perf_counter()
trace = read_events(path, end_ns=end_ns)
decoded = time.perf_counter()
follow_pings(capture, trace)
followed = time.perf_counter()
print(json.dumps({
    "events": sum(map(len, trace.events.values())),
    "decode_s": decoded - start, "follow_s": followed - decoded,
    "bytes": peak() - before,
}))
"""


def record(path: Path, pings: int, floods: int) -> None:
    """Record pings in a lab in which other containers flood the same devices."""
    from maceproc import Lab
    from maceproc.recording.lab import NETNS_DIR
    from maceproc.recording.record import record as record_capture
    from maceproc.recording.sites import lab_site

    with ExitStack() as stack:
        lab = stack.enter_context(Lab(containers=1 + floods))
        for number in range(floods):
            place = NETNS_DIR / lab.netns(f"container{number + 2}")
            flood = ["nsenter", f"--net={place}", "--", "ping", "-q", "-f", "192.0.2.2"]
            process = subprocess.Popen(flood, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.send_signal, signal.SIGINT)
        ping = ["ping", "-i", "0.01", "-c", str(pings)]
        record_capture(ping, lab_site(lab), path, baseline=False, buffer_kb=262144)


def spans(path: Path) -> dict[float, int]:
    """Return where each part of a capture ends [ns]."""
    from maceproc.tracedat import read_events

    tables = read_events(path, fields=[]).events.values()
    start_ns = min(table["time_ns"].iloc[0] for table in tables if len(table))
    end_ns = max(table["time_ns"].iloc[-1] for table in tables if len(table)) + 1
    return {part: int(start_ns + part * (end_ns - start_ns)) for part in PARTS}


def measure(path: Path, end_ns: int) -> dict[str, float]:
    argv = [sys.executable, "-c", MEASURE, str(path), str(end_ns)]
    return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="take this capture, made by maceproc record")
    parser.add_argument("--pings", type=int, default=200)
    parser.add_argument("--floods", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = options.trace or Path(directory) / "trace.dat"
        if options.trace is None:
            record(path, options.pings, options.floods)
        ends = spans(path)
        rounds = [{part: measure(path, end) for part, end in ends.items()}
                  for _ in range(options.rounds)]  # fmt: skip
    print(f"{'events':>12} {'decode':>9} {'follow':>9} {'follow/decode':>14} {'bytes/event':>12}")
    for part in PARTS:
        runs = [result[part] for result in rounds]
        decode, follow = (statistics.median(r[k] for r in runs) for k in ("decode_s", "follow_s"))
        ratio = statistics.median(r["follow_s"] / r["decode_s"] for r in runs)
        memory = statistics.median(r["bytes"] / r["events"] for r in runs)
        print(
            f"{runs[0]['events']:12,} {decode:7.2f} s {follow:7.2f} s {ratio:14.2f} {memory:12.0f}"
        )


if __name__ == "__main__":
    main()
