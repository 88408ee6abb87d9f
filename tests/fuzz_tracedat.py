"""Fuzz the trace.dat reader with damaged real recordings. Not a test: it runs for hours.

    python -m tests.fuzz_tracedat --seconds 3600 --workers 2 trace.dat...

Every damaged file must be read, or refused with TraceFormatError; in less than ten seconds of CPU
time, and with less than 2 GiB. What breaks that is kept in --keep, to become a case of
test_tracedat_damaged.
The recordings are rewritten first: real pages and formats, in every container, without kallsyms.

Reads outside a buffer are seen when the compiled loops are built with the sanitizers:

    cc -g -fsanitize=address,undefined -shared -fPIC $(python3-config --includes) \\
        maceproc/tracedat/_native.c -o maceproc/tracedat/_native.abi3.so
    LD_PRELOAD=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
        python -m tests.fuzz_tracedat --memory 0 trace.dat...
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from maceproc.errors import TraceFormatError
from maceproc.tracedat import formats, native, onepass
from maceproc.tracedat.container import open_trace, read_structure
from maceproc.tracedat.formats import read_formats
from maceproc.tracedat.merge import merge_events
from maceproc.tracedat.reader import read_trace
from maceproc.tracedat.selection import Selection
from maceproc.tracedat.tracefile import EVENT_FORMATS, TraceFile
from tests.tracedat_writer import Buffer, File

compiled = native.loops
# Most formats are those of the last file: the time is better spent on another file.
formats.parse_format = lru_cache(4096)(formats.parse_format)

CONTAINERS = [(6, "none"), (7, "none"), (7, "none"), (7, "zstd"), (7, "zlib")]
NUMBERS = [0, 1, 2, 4, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
NUMBERS += [1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 4096, 4095, 4097]


def slim(path: Path, pages_per_cpu: int = 1) -> list[File]:
    """Take a recording's formats and first pages; give it in every container."""
    with open_trace(path) as trace:
        assert not any(b.compressed for b in trace.buffers), "record with --compression none"
        buffers = [
            Buffer(
                buffer.name,
                {
                    cpu.cpu: [
                        bytes(trace.data[at : at + buffer.page_size])
                        for at in range(cpu.offset, cpu.offset + cpu.size, buffer.page_size)
                    ][:pages_per_cpu]
                    for cpu in buffer.cpus
                },
                buffer.page_size,
            )
            for buffer in trace.buffers
        ]
        formats = formats_of(trace)
        assert read_formats(trace)
    return [File(buffers, formats, version=v, compression=c) for v, c in CONTAINERS]


def formats_of(trace: TraceFile) -> dict[str, list[str]]:
    """Return the texts of a file's event formats by their system."""
    formats: dict[str, list[str]] = {}
    cursor = trace.section(EVENT_FORMATS)
    assert cursor is not None
    for _ in range(cursor.number("I", "systems")):
        system = cursor.string("name")
        for _ in range(cursor.number("I", "events")):
            formats.setdefault(system, []).append(
                bytes(cursor.sized("Q", "format")).decode("latin-1")
            )
    return formats


def damage(rng: random.Random, data: bytearray) -> bytearray:
    """Damage some bytes: a few of them, as numbers, as blocks, or the end."""
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            size = rng.choice([2, 4, 8])
            number = rng.choice(NUMBERS) + rng.choice([0, 0, at])
            data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
        elif kind == 3:
            source = rng.randrange(len(data))
            length = rng.randrange(64)
            data[at : at + length] = data[source : source + length]
        elif kind == 4:
            del data[at : at + rng.randrange(1, 32)]
        elif rng.randrange(8) == 0:
            del data[at:]
        if not data:
            return bytearray(b"\0")
    return data


def damaged(rng: random.Random, files: list[File], written: list[bytes]) -> bytes:
    """Return a damaged file; or a whole one with damaged pages, so that they get unpacked."""
    number = rng.randrange(len(files))
    if rng.random() < 0.5:
        return bytes(damage(rng, bytearray(written[number])))
    file = files[number]
    buffers = [
        Buffer(
            b.name,
            {c: [page_of(rng, page, b.page_size) for page in p] for c, p in b.cpus.items()},
            b.page_size,
        )
        for b in file.buffers
    ]  # fmt: skip
    return File(buffers, file.formats, version=file.version, compression=file.compression).write()


def page_of(rng: random.Random, page: bytes, size: int) -> bytes:
    return bytes(damage(rng, bytearray(page)))[:size].ljust(size, b"\0")


def read(rng: random.Random, data: bytes, names: list[str]) -> str:
    """Read a file from memory, all the way to tables; mostly of one event, which is quicker."""
    events = [rng.choice(names)] if rng.random() < 0.9 else None
    start = rng.randrange(1 << 44) if rng.random() < 0.1 else None
    trace = TraceFile(Path("fuzzed.dat"), memoryview(data))
    native.loops = compiled if rng.random() < 0.95 else None
    onepass.PAGES_PER_SPAN = rng.choice([1, 256])
    try:
        read_structure(trace)
        tables = read_trace(trace, Selection.of(events, None, start, None, buffer=None))
        if events is None:
            merge_events(tables)
    except TraceFormatError:
        return "refused"
    return "read"


Subject = Callable[
    [list[Path]],
    tuple[Callable[[random.Random], bytes], Callable[[random.Random, bytes], str]],
]
"""Prepares recordings; returns what makes a damaged file, and what reads it."""


def trace_dat(
    paths: list[Path],
) -> tuple[Callable[[random.Random], bytes], Callable[[random.Random, bytes], str]]:
    files = [file for path in paths for file in slim(path)]
    written = [file.write() for file in files]
    names = sorted(
        {re.search(r"name: (\w+)", t)[1] for f in files for ts in f.formats.values() for t in ts}
    )
    return (
        lambda rng: damaged(rng, files, written),
        lambda rng, data: read(rng, data, names),
    )


def work(
    subject: Subject,
    seed: int,
    seconds: float,
    keep: Path,
    paths: list[Path],
    counts: object,
    memory: int,
) -> None:
    faulthandler.enable()
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    rng = random.Random(seed)
    make, read_it = subject(paths)
    end = time.monotonic() + seconds
    current = keep / f"current-{seed}"
    while time.monotonic() < end:
        for _ in range(100):
            data = make(rng)
            current.write_bytes(data)  # what a crash of the interpreter leaves behind
            signal.setitimer(signal.ITIMER_PROF, 10)
            try:
                answer = read_it(rng, data)
            except BaseException:
                answer = "broken"
                name = keep / f"{seed}-{rng.randrange(1 << 40):x}"
                name.with_suffix(".dat").write_bytes(data)
                name.with_suffix(".txt").write_text(traceback.format_exc())
            signal.setitimer(signal.ITIMER_PROF, 0)
            with counts.get_lock():
                counts[["read", "refused", "broken"].index(answer)] += 1
    current.unlink()


def on_alarm(*_: object) -> None:
    raise TimeoutError("ten seconds are over")


def main(subject: Subject = trace_dat, about: str = __doc__ or "") -> None:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=int, default=2 << 30, help="bytes at most; 0: no limit")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGPROF, on_alarm)
    counts = multiprocessing.Array("q", 3)
    given = (options.seconds, options.keep, options.recordings, counts, options.memory)
    workers = [
        multiprocessing.Process(target=work, args=(subject, options.seed + n, *given))
        for n in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        while worker.is_alive():
            worker.join(60)
            print("{} read, {} refused, {} broken".format(*counts), flush=True)
    print(sum(counts), "files in all")
    sys.exit(bool(counts[2] or any(worker.exitcode for worker in workers)))


if __name__ == "__main__":
    main()
