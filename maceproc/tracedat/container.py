"""The file: what a trace.dat consists of and where it is, without looking into an event.

Version 6 is one straight stream; version 7 is a set of sections, found through a chain of option
sections. Both hold the same things: texts that describe the kernel's pages and events, tables of
names, and per ring buffer and CPU a run of raw sub-buffers ("pages"). Sections are read, and
unpacked, only when asked for.

Sources: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5), trace-cmd 3.1.6 to 3.4.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from maceproc.errors import TraceFormatError

MAGIC = b"\x17\x08\x44tracing"

# Options, trace-cmd.dat.v7(5). Ids from 16 on point to the section of the same id.
DONE, DATE, CPUSTAT, BUFFER, TRACECLOCK, UNAME, HOOK, OFFSET, CPUCOUNT, VERSION = range(10)
TIME_SHIFT, TSC2NSEC, STRINGS = 12, 14, 15
HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS, KALLSYMS, PRINTK, CMDLINES, BUFFER_TEXT = range(16, 23)

SECTION_NAMES = {
    HEADER_INFO: "header_page and header_event",
    FTRACE_EVENTS: "the ftrace event formats",
    EVENT_FORMATS: "the event formats",
    KALLSYMS: "kallsyms",
    PRINTK: "the printk formats",
    CMDLINES: "the command names",
}

TSC_CONVERTED = "tsc2nsec"  # the clock's name when TSC2NSEC is to be applied

MAX_PAGE = 1 << 26  # [bytes]; kernel 6.18 allows sub-buffers of 2**27 events bytes at most
# A file may not unpack to more than this: a few bytes of zstd can claim gigabytes. Real files
# stay below a ratio of 100, pages of 64 KiB with a single event in them.
UNPACKED_SLACK, UNPACKED_RATIO = 1 << 26, 200


Unpacker: TypeAlias = "Callable[[memoryview, int], bytes]"


@dataclass(frozen=True)
class CpuData:
    """Where one CPU's sub-buffers are: file offset and stored size [bytes]."""

    cpu: int
    offset: int
    size: int


@dataclass(frozen=True)
class Buffer:
    """One ring buffer: the top one (its name is empty) or an instance."""

    name: str
    clock: str  # empty when the file does not say
    page_size: int  # of its sub-buffers [bytes]
    compressed: bool
    cpus: tuple[CpuData, ...]  # only CPUs with data
    page_size_certain: bool = True  # version 6 does not store an instance's own page size


@dataclass(frozen=True)
class Chunk:
    """Compressed pages that unpack on their own: file offset, sizes packed and unpacked [bytes]."""

    offset: int
    packed: int
    unpacked: int


@dataclass
class Cursor:
    """A place in some bytes of a file, moving forward; every read is checked."""

    data: memoryview
    file: Path
    order: str = "<"
    position: int = 0
    base: int | None = 0  # file offset of data[0]; None inside an unpacked section
    part: str = ""  # what is being read, for error messages

    def fail(self, found: str, expected: str, hint: str = "") -> TraceFormatError:
        """Return the error for the place reached."""
        offset = None if self.base is None else self.base + self.position
        where = f" in {self.part}" if self.part else ""
        return TraceFormatError(
            self.file, offset=offset, found=found + where, expected=expected, hint=hint
        )

    def take(self, size: int, what: str) -> memoryview:
        """Return the next `size` bytes."""
        left = len(self.data) - self.position
        if size > left:
            raise self.fail(f"{left} bytes left", f"{what} ({size} bytes)", "the file is cut short")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str, what: str) -> int:
        """Return the next number; `form` is a struct letter: H, I, Q or i, q."""
        value: int = struct.unpack(self.order + form, self.take(struct.calcsize("=" + form), what))[
            0
        ]
        return value

    def string(self, what: str, limit: int = 4096) -> str:
        """Return the next NUL-terminated string."""
        window = bytes(self.data[self.position : self.position + limit])
        end = window.find(b"\0")
        if end < 0:
            raise self.fail("no end of the string", f"{what}, NUL-terminated")
        self.position += end + 1
        return window[:end].decode("utf-8", "backslashreplace")

    def expect(self, word: bytes) -> None:
        """Step over a word of the format that must be here."""
        found = bytes(self.data[self.position : self.position + len(word)])
        if found != word:
            raise self.fail(repr(found), repr(word))
        self.position += len(word)

    def sized(self, form: str, what: str) -> memoryview:
        """Return the bytes that follow their own size."""
        return self.take(self.number(form, f"the size of {what}"), what)

    def __bool__(self) -> bool:
        return self.position < len(self.data)


@dataclass
class TraceFile:
    """An open trace.dat. Use `open_trace`, and as a context manager."""

    path: Path
    data: memoryview
    version: int = 0
    order: str = "<"
    long_size: int = 8  # of the recorder's user space [bytes]
    page_size: int = 4096
    compression: str = "none"
    compression_version: str = ""
    options: list[tuple[int, bytes]] = field(default_factory=list)
    buffers: tuple[Buffer, ...] = ()
    notes: list[str] = field(default_factory=list)
    sections: dict[int, int | memoryview] = field(default_factory=dict)
    options_end: int = 0  # where the last options section known ends
    is_cut: bool = False  # the chain of options goes on behind the end of the file
    close: Callable[[], None] = lambda: None
    _unpacked: int = 0

    def __enter__(self) -> TraceFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def clock(self) -> str:
        """The clock of the first buffer with data; empty when the file does not say."""
        return next((b.clock for b in self.buffers if b.clock and b.cpus), "")

    def option(self, wanted: int) -> bytes | None:
        """Return the data of the first option with this id."""
        return next((data for number, data in self.options if number == wanted), None)

    def option_text(self, wanted: int) -> str:
        """Return an option's data as text, without its NUL; empty when it is not there."""
        return _text(self.option(wanted) or b"")

    def section(self, number: int) -> Cursor | None:
        """Return a cursor over a metadata section (HEADER_INFO, ...); None when not there."""
        place = self.sections.get(number)
        if place is None:
            return None
        name = SECTION_NAMES[number]
        if isinstance(place, memoryview):
            return Cursor(place, self.path, self.order, base=None, part=name)
        return _section_body(self, place, number, name)

    def chunks(self, buffer: Buffer, cpu: CpuData) -> Iterator[Chunk]:
        """Yield a CPU's compressed chunks, in order; stops, with a note, where the file ends."""
        # The stored size is not trusted: trace-cmd 3.1.6 leaves the chunk count out of it.
        cursor = self._cursor(cpu.offset)
        for left in range(cursor.number("I", "the number of chunks"), 0, -1):
            try:
                packed = cursor.number("I", "a chunk's size")
                unpacked = cursor.number("I", "a chunk's unpacked size")
                place = cursor.position
                cursor.take(packed, "a chunk")
            except TraceFormatError:
                self.notes.append(
                    f"the file ends at byte {len(self.data)}, in the data of CPU {cpu.cpu}: "
                    f"{left} compressed chunks are missing"
                )
                return
            if unpacked % buffer.page_size or not unpacked:
                raise cursor.fail(
                    f"a chunk of {unpacked} bytes", f"whole pages of {buffer.page_size} bytes"
                )
            self.allow(unpacked)
            yield Chunk(place, packed, unpacked)

    def unpacker(self) -> Unpacker:
        """Return a function that unpacks one chunk or section to exactly the size given.

        It is for one thread. Raises TraceFormatError when the method is not known; the function
        does when the data is damaged.
        """
        make = UNPACKERS.get(self.compression)
        if make is None:
            raise TraceFormatError(
                self.path,
                offset=None,
                found=f"compression {self.compression!r}",
                expected="none, zstd or zlib",
                hint="rewrite the file with `trace-cmd convert --compression none`",
            )
        return make(self)

    def allow(self, size: int) -> None:
        """Count bytes about to be unpacked; TraceFormatError when out of all proportion."""
        self._unpacked += size
        limit = UNPACKED_SLACK + UNPACKED_RATIO * len(self.data)
        if self._unpacked > limit:
            raise TraceFormatError(
                self.path,
                offset=None,
                found=f"a claim of {self._unpacked} unpacked bytes",
                expected=f"at most {limit} for a file of {len(self.data)}",
            )

    def _cursor(self, position: int) -> Cursor:
        cursor = Cursor(self.data, self.path, self.order)
        if position > len(self.data):
            cursor.position = len(self.data)
            raise cursor.fail("the end of the file", f"data at byte {position}", "it is cut short")
        cursor.position = position
        return cursor


def _zstd_unpacker(trace: TraceFile) -> Unpacker:
    from maceproc.tracedat import zstd

    unpack_frame = zstd.unpacker()

    def unpack(data: memoryview, size: int) -> bytes:
        try:
            return unpack_frame(data, size)
        except zstd.DamagedFrameError as error:
            raise _damaged(trace, "zstd", str(error)) from error

    return unpack


def _zlib_unpacker(trace: TraceFile) -> Unpacker:
    def unpack(data: memoryview, size: int) -> bytes:
        try:
            unpacked = zlib.decompressobj().decompress(data, max(size, 1))
        except zlib.error as error:
            raise _damaged(trace, "zlib", str(error)) from error
        if len(unpacked) != size:
            raise _damaged(trace, "zlib", f"{len(unpacked)} bytes instead of {size}")
        return unpacked

    return unpack


UNPACKERS: dict[str, Callable[[TraceFile], Unpacker]] = {
    "zstd": _zstd_unpacker,
    "zlib": _zlib_unpacker,
}


def _damaged(trace: TraceFile, method: str, what: str) -> TraceFormatError:
    return TraceFormatError(
        trace.path, offset=None, found=f"damaged {method} data: {what}", expected="a whole frame"
    )


def is_trace_dat(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as a trace.dat does; False when it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_trace(path: str | os.PathLike[str]) -> TraceFile:
    """Open a trace.dat, memory-mapped, and find its parts.

    Raises TraceFormatError when the file cannot be opened or is not a trace.dat of version 6 or 7.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # mmap of an empty file
        raise TraceFormatError(
            file, offset=0, found="an empty file", expected="a trace.dat"
        ) from error
    except OSError as error:
        raise TraceFormatError(
            file, offset=None, found=error.strerror or str(error), expected="a trace.dat"
        ) from error
    trace = TraceFile(file, memoryview(mapped))
    read_structure(trace)
    return trace


def read_structure(trace: TraceFile) -> None:
    """Read everything but section bodies and pages: header, options, buffers."""
    cursor = Cursor(trace.data, trace.path, part="the file header")
    _read_initial_format(trace, cursor)
    cursor.part = ""
    if trace.version == 6:
        _read_v6(trace, cursor)
    else:
        _read_v7(trace, cursor)
    trace.buffers = tuple(replace(b, clock=_clock_of(trace, b)) for b in trace.buffers)
    _check_extent(trace)


def _clock_of(trace: TraceFile, buffer: Buffer) -> str:
    """Return the clock a buffer was recorded with.

    trace-cmd up to 3.4 stores the top buffer's clock with every instance (trace-output.c); the
    option TRACECLOCK has that of the first instance recorded (trace-record.c, get_trace_clock).
    """
    if buffer.clock == TSC_CONVERTED:
        return buffer.clock
    return _used_clock(trace.option(TRACECLOCK) or b"") or buffer.clock


def _read_initial_format(trace: TraceFile, cursor: Cursor) -> None:
    found = bytes(trace.data[: len(MAGIC)])
    if found != MAGIC:
        hint = "this is a perf.data file: use `perf script`" if found[:4] == b"PERF" else ""
        raise cursor.fail(repr(found), f"{MAGIC!r}, the start of a trace.dat", hint)
    cursor.take(len(MAGIC), "the magic number")
    version = cursor.string("the version", 16)
    if version not in ("6", "7"):
        raise cursor.fail(f"version {version!r}", "version 6 or 7")
    trace.version = int(version)
    trace.order = cursor.order = "<>"[cursor.take(1, "the byte order")[0] & 1]
    trace.long_size = cursor.take(1, "the size of long")[0]
    trace.page_size = _page_size(cursor)


def _page_size(cursor: Cursor) -> int:
    size = cursor.number("I", "the page size")
    if not 64 <= size <= MAX_PAGE or size % 8:
        raise cursor.fail(f"a page size of {size}", "a power of two from 4096")
    return size


# --- version 6 ------------------------------------------------------------------------------------


def _read_v6(trace: TraceFile, cursor: Cursor) -> None:
    for number, skip in V6_SECTIONS.items():
        start = cursor.position
        cursor.part = SECTION_NAMES[number]
        skip(cursor)
        trace.sections[number] = trace.data[start : cursor.position]
    cursor.part = "the CPU table"
    cpus = cursor.number("I", "the number of CPUs")
    word = bytes(cursor.take(10, "'options', 'latency' or 'flyrecord'"))
    if word == b"options  \0":
        trace.options = list(_options_v6(cursor))
        word = bytes(cursor.take(10, "'latency' or 'flyrecord'"))
    stored = trace.option(CPUCOUNT)
    if stored is not None and len(stored) >= 4:
        cpus = int(struct.unpack_from(trace.order + "I", stored)[0])
    if word == b"latency  \0":
        trace.notes.append("the file holds a latency tracer's text, which has no events to read")
        return
    if word != b"flyrecord\0":
        raise cursor.fail(repr(word), "'flyrecord' or 'latency'")
    top = _buffer_v6(trace, cursor, "", cpus, trace.option(TRACECLOCK) is not None)
    trace.buffers = (top, *_instances_v6(trace, cpus))


def _skip_header_info(cursor: Cursor) -> None:
    cursor.expect(b"header_page\0")
    cursor.sized("Q", "header_page")
    cursor.expect(b"header_event\0")
    cursor.sized("Q", "header_event")


def _skip_ftrace_events(cursor: Cursor) -> None:
    for _ in range(cursor.number("I", "the number of events")):
        cursor.sized("Q", "an event format")


def _skip_event_formats(cursor: Cursor) -> None:
    for _ in range(cursor.number("I", "the number of event systems")):
        cursor.string("the system's name")
        _skip_ftrace_events(cursor)


V6_SECTIONS: dict[int, Callable[[Cursor], object]] = {
    HEADER_INFO: _skip_header_info,
    FTRACE_EVENTS: _skip_ftrace_events,
    EVENT_FORMATS: _skip_event_formats,
    KALLSYMS: lambda cursor: cursor.sized("I", "kallsyms"),
    PRINTK: lambda cursor: cursor.sized("I", "the printk formats"),
    CMDLINES: lambda cursor: cursor.sized("Q", "the command names"),
}


def _options_v6(cursor: Cursor) -> Iterator[tuple[int, bytes]]:
    cursor.part = "the options"
    while number := cursor.number("H", "an option's id"):
        yield number, bytes(cursor.sized("I", f"option {number}"))


def _buffer_v6(trace: TraceFile, cursor: Cursor, name: str, cpus: int, with_clock: bool) -> Buffer:
    cursor.part = "the CPU table"
    table = []
    for cpu in range(cpus):
        place = (cursor.number("Q", "a CPU's offset"), cursor.number("Q", "a CPU's size"))
        if place[1]:
            table.append(CpuData(cpu, *place))
    clock = _used_clock(bytes(cursor.sized("Q", "the clock"))) if with_clock else ""
    return Buffer(name, clock, trace.page_size, False, tuple(table), page_size_certain=False)


def _instances_v6(trace: TraceFile, cpus: int) -> Iterator[Buffer]:
    for number, data in trace.options:
        if number != BUFFER:
            continue
        option = Cursor(memoryview(data), trace.path, trace.order, base=None, part="option BUFFER")
        offset = option.number("Q", "the offset of the buffer")
        name = option.string("the buffer's name")
        if offset == 0 or offset >= len(trace.data):
            # trace-cmd puts the offset there last, and passes over it when writing fails.
            trace.notes.append(f"the data of buffer {name!r} is missing: it was not written")
            continue
        cursor = trace._cursor(offset)
        word = bytes(cursor.take(10, "'flyrecord' or 'options'"))
        options: list[tuple[int, bytes]] = []
        if word == b"options  \0":
            options = list(_options_v6(cursor))
            word = bytes(cursor.take(10, "'flyrecord'"))
        if word != b"flyrecord\0":
            raise cursor.fail(repr(word), f"'flyrecord' of buffer {name!r}")
        with_clock = any(n == TRACECLOCK for n, _ in [*trace.options, *options])
        yield _buffer_v6(trace, cursor, name, cpus, with_clock)


# --- version 7 ------------------------------------------------------------------------------------


def _read_v7(trace: TraceFile, cursor: Cursor) -> None:
    trace.compression = cursor.string("the compression", 64)
    trace.compression_version = cursor.string("the compression's version", 64)
    trace.options = list(_option_chain(trace, cursor.number("Q", "the offset of the options")))
    buffers = []
    for number, data in trace.options:
        if number == BUFFER:
            buffers.append(_buffer_v7(trace, data))
        elif number == BUFFER_TEXT:
            trace.notes.append("a latency tracer's text was passed over: it has no events to read")
        elif number in SECTION_NAMES and len(data) >= 8:
            trace.sections[number] = int(struct.unpack_from(trace.order + "Q", data)[0])
    if trace.is_cut:
        from maceproc.tracedat.recovery import recovered_buffers

        buffers += recovered_buffers(trace)
    trace.buffers = tuple(buffers)


def _option_chain(trace: TraceFile, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield the options of every section of the chain that starts at `offset`."""
    seen: set[int] = set()
    while offset and offset not in seen:
        if seen and offset >= len(trace.data):
            trace.is_cut = True
            return
        seen.add(offset)
        cursor = _section_body(trace, offset, DONE, "the options")
        (size,) = struct.unpack_from(trace.order + "Q", trace.data, offset + 8)
        trace.options_end = max(trace.options_end, offset + 16 + size)
        offset = 0
        while cursor:
            number = cursor.number("H", "an option's id")
            data = bytes(cursor.sized("I", f"option {number}"))
            if number == DONE:
                if len(data) >= 8:
                    offset = int(struct.unpack_from(trace.order + "Q", data)[0])
                break
            yield number, data


def _section_body(trace: TraceFile, offset: int, number: int, name: str) -> Cursor:
    """Return a cursor over the body of the section at `offset`, unpacked when it is packed."""
    cursor = trace._cursor(offset)
    cursor.part = name
    found = cursor.number("H", "a section's id")
    if found != number:
        raise cursor.fail(f"section {found}", f"section {number}")
    flags = cursor.number("H", "a section's flags")
    cursor.number("I", "a section's description")
    size = cursor.number("Q", "a section's size")
    if not flags & 1:
        start = cursor.position
        body = cursor.take(size, name)
        return Cursor(body, trace.path, trace.order, base=start, part=name)
    packed = cursor.number("I", "a packed size")
    unpacked = cursor.number("I", "an unpacked size")
    trace.allow(unpacked)
    body = memoryview(trace.unpacker()(cursor.take(packed, name), unpacked))
    return Cursor(body, trace.path, trace.order, base=None, part=name)


def _buffer_v7(trace: TraceFile, data: bytes) -> Buffer:
    option = Cursor(memoryview(data), trace.path, trace.order, base=None, part="option BUFFER")
    offset = option.number("Q", "the offset of the buffer")
    name = option.string("the buffer's name")
    clock = option.string("the buffer's clock")
    page_size = _page_size(option)
    cpus = [
        CpuData(
            option.number("I", "a CPU's number"),
            option.number("Q", "a CPU's offset"),
            option.number("Q", "a CPU's size"),
        )
        for _ in range(option.number("I", "the number of CPUs"))
    ]
    section = trace._cursor(offset)
    section.part = f"buffer {name!r}"
    if (found := section.number("H", "a section's id")) != BUFFER:
        raise section.fail(f"section {found}", f"section {BUFFER}")
    compressed = bool(section.number("H", "a section's flags") & 1)
    return Buffer(name, clock, page_size, compressed, tuple(c for c in cpus if c.size))


# --- both -----------------------------------------------------------------------------------------


def _check_extent(trace: TraceFile) -> None:
    """Refuse tables that claim more data than the file has: one byte belongs to one CPU."""
    cpus = [cpu for buffer in trace.buffers for cpu in buffer.cpus]
    end = 0
    for cpu in sorted(cpus, key=lambda cpu: cpu.offset):
        if cpu.offset < end:
            raise TraceFormatError(
                trace.path,
                offset=cpu.offset,
                found=f"data of CPU {cpu.cpu} over another CPU's",
                expected=f"data from byte {end} on",
            )
        end = min(cpu.offset + cpu.size, len(trace.data))
    if any(cpu.cpu >= 1 << 16 for cpu in cpus):
        raise TraceFormatError(
            trace.path, offset=None, found="a CPU number above 65535", expected="a CPU number"
        )


def _used_clock(text: bytes) -> str:
    """Return the clock in brackets: ``local [mono] boot`` -> ``mono``."""
    words = _text(text).split()
    return next((word[1:-1] for word in words if word[:1] + word[-1:] == "[]"), "")


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
