"""An open trace.dat: its parts, and the bytes they are made of.

container.py finds the parts; here they are read, and unpacked, only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from maceproc.errors import TraceFormatError
from maceproc.tracedat.structures import COMPRESSED, COMPRESSION_HEADER, SECTION_HEADER, Cursor
from maceproc.tracedat.unpacking import UNPACKERS, Unpacker

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

# A file may not unpack to more than this: a few bytes of zstd can claim gigabytes. Real files
# stay below a ratio of 100, pages of 64 KiB with a single event in them.
UNPACKED_SLACK, UNPACKED_RATIO = 1 << 26, 200


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
        return text_of(self.option(wanted) or b"")

    def section(self, number: int) -> Cursor | None:
        """Return a cursor over a metadata section (HEADER_INFO, ...); None when not there."""
        place = self.sections.get(number)
        if place is None:
            return None
        name = SECTION_NAMES[number]
        if isinstance(place, memoryview):
            return Cursor(place, self.path, self.order, base=None, part=name)
        return section_body(self, place, number, name)

    def chunks(self, buffer: Buffer, cpu: CpuData) -> Iterator[Chunk]:
        """Yield a CPU's compressed chunks, in order; stops, with a note, where the file ends."""
        # The stored size is not trusted: trace-cmd 3.1.6 leaves the chunk count out of it.
        cursor = self.cursor_at(cpu.offset)
        for left in range(cursor.number("I", "the number of chunks"), 0, -1):
            try:
                packed, unpacked = cursor.read(COMPRESSION_HEADER)
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
        return make(self.path)

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

    def cursor_at(self, position: int) -> Cursor:
        """Return a cursor at a byte of the file; TraceFormatError when the file ends before it."""
        cursor = Cursor(self.data, self.path, self.order)
        if position > len(self.data):
            cursor.position = len(self.data)
            raise cursor.fail("the end of the file", f"data at byte {position}", "it is cut short")
        cursor.position = position
        return cursor


def section_body(trace: TraceFile, offset: int, number: int, name: str) -> Cursor:
    """Return a cursor over the body of the section at `offset`, unpacked when it is packed."""
    cursor = trace.cursor_at(offset)
    cursor.part = name
    found, flags, _, size = cursor.read(SECTION_HEADER)
    if found != number:
        cursor.position = offset
        raise cursor.fail(f"section {found}", f"section {number}")
    if not flags & COMPRESSED:
        start = cursor.position
        body = cursor.take(size, name)
        return Cursor(body, trace.path, trace.order, base=start, part=name)
    packed, unpacked = cursor.read(COMPRESSION_HEADER)
    trace.allow(unpacked)
    body = memoryview(trace.unpacker()(cursor.take(packed, name), unpacked))
    return Cursor(body, trace.path, trace.order, base=None, part=name)


def text_of(data: bytes) -> str:
    """Return bytes as text, up to the first NUL."""
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
