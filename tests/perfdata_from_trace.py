"""A trace.dat as the perf.data that perf would have made of the same events."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maceproc.tracedat.container import open_trace
from maceproc.tracedat.formats import read_comms, read_layout
from maceproc.tracedat.pages import load_pages
from maceproc.tracedat.ringbuffer import TYPES, walk
from maceproc.tracedat.tracefile import EVENT_FORMATS, TraceFile
from tests import perfdata_writer as w
from tests.tracedat_writer import Machine


def format_texts(trace: TraceFile) -> dict[str, list[str]]:
    """Return the texts of all formats: system -> formats."""
    cursor = trace.section(EVENT_FORMATS)
    assert cursor is not None
    found: dict[str, list[str]] = {}
    for _ in range(cursor.number("I", "systems")):
        system = cursor.string("name")
        for _ in range(cursor.number("I", "events")):
            text = bytes(cursor.sized("Q", "format")).decode("latin-1")
            found.setdefault(system, []).append(text)
    return found


def converted(path: Path) -> bytes:
    """Return a perf.data with all events of a trace.dat: their data, times, CPUs and tasks."""
    machine = Machine()
    with open_trace(path) as trace:
        layout = read_layout(trace)
        data, streams = load_pages(trace, list(trace.buffers), layout)
        streams = sorted(streams, key=lambda stream: stream.cpu)
        records, _ = walk(data, streams, layout, trace.order, np.ones(TYPES, bool))
        cpus = np.repeat([stream.cpu for stream in streams], np.diff(records.bounds)).tolist()
        ids = sorted(set(records.types.tolist()))
        attrs = {n: w.Attr(n, w.USUAL | w.IDENTIFIER, ids=(1000 + n,)) for n in ids}
        first = attrs[ids[0]]
        written = [
            w.comm(machine, first, 0, pid, comm) for pid, comm in read_comms(trace).items() if pid
        ]
        for row in np.argsort(records.times, kind="stable").tolist():
            number, at = int(records.types[row]), int(records.positions[row])
            payload = data[at : at + int(records.lengths[row])].tobytes()
            sample = w.Sample(
                attrs[number],
                int(records.times[row]),
                payload,
                tid=int.from_bytes(payload[4:8], "little", signed=True),
                cpu=cpus[row],
                id=1000 + number,
            )
            written.append(sample.write(machine))
        return w.PerfData(list(attrs.values()), written, format_texts(trace), machine).write()
