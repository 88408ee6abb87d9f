"""Where in a sample its time, CPU, task and the tracepoint's data are.

A sample has the fields that its event's `sample_type` asks for, in a fixed order
(kernel/events/core.c, perf_output_sample(), v6.18). Each field up to the counters has 8 bytes;
counters and call chains contain their own length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maceproc.perfdata.container import PerfFile
from maceproc.perfdata.records import Records
from maceproc.perfdata.structures import (
    READ_ENABLED,
    READ_GROUP,
    READ_ID,
    READ_LOST,
    READ_RUNNING,
    RECORD_HEADER,
    RECORD_SAMPLE,
    SAMPLE_CALLCHAIN,
    SAMPLE_CPU,
    SAMPLE_FIELDS,
    SAMPLE_ID,
    SAMPLE_ID_FIELDS,
    SAMPLE_IDENTIFIER,
    SAMPLE_READ,
    SAMPLE_TID,
    SAMPLE_TIME,
    Attr,
)
from maceproc.tracedat.ringbuffer import Bools, Bytes, Int64s, word_view

WORD = 8  # [bytes]


@dataclass(frozen=True)
class Samples:
    """The samples of tracepoints, in the order of the file; what a sample does not have is -1."""

    times: Int64s  # [ns]
    cpus: npt.NDArray[np.int32]
    tids: npt.NDArray[np.int32]
    positions: Int64s  # of the tracepoint's data
    lengths: npt.NDArray[np.int32]  # of it [bytes]

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The columns, in their order."""
        return self.times, self.cpus, self.tids, self.positions, self.lengths

    def where(self, chosen: Bools) -> Samples:
        """Return only the chosen samples."""
        return Samples(*(column[chosen] for column in self.columns))

    @classmethod
    def joined(cls, parts: list[Samples], records: Int64s) -> Samples:
        """Join samples of several events, in the order of their `records`' positions."""
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(records, kind="stable")
        columns = zip(*(part.columns for part in parts), strict=True)
        return cls(*(np.concatenate(own)[order] for own in columns))


def read_samples(perf: PerfFile, records: Records) -> Samples:
    """Find the parts of all samples of tracepoints; notes say what other samples there are."""
    positions = records.of(RECORD_SAMPLE)
    sizes = records.sizes[records.types == RECORD_SAMPLE]
    attrs = _attr_of_samples(perf, records.data, positions, sizes)
    parts: list[Samples] = []
    places: list[Int64s] = []
    for layout in dict.fromkeys(
        (a.sample_type, a.read_format, a.is_tracepoint) for a in perf.attrs
    ):
        same = [(a.sample_type, a.read_format, a.is_tracepoint) == layout for a in perf.attrs]
        chosen = np.append(same, False)[attrs]
        if chosen.any():
            attr = perf.attrs[same.index(True)]
            if not attr.is_tracepoint:
                _note_others(perf, attr, int(chosen.sum()))
                continue
            own, whole = _samples_of(perf, records.data, positions[chosen], sizes[chosen], attr)
            parts.append(own)
            places.append(positions[chosen][whole])
    unknown = int((attrs == len(perf.attrs)).sum())
    if unknown:
        perf.notes.append(f"{unknown} samples have an id of no event, left out")
    if not parts:
        nothing = np.empty(0, np.int64)
        short = np.empty(0, np.int32)
        return Samples(nothing, short, short, nothing, short)
    return Samples.joined(parts, np.concatenate(places))


def _note_others(perf: PerfFile, attr: Attr, number: int) -> None:
    name = attr.name or f"an event of type {attr.type}"
    perf.notes.append(f"{number} samples of {name} are no tracepoints, left out")


def _attr_of_samples(
    perf: PerfFile, data: Bytes, positions: Int64s, sizes: Int64s
) -> npt.NDArray[np.int32]:
    """Return the number of each sample's attribute; their number where none has its id.

    Samples of several events have an id, at the same place in all of them: SAMPLE_IDENTIFIER is
    the first field, SAMPLE_ID a later one (tools/perf/util/evlist.c, perf_evlist__id_pos(), v6.18).
    """
    if len(perf.attrs) == 1:
        return np.zeros(len(positions), np.int32)
    at = next((offset for attr in perf.attrs if (offset := id_offset(attr)) is not None), None)
    if at is None:
        # perf writes no ids where all events are tracepoints of one layout: their data has the id.
        tracepoints = [number for number, attr in enumerate(perf.attrs) if attr.is_tracepoint]
        number = tracepoints[0] if len(tracepoints) == len(perf.attrs) else len(perf.attrs)
        return np.full(len(positions), number, np.int32)
    ids = np.zeros(len(positions), np.uint64)
    there = sizes >= at + WORD
    if there.any():
        ids[there] = word_view(data, 8, perf.order)[positions[there] + at]
    # An id of 0 is the first event's (tools/perf/util/evlist.c, evlist__event2evsel(), v6.18).
    owners = {0: 0} | {own: number for number, attr in enumerate(perf.attrs) for own in attr.ids}
    known = np.array(sorted(owners), np.uint64)
    numbers = np.array([owners[own] for own in sorted(owners)], np.int32)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(there & (known[place] == ids), numbers[place], np.int32(len(perf.attrs)))


def id_offset(attr: Attr) -> int | None:
    """Return where the id of its event is in a sample's record [bytes]; None when it has none."""
    if attr.sample_type & SAMPLE_IDENTIFIER:
        return RECORD_HEADER.size
    return field_offset(attr.sample_type, SAMPLE_ID)


def field_offset(sample_type: int, wanted: int) -> int | None:
    """Return where a field of 8 bytes is in a sample's record [bytes]; None when it has none."""
    if not sample_type & wanted:
        return None
    before = SAMPLE_FIELDS[: SAMPLE_FIELDS.index(wanted)]
    return RECORD_HEADER.size + WORD * sum(bool(sample_type & bit) for bit in before)


def trailer_offset(attr: Attr, wanted: int) -> int | None:
    """Return where a field is in the end of another record, from its end [bytes, negative]."""
    if not attr.sample_type & wanted:
        return None
    behind = SAMPLE_ID_FIELDS[SAMPLE_ID_FIELDS.index(wanted) :]
    return -WORD * sum(bool(attr.sample_type & bit) for bit in behind)


def _samples_of(
    perf: PerfFile, data: Bytes, positions: Int64s, sizes: Int64s, attr: Attr
) -> tuple[Samples, Bools]:
    """Find the parts of samples of one layout; and say which of them are whole."""
    ends = positions + sizes
    start, whole = _raw_positions(perf, data, positions, ends, attr)
    if not whole.all():
        perf.notes.append(f"{int((~whole).sum())} samples are too short for their fields, left out")
    positions, start, ends = positions[whole], start[whole], ends[whole]
    lengths = word_view(data, 4, perf.order)[start].astype(np.int64)

    def field(wanted: int, size: int, more: int = 0) -> Int64s:
        at = field_offset(attr.sample_type, wanted)
        if at is None or not len(positions):
            return np.full(len(positions), -1, np.int64)
        values = word_view(data, size, perf.order)[positions + at + more]
        return values.astype(np.int64)

    samples = Samples(
        times=field(SAMPLE_TIME, 8),
        cpus=field(SAMPLE_CPU, 4).astype(np.int32),
        tids=field(SAMPLE_TID, 4, more=4).astype(np.int32),
        positions=start + 4,
        lengths=np.minimum(lengths, ends - start - 4).astype(np.int32),
    )
    return samples, whole


def _raw_positions(
    perf: PerfFile, data: Bytes, positions: Int64s, ends: Int64s, attr: Attr
) -> tuple[Int64s, Bools]:
    """Return where the size of the tracepoint's data is, and which samples are whole."""
    fixed = sum(bool(attr.sample_type & bit) for bit in SAMPLE_FIELDS)
    at = positions + RECORD_HEADER.size + WORD * fixed
    whole = np.ones(len(positions), bool)
    if attr.sample_type & SAMPLE_READ:
        at, whole = _skip_counters(perf, data, at, ends, attr.read_format)
    if attr.sample_type & SAMPLE_CALLCHAIN:
        number, there = _word(perf, data, at, ends)
        at, whole = at + WORD * (1 + number), whole & there
    whole &= at + 4 <= ends
    size = np.zeros(len(at), np.int64)
    if whole.any():
        size[whole] = word_view(data, 4, perf.order)[at[whole]]
    return at, whole & (at + 4 + size <= ends) & (size >= 8)


def _skip_counters(
    perf: PerfFile, data: Bytes, at: Int64s, ends: Int64s, read_format: int
) -> tuple[Int64s, Bools]:
    """Return the positions behind the counters.

    kernel/events/core.c, perf_output_read(), v6.18.
    """
    times = bool(read_format & READ_ENABLED) + bool(read_format & READ_RUNNING)
    each = 1 + bool(read_format & READ_ID) + bool(read_format & READ_LOST)
    if not read_format & READ_GROUP:
        return at + WORD * (times + each), np.ones(len(at), bool)
    number, there = _word(perf, data, at, ends)
    return at + WORD * (1 + times + each * number), there


def _word(perf: PerfFile, data: Bytes, at: Int64s, ends: Int64s) -> tuple[Int64s, Bools]:
    """Read a number of things that follow; not there where the record ends before them."""
    number = np.zeros(len(at), np.int64)
    there: Bools = at + WORD <= ends
    if there.any():
        number[there] = np.minimum(
            word_view(data, 8, perf.order)[at[there]], np.uint64(1 << 16)
        ).astype(np.int64)
    return number, there & (at + WORD * (1 + number) <= ends)
