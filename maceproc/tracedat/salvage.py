"""Make a trace.dat of what a recorder left behind that died before it wrote one.

``trace-cmd record -o trace.dat`` lets a process per CPU write raw sub-buffers to ``trace.dat.cpuN``
(``trace.dat.INSTANCE.cpuN`` for an instance), and only at the end puts them into one file, with the
formats that explain them. Salvage does that end. The formats come from the running kernel, when it
is still the one that was recorded, or from any other trace.dat of that boot.

`maceproc record` adds ``trace.dat.INSTANCE.cpuN.rest``: what the kernel's ring buffer still held
when trace-cmd had ended. Its pages follow those of the piece, or those in trace.dat itself.

Source: trace-cmd 3.1.6, tracecmd/trace-record.c and trace-restore.c.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from maceproc.errors import CaptureError, TraceFormatError
from maceproc.tracedat.container import (
    BUFFER,
    CMDLINES,
    DONE,
    EVENT_FORMATS,
    FTRACE_EVENTS,
    HEADER_INFO,
    MAGIC,
    TRACECLOCK,
    TraceFile,
    open_trace,
)
from maceproc.tracedat.counting import pages_of_cpu

TRACING = Path("/sys/kernel/tracing")
ORDER = "<" if sys.byteorder == "little" else ">"
COPY_BYTES = 1 << 20
REST = ".rest"  # ends the name of a file with what was left in the ring buffer


@dataclass(frozen=True)
class Salvaged:
    """What was saved, and where it is now."""

    trace: Path
    sources: tuple[Path, ...]
    pages: int
    notes: tuple[str, ...]


def salvage(
    trace: Path, output: Path, formats: Path | None = None, clock: str = "", tracing: Path = TRACING
) -> Salvaged:
    """Make a trace.dat at `output` of the files that a recorder of `trace` left behind.

    `formats` is a trace.dat of the same boot to take the event formats from; without it they come
    from `trace` itself where that is whole, else from the running kernel, below `tracing`. `clock`
    is the trace clock that was recorded with, which the remains do not tell. Pages are copied one
    by one: memory does not grow with them.

    Raises CaptureError when nothing was left, a file is a link, formats cannot be had, or `output`
    exists.
    """
    left = find_left_behind(trace)
    if not left:
        raise CaptureError(
            f"{trace}: no {trace.name}.cpu0 or {trace.name}.INSTANCE.cpu0 beside it",
            hint="give the name that was given to `record -o`",
        )
    with ExitStack() as stack:
        pieces = {
            place: [stack.enter_context(_opened(path)) for path in paths]
            for place, paths in left.items()
        }
        whole = _whole_trace(trace, left)
        if whole is not None:
            stack.enter_context(whole)
        donor = formats or (trace if whole is not None else None)
        sections = _sections_of_file(donor) if donor else _sections_of_kernel(tracing)
        page_size = _page_size(sections[HEADER_INFO])
        notes = [] if donor else ["formats are the running kernel's: right if it was not rebooted"]
        notes += _cut_pages(left, page_size)
        chains = _chains(pieces, whole, page_size)
        pages = _write_new(output, sections, chains, page_size, clock)
    return Salvaged(
        output, tuple(path for paths in left.values() for path in paths), pages, tuple(notes)
    )


def find_left_behind(trace: Path) -> dict[tuple[str, int], list[Path]]:
    """Find the raw files of a recording: (instance, CPU) -> its piece, and the rest behind it.

    The name of the top buffer is empty.
    """
    pattern = re.compile(
        re.escape(trace.name) + rf"(?:\.(?P<name>.+))?\.cpu(?P<cpu>\d+)(?:{re.escape(REST)})?"
    )
    found: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for path in sorted(trace.parent.glob("*.cpu*")):
        if match := pattern.fullmatch(path.name):
            found[match["name"] or "", int(match["cpu"])].append(path)
    return dict(sorted(found.items()))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a piece; CaptureError for a link: what it leads to need not be a trace."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}", hint="remove it if it is a link") from error
    with os.fdopen(file, "rb", buffering=0) as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise CaptureError(f"{path}: is a link or no regular file", hint="remove it")
        yield stream


def _whole_trace(trace: Path, left: dict[tuple[str, int], list[Path]]) -> TraceFile | None:
    """Open the trace.dat that trace-cmd wrote itself, when only rests are beside it.

    While pieces are there it was not done with them, and they hold all that it was writing.
    """
    if any(not path.name.endswith(REST) for paths in left.values() for path in paths):
        return None
    if trace.is_symlink() or not trace.is_file():
        return None
    try:
        return open_trace(trace)
    except TraceFormatError:
        return None


def _cut_pages(left: dict[tuple[str, int], list[Path]], page_size: int) -> Iterator[str]:
    for path in (path for paths in left.values() for path in paths):
        cut = path.stat().st_size % page_size
        if cut:
            yield f"{path.name}: the last {cut} bytes are no whole page, left out"


Chain = Iterator[bytes | memoryview]
"""The pages of one CPU in the order of time, in blocks of whole pages."""


def _chains(
    pieces: dict[tuple[str, int], list[BinaryIO]], whole: TraceFile | None, page_size: int
) -> dict[str, dict[int, list[Chain]]]:
    """Return where the pages of every buffer and CPU come from: instance -> CPU -> chains."""
    chains: dict[str, dict[int, list[Chain]]] = defaultdict(lambda: defaultdict(list))
    for buffer in whole.buffers if whole else ():
        for cpu in buffer.cpus if whole else ():
            assert whole is not None
            chains[buffer.name][cpu.cpu].append(pages_of_cpu(whole, buffer, cpu))
    for (name, number), files in pieces.items():
        chains[name][number] += [_blocks(file, page_size) for file in files]
    return chains


def _blocks(file: BinaryIO, page_size: int) -> Iterator[bytes]:
    """Yield the whole pages of a piece, many at a time."""
    at_once = max(COPY_BYTES // page_size, 1) * page_size
    while block := file.read(at_once):
        yield block[: len(block) // page_size * page_size]


def _sections_of_file(path: Path) -> dict[int, bytes]:
    with open_trace(path) as donor:
        if donor.order != ORDER:
            raise CaptureError(f"{path}: recorded on a machine of the other byte order")
        cursors = {n: donor.section(n) for n in (HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS)}
        sections = {n: bytes(cursor.data) for n, cursor in cursors.items() if cursor is not None}
        comms = donor.section(CMDLINES)
        sections[CMDLINES] = bytes(comms.data) if comms is not None else _pack("Q", 0)
    if len(sections) < 4:
        raise CaptureError(f"{path}: has no event formats")
    return sections


def _sections_of_kernel(tracing: Path) -> dict[int, bytes]:
    try:
        page = (tracing / "events/header_page").read_bytes()
        event = (tracing / "events/header_event").read_bytes()
        systems = {
            system.name: [path.read_bytes() for path in sorted(system.glob("*/format"))]
            for system in sorted((tracing / "events").iterdir())
            if system.is_dir()
        }
        comms = (tracing / "saved_cmdlines").read_bytes()
    except OSError as error:
        raise CaptureError(
            f"{error.filename}: {error.strerror}",
            hint="run as root, or give a trace.dat of the same boot with --formats",
        ) from error
    others = {name: texts for name, texts in systems.items() if name != "ftrace" and texts}
    return {
        HEADER_INFO: b"header_page\0" + _sized(page) + b"header_event\0" + _sized(event),
        FTRACE_EVENTS: _counted(systems.get("ftrace", [])),
        EVENT_FORMATS: _pack("I", len(others))
        + b"".join(name.encode() + b"\0" + _counted(texts) for name, texts in others.items()),
        CMDLINES: _sized(comms),
    }


def _page_size(header_info: bytes) -> int:
    data = re.search(rb"char data;\s*offset:(\d+);\s*size:(\d+);", header_info)
    if data is None:
        raise CaptureError("header_page without its data field", hint="give another --formats")
    return int(data[1]) + int(data[2])


def _write_new(
    output: Path,
    sections: dict[int, bytes],
    chains: dict[str, dict[int, list[Chain]]],
    page_size: int,
    clock: str,
) -> int:
    """Write a new file that only we may read, and return its pages; nothing is left on failure."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(output, flags, 0o600)
    except FileExistsError as error:
        raise CaptureError(f"{output}: exists", hint="give another name with -o") from error
    except OSError as error:
        raise CaptureError(f"{output}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            pages = _write(stream, sections, chains, page_size, clock)
        if not pages:
            raise CaptureError(
                f"{output}: nothing to salvage: what was left holds no page of events",
                hint="the recording ended before any event was written; record again",
            )
    except BaseException as error:
        output.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CaptureError(f"{output}: {error.strerror}", hint="free some space") from error
        raise
    return pages


def _write(
    stream: BinaryIO,
    sections: dict[int, bytes],
    chains: dict[str, dict[int, list[Chain]]],
    page_size: int,
    clock: str,
) -> int:
    """Write a version 7 file, uncompressed: sections, then buffer after buffer, then options."""
    head = MAGIC + b"7\0" + bytes([ORDER == ">", struct.calcsize("l")]) + _pack("I", page_size)
    head += b"none\0\0"
    stream.write(head + bytes(8))
    options = [(TRACECLOCK, f"[{clock}]\0".encode())] if clock else []
    for number, body in sections.items():
        options.append((number, _pack("Q", stream.tell())))
        stream.write(_section(number, body))
    pages = 0
    for name, cpus in chains.items():
        place = stream.tell()
        stream.write(bytes(16))
        table = b""
        for cpu, sources in sorted(cpus.items()):
            stream.write(bytes(-stream.tell() % page_size))
            start = stream.tell()
            for chain in sources:
                for block in chain:
                    stream.write(block)
            table += _pack("IQQ", cpu, start, stream.tell() - start)
            pages += (stream.tell() - start) // page_size
        end = stream.tell()
        _write_at(stream, place, _pack("HHIQ", BUFFER, 0, 0, end - place - 16))
        about = f"{name}\0{clock}\0".encode() + _pack("II", page_size, len(cpus))
        options.append((BUFFER, _pack("Q", place) + about + table))
    end = stream.tell()
    _write_at(stream, len(head), _pack("Q", end))
    body = b"".join(_pack("HI", number, len(value)) + value for number, value in options)
    stream.write(_section(DONE, body + _pack("HIQ", DONE, 8, 0)))
    return pages


def _write_at(stream: BinaryIO, place: int, data: bytes) -> None:
    """Write at an earlier place of the file, and go back to its end."""
    stream.seek(place)
    stream.write(data)
    stream.seek(0, os.SEEK_END)


def _section(number: int, body: bytes) -> bytes:
    return _pack("HHIQ", number, 0, 0, len(body)) + body


def _counted(texts: list[bytes]) -> bytes:
    return _pack("I", len(texts)) + b"".join(map(_sized, texts))


def _sized(data: bytes) -> bytes:
    return _pack("Q", len(data)) + data


def _pack(form: str, *values: int) -> bytes:
    return struct.pack(ORDER + form, *values)
