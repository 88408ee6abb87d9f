"""What a trace.dat consists of and where it is, without looking into an event.

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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from maceproc.errors import TraceFormatError
from maceproc.tracedat.structures import (
    COMPRESSED,
    CPU_DATA_V6,
    CPU_DATA_V7,
    OPTION,
    SECTION_HEADER,
    Cursor,
)
from maceproc.tracedat.tracefile import (
    BUFFER,
    BUFFER_TEXT,
    CMDLINES,
    CPUCOUNT,
    DONE,
    EVENT_FORMATS,
    FTRACE_EVENTS,
    HEADER_INFO,
    KALLSYMS,
    PRINTK,
    SECTION_NAMES,
    TRACECLOCK,
    Buffer,
    CpuData,
    TraceFile,
    section_body,
    text_of,
)

# salvage.py and recovery.py write and find the same parts.
__all__ = [
    "BUFFER",
    "CMDLINES",
    "DONE",
    "EVENT_FORMATS",
    "FTRACE_EVENTS",
    "HEADER_INFO",
    "MAGIC",
    "TRACECLOCK",
    "Buffer",
    "CpuData",
    "TraceFile",
    "is_trace_dat",
    "open_trace",
    "read_structure",
]

MAGIC = b"\x17\x08\x44tracing"

TSC_CONVERTED = "tsc2nsec"  # the clock's name when TSC2NSEC is to be applied

# [bytes]; a kernel's sub-buffer has 128 pages at most, of 64 KiB on some machines
# (kernel/trace/trace.c, buffer_subbuf_size_write(), since v6.8).
MAX_PAGE = 1 << 26


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
    cpus = _cpu_count(trace, cursor, cpus)
    if word == b"latency  \0":
        trace.notes.append("the file holds a latency tracer's text, which has no events to read")
        return
    if word != b"flyrecord\0":
        raise cursor.fail(repr(word), "'flyrecord' or 'latency'")
    top = _buffer_v6(trace, cursor, "", cpus, trace.option(TRACECLOCK) is not None)
    trace.buffers = (top, *_instances_v6(trace, cpus))


def _cpu_count(trace: TraceFile, cursor: Cursor, cpus: int) -> int:
    """Return the number of CPUs that the table has, which option CPUCOUNT can raise.

    Other programs use the option's number for what they like: gpuvis writes ``pid tgid`` lines.
    The option counts only if it is one number and the file has room for so many CPUs.
    """
    stored = trace.option(CPUCOUNT)
    if stored is None:
        return cpus
    if len(stored) == 4:
        counted = int(struct.unpack(trace.order + "I", stored)[0])
        room = (len(trace.data) - cursor.position) // CPU_DATA_V6.size
        if cpus <= counted <= room:
            return counted
    trace.notes.append(f"option {CPUCOUNT} is no number of CPUs, passed over ({len(stored)} bytes)")
    return cpus


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
        offset, size = cursor.read(CPU_DATA_V6)
        if size:
            table.append(CpuData(cpu, offset, size))
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
        cursor = trace.cursor_at(offset)
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
        cursor = section_body(trace, offset, DONE, "the options")
        *_, size = trace.cursor_at(offset).read(SECTION_HEADER)
        trace.options_end = max(trace.options_end, offset + SECTION_HEADER.size + size)
        offset = 0
        while cursor:
            number, size = cursor.read(OPTION)
            data = bytes(cursor.take(size, f"option {number}"))
            if number == DONE:
                if len(data) >= 8:
                    offset = int(struct.unpack_from(trace.order + "Q", data)[0])
                break
            yield number, data


def _buffer_v7(trace: TraceFile, data: bytes) -> Buffer:
    option = Cursor(memoryview(data), trace.path, trace.order, base=None, part="option BUFFER")
    offset = option.number("Q", "the offset of the buffer")
    name = option.string("the buffer's name")
    clock = option.string("the buffer's clock")
    page_size = _page_size(option)
    number_of_cpus = option.number("I", "the number of CPUs")
    cpus = [CpuData(*option.read(CPU_DATA_V7)) for _ in range(number_of_cpus)]
    section = trace.cursor_at(offset)
    section.part = f"buffer {name!r}"
    found, flags, _, _ = section.read(SECTION_HEADER)
    if found != BUFFER:
        section.position = offset
        raise section.fail(f"section {found}", f"section {BUFFER}")
    return Buffer(
        name, clock, page_size, bool(flags & COMPRESSED), tuple(c for c in cpus if c.size)
    )


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
    words = text_of(text).split()
    return next((word[1:-1] for word in words if word[:1] + word[-1:] == "[]"), "")
