"""All pages into all tables, step by step, with NumPy.

Where there are no compiled loops, and where they do not reach: times that go back, or are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maceproc.tracedat.columns import Block, Payloads, RawTable, TableSpec, copy_fields, dtype_of
from maceproc.tracedat.formats import PageLayout
from maceproc.tracedat.ringbuffer import (
    TYPES,
    Bools,
    Bytes,
    Int64s,
    Order,
    Pages,
    Records,
    Stream,
    order_records,
    walk,
)
from maceproc.tracedat.timing import Clock


@dataclass(frozen=True)
class Recording:
    """Pages, what they mean, and what is wanted of them."""

    data: Bytes
    streams: list[Stream]  # in the order of CPUs: at equal times the lowest comes first
    layout: PageLayout
    order: str
    clock: Clock
    wanted: Bools  # per type
    specs: dict[int, TableSpec]  # by type
    start_ns: int | None = None
    end_ns: int | None = None
    count_only: bool = False  # the rows are counted, no table is made

    @property
    def several_buffers(self) -> bool:
        """Whether a row has to say which buffer it is from."""
        return len({stream.buffer.name for stream in self.streams}) > 1


@dataclass(frozen=True)
class Tables:
    """The rows of every type that has some; what the pages say; and what has no table."""

    tables: dict[int, RawTable]
    pages: list[Pages]
    rows: Int64s  # per type: records in its table
    others: Int64s  # per type: records without a format, or too short for their fields


def read_stepwise(recording: Recording) -> Tables:
    """Walk the pages, bring the records into the order of time, copy field by field."""
    streams = recording.streams
    records, pages = walk(
        recording.data, streams, recording.layout, recording.order, recording.wanted
    )
    times = recording.clock.convert(records.times)
    if recording.start_ns is not None or recording.end_ns is not None:
        inside = _in_time(times, recording.start_ns, recording.end_ns)
        records, times = records.where(inside), times[inside]
    order = order_records(times, records.types)
    rows, others = np.zeros(TYPES, np.int64), np.bincount(records.types, minlength=TYPES)
    tables: dict[int, RawTable] = {}
    for number, spec in recording.specs.items():
        whole = records.lengths[order.numbers[order.of(number)]] >= spec.form.size
        rows[number] = whole.sum()
        others[number] -= rows[number]
        if rows[number] and not recording.count_only:
            tables[number] = _table(recording, records, times, order, spec, whole)
    return Tables(tables, pages, rows, others)


def _in_time(times: Int64s, start_ns: int | None, end_ns: int | None) -> Bools:
    inside = np.ones(len(times), bool)
    if start_ns is not None:
        inside &= times >= start_ns
    if end_ns is not None:
        inside &= times < end_ns
    return inside


def _table(
    recording: Recording,
    records: Records,
    times: Int64s,
    order: Order,
    spec: TableSpec,
    whole: Bools,
) -> RawTable:
    group = order.of(spec.form.id)
    chosen, ranks = order.numbers[group][whole], order.ranks[group][whole]
    stream: npt.NDArray[np.int16] = np.searchsorted(
        records.bounds[1:], chosen, side="right"
    ).astype(np.int16)
    cpus = np.array([own.cpu for own in recording.streams], np.int32)
    payloads = Payloads(
        recording.data, recording.order, records.positions[chosen], records.lengths[chosen]
    )
    block = Block(len(chosen), map(dtype_of, spec.numbers))
    numbers, values = copy_fields(payloads, spec.numbers, spec.values, block)
    return RawTable(
        times=times[chosen],
        cpus=cpus[stream],
        ranks=ranks,
        streams=stream if recording.several_buffers else None,
        numbers=numbers,
        values=values,
    )
