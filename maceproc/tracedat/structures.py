"""The structures of a trace.dat, declared in the specification's names, and how they are read.

Source: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from maceproc.errors import TraceFormatError


@dataclass(frozen=True)
class Structure:
    """Numbers that follow each other without gaps: their names, and a struct letter for each."""

    name: str
    fields: tuple[tuple[str, str], ...]

    @cached_property
    def form(self) -> str:
        """The struct format, without byte order."""
        return "".join(letter for _, letter in self.fields)

    @cached_property
    def size(self) -> int:
        """Its size in the file [bytes]."""
        return struct.calcsize("=" + self.form)

    def offset_of(self, name: str) -> int:
        """Return where a field starts in it [bytes]."""
        before = ""
        for field, letter in self.fields:
            if field == name:
                return struct.calcsize("=" + before)
            before += letter
        raise KeyError(name)


SECTION_HEADER = Structure(
    "a section's header",
    (("id", "H"), ("flags", "H"), ("description", "I"), ("size", "Q")),
)
COMPRESSED = 1  # a flag of SECTION_HEADER
COMPRESSION_HEADER = Structure("sizes packed and unpacked", (("packed", "I"), ("unpacked", "I")))
OPTION = Structure("an option", (("id", "H"), ("size", "I")))
CPU_DATA_V6 = Structure("a CPU's data", (("offset", "Q"), ("size", "Q")))
CPU_DATA_V7 = Structure("a CPU's data", (("cpu", "I"), ("offset", "Q"), ("size", "Q")))


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

    def read(self, structure: Structure) -> tuple[int, ...]:
        """Return the numbers of the next structure."""
        data = self.take(structure.size, structure.name)
        return struct.unpack(self.order + structure.form, data)

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
