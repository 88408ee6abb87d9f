"""Which command a thread ran at a time: COMM and FORK records.

perf remembers a thread's command from a COMM record on, and a new thread has its parent's
(tools/perf/util/machine.c, machine__process_comm_event() and machine__process_fork_event(), v6.18).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maceproc.perfdata.container import PerfFile
from maceproc.perfdata.records import Records
from maceproc.perfdata.samples import trailer_offset
from maceproc.perfdata.structures import (
    RECORD_COMM,
    RECORD_FORK,
    RECORD_HEADER,
    SAMPLE_ID_ALL,
    SAMPLE_TIME,
)
from maceproc.tracedat.ringbuffer import Int64s

IDLE = "swapper"  # thread 0, as perf names it
UNKNOWN = "<...>"

COMM_NAME = RECORD_HEADER.size + 8  # behind pid and tid
FORK_TIDS = RECORD_HEADER.size + 8  # tid and its parent's, behind the pids


class Change(NamedTuple):
    """A thread's new command: its name, or the parent thread whose command it starts with."""

    time: int  # [ns]
    position: int
    tid: int
    name: str
    parent: int = -1


@dataclass
class Commands:
    """The commands of threads over time."""

    names: list[str] = field(default_factory=lambda: [UNKNOWN, IDLE])
    times: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # by thread [ns]
    codes: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # in `names`

    def codes_of(self, tids: npt.NDArray[np.int32], times: Int64s) -> npt.NDArray[np.int32]:
        """Return the number of the command that each thread ran at each time."""
        found, inverse = np.unique(tids, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        ends = np.cumsum(np.bincount(inverse, minlength=len(found))).tolist()
        codes = np.zeros(len(tids), np.int32)
        for tid, start, end in zip(found.tolist(), [0, *ends], ends, strict=False):
            rows = order[start:end]
            if tid == 0:
                codes[rows] = self.names.index(IDLE)
            elif tid in self.times:
                place = np.searchsorted(np.array(self.times[tid]), times[rows], side="right")
                codes[rows] = np.array([0, *self.codes[tid]], np.int32)[place]
        return codes


def read_commands(perf: PerfFile, records: Records) -> Commands:
    """Read which command each thread ran from when on."""
    changes: list[Change] = []
    data = records.data.data
    kinds = (records.types == RECORD_COMM) | (records.types == RECORD_FORK)
    for position, kind, size in zip(
        records.positions[kinds].tolist(),
        records.types[kinds].tolist(),
        records.sizes[kinds].tolist(),
        strict=True,
    ):
        record = data[position : position + size]
        if size < COMM_NAME + 8:
            continue
        time = record_time(perf, record)
        if kind == RECORD_COMM:
            _, tid = struct.unpack_from(perf.order + "ii", record, RECORD_HEADER.size)
            name = bytes(record[COMM_NAME:]).partition(b"\0")[0].decode("utf-8", "backslashreplace")
            changes.append(Change(time, position, tid, name))
        else:
            tid, parent = struct.unpack_from(perf.order + "ii", record, FORK_TIDS)
            changes.append(Change(time, position, tid, "", parent))
    return _commands(changes)


def _commands(changes: list[Change]) -> Commands:
    commands = Commands()
    numbers = {name: number for number, name in enumerate(commands.names)}
    now: dict[int, int] = {0: numbers[IDLE]}
    for change in sorted(changes):
        if change.parent < 0:
            code = numbers.setdefault(change.name, len(numbers))
        else:
            code = now.get(change.parent, 0)
        now[change.tid] = code
        commands.times[change.tid].append(change.time)
        commands.codes[change.tid].append(code)
    commands.names = list(numbers)
    return commands


def record_time(perf: PerfFile, record: memoryview) -> int:
    """Return the time of a record that is no sample [ns]; 0, before all samples, without one."""
    attr = perf.attrs[0]
    at = trailer_offset(attr, SAMPLE_TIME) if attr.has(SAMPLE_ID_ALL) else None
    if at is None or len(record) + at < RECORD_HEADER.size:
        return 0
    time: int = struct.unpack_from(perf.order + "Q", record, len(record) + at)[0]
    return time if time < 1 << 63 else 0
