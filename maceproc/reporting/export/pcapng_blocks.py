"""The blocks of a pcapng file that we write, as bytes.

draft-ietf-opsawg-pcapng, section 4. A block is its type, its length, its fields, its options, and
its length again; everything is filled up to 32 bits. What a block and an option is made of is
declared below, in the words of the draft. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

BYTE_ORDER_MAGIC = 0x1A2B3C4D
LENGTH_UNKNOWN = -1  # of a section that is written as it comes
END_OF_OPTIONS = bytes(4)  # opt_endofopt: code 0, length 0
LONGEST_OPTION = 0xFFFF  # [bytes]; its length is a 16-bit number


@dataclass(frozen=True)
class Option:
    """One kind of option: its code, and the `struct` letter of its value; empty for a text."""

    code: int
    form: str = ""

    def packed(self, value: object) -> bytes:
        """Return the value as bytes; a text that is too long for an option is cut."""
        if self.form:
            return struct.pack(f"<{self.form}", value)
        text = str(value).encode("utf-8", "backslashreplace")[:LONGEST_OPTION]
        return text.decode("utf-8", "ignore").encode()  # no half of a letter at the end


@dataclass(frozen=True)
class Block:
    """One kind of block: its type, the `struct` letters of its fields, its options by name."""

    type: int
    form: str
    options: Mapping[str, Option]


COMMENT = {"opt_comment": Option(1)}

SECTION_HEADER = Block(  # 4.1
    0x0A0D0D0A,
    "IHHq",  # byte-order magic, major version, minor version, section length
    COMMENT | {"shb_os": Option(3), "shb_userappl": Option(4)},
)
INTERFACE_DESCRIPTION = Block(  # 4.2
    1,
    "HHI",  # link type, reserved, snap length: 0 is no limit
    COMMENT | {"if_name": Option(2), "if_tsresol": Option(9, "B")},
)
ENHANCED_PACKET = Block(  # 4.3
    6,
    "IIIII",  # interface, time stamp high and low, captured length, original length
    COMMENT | {"epb_flags": Option(2, "I")},
)


def section_header(options: Mapping[str, object]) -> bytes:
    """Return the block that begins a file, of version 1.0."""
    return _encode(SECTION_HEADER, (BYTE_ORDER_MAGIC, 1, 0, LENGTH_UNKNOWN), b"", options)


def interface_description(link_type: int, options: Mapping[str, object]) -> bytes:
    """Return the block of an interface; interfaces are numbered in their order, from 0."""
    return _encode(INTERFACE_DESCRIPTION, (link_type, 0, 0), b"", options)


def enhanced_packet(interface: int, time: int, data: bytes, options: Mapping[str, object]) -> bytes:
    """Return the block of a packet; `time` is in the unit that its interface declares."""
    high, low = divmod(time, 1 << 32)
    fields = (interface, high, low, len(data), len(data))
    return _encode(ENHANCED_PACKET, fields, data, options)


def _encode(
    block: Block, fields: tuple[int, ...], data: bytes, options: Mapping[str, object]
) -> bytes:
    body = struct.pack(f"<{block.form}", *fields) + _filled(data)
    for name, value in options.items():
        option = block.options[name]
        packed = option.packed(value)
        body += struct.pack("<HH", option.code, len(packed)) + _filled(packed)
    if options:
        body += END_OF_OPTIONS
    length = len(body) + 12
    return struct.pack("<II", block.type, length) + body + struct.pack("<I", length)


def _filled(data: bytes) -> bytes:
    """Fill bytes up to a multiple of 32 bits."""
    return data + bytes(-len(data) % 4)
