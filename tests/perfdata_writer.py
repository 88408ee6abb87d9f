"""Write a perf.data from a description: what cannot be recorded here, and what must be read back.

It knows nothing of the reader. Sources: tools/perf/Documentation/perf.data-file-format.txt,
include/uapi/linux/perf_event.h, kernel/events/core.c (perf_output_sample()).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import zstandard

from tests.tracedat_writer import File, Machine
from tests.tracedat_writer import sections as tracedat_sections

# enum perf_event_sample_format
IP, TID, TIME, ADDR, READ, CALLCHAIN, ID, CPU = (1 << bit for bit in range(8))
PERIOD, STREAM_ID, RAW, IDENTIFIER = 1 << 8, 1 << 9, 1 << 10, 1 << 16
USUAL = IP | TID | TIME | CPU | PERIOD | RAW
# enum perf_event_read_format
ENABLED, RUNNING, READ_ID, GROUP, LOST = 1, 2, 4, 8, 16
SAMPLE_ID_ALL, USE_CLOCKID, MONOTONIC = 18, 25, 1
ATTR_SIZE = 128
TRACEPOINT = 2


@dataclass
class Attr:
    """One event: what its samples have."""

    config: int
    sample_type: int = USUAL
    read_format: int = 0
    ids: Sequence[int] = ()
    type: int = TRACEPOINT
    clockid: int | None = MONOTONIC
    size: int = ATTR_SIZE

    def write(self, machine: Machine) -> bytes:
        bits = 1 << SAMPLE_ID_ALL | (self.clockid is not None) << USE_CLOCKID
        flags = bits.to_bytes(8, "little")
        if machine.order == ">":  # bit-fields from the highest bit of the first byte on
            flags = bytes(int(f"{byte:08b}"[::-1], 2) for byte in flags)
        head = machine.pack(
            "IIQQQQ", self.type, self.size, self.config, 1, self.sample_type, self.read_format
        )
        tail = machine.pack("IIQQQQIi", 0, 0, 0, 0, 0, 0, 0, self.clockid or 0)
        return (head + flags + tail).ljust(self.size, b"\0")[: self.size]


@dataclass
class Sample:
    """One sample of an event."""

    attr: Attr
    time: int
    payload: bytes
    tid: int = 1
    cpu: int = 0
    id: int = 0
    chain: int = 0  # callers in its call chain
    counters: int = 1  # of a group

    def write(self, machine: Machine) -> bytes:
        has = self.attr.sample_type
        words = {
            IDENTIFIER: ("Q", self.id),
            IP: ("Q", 0xFFFFFFFF81000000),
            TID: ("ii", self.tid, self.tid),
            TIME: ("Q", self.time),
            ADDR: ("Q", 1),
            ID: ("Q", self.id),
            STREAM_ID: ("Q", 2),
            CPU: ("II", self.cpu, 0),
            PERIOD: ("Q", 1),
        }
        body = b"".join(machine.pack(*words[bit]) for bit in words if has & bit)
        if has & READ:
            body += self._counters(machine)
        if has & CALLCHAIN:
            body += machine.pack(f"Q{self.chain}Q", self.chain, *range(self.chain))
        if has & RAW:
            padded = self.payload + bytes(-(len(self.payload) + 4) % 8)
            body += machine.pack("I", len(padded)) + padded
        return record(machine, 9, body)

    def _counters(self, machine: Machine) -> bytes:
        form = self.attr.read_format
        times = [7] * (bool(form & ENABLED) + bool(form & RUNNING))
        each = [8] * (1 + bool(form & READ_ID) + bool(form & LOST))
        numbers = [self.counters, *times, *each * self.counters] if form & GROUP else []
        if not form & GROUP:
            numbers = [8, *times, *each[1:]]
        return machine.pack(f"{len(numbers)}Q", *numbers)


def record(machine: Machine, kind: int, body: bytes, misc: int = 0) -> bytes:
    return machine.pack("IHH", kind, misc, len(body) + 8) + body


def trailer(machine: Machine, attr: Attr, time: int, tid: int = 0, cpu: int = 0) -> bytes:
    """Return what ends a record that is no sample (struct sample_id)."""
    words = {
        TID: ("ii", tid, tid),
        TIME: ("Q", time),
        ID: ("Q", 0),
        STREAM_ID: ("Q", 0),
        CPU: ("II", cpu, 0),
        IDENTIFIER: ("Q", 0),
    }
    return b"".join(machine.pack(*words[bit]) for bit in words if attr.sample_type & bit)


def comm(machine: Machine, attr: Attr, time: int, tid: int, name: str) -> bytes:
    text = name.encode() + b"\0"
    body = machine.pack("ii", tid, tid) + text + bytes(-len(text) % 8)
    return record(machine, 3, body + trailer(machine, attr, time, tid))


def fork(machine: Machine, attr: Attr, time: int, tid: int, parent: int) -> bytes:
    body = machine.pack("iiiiQ", tid, parent, tid, parent, time)
    return record(machine, 7, body + trailer(machine, attr, time, tid))


def lost(machine: Machine, attr: Attr, time: int, cpu: int, number: int) -> bytes:
    return record(machine, 2, machine.pack("QQ", 0, number) + trailer(machine, attr, time, 0, cpu))


def lost_samples(machine: Machine, attr: Attr, number: int, misc: int = 0) -> bytes:
    return record(machine, 13, machine.pack("Q", number) + trailer(machine, attr, 0), misc)


def finished_round(machine: Machine) -> bytes:
    return record(machine, 68, b"")


def tracing_data(formats: dict[str, list[str]], machine: Machine, version: str = "0.6") -> bytes:
    own = tracedat_sections(File([], formats, machine))
    data = b"\x17\x08\x44tracing" + version.encode() + b"\0"
    data += bytes([machine.order == ">", machine.long_size]) + machine.pack("I", 4096)
    return data + b"".join(own[number] for number in range(16, 22 if version == "0.6" else 21))


@dataclass
class PerfData:
    """A whole perf.data; `records` in their order."""

    attrs: list[Attr]
    records: list[bytes]
    formats: dict[str, list[str]]
    machine: Machine = field(default_factory=Machine)
    compressed: int = 0  # type of the compressed records: 81, 82 or 0 for none
    piece: int = 900  # bytes in a compressed record, before they are compressed
    plain_between: bool = False  # a FINISHED_ROUND behind every compressed record

    def stream(self) -> bytes:
        data = b"".join(self.records)
        if not self.compressed:
            return data
        stream = zstandard.ZstdCompressor().compressobj()
        out = b""
        for at in range(0, len(data), self.piece):
            packed = stream.compress(data[at : at + self.piece])
            packed += stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            out += self.packed_record(packed)
            out += finished_round(self.machine) if self.plain_between else b""
        return out

    def packed_record(self, packed: bytes) -> bytes:
        if self.compressed == 81:
            return record(self.machine, 81, packed)
        body = self.machine.pack("Q", len(packed)) + packed
        return record(self.machine, self.compressed, body + bytes(-len(body) % 8))

    def features(self) -> dict[int, bytes]:
        pack = self.machine.pack

        def string(text: str) -> bytes:
            return pack("I", 64) + text.encode().ljust(64, b"\0")

        return {
            1: tracing_data(self.formats, self.machine),
            4: string("6.18.0"),
            7: pack("II", 4, 4),
            11: pack("I", 2) + string("perf") + string("record"),
            29: pack("IIQQ", 1, MONOTONIC, 1_700_000_000_000_000_000, 5000),
        }

    def write(self) -> bytes:
        """Write it as a file."""
        pack, data = self.machine.pack, self.stream()
        ids_at = 104
        ids = b"".join(pack(f"{len(attr.ids)}Q", *attr.ids) for attr in self.attrs)
        attrs_at, attrs, place = ids_at + len(ids), b"", ids_at
        for attr in self.attrs:
            attrs += attr.write(self.machine) + pack("QQ", place, 8 * len(attr.ids))
            place += 8 * len(attr.ids)
        data_at = attrs_at + len(attrs)
        features = self.features()
        bits = sum(1 << bit for bit in features)
        table_at = data_at + len(data)
        place, table = table_at + 16 * len(features), b""
        for body in features.values():
            table += pack("QQ", place, len(body))
            place += len(body)
        magic = b"PERFILE2" if self.machine.order == "<" else b"2ELIFREP"
        size = self.attrs[0].size + 16
        head = magic + pack(
            "12Q", 104, size, attrs_at, len(attrs), data_at, len(data), 0, 0, bits, 0, 0, 0
        )
        return head + ids + attrs + data + table + b"".join(features.values())

    def write_pipe(self) -> bytes:
        """Write it as a pipe."""
        machine = self.machine
        magic = b"PERFILE2" if machine.order == "<" else b"2ELIFREP"
        out = magic + machine.pack("Q", 16)
        for attr in self.attrs:
            out += record(
                machine, 64, attr.write(machine) + machine.pack(f"{len(attr.ids)}Q", *attr.ids)
            )
        features = self.features()
        formats = features.pop(1)
        for number, body in features.items():
            padding = bytes(-len(body) % 8)
            out += record(machine, 80, machine.pack("Q", number) + body + padding)
        out += record(machine, 66, machine.pack("I", len(formats))) + formats
        return out + bytes(-len(formats) % 8) + self.stream()

    def write_directory(self, place: Path) -> Path:
        """Write it as a directory, a file for each half of the records."""
        place.mkdir()
        half = len(self.records) // 2
        (place / "data").write_bytes(replace(self, records=[]).write())
        for number, part in enumerate([self.records[:half], self.records[half:]]):
            (place / f"data.{number}").write_bytes(replace(self, records=part).stream())
        return place
