"""Write a trace.dat from a description: what cannot be recorded here, and what must be read back.

It knows nothing of the reader. Sources: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5), and
include/linux/ring_buffer.h for the records.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import zstandard

LONG = {4: "I", 8: "Q"}


@dataclass
class Record:
    """One event: its time on the raw clock and its payload, or padding of the payload's size."""

    time: int
    payload: bytes
    padding: bool = False
    long_form: bool = False  # as on machines with aligned access: size in a word of its own
    absolute: bool = False  # after an absolute time stamp


@dataclass
class Page:
    """One sub-buffer. `lost`: events lost before it; None none, -1 unknown."""

    time: int
    records: list[Record] = field(default_factory=list)
    lost: int | None = None


@dataclass
class Buffer:
    name: str
    cpus: dict[int, list[Page | bytes]]  # bytes: a page as it was recorded
    page_size: int = 4096


@dataclass
class Machine:
    """The recorded machine: byte order and size of its kernel's long."""

    order: str = "<"
    long_size: int = 8

    @property
    def data_offset(self) -> int:
        return 8 + self.long_size

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order + form, *values)

    def header(self, type_len: int, delta: int) -> bytes:
        word = type_len | delta << 5 if self.order == "<" else type_len << 27 | delta
        return self.pack("I", word)


def encode_records(machine: Machine, page: Page) -> bytes:
    data, now = b"", page.time
    for record in page.records:
        delta = record.time - now
        now = record.time
        if record.absolute:
            stamp = record.time & (1 << 59) - 1
            data += machine.header(31, stamp & (1 << 27) - 1) + machine.pack("I", stamp >> 27)
            delta = 0
        elif delta >= 1 << 27:
            data += machine.header(30, delta & (1 << 27) - 1) + machine.pack("I", delta >> 27)
            delta = 0
        data += encode_record(machine, record, delta)
    return data


def encode_record(machine: Machine, record: Record, delta: int) -> bytes:
    payload = record.payload + bytes(-len(record.payload) % 4)
    if record.padding:  # the size counts its own word; a delta of 0 would end the page
        size = machine.pack("I", len(payload) + 4)
        return machine.header(29, max(delta, 1)) + size + payload
    if record.long_form or len(payload) > 112:
        return machine.header(0, delta) + machine.pack("I", len(record.payload) + 4) + payload
    return machine.header(len(payload) // 4, delta) + payload


def encode_page(machine: Machine, page: Page, page_size: int) -> bytes:
    data = encode_records(machine, page)
    commit, tail = len(data), b""
    assert machine.data_offset + commit <= page_size, "too many records for one page"
    if page.lost is not None:
        commit |= 1 << 31
        if page.lost >= 0 and machine.data_offset + len(data) + machine.long_size <= page_size:
            commit |= 1 << 30
            tail = machine.pack(LONG[machine.long_size], page.lost)
    head = machine.pack("Q", page.time) + machine.pack(LONG[machine.long_size], commit)
    return (head + data + tail).ljust(page_size, b"\0")


def fits(machine: Machine, page: Page, page_size: int) -> bool:
    used = machine.data_offset + len(encode_records(machine, page))
    return used + machine.long_size <= page_size


def header_page_text(machine: Machine, page_size: int) -> bytes:
    long, offset = machine.long_size, machine.data_offset
    return (
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
        f"\tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n"
        "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
        f"\tfield: char data;\toffset:{offset};\tsize:{page_size - offset};\tsigned:0;\n"
    ).encode()


@dataclass
class File:
    """A whole trace.dat."""

    buffers: list[Buffer]
    formats: dict[str, list[str]]  # system -> format texts
    machine: Machine = field(default_factory=Machine)
    version: int = 7
    compression: str = "none"
    clock: str = "mono"
    comms: dict[int, str] = field(default_factory=dict)
    options: list[tuple[int, bytes]] = field(default_factory=list)
    printk: str = ""
    page_size: int = 4096
    pages_in_chunk: int = 10
    count_in_size: bool = True  # trace-cmd 3.1.6 leaves the chunk count out of a CPU's size

    def write(self) -> bytes:
        return write_v6(self) if self.version == 6 else write_v7(self)


def sections(file: File) -> dict[int, bytes]:
    pack = file.machine.pack

    def events(texts: Iterable[str]) -> bytes:
        data = [text.encode() for text in texts]
        return pack("I", len(data)) + b"".join(pack("Q", len(text)) + text for text in data)

    systems = {name: texts for name, texts in file.formats.items() if name != "ftrace"}
    page_text = header_page_text(file.machine, file.page_size)
    comms = "".join(f"{pid} {comm}\n" for pid, comm in file.comms.items()).encode()
    return {
        16: b"header_page\0" + pack("Q", len(page_text)) + page_text
        + b"header_event\0" + pack("Q", 0),
        17: events(file.formats.get("ftrace", [])),
        18: pack("I", len(systems))
        + b"".join(name.encode() + b"\0" + events(texts) for name, texts in systems.items()),
        19: pack("I", 0),
        20: pack("I", len(file.printk)) + file.printk.encode(),
        21: pack("Q", len(comms)) + comms,
    }  # fmt: skip


def initial(file: File) -> bytes:
    head = b"\x17\x08\x44tracing" + str(file.version).encode() + b"\0"
    head += bytes([file.machine.order == ">", file.machine.long_size])
    return head + file.machine.pack("I", file.page_size)


def clock_option(file: File) -> tuple[int, bytes]:
    return 4, f"local [{file.clock}] boot\n".encode() + b"\0"


def pages_of(file: File, buffer: Buffer, cpu: int) -> list[bytes]:
    pages = buffer.cpus.get(cpu, [])
    return [
        page if isinstance(page, bytes) else encode_page(file.machine, page, buffer.page_size)
        for page in pages
    ]


# --- version 6 ------------------------------------------------------------------------------------


def write_v6(file: File) -> bytes:
    pack = file.machine.pack
    cpus = max((cpu + 1 for buffer in file.buffers for cpu in buffer.cpus), default=1)
    data = initial(file) + b"".join(sections(file).values()) + pack("I", cpus)
    clock = f"[{file.clock}]".encode()
    top, *instances = file.buffers
    size = 10 + 16 * cpus + 8 + len(clock)  # of a table: word, entries, clock
    options = [*file.options, clock_option(file)]
    length = sum(6 + len(value) for _, value in options)
    length += sum(6 + 8 + len(buffer.name) + 1 for buffer in instances) + 10 + 2
    tables = len(data) + length
    place = align(tables + size * len(file.buffers), file.page_size)
    for number, buffer in enumerate(instances, 1):
        offset = pack("Q", tables + size * number)
        options.append((3, offset + buffer.name.encode() + b"\0"))
    data += b"options  \0" + b"".join(pack("HI", n, len(v)) + v for n, v in options) + pack("H", 0)
    bodies = b""
    for buffer in [top, *instances]:
        data += b"flyrecord\0"
        for cpu in range(cpus):
            pages = b"".join(pages_of(file, buffer, cpu))
            data += pack("QQ", place + len(bodies), len(pages))
            bodies += pages
        data += pack("Q", len(clock)) + clock
    return data.ljust(place, b"\0") + bodies


# --- version 7 ------------------------------------------------------------------------------------


def packer(file: File):
    return {"zstd": zstandard.ZstdCompressor().compress, "zlib": zlib.compress}.get(
        file.compression
    )


def section(file: File, number: int, body: bytes) -> bytes:
    pack = file.machine.pack
    compress = packer(file)
    if compress and number not in (0, 3):
        packed = compress(body)
        body = pack("II", len(packed), len(body)) + packed
        return pack("HHIQ", number, 1, 0, len(body)) + body
    return pack("HHIQ", number, bool(compress and number), 0, len(body)) + body


def options_section(file: File, options: list[tuple[int, bytes]], following: int) -> bytes:
    pack = file.machine.pack
    body = b"".join(pack("HI", number, len(value)) + value for number, value in options)
    return section(file, 0, body + pack("HIQ", 0, 8, following))


def write_v7(file: File) -> bytes:
    pack = file.machine.pack
    data = initial(file) + file.compression.encode() + b"\0" + b"1.0\0"
    first_options = len(data)
    data += bytes(8)
    options = [*file.options, clock_option(file)]
    for number, body in sections(file).items():
        options.append((number, pack("Q", len(data))))
        data += section(file, number, body)
    data += section(file, 15, b"a name\0")  # the reader has to pass over what it does not know
    option_places = [len(data)]
    data += options_section(file, options, 0)
    for buffer in file.buffers:
        data, option = write_buffer_v7(file, buffer, data)
        option_places.append(len(data))
        data += options_section(file, [(3, option)], 0)
    chained = bytearray(data)
    chained[first_options : first_options + 8] = pack("Q", option_places[0])
    for place, following in pairwise(option_places):
        size = struct.unpack_from(file.machine.order + "Q", chained, place + 8)[0]
        end = place + 16 + size
        chained[end - 8 : end] = pack("Q", following)
    return bytes(chained)


def write_buffer_v7(file: File, buffer: Buffer, data: bytes) -> tuple[bytes, bytes]:
    pack = file.machine.pack
    place = len(data)
    header = 16
    body = b""
    cpus = []
    for cpu, pages in buffer.cpus.items():
        start = align(place + header + len(body), buffer.page_size)
        body = body.ljust(start - place - header, b"\0")
        stored = store_pages(file, pages_of(file, buffer, cpu)) if pages else b""
        size = len(stored) - (0 if file.count_in_size or not packer(file) else 4)
        cpus.append(pack("IQQ", cpu, start, size if stored else 0))
        body += stored
    compressed = packer(file) is not None
    data += pack("HHIQ", 3, compressed, 0, len(body)) + body
    option = pack("Q", place) + buffer.name.encode() + b"\0" + file.clock.encode() + b"\0"
    return data, option + pack("II", buffer.page_size, len(cpus)) + b"".join(cpus)


def store_pages(file: File, pages: list[bytes]) -> bytes:
    compress = packer(file)
    if compress is None:
        return b"".join(pages)
    step = file.pages_in_chunk
    chunks = [b"".join(pages[at : at + step]) for at in range(0, len(pages), step)]
    stored = file.machine.pack("I", len(chunks))
    for chunk in chunks:
        packed = compress(chunk)
        stored += file.machine.pack("II", len(packed), len(chunk)) + packed
    return stored


def align(number: int, size: int) -> int:
    return -(-number // size) * size
