"""Memory and time against the size of a trace: analysis in windows, CSV, trace-cmd report and C.

    python benchmarks/more_than_memory.py                          # records a loaded lab, as root
    python benchmarks/more_than_memory.py --trace captures/loaded.dat --sizes 0.2 2 20 --memory 1G
    python benchmarks/more_than_memory.py --trace trace.dat --write large.dat --sizes 20

A large trace is a recorded one, again and again: the pages of every repetition are the same, with
later times. They are not compressed. With --write it is only made. The sidecar is that of the
recorded one, so the pings are those of the first repetition; the packets of all others are followed
as well, and belong to none. Every measurement is a process of its own. Peak memory is its largest
resident set, in which the parts of the file that are mapped count.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from maceproc.capture_files import load_sidecar, save_sidecar, sidecar_path
from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import read_layout
from maceproc.tracedat.pages import load_pages
from maceproc.tracedat.tracefile import Buffer, TraceFile

GAP_NS = 1_000_000_000  # between repetitions


def uncompressed(path: Path, work: Path) -> Path:
    """Return a trace whose pages can be repeated: version 6 has none that are compressed."""
    plain = work / "plain.dat"
    words = ["trace-cmd", "convert", "-i", str(path), "-o", str(plain), "--file-version", "6"]
    subprocess.run(words, check=True, capture_output=True)
    return plain


def repeat(source: Path, target: Path, size: int) -> int:
    """Write the pages of a trace again and again, later each time; return how many times."""
    with open_trace(source) as trace:
        (buffer,) = (buffer for buffer in trace.buffers if buffer.cpus)
        data, streams = load_pages(trace, [buffer], read_layout(trace))
        pages = [
            np.stack([data[at : at + s.page_size] for at in s.starts])
            if len(s.starts) else np.empty((0, s.page_size), np.uint8)
            for s in streams
        ]  # fmt: skip
        times = np.concatenate([own[:, :8].copy().view(np.uint64).ravel() for own in pages])
        period = int(times.max() - times.min()) + GAP_NS
        repetitions = max(size // sum(own.size for own in pages), 1)
        head = _head(trace, buffer, pages, repetitions)
    with target.open("wb") as file:
        file.write(head)
        for own in pages:
            shifted = own.copy()
            stamps = shifted.view(np.uint64)[:, :1]
            for _ in range(repetitions):
                file.write(shifted.data)
                stamps += np.uint64(period)
    return repetitions


def _head(trace: TraceFile, buffer: Buffer, pages: list[np.ndarray], repetitions: int) -> bytes:
    """Return what is before the pages, with the places and sizes of the CPUs' longer data."""
    cpus = sorted(buffer.cpus, key=lambda cpu: cpu.cpu)
    first = min(cpu.offset for cpu in cpus if cpu.size)
    head = bytes(trace.data[:first])
    old = b"".join(struct.pack("<QQ", cpu.offset, cpu.size) for cpu in cpus)
    assert head.count(old) == 1, "the places of the CPUs' data are not where they should be"
    new, offset = b"", first
    for own in pages:
        new += struct.pack("<QQ", offset, own.size * repetitions)
        offset += own.size * repetitions
    return head.replace(old, new)


def measure(words: list[str]) -> tuple[float, float, float]:
    """Run a command without its output; return its time and CPU time [s], peak memory [bytes]."""
    began = time.perf_counter()
    with Path(os.devnull).open("wb") as nothing:
        process = subprocess.Popen(words, stdout=nothing, stderr=nothing)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{words} failed: {status}"
    took_s = time.perf_counter() - began
    return took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def contenders(memory: str, work: Path) -> dict[str, list[str]]:
    """Return the commands, each to be given a file."""
    maceproc = [sys.executable, "-m", "maceproc"]
    found = {
        f"analyze --memory {memory}": [*maceproc, "analyze", "--json", "--memory", memory],
        f"events --csv --memory {memory}": [
            *maceproc, "events", "--csv", "--memory", memory, "{file}", "net_dev_queue"
        ],
    }  # fmt: skip
    if shutil.which("trace-cmd"):
        found["trace-cmd report"] = ["trace-cmd", "report", "-i"]
    program, source = work / "three_fields", Path(__file__).parent / "three_fields.c"
    compiling = f"cc -O2 -o {program} {source} $(pkg-config --cflags --libs libtracecmd)"
    if subprocess.run(["sh", "-c", compiling], capture_output=True, check=False).returncode == 0:
        found["C with libtracecmd, 3 fields"] = [str(program)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="a capture, made by maceproc record")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.2, 2.0], help="[GB]")
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--write", type=Path, help="only write the trace of the first size")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="for the large traces")
    parser.add_argument("--only", default="", help="only commands whose name holds this")
    options = parser.parse_args()
    directory = options.write.parent if options.write else options.directory
    with tempfile.TemporaryDirectory(dir=directory) as name:
        work = Path(name)
        source = options.trace or work / "trace.dat"
        if options.trace is None:
            from follow_packets import record

            record(source, pings=200, floods=8)
        sidecar = load_sidecar(sidecar_path(source))
        sidecar.trace = None
        plain = uncompressed(source, work)
        print(f"{'GB':>6} {'what':<28} {'s':>8} {'s/GB':>7} {'CPU s':>7} {'peak MB':>8}")
        for size in options.sizes:
            target = options.write or work / "large.dat"
            repeat(plain, target, int(size * 1e9))
            save_sidecar(sidecar_path(target), sidecar)
            if options.write:
                return
            for what, words in contenders(options.memory, work).items():
                if options.only not in what:
                    continue
                given = [str(target) if word == "{file}" else word for word in words]
                given += [] if "{file}" in words else [str(target)]
                took_s, cpu_s, peak = measure(given)
                print(f"{size:6g} {what:<28} {took_s:8.1f} {took_s / size:7.1f} {cpu_s:7.1f} "
                      f"{peak / 1e6:8.0f}", flush=True)  # fmt: skip
            target.unlink()


if __name__ == "__main__":
    main()
