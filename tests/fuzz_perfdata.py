"""Fuzz the perf.data reader with damaged real recordings. Not a test: it runs for hours.

    python -m tests.fuzz_perfdata --seconds 3600 --workers 2 perf.data...

Every damaged file must be read, or refused with TraceFormatError; in less than ten seconds of CPU
time, and with less than 2 GiB. What breaks that is kept in --keep, to become a case of
test_perfdata. The recordings are rewritten first: some real records and the formats of their
events, as file and pipe, compressed and not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from maceproc.errors import TraceFormatError
from maceproc.perfdata.container import open_perf, read_structure, tracing_data
from maceproc.perfdata.reader import read_opened
from maceproc.perfdata.records import read_records
from maceproc.tracedat import formats
from maceproc.tracedat.merge import merge_events
from maceproc.tracedat.selection import Selection
from tests import perfdata_writer as w
from tests.fuzz_tracedat import damage, main
from tests.perfdata_from_trace import format_texts

RECORDS = 60
EVENTS = ["net_dev_queue", "netif_receive_skb", "net_*", "sched_switch", "sys_*"]
formats.parse_format = lru_cache(4096)(formats.parse_format)


def slim(path: Path) -> w.PerfData:
    """Take a recording's attributes, first records and formats."""
    perf = open_perf(path)
    records = read_records(perf)
    places = zip(records.positions.tolist(), records.sizes.tolist(), strict=True)
    kept = [bytes(records.data[at : at + size]) for at, size in places]
    kinds = records.types.tolist()
    first = [data for data, kind in zip(kept, kinds, strict=True) if kind in (2, 3, 7, 68)][:20]
    first += [data for data, kind in zip(kept, kinds, strict=True) if kind == 9][:RECORDS]
    trace = tracing_data(perf)
    assert trace is not None
    attrs = [
        w.Attr(a.config, a.sample_type, a.read_format, a.ids, a.type, a.clockid) for a in perf.attrs
    ]
    return w.PerfData(attrs, first, format_texts(trace))


def perf_data(
    paths: list[Path],
) -> tuple[Callable[[random.Random], bytes], Callable[[random.Random, bytes], str]]:
    files = [slim(path) for path in paths]

    def make(rng: random.Random) -> bytes:
        file = rng.choice(files)
        file.compressed = rng.choice([0, 0, 81, 83])
        file.piece, file.plain_between = rng.choice([700, 5000]), rng.random() < 0.5
        if rng.random() < 0.4:  # damaged records in a whole file, so that they get unpacked
            whole, file.records = file.records, [b"".join(file.records)]
            file.records = [bytes(damage(rng, bytearray(file.records[0])))]
            data = rng.choice([file.write, file.write_pipe])()
            file.records = whole
            return data
        data = bytearray(rng.choice([file.write, file.write_pipe])())
        stream = file.stream()
        if rng.random() < 0.5:  # the records and what describes them, more than their formats
            at = data.find(stream[:16]) if stream else 0
            end = min(len(data), max(at, 0) + len(stream))
            return bytes(data[:at] + damage(rng, data[at:end]) + data[end:])
        return bytes(damage(rng, data))

    return make, read


def read(rng: random.Random, data: bytes) -> str:
    events = [rng.choice(EVENTS)] if rng.random() < 0.8 else None  # one is read faster than all
    start = rng.randrange(1 << 44) if rng.random() < 0.1 else None
    try:
        perf = read_structure(Path("fuzzed.data"), memoryview(data))
        trace = read_opened(perf, Selection.of(events, None, start, None, buffer=None))
        if rng.random() < 0.2:
            merge_events(trace)
    except TraceFormatError:
        return "refused"
    return "read"


if __name__ == "__main__":
    main(perf_data, __doc__ or "")
