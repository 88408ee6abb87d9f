"""The remote that is a program: what it answers, frame by frame."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.recording.lab_remote import ALL_IPV4, IPV4, IPV6, MAC, answer, ones_complement

HOST_MAC = bytes.fromhex("02aabbccddee")
HOST, HOST_V6 = bytes([192, 0, 2, 1]), bytes.fromhex("fd6d6163650000020000000000000001")


def checksum(data: bytes) -> bytes:
    return struct.pack("!H", ones_complement(data) ^ 0xFFFF)


def echo(kind: int, body: bytes, pseudo: bytes = b"") -> bytes:
    message = bytes([kind, 0, 0, 0]) + body
    return message[:2] + checksum(pseudo + message) + message[4:]


def ipv4(message: bytes, offset: int = 0, target: bytes = IPV4) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 7, offset, 64, 1, 0) + HOST + target
    return MAC + HOST_MAC + b"\x08\x00" + head[:10] + checksum(head) + head[12:] + message


def ipv6(message: bytes, target: bytes = IPV6) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + HOST_V6 + target
    return MAC + HOST_MAC + b"\x86\xdd" + head + message


def pseudo_v6(length: int, source: bytes, target: bytes) -> bytes:
    return source + target + struct.pack("!II", length, 58)


@given(body=st.binary(min_size=4, max_size=200).filter(any))
def test_an_echo_comes_back_with_checksums_that_hold(body: bytes) -> None:
    reply = answer(ipv4(echo(8, body)))
    assert reply[:14] == HOST_MAC + MAC + b"\x08\x00"
    assert reply[26:34] == IPV4 + HOST
    assert ones_complement(reply[14:34]) == 0xFFFF
    assert reply[34] == 0
    assert reply[38:] == body
    assert ones_complement(reply[34:]) == 0xFFFF


@given(body=st.binary(min_size=4, max_size=200).filter(any))
def test_an_echo_of_ipv6_likewise(body: bytes) -> None:
    length = len(body) + 4
    reply = answer(ipv6(echo(128, body, pseudo_v6(length, HOST_V6, IPV6))))
    assert reply[22:54] == IPV6 + HOST_V6
    assert reply[54] == 129
    assert reply[58:] == body
    assert ones_complement(pseudo_v6(length, IPV6, HOST_V6) + reply[54:]) == 0xFFFF


def test_a_further_fragment_comes_back_as_it_is() -> None:
    reply = answer(ipv4(b"no header of ICMP", offset=185))
    assert reply[26:] == IPV4 + HOST + b"no header of ICMP"


def test_its_addresses_are_told() -> None:
    asked = bytes.fromhex("0001080006040001") + HOST_MAC + HOST + bytes(6) + IPV4
    told = answer(b"\xff" * 6 + HOST_MAC + b"\x08\x06" + asked)
    assert told[20:] == b"\x00\x02" + MAC + IPV4 + HOST_MAC + HOST
    advertised = answer(ipv6(echo(135, bytes(4) + IPV6)))
    message = advertised[54:]
    assert message[0] == 136
    assert message[8:] == IPV6 + b"\x02\x01" + MAC
    assert ones_complement(pseudo_v6(len(message), IPV6, HOST_V6) + message) == 0xFFFF


@pytest.mark.parametrize(
    "frame",
    [
        ipv4(echo(0, b"1234")),  # a reply
        ipv4(echo(8, b"1234"), target=HOST),  # somebody else's
        ipv6(echo(129, b"1234")),
        ipv6(echo(135, bytes(4) + HOST_V6)),
        b"\xff" * 6 + HOST_MAC + b"\x08\x06" + bytes(24) + HOST,
        b"\xff" * 6 + HOST_MAC + b"\x88\xcc" + bytes(46),  # LLDP
    ],
)
def test_what_asks_nothing_of_it_is_left_alone(frame: bytes) -> None:
    assert answer(frame) == b""


@pytest.mark.parametrize("target", ALL_IPV4)
def test_both_addresses_answer(target: bytes) -> None:
    assert answer(ipv4(echo(8, b"1234"), target=target))[26:30] == target
