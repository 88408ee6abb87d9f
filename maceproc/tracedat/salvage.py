"""What a recorder left behind that died before it wrote its trace.dat.

``trace-cmd record -o trace.dat`` lets a process per CPU write raw sub-buffers to ``trace.dat.cpuN``
(``trace.dat.INSTANCE.cpuN`` for an instance), and only at the end puts them into one file, with the
formats that explain them. Salvage does that end: the formats come from the kernel that is running,
when it is still the one that was recorded, or from any other trace.dat of that boot.

Source: trace-cmd 3.1.6, tracecmd/trace-record.c and trace-restore.c.
"""

from __future__ import annotations

import re
import struct
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from maceproc.errors import CaptureError
from maceproc.tracedat.container import (
    BUFFER,
    CMDLINES,
    DONE,
    EVENT_FORMATS,
    FTRACE_EVENTS,
    HEADER_INFO,
    MAGIC,
    TRACECLOCK,
    open_trace,
)

TRACING = Path("/sys/kernel/tracing")
ORDER = "<" if sys.byteorder == "little" else ">"


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
    """Make a trace.dat at `output` of the ``.cpuN`` files a recorder of `trace` left behind.

    `formats` is a trace.dat of the same boot to take the event formats from; without it they come
    from the running kernel, below `tracing`. `clock` is the trace clock recorded with, which the
    remains do not tell.

    Raises CaptureError when nothing was left, formats cannot be had, or `output` exists.
    """
    left = find_left_behind(trace)
    if not left:
        raise CaptureError(
            f"{trace}: no {trace.name}.cpu0 or {trace.name}.INSTANCE.cpu0 beside it",
            hint="give the name that was given to `record -o`",
        )
    sections = _sections_of_file(formats) if formats else _sections_of_kernel(tracing)
    if output.exists():
        raise CaptureError(f"{output}: exists", hint="give another name with -o")
    page_size = _page_size(sections[HEADER_INFO])
    notes = [] if formats else ["formats are the running kernel's: right if it was not rebooted"]
    notes += [
        f"{path.name}: the last {path.stat().st_size % page_size} bytes are no whole page, left out"
        for buffers in left.values()
        for path in buffers.values()
        if path.stat().st_size % page_size
    ]
    try:
        with output.open("xb") as stream:
            stream.write(_file_of(sections, left, page_size, clock))
    except OSError as error:
        raise CaptureError(f"{output}: {error.strerror}") from error
    sources = tuple(path for cpus in left.values() for path in cpus.values())
    pages = sum(path.stat().st_size // page_size for path in sources)
    return Salvaged(output, sources, pages, tuple(notes))


def find_left_behind(trace: Path) -> dict[str, dict[int, Path]]:
    """Find the raw files of a recording: instance (empty for the top buffer) -> CPU -> file."""
    pattern = re.compile(re.escape(trace.name) + r"(?:\.(?P<name>.+))?\.cpu(?P<cpu>\d+)$")
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(trace.parent.glob("*.cpu*")):
        if match := pattern.match(path.name):
            found[match["name"] or ""][int(match["cpu"])] = path
    return {name: dict(sorted(cpus.items())) for name, cpus in found.items()}


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


def _file_of(
    sections: dict[int, bytes], left: dict[str, dict[int, Path]], page_size: int, clock: str
) -> bytes:
    """Put a version 7 file together, uncompressed: sections, options, then buffer after buffer."""
    head = MAGIC + b"7\0" + bytes([ORDER == ">", struct.calcsize("l")]) + _pack("I", page_size)
    head += b"none\0\0"
    data = bytearray(head + bytes(8))
    options = [(TRACECLOCK, f"[{clock}]\0".encode())] if clock else []
    for number, body in sections.items():
        options.append((number, _pack("Q", len(data))))
        data += _section(number, body)
    for name, cpus in left.items():
        place = len(data)
        table = b""
        data += bytes(16)
        for cpu, path in cpus.items():
            data += bytes(-len(data) % page_size)
            pages = path.read_bytes()
            pages = pages[: len(pages) // page_size * page_size]
            table += _pack("IQQ", cpu, len(data), len(pages))
            data += pages
        data[place : place + 16] = _pack("HHIQ", BUFFER, 0, 0, len(data) - place - 16)
        about = f"{name}\0{clock}\0".encode() + _pack("II", page_size, len(cpus))
        options.append((BUFFER, _pack("Q", place) + about + table))
    struct.pack_into(ORDER + "Q", data, len(head), len(data))
    body = b"".join(_pack("HI", number, len(value)) + value for number, value in options)
    return bytes(data + _section(DONE, body + _pack("HIQ", DONE, 8, 0)))


def _section(number: int, body: bytes) -> bytes:
    return _pack("HHIQ", number, 0, 0, len(body)) + body


def _counted(texts: list[bytes]) -> bytes:
    return _pack("I", len(texts)) + b"".join(map(_sized, texts))


def _sized(data: bytes) -> bytes:
    return _pack("Q", len(data)) + data


def _pack(form: str, *values: int) -> bytes:
    return struct.pack(ORDER + form, *values)
