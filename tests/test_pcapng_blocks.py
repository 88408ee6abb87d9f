"""Blocks of pcapng: read back by the rules of the draft, and by Wireshark's own programs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.reporting.export.pcapng_blocks import (
    LONGEST_OPTION,
    enhanced_packet,
    interface_description,
    section_header,
)

RAW = 101
TEXTS = st.text(max_size=40)


def walk(file: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type and body of every block; the two lengths of each must agree."""
    while file:
        kind, length = struct.unpack_from("<II", file)
        assert length % 4 == 0
        assert struct.unpack_from("<I", file, length - 4) == (length,)
        yield kind, file[8 : length - 4]
        file = file[length:]


def options_in(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert data == bytes(4)
            return found
        found[code] = data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]
    return found


@given(TEXTS, TEXTS, st.integers(0, 2**64 - 1), st.binary(max_size=50))
def test_what_is_written_is_read_back(name: str, comment: str, time: int, data: bytes) -> None:
    file = section_header({"opt_comment": comment})
    file += interface_description(RAW, {"if_name": name, "if_tsresol": 9})
    file += enhanced_packet(0, time, data, {"opt_comment": comment, "epb_flags": 2})
    (_, section), (_, interface), (_, packet) = blocks = list(walk(file))
    assert [kind for kind, _ in blocks] == [0x0A0D0D0A, 1, 6]
    assert struct.unpack_from("<IHHq", section) == (0x1A2B3C4D, 1, 0, -1)
    assert options_in(section[16:]) == {1: comment.encode()}
    assert struct.unpack_from("<HHI", interface) == (RAW, 0, 0)
    assert options_in(interface[8:]) == {2: name.encode(), 9: b"\x09"}
    number, high, low, captured, original = struct.unpack_from("<IIIII", packet)
    assert (number, high << 32 | low, captured, original) == (0, time, len(data), len(data))
    assert packet[20 : 20 + captured] == data
    rest = packet[20 + (captured + 3) // 4 * 4 :]
    assert options_in(rest) == {1: comment.encode(), 2: b"\2\0\0\0"}


def test_a_text_that_is_too_long_is_cut_between_letters() -> None:
    ((_, body),) = walk(section_header({"opt_comment": "é" * LONGEST_OPTION}))
    text = options_in(body[16:])[1]
    assert len(text) == LONGEST_OPTION - 1  # of two bytes a letter
    assert set(text.decode()) == {"é"}


def test_a_text_that_is_no_utf8_is_escaped() -> None:
    ((_, body),) = walk(section_header({"opt_comment": "a\udcff"}))
    assert options_in(body[16:])[1] == rb"a\udcff"


def test_a_block_without_options_has_no_end_of_options() -> None:
    ((_, body),) = walk(section_header({}))
    assert len(body) == 16


@pytest.mark.skipif(not shutil.which("capinfos"), reason="needs capinfos")
def test_capinfos_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "t.pcapng"
    echo = bytes.fromhex("4500001c00000000400100000a0000010a000002080000000001000a")
    times_ns = (1_700_000_000_123_456_789, 1_700_000_001_123_456_790)
    with path.open("wb") as file:
        file.write(section_header({"shb_userappl": "test"}))
        file.write(interface_description(RAW, {"if_name": "eth0", "if_tsresol": 9}))
        for time_ns in times_ns:
            file.write(enhanced_packet(0, time_ns, echo, {}))
    done = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True)
    assert "Number of packets = 2" in done.stdout
    assert "Name = eth0" in done.stdout
    assert "nanosecond" in done.stdout
    assert "1.000000001 seconds" in done.stdout
