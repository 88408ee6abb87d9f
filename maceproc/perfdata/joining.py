"""Join several perf.data of one recording, in pipe form, to one.

A different perf process wrote each piece: the pieces have the same events in the same order, but
other ids. In the joined file the samples of every piece have the ids of the first piece, as if one
perf had recorded all of them. So perf can read the joined file, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from maceproc.errors import TraceFormatError
from maceproc.perfdata.container import PerfFile, open_perf
from maceproc.perfdata.lost import UNKNOWN_CPU, lost_table
from maceproc.perfdata.records import Records, read_records
from maceproc.perfdata.samples import Samples, id_offset, read_samples, trailer_offset
from maceproc.perfdata.structures import (
    FIRST_USER_RECORD,
    PIPE_HEADER,
    RECORD_FINISHED_ROUND,
    RECORD_HEADER,
    RECORD_HEADER_ATTR,
    RECORD_LOST,
    RECORD_LOST_SAMPLES,
    RECORD_SAMPLE,
    SAMPLE_ID,
    SAMPLE_ID_ALL,
    SAMPLE_IDENTIFIER,
)
from maceproc.tracedat.ringbuffer import Int64s, word_view

Uint64s = npt.NDArray[np.uint64]


@dataclass
class Joined:
    """What a joined file holds."""

    samples: int = 0
    lost: dict[str, int] = field(default_factory=dict)  # CPU, or "unknown" -> events
    notes: list[str] = field(default_factory=list)  # which parts of the pieces are not in it


def join(output: Path, pieces: Sequence[Path]) -> Joined:
    """Write one perf.data at `output` from pieces in the order of time.

    Of a piece that was cut, every whole record is kept, and a note says how much is left out. A
    piece without any record of the kernel, whose start may not be whole, is left out with a note.

    Raises TraceFormatError when no piece can be read, OSError when the output cannot be written.
    """
    joined = Joined()
    first: PerfFile | None = None
    wrong: TraceFormatError | None = None
    with open(output, "x+b", opener=_private) as file:
        for piece in pieces:
            try:
                perf, records, samples = _read(piece)
            except TraceFormatError as error:
                wrong = error
                joined.notes.append(f"{piece.name} was left out: {error.message}")
                continue
            if not _ends_as_perf_ends(records):
                perf.notes.append("its end is missing: perf was killed, or could not write it")
            joined.samples += len(samples.times)
            _count_lost(joined.lost, perf, records, samples)
            joined.notes += [f"{piece.name}: {note}" for note in perf.notes]
            if first is None:
                first = perf
                file.write(_head(piece))
                _copy(file, records, np.ones(len(records.types), bool))
            else:
                _append(file, records, perf, first)
    if first is None:
        raise wrong or TraceFormatError(output, offset=None, found="nothing", expected="a piece")
    return joined


def _head(piece: Path) -> bytes:
    with piece.open("rb") as file:
        return file.read(PIPE_HEADER.size)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _read(piece: Path) -> tuple[PerfFile, Records, Samples]:
    """Open a piece; TraceFormatError when it is none, or holds no record of the kernel."""
    perf = open_perf(piece)
    records = read_records(perf)
    if perf.form != "pipe" or not (records.types < FIRST_USER_RECORD).any():
        raise TraceFormatError(
            piece, offset=None, found=f"a {perf.form} without records", expected="a pipe with some"
        )
    return perf, records, read_samples(perf, records)


def _ends_as_perf_ends(records: Records) -> bool:
    """Whether perf wrote all that it had read.

    perf marks the end of each round after the samples of that round. At the end it may count the
    samples that were lost (tools/perf/builtin-record.c, record__mmap_read_evlist() and
    record__read_lost_samples(), v6.18).
    """
    last = records.types[-1]
    return bool(last >= FIRST_USER_RECORD or last == RECORD_LOST_SAMPLES)


def _count_lost(lost: dict[str, int], perf: PerfFile, records: Records, samples: Samples) -> None:
    table = lost_table(perf, records, samples)
    for cpu, count in table.groupby("cpu")["count"].sum().items():
        name = "unknown" if cpu == UNKNOWN_CPU else str(cpu)
        lost[name] = lost.get(name, 0) + int(count)


def _append(file: BinaryIO, records: Records, perf: PerfFile, first: PerfFile) -> None:
    """Append the kernel's records of a later piece, with the first one's ids."""
    ids = _ids(perf, first)
    wanted = (records.types < FIRST_USER_RECORD) | (records.types == RECORD_FINISHED_ROUND)
    if ids is None:  # a CPU came or went: the piece's own ids are declared
        wanted |= records.types == RECORD_HEADER_ATTR
    start = file.tell()
    places = _copy(file, records, wanted)
    if ids is None or not len(places):
        return
    file.flush()
    copied = np.memmap(file, np.uint8, mode="r+", offset=start)
    words = word_view(copied, 8, perf.order)
    for chosen in _id_places(records, wanted, places, perf):
        words[chosen] = _translated(words[chosen], *ids)
    copied.flush()


def _copy(file: BinaryIO, records: Records, wanted: npt.NDArray[np.bool_]) -> Int64s:
    """Append the records wanted; return where each of them begins behind the file's end.

    Data that follows a record but is not part of its size belongs to the record.
    """
    ends = np.append(records.positions[1:], records.positions[-1:] + records.sizes[-1:])
    lengths = np.where(wanted, ends - records.positions, 0)
    changes = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    for begin, end in changes.reshape(-1, 2).tolist():
        file.write(records.data[records.positions[begin] : ends[end - 1]].data)
    places: Int64s = (np.cumsum(lengths) - lengths)[wanted]
    return places


# --- ids ------------------------------------------------------------------------------------------


def _ids(perf: PerfFile, first: PerfFile) -> tuple[Uint64s, Uint64s] | None:
    """Return a piece's ids in their order, and the first piece's for each; None if they differ."""
    if [_shape(perf, number) for number in range(len(perf.attrs))] != [
        _shape(first, number) for number in range(len(first.attrs))
    ]:
        return None
    own = np.array([each for attr in perf.attrs for each in attr.ids], np.uint64)
    theirs = np.array([each for attr in first.attrs for each in attr.ids], np.uint64)
    order = np.argsort(own)
    return own[order], theirs[order]


def _shape(perf: PerfFile, number: int) -> tuple[int, ...]:
    attr = perf.attrs[number]
    return attr.type, attr.config, attr.sample_type, attr.read_format, len(attr.ids)


def _translated(ids: Uint64s, own: Uint64s, theirs: Uint64s) -> Uint64s:
    """Return the ids that stand for these; one that is not known stays."""
    place = np.minimum(np.searchsorted(own, ids), len(own) - 1)
    return np.where(own[place] == ids, theirs[place], ids) if len(own) else ids


def _id_places(
    records: Records, wanted: npt.NDArray[np.bool_], places: Int64s, perf: PerfFile
) -> Iterator[Int64s]:
    """Yield where ids are in records that were copied: of samples, of losses, of all others.

    A LOST record's first field is the id of the event that found no room; the others have an id at
    their end (struct sample_id, include/uapi/linux/perf_event.h, v6.18).
    """
    types, sizes = records.types[wanted], records.sizes[wanted]
    is_sample = types == RECORD_SAMPLE
    at = next((own for attr in perf.attrs if (own := id_offset(attr)) is not None), None)
    if at is not None:
        yield places[is_sample & (sizes >= at + 8)] + at
    at = RECORD_HEADER.size
    yield places[(types == RECORD_LOST) & (sizes >= at + 16)] + at
    attr = perf.attrs[0]
    if attr.has(SAMPLE_ID_ALL):
        for kind in (SAMPLE_ID, SAMPLE_IDENTIFIER):
            behind = trailer_offset(attr, kind)
            others = ~is_sample & (types < FIRST_USER_RECORD)
            if behind is not None:
                yield (places + sizes)[others & (sizes >= RECORD_HEADER.size - behind)] + behind
