"""How long reading takes: our typed columns against the C library, its bindings, and the report.

    python benchmarks/read_events.py                  # records about 5 million net events, as root
    python benchmarks/read_events.py --trace trace.dat --rounds 5

Every contender is a process of its own, its start counted. The rounds are interleaved, so that what
else the machine does falls on all of them; the table shows the median of each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent

READ = """
import sys
from maceproc.tracedat import read_events
trace = read_events(sys.argv[1])
print(sum(map(len, trace.events.values())), "events")
"""
NUMPY = "from maceproc.tracedat import native\nnative.loops = None\n" + READ
BINDINGS = READ.replace(
    "(sys.argv[1])", "(sys.argv[1], fields=['skbaddr', 'len', 'name'], reader='tracecmd')"
)
IMPORTS = "import maceproc.tracedat, pandas"


def contenders(work: Path) -> dict[str, list[str]]:
    """Return the commands that can be run here, each to be given a file."""
    found = {
        "maceproc, all fields": [sys.executable, "-c", READ],
        "maceproc, NumPy only": [sys.executable, "-c", NUMPY],
        "(its start alone)": [sys.executable, "-c", IMPORTS],
    }
    program = work / "three_fields"
    compile_it = (
        f"cc -O2 -o {program} {HERE}/three_fields.c $(pkg-config --cflags --libs libtracecmd)"
    )
    if subprocess.run(["sh", "-c", compile_it], capture_output=True, check=False).returncode == 0:
        found["C with libtracecmd, 3 fields"] = [str(program)]
    else:
        print("no libtracecmd-dev: without the C program", file=sys.stderr)
    if subprocess.run([sys.executable, "-c", "import tracecmd"], capture_output=True, check=False
                      ).returncode == 0:  # fmt: skip
        found["tracecmd bindings, 3 fields"] = [sys.executable, "-c", BINDINGS]
    if shutil.which("trace-cmd"):
        found["trace-cmd report"] = ["trace-cmd", "report", "-i"]
    return found


def run(command: list[str], trace: Path) -> tuple[float, int]:
    """Run a command on a file; return its wall time [s] and peak memory [bytes]."""
    start = time.monotonic()
    with subprocess.Popen(
        [*command, str(trace)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.monotonic() - start, usage.ru_maxrss * 1024


def record(work: Path, events: int) -> Path:
    """Record about so many net events: a ping to the loopback makes 14, on every CPU in turn."""
    sys.path.insert(0, str(HERE.parent))
    from tests.tracing import record as record_events

    count = events // 14 // 2
    pings = " & ".join(f"taskset -c {cpu} ping -q -f -c {count} 127.0.0.1" for cpu in (0, 1))
    command = ["sh", "-c", f"{pings} & wait"]
    path = work / "none.dat"
    record_events(path, ["net"], command, "-C", "mono", "-b", "40000", "--compression", "none")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="take this recording, made without compression")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        plain = options.trace or record(work, options.events)
        packed = work / "zstd.dat"
        subprocess.run(
            ["trace-cmd", "convert", "-i", plain, "-o", packed, "--compression", "zstd"],
            check=True,
            capture_output=True,
        )
        files = {"none": plain, "zstd": packed}
        commands = contenders(work)
        if options.fast:
            commands = {name: c for name, c in commands.items() if not name.startswith("trace")}
        measured: dict[str, dict[str, list[tuple[float, int]]]] = {
            name: {form: [] for form in files} for name in commands
        }
        for _ in range(options.rounds):
            for name, command in commands.items():
                for form, file in files.items():
                    times = 1 if name.startswith("trace") else options.rounds  # they take minutes
                    if len(measured[name][form]) < times:
                        measured[name][form].append(run(command, file))
        show(measured, pages_of(plain), options.json)


def pages_of(trace: Path) -> tuple[int, int]:
    """Return a file's events and the bytes of its sub-buffers."""
    from maceproc.tracedat.container import open_trace
    from maceproc.tracedat.summary import summarize

    with open_trace(trace) as file:
        size = sum(cpu.size for buffer in file.buffers for cpu in buffer.cpus)
    return sum(event.count for event in summarize(trace).events), size


def show(
    measured: dict[str, dict[str, list[tuple[float, int]]]], total: tuple[int, int], as_json: bool
) -> None:
    if as_json:
        print(json.dumps({"events": total[0], "bytes": total[1], "measured": measured}))
        return
    print(f"{total[0]} events, {total[1] / 1e6:.0f} MB of sub-buffers\n")
    print(f"| {'':30} | none [s] | zstd [s] | peak none, zstd [x sub-buffers] |")
    print(f"|{'-' * 32}|---------:|---------:|--------------------------------:|")
    for name, forms in measured.items():
        times = [statistics.median(t for t, _ in runs) for runs in forms.values()]
        peaks = [max(peak for _, peak in runs) / total[1] for runs in forms.values()]
        print(
            f"| {name:30} | {times[0]:8.2f} | {times[1]:8.2f} | {peaks[0]:23.1f}, {peaks[1]:6.1f} |"
        )


if __name__ == "__main__":
    main()
