"""An analysis takes no more than three times the memory of the events, unpacked."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import read_layout
from maceproc.tracedat.pages import load_pages
from tests.fuzz_tracedat import formats_of
from tests.recorded import path_of
from tests.tracedat_writer import Buffer, File, write_v7

MOST = 3.0
EVENT_BYTES = 24 << 20  # of pages, in the file that is analyzed

ANALYZE = """
import resource, sys
import pandas, scipy.stats
from maceproc import analyze
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
analyze(sys.argv[1], inner="eth0", outer="eth0")
before = peak()
analysis = analyze(sys.argv[2], inner="eth0", outer="eth0")
assert len(analysis.hops) > 100_000
print(peak() - before)
"""


def repeated(path: Path, size: int) -> tuple[bytes, int]:
    """Return a trace.dat whose pages are those of a recording, again and again, later each time.

    And how many bytes its pages have.
    """
    with open_trace(path) as trace:
        data, streams = load_pages(trace, list(trace.buffers), read_layout(trace))
        pages = {
            stream.cpu: [bytes(data[at : at + stream.page_size]) for at in stream.starts]
            for stream in streams
        }
        times = [struct.unpack_from("<Q", page)[0] for own in pages.values() for page in own]
        period = max(times) - min(times) + 1_000_000_000
        times_over = size // sum(len(page) for own in pages.values() for page in own)
        cpus = {
            cpu: [_later(page, number * period) for number in range(times_over) for page in own]
            for cpu, own in pages.items()
        }
        page_size = streams[0].page_size
        file = File([Buffer("", cpus, page_size)], formats_of(trace), version=7, compression="zlib")
    return write_v7(file), page_size * sum(map(len, cpus.values()))


def _later(page: bytes, shift_ns: int) -> bytes:
    (time_ns,) = struct.unpack_from("<Q", page)
    return struct.pack("<Q", time_ns + shift_ns) + page[8:]


def test_analysis_takes_three_times_its_events_at_most(tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    content, size = repeated(path_of("every_event"), EVENT_BYTES)
    trace.write_bytes(content)
    words = [sys.executable, "-c", ANALYZE, str(path_of("every_event")), str(trace)]
    small = tmp_path / "small.dat"  # without its sidecar
    small.write_bytes(path_of("every_event").read_bytes())
    words[3] = str(small)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST * size, f"{int(done.stdout) / size:.2f} times"
