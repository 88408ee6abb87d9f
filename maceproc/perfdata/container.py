"""A perf.data: file, pipe or directory; its attributes, features, and the bytes of its records."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from maceproc.errors import TraceFormatError
from maceproc.perfdata.structures import (
    ARCH,
    ATTR,
    ATTR_SIZE_VER0,
    CLOCK_DATA,
    CLOCKID,
    CMDLINE,
    EVENT_DESC,
    FEATURE_BITS,
    FILE_HEADER,
    FILE_SECTION,
    HOSTNAME,
    MAGICS,
    NRCPUS,
    OSRELEASE,
    PIPE_HEADER,
    RECORD_HEADER,
    RECORD_HEADER_ATTR,
    RECORD_HEADER_FEATURE,
    RECORD_TRACING_DATA,
    TRACING_DATA,
    VERSION,
    Attr,
)
from maceproc.perfdata.walking import user_records
from maceproc.tracedat.container import MAGIC as TRACING_MAGIC
from maceproc.tracedat.container import V6_SECTIONS
from maceproc.tracedat.structures import Cursor
from maceproc.tracedat.tracefile import SECTION_NAMES, TraceFile

MAX_ATTRS = 1 << 16
TEXT_FEATURES = {HOSTNAME: "hostname", OSRELEASE: "uname", ARCH: "arch", VERSION: "perf_version"}
DIRECTORY_DATA = "data"  # and data.0, data.1, ... (tools/perf/util/data.c, v6.18)


@dataclass
class PerfFile:
    """An open perf.data."""

    path: Path
    order: str = "<"
    form: str = "file"  # file, pipe or directory
    attrs: list[Attr] = field(default_factory=list)
    features: dict[int, memoryview] = field(default_factory=dict)
    streams: list[memoryview] = field(default_factory=list)  # bytes of records
    notes: list[str] = field(default_factory=list)

    @property
    def clock(self) -> str:
        """The clock of the samples' times; empty where attributes do not agree."""
        clocks = {attr.clock for attr in self.attrs}
        return clocks.pop() if len(clocks) == 1 else ""

    def cursor(self, data: memoryview, part: str) -> Cursor:
        """Return a cursor over some bytes of the file."""
        return Cursor(data, self.path, self.order, base=None, part=part)


def is_perf_data(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as a perf.data does, or a directory has one; False if not readable."""
    file = Path(path)
    try:
        with (file / DIRECTORY_DATA if file.is_dir() else file).open("rb") as stream:
            return stream.read(8) in MAGICS
    except OSError:
        return False


def open_perf(path: str | os.PathLike[str]) -> PerfFile:
    """Open a perf.data, memory-mapped, and find its parts.

    Raises TraceFormatError when it cannot be opened, or is no perf.data.
    """
    file = Path(path)
    if file.is_dir():
        perf = read_structure(file / DIRECTORY_DATA, _mapped(file / DIRECTORY_DATA))
        parts = [own for own in file.glob(f"{DIRECTORY_DATA}.*") if own.suffix[1:].isdigit()]
        parts.sort(key=lambda own: int(own.suffix[1:]))
        perf.streams += [_mapped(own) for own in parts if own.stat().st_size]
        return replace(perf, path=file, form="directory")
    return read_structure(file, _mapped(file))


def _mapped(file: Path) -> memoryview:
    try:
        with file.open("rb") as stream:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: mmap of an empty file
        found = "an empty file" if isinstance(error, ValueError) else error.strerror or str(error)
        raise TraceFormatError(file, offset=None, found=found, expected="a perf.data") from error


def read_structure(path: Path, data: memoryview) -> PerfFile:
    """Find the parts of a perf.data: attributes, features, and where the records are."""
    order = MAGICS.get(bytes(data[:8]))
    if order is None:
        raise TraceFormatError(
            path,
            offset=0,
            found=repr(bytes(data[:8])),
            expected="PERFILE2, the start of a perf.data",
        )
    perf = PerfFile(path, order)
    cursor = Cursor(data, path, order, part="the header")
    _, size = cursor.read(PIPE_HEADER)
    if size == PIPE_HEADER.size:
        perf.form = "pipe"
        perf.streams = [data[PIPE_HEADER.size :]]
        _read_pipe(perf, perf.streams[0])
    elif size >= FILE_HEADER.size:
        cursor.position = 0
        _read_file(perf, cursor)
    else:
        raise cursor.fail(f"a header of {size} bytes", f"{PIPE_HEADER.size} or {FILE_HEADER.size}")
    if not perf.attrs:
        raise TraceFormatError(
            path, offset=None, found="no event", expected="the attributes of recorded events"
        )
    _read_names(perf)
    return perf


# --- file -----------------------------------------------------------------------------------------


def _read_file(perf: PerfFile, cursor: Cursor) -> None:
    """Read the header of a file, its attributes, and the features behind the records."""
    data = cursor.data
    _, _, attr_size, attrs_at, attrs_size, data_at, data_size, _, _, *words = cursor.read(
        FILE_HEADER
    )
    perf.attrs = list(_file_attrs(perf, data, attr_size, data[attrs_at : attrs_at + attrs_size]))
    bits = [bit for bit in range(FEATURE_BITS) if words[bit // 64] >> bit % 64 & 1]
    if data_at + data_size > len(data):
        perf.notes.append(
            f"the file ends at byte {len(data)}: {data_at + data_size - len(data)} bytes of "
            "records, and what describes them, are missing"
        )
    elif bits:
        perf.features = _features(perf, data, data_at + data_size, bits)
    if not data_size and not perf.features:
        # perf record writes the size at the end. A perf that was killed wrote neither size nor
        # features.
        data_size = max(len(data) - data_at, 0)
        perf.notes.append("perf record did not end this file: it was killed, or the disk was full")
    perf.streams = [data[data_at : data_at + data_size]]


def _features(perf: PerfFile, data: memoryview, at: int, bits: list[int]) -> dict[int, memoryview]:
    """Return the features, whose sections' places are in a table behind the records."""
    table = perf.cursor(data[at:], "the table of features")
    if len(table.data) < FILE_SECTION.size * len(bits):
        perf.notes.append("the file's features are cut off")
        return {}
    places = [tuple(table.read(FILE_SECTION)) for _ in bits]
    first = at + FILE_SECTION.size * len(bits)
    return {
        bit: data[offset : offset + size]
        for bit, (offset, size) in zip(bits, places, strict=True)
        if first <= offset and offset + size <= len(data)
    }


def _file_attrs(
    perf: PerfFile, data: memoryview, attr_size: int, section: memoryview
) -> Iterator[Attr]:
    own_size = attr_size - FILE_SECTION.size
    if own_size < ATTR_SIZE_VER0 or len(section) // attr_size > MAX_ATTRS:
        raise TraceFormatError(
            perf.path,
            offset=None,
            found=f"attributes of {attr_size} bytes",
            expected=f"at least {ATTR_SIZE_VER0 + FILE_SECTION.size} bytes, {MAX_ATTRS} at most",
        )
    for at in range(0, len(section) - attr_size + 1, attr_size):
        attr = attr_of(perf.order, section[at : at + own_size])
        ids = perf.cursor(section[at + own_size : at + attr_size], "an attribute's ids")
        offset, size = ids.read(FILE_SECTION)
        yield replace(attr, ids=_ids(perf.order, data[offset : offset + size]))


def attr_of(order: str, data: memoryview) -> Attr:
    """Parse a struct perf_event_attr; what a short one does not have is 0."""
    padded = bytes(data[: ATTR.size]).ljust(ATTR.size, b"\0")
    values = dict(
        zip(
            (name for name, _ in ATTR.fields), struct.unpack(order + ATTR.form, padded), strict=True
        )
    )
    at = ATTR.offset_of("flags")
    return Attr(
        type=values["type"],
        config=values["config"],
        sample_type=values["sample_type"],
        read_format=values["read_format"],
        flags=_bits(order, padded[at : at + 8]),
        clockid=values["clockid"],
    )


def _bits(order: str, data: bytes) -> int:
    """Return bit-fields as a number, the first field in its lowest bit.

    Big-endian machines allocate bit-fields from the highest bit of the first byte on.
    """
    if order == ">":
        data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return int.from_bytes(data, "little")


def _ids(order: str, data: memoryview) -> tuple[int, ...]:
    return struct.unpack(f"{order}{len(data) // 8}Q", data[: len(data) // 8 * 8])


# --- pipe -----------------------------------------------------------------------------------------


def _read_pipe(perf: PerfFile, data: memoryview) -> None:
    """Read attributes and features that a pipe has among its records."""
    for position, kind, size, extra in user_records(data, perf.order):
        body = data[position + RECORD_HEADER.size : position + size]
        if kind == RECORD_HEADER_ATTR:
            own_size = struct.unpack_from(perf.order + "I", body, 4)[0] if len(body) >= 8 else 0
            own_size = own_size or ATTR_SIZE_VER0
            attr = attr_of(perf.order, body[:own_size])
            perf.attrs.append(replace(attr, ids=_ids(perf.order, body[own_size:])))
        elif kind == RECORD_HEADER_FEATURE and len(body) >= 8:
            (feature,) = struct.unpack_from(perf.order + "Q", body)
            perf.features[feature] = body[8:]
        elif kind == RECORD_TRACING_DATA:
            perf.features[TRACING_DATA] = data[position + size : position + size + extra]


# --- features -------------------------------------------------------------------------------------


def _read_names(perf: PerfFile) -> None:
    """Give attributes the names and ids of feature EVENT_DESC, by their order."""
    if EVENT_DESC not in perf.features:
        return
    cursor = perf.cursor(perf.features[EVENT_DESC], "feature EVENT_DESC")
    try:
        number, attr_size = cursor.number("I", "the number"), cursor.number("I", "the size")
        for place in range(min(number, len(perf.attrs))):
            cursor.take(attr_size, "an attribute")
            ids = cursor.number("I", "the number of ids")
            name = _text(bytes(cursor.sized("I", "the name")))
            found = _ids(perf.order, cursor.take(8 * ids, "the ids"))
            attr = perf.attrs[place]
            perf.attrs[place] = replace(attr, name=name, ids=attr.ids or found)
    except TraceFormatError:
        perf.notes.append("feature EVENT_DESC is damaged: some events have no name")


def tracing_data(perf: PerfFile) -> TraceFile | None:
    """Return the kernel's formats, which a perf.data has as the head of a trace.dat of version 6.

    None where it has none. Its version is 0.5 (without command names) or 0.6
    (tools/perf/util/trace-event-info.c, v6.18).
    """
    blob = perf.features.get(TRACING_DATA)
    if blob is None:
        return None
    cursor = Cursor(blob, perf.path, perf.order, base=None, part="TRACING_DATA")
    if bytes(cursor.take(len(TRACING_MAGIC), "the magic number")) != TRACING_MAGIC:
        raise cursor.fail("another start", repr(TRACING_MAGIC))
    version = cursor.string("the version", 16)
    trace = TraceFile(perf.path, blob, version=6, notes=perf.notes)
    trace.order = cursor.order = "<>"[cursor.take(1, "the byte order")[0] & 1]
    trace.long_size = cursor.take(1, "the size of long")[0]
    trace.page_size = cursor.number("I", "the page size")
    for number, skip in V6_SECTIONS.items():
        start, cursor.part = cursor.position, SECTION_NAMES[number]
        try:
            skip(cursor)
        except TraceFormatError:
            if version != "0.5" and cursor:
                perf.notes.append(f"TRACING_DATA ends within {SECTION_NAMES[number]}")
            break
        trace.sections[number] = blob[start : cursor.position]
    return trace


def info_of(perf: PerfFile) -> dict[str, object]:
    """Return what the file says about itself, and the machine it was recorded on."""
    info: dict[str, object] = {
        "version": "perf.data",
        "form": perf.form,
        "byte_order": "little" if perf.order == "<" else "big",
    }
    for feature, name in TEXT_FEATURES.items():
        if feature in perf.features:
            info[name] = _text(bytes(perf.features[feature][4:]))
    data = perf.features.get(NRCPUS)
    if data is not None and len(data) >= 8:  # online, available (write_nrcpus())
        info["cpus"] = struct.unpack_from(perf.order + "I", data)[0]
    if CMDLINE in perf.features:
        info["command"] = _command(perf)
    data = perf.features.get(CLOCKID)
    if data is not None and len(data) >= 8:
        info["clock_resolution_ns"] = struct.unpack_from(perf.order + "Q", data)[0]
    data = perf.features.get(CLOCK_DATA)
    if data is not None and len(data) >= 24:
        _, clockid, utc, clock = struct.unpack_from(perf.order + "IIQQ", data)
        info["clock_data"] = {"clockid": clockid, "utc_ns": utc, "clock_ns": clock}
    return info


def _command(perf: PerfFile) -> list[str]:
    cursor = perf.cursor(perf.features[CMDLINE], "feature CMDLINE")
    words: list[str] = []
    try:
        for _ in range(cursor.number("I", "the number of words")):
            words.append(_text(bytes(cursor.sized("I", "a word"))))
    except TraceFormatError:
        perf.notes.append("feature CMDLINE is damaged")
    return words


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
