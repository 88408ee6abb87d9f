"""What perf lost: LOST and LOST_SAMPLES records as the `LOST` table."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pandas as pd

from maceproc.perfdata.container import PerfFile
from maceproc.perfdata.records import Records
from maceproc.perfdata.samples import Samples, trailer_offset
from maceproc.perfdata.structures import (
    MISC_LOST_SAMPLES_BPF,
    RECORD_HEADER,
    RECORD_LOST,
    RECORD_LOST_SAMPLES,
    SAMPLE_CPU,
    SAMPLE_ID_ALL,
)
from maceproc.perfdata.tasks import record_time
from maceproc.schema import LOST

UNKNOWN_CPU = -1


def lost_table(perf: PerfFile, records: Records, samples: Samples) -> pd.DataFrame:
    """Return a row per LOST record: its CPU, the samples before and behind it, and the number lost.

    LOST_SAMPLES records, at the end of the recording, count for each event what LOST records count
    as well. So they give a row only for the samples in excess of that, whose place is not known.
    """
    rows: list[list[Any]] = [
        _row(perf, record, samples) for record in _records(records, RECORD_LOST)
    ]
    counted = left_out = 0
    for record in _records(records, RECORD_LOST_SAMPLES):
        _, misc, _ = struct.unpack_from(perf.order + RECORD_HEADER.form, record)
        (number,) = struct.unpack_from(perf.order + "Q", record, RECORD_HEADER.size)
        if misc & MISC_LOST_SAMPLES_BPF:
            left_out += number
        else:
            counted += number
    if left_out:
        perf.notes.append(f"{left_out} samples were left out by perf record's filter")
    more = counted - sum(int(row[4]) for row in rows)
    if more > 0:
        rows.append(["", UNKNOWN_CPU, None, None, min(more, (1 << 63) - 1)])
    return LOST.from_rows(rows)


def _records(records: Records, kind: int) -> list[memoryview]:
    """Return the records of a type that have room for what they count."""
    data = records.data.data
    chosen = (records.types == kind) & (
        records.sizes >= RECORD_HEADER.size + 16 * (kind == RECORD_LOST)
    )
    chosen &= records.sizes >= RECORD_HEADER.size + 8
    places = zip(records.positions[chosen].tolist(), records.sizes[chosen].tolist(), strict=True)
    return [data[position : position + size] for position, size in places]


def _row(perf: PerfFile, record: memoryview, samples: Samples) -> list[Any]:
    _, number = struct.unpack_from(perf.order + "QQ", record, RECORD_HEADER.size)
    attr, cpu = perf.attrs[0], UNKNOWN_CPU
    at = trailer_offset(attr, SAMPLE_CPU) if attr.has(SAMPLE_ID_ALL) else None
    if at is not None and len(record) + at >= RECORD_HEADER.size + 16:
        (cpu,) = struct.unpack_from(perf.order + "I", record, len(record) + at)
        cpu = cpu if cpu < 1 << 31 else UNKNOWN_CPU
    time = record_time(perf, record)
    own = np.sort(samples.times[samples.cpus == cpu])
    place = int(np.searchsorted(own, time))
    after = int(own[place - 1]) if place else None
    before = int(own[place]) if place < len(own) else None
    return ["", cpu, after, before, min(number, (1 << 63) - 1)]
