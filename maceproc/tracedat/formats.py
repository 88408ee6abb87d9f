"""What the kernel says about its own data: the layout of a page, and of every event.

The texts are those of ``/sys/kernel/tracing/events/header_page`` and ``.../events/*/*/format``,
stored in the file. Offsets, sizes and signs come from them, never from a kernel's version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from maceproc.errors import TraceFormatError
from maceproc.tracedat.structures import Cursor
from maceproc.tracedat.tracefile import (
    CMDLINES,
    EVENT_FORMATS,
    FTRACE_EVENTS,
    HEADER_INFO,
    PRINTK,
    TraceFile,
)

# A field's line: "field:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;". The sign is
# missing before v2.6.34.
FIELD = re.compile(
    r"^[ \t]*field:\s*(?P<declaration>[^;]*);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
    r"(?:\s*signed:(?P<signed>\d+);)?",
    re.MULTILINE,
)
DECLARATION = re.compile(
    r"^(?:(?P<place>__data_loc|__rel_loc)\s+)?(?P<type>.*?)(?P<dynamic>\[\])?\s*"
    r"\b(?P<name>\w+)(?:\[(?P<length>[^\]]*)\])?$"
)
DECLARATION_LENGTH = 1000  # of the longest declaration that is taken apart [characters]

# Sizes of the element types that arrays have [bytes]; anything else is taken from size and length.
ELEMENT_SIZES = {
    **dict.fromkeys(("char", "unsigned char", "u8", "__u8", "s8", "uint8_t", "int8_t", "bool"), 1),
    **dict.fromkeys(("short", "unsigned short", "u16", "__u16", "s16", "uint16_t", "__be16"), 2),
    **dict.fromkeys(("int", "unsigned int", "unsigned", "u32", "__u32", "s32", "uint32_t"), 4),
    **dict.fromkeys(("u64", "__u64", "s64", "uint64_t", "int64_t", "long long"), 8),
    "unsigned long long": 8,
    "__be32": 4,
}
LONG_TYPES = {"long", "unsigned long", "cpumask_t", "size_t"}


@dataclass(frozen=True)
class Field:
    """One field of an event, as declared by the kernel."""

    name: str
    type: str  # C type, without array brackets: "const void *", "char", "u16"
    offset: int  # in the payload [bytes]
    size: int  # [bytes]; 4 for a dynamic field, 0 for one that runs to the end
    signed: bool
    place: str = ""  # "__data_loc" or "__rel_loc" for a dynamic field
    array: bool = False
    element_size: int = 0  # of arrays [bytes]
    is_open: bool = False  # an array that a record can end within, or go on with behind its size

    @property
    def is_pointer(self) -> bool:
        """Whether it is an address of the kernel."""
        return self.type.endswith("*") and not self.array

    @property
    def is_string(self) -> bool:
        """Whether it is a char array: text up to its first NUL."""
        return self.array and self.type.removeprefix("const ") == "char"

    @property
    def is_number(self) -> bool:
        """Whether it is one value of 1, 2, 4 or 8 bytes."""
        return not self.array and self.size in (1, 2, 4, 8)

    @property
    def to_end(self) -> bool:
        """Whether it has no size of its own and takes what is left of the event."""
        return self.array and not self.place and self.size == 0


# include/linux/trace_events.h, struct trace_entry; since v2.6.29.
COMMON_FIELDS = {
    "common_pid": Field("common_pid", "int", 4, 4, signed=True),
    "common_flags": Field("common_flags", "unsigned char", 2, 1, signed=False),
}


@dataclass(frozen=True)
class EventFormat:
    """One event type: its id in this file, names and fields."""

    id: int
    system: str
    name: str
    common: tuple[Field, ...]
    fields: tuple[Field, ...]
    print_format: str = ""

    @property
    def size(self) -> int:
        """The least a payload can have [bytes]."""
        fields = (*self.common, *self.fields, COMMON_FIELDS["common_pid"])
        return max(f.offset + (0 if f.is_open else f.size) for f in fields)

    def common_field(self, name: str) -> Field:
        """Return a ``common_...`` field: where the format says, or where it has always been."""
        found = (f for f in self.common if f.name == name)
        usual = COMMON_FIELDS[name]
        return next((f for f in found if f.size == usual.size and f.is_number), usual)


@dataclass(frozen=True)
class PageLayout:
    """The header of a ring-buffer page: where things are [bytes]."""

    commit_offset: int = 8
    commit_size: int = 8  # the kernel's long
    data_offset: int = 16


def parse_format(text: str, system: str, long_size: int = 8) -> EventFormat | None:
    """Parse an event's ``format`` text; None when it is not one.

    `long_size` [bytes] is the kernel's.
    """
    name = re.search(r"^name:\s*(\S+)", text, re.MULTILINE)
    number = re.search(r"^ID:\s*(\d{1,9})", text, re.MULTILINE)
    if not name or not number:
        return None
    body, _, tail = text.partition("print fmt:")
    fields = [_parse_field(match, long_size) for match in FIELD.finditer(body)]
    is_common = re.compile(r"common_").match
    fields = _with_open_end(name[1], fields)
    return EventFormat(
        id=int(number[1]),
        system=system,
        name=name[1],
        common=tuple(f for f in fields if is_common(f.name)),
        fields=tuple(f for f in fields if not is_common(f.name)),
        print_format=tail.strip(),
    )


def _with_open_end(event: str, fields: list[Field]) -> list[Field]:
    """Mark the last field as open, if it is an array and nothing dynamic follows it.

    A record ends where its last array does, whatever length the format declares: ``caller`` of
    kernel_stack has as many elements as the stack is deep, and not the FTRACE_STACK_ENTRIES (8) of
    the format (kernel/trace/trace.c, __ftrace_trace_stack(), v6.18).
    """
    last = max(fields, key=lambda field: field.offset, default=None)
    if last is None or not last.array or any(field.place for field in fields):
        return fields
    if (event, last.name) == ("kernel_stack", "caller"):
        opened = replace(last, size=0)
    else:
        opened = replace(last, is_open=last.size > 0)
    return [opened if field is last else field for field in fields]


def _parse_field(match: re.Match[str], long_size: int) -> Field:
    declaration = match["declaration"].strip()
    size = min(int(match["size"][:9]), 1 << 20)
    short = len(declaration) <= DECLARATION_LENGTH  # the pattern takes the square of it
    parts = DECLARATION.match(declaration) if short else None
    # A declaration C has and this grammar has not, such as a pointer to a function: its bytes.
    ctype, name, place, length = declaration, declaration, "", "?"
    if parts:
        ctype, name = parts["type"].strip(), parts["name"]
        place, length = parts["place"] or "", parts["length"]
    if place:
        size = 4  # a word that says where the data is, whatever a damaged format says
    array = bool(place) or length is not None or size not in (1, 2, 4, 8)
    return Field(
        name=name,
        type=ctype,
        offset=min(int(match["offset"][:9]), 1 << 20),
        size=size,
        signed=match["signed"] != "0" if match["signed"] else "unsigned" not in ctype,
        place=place,
        array=array,
        element_size=_element_size(ctype, size, length, place, long_size) if array else 0,
    )


def _element_size(ctype: str, size: int, length: str | None, place: str, long_size: int) -> int:
    known = ELEMENT_SIZES.get(ctype.removeprefix("const "))
    if known:
        return known
    if ctype in LONG_TYPES or ctype.endswith("*"):
        return long_size
    if not place and length and length.isdigit() and int(length) and size % int(length) == 0:
        each = size // int(length)
        return each if each in (1, 2, 4, 8) else 1
    return 1


def read_layout(trace: TraceFile) -> PageLayout:
    """Read the page layout from header_page; the usual one of 64-bit kernels without it."""
    cursor = trace.section(HEADER_INFO)
    if cursor is None:
        return PageLayout()
    cursor.expect(b"header_page\0")
    text = bytes(cursor.sized("Q", "header_page")).decode("latin-1")
    fields = {match["declaration"].split()[-1]: match for match in FIELD.finditer(text)}
    if "commit" not in fields or "data" not in fields:
        return PageLayout()
    commit, data = fields["commit"], fields["data"]
    layout = PageLayout(int(commit["offset"]), int(commit["size"]), int(data["offset"]))
    if layout not in (PageLayout(), PageLayout(8, 4, 12)):
        raise cursor.fail(str(layout), "the page header of a 32-bit or 64-bit kernel")
    return layout


def read_formats(trace: TraceFile, long_size: int = 8) -> dict[int, EventFormat]:
    """Read every event format of the file: event id -> format."""
    formats: dict[int, EventFormat] = {}
    for system, text in _format_texts(trace):
        parsed = parse_format(text, system, long_size)
        if parsed is not None and parsed.id < 1 << 16:
            formats.setdefault(parsed.id, parsed)
    return formats


def _format_texts(trace: TraceFile) -> list[tuple[str, str]]:
    texts: list[tuple[str, str]] = []

    def take_events(cursor: Cursor, system: str) -> None:
        for _ in range(cursor.number("I", "the number of events")):
            text = bytes(cursor.sized("Q", "an event format")).decode("latin-1")
            texts.append((system, text))

    if (cursor := trace.section(FTRACE_EVENTS)) is not None:
        take_events(cursor, "ftrace")
    if (cursor := trace.section(EVENT_FORMATS)) is not None:
        for _ in range(cursor.number("I", "the number of event systems")):
            take_events(cursor, cursor.string("the system's name"))
    return texts


def read_comms(trace: TraceFile) -> dict[int, str]:
    """Read the command name of every pid the kernel remembered: pid -> comm.

    The size that stands before them may be wrong: trace-cmd measures saved_cmdlines, and reads it
    again to copy it, while tasks begin and end. In version 7 the section itself says how much there
    is. (trace-cmd 3.1.6, lib/trace-cmd/trace-output.c, save_tracing_file_data())
    """
    cursor = trace.section(CMDLINES)
    if cursor is None:
        return {}
    said = cursor.number("Q", "the size of the command names")
    left = len(cursor.data) - cursor.position
    comms = {0: "<idle>"}
    for line in bytes(cursor.take(min(said, left), "the command names")).split(b"\n"):
        pid, _, comm = line.partition(b" ")
        if pid.isdigit() and len(pid) < 10:
            comms[int(pid)] = comm.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    return comms


def read_printk(trace: TraceFile) -> dict[int, str]:
    """Read the format strings of trace_printk: address -> text, its quotes and escapes undone."""
    cursor = trace.section(PRINTK)
    if cursor is None:
        return {}
    text = bytes(cursor.sized("I", "the printk formats")).decode("utf-8", "backslashreplace")
    formats = {}
    for match in re.finditer(r'^0x([0-9a-f]{1,16}) : "(.*)"$', text, re.MULTILINE):
        formats[int(match[1], 16)] = match[2].replace("\\n", "\n").replace('\\"', '"')
    return formats


def require_formats(trace: TraceFile, formats: dict[int, EventFormat]) -> None:
    """Refuse a file that has events but describes none."""
    if not formats:
        raise TraceFormatError(
            trace.path, offset=None, found="no event formats", expected="the events' formats"
        )
