"""A remote host that lies: it answers pings in every wrong way, by the number of the request.

    python tests/hostile_remote.py [WAY...]

runs in the remote's namespace, whose kernel does not answer there, and prints "ready". The ways are
taken in turn, by default all.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

ECHO_REQUEST, ECHO_REPLY = 8, 0
WAYS = (
    "honest",
    "other number",  # far from any that was sent
    "next number",  # of a request that is not sent yet
    "honest and other number",
    "twice",
    "other time",  # ping's own stamp in the payload, by which it computes the RTT
    "no payload",
    "the one before",
    "other identifier",
    "silent",
)


def way_of(seq: int, ways: Sequence[str] = WAYS) -> str:
    """Return how the request of this number is answered."""
    return ways[seq % len(ways)]


def replies(way: str, identifier: int, seq: int, payload: bytes) -> list[tuple[int, int, bytes]]:
    """Return what is sent back in this way: identifier, number and payload of each reply."""
    honest = (identifier, seq, payload)
    other = (identifier, seq ^ 0x7F00, payload)
    later = bytes([payload[0] ^ 0x55]) + payload[1:] if payload else b""
    return {
        "honest": [honest],
        "other number": [other],
        "next number": [(identifier, seq + 1, payload)],
        "honest and other number": [honest, other],
        "twice": [honest, honest],
        "other time": [(identifier, seq, later)],
        "no payload": [(identifier, seq, b"")],
        "the one before": [(identifier, seq - 1, payload)],
        "other identifier": [(identifier ^ 1, seq, payload)],
        "silent": [],
    }[way]


def checksum(data: bytes) -> int:
    """Return the checksum of an ICMP message, RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main() -> None:
    """Answer until killed."""
    ways = sys.argv[1:] or WAYS
    Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text("1")
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    print("ready", flush=True)
    while True:
        packet, (sender, _) = wire.recvfrom(65535)
        message = packet[(packet[0] & 0xF) * 4 :]
        kind, _, _, identifier, seq = struct.unpack_from("!BBHHH", message)
        if kind != ECHO_REQUEST:
            continue
        answers = replies(way_of(seq, ways), identifier, seq, message[8:])
        for other_identifier, other_seq, payload in answers:
            numbers = (other_identifier, other_seq & 0xFFFF)
            blank = struct.pack("!BBHHH", ECHO_REPLY, 0, 0, *numbers) + payload
            head = struct.pack("!BBHHH", ECHO_REPLY, 0, checksum(blank), *numbers)
            wire.sendto(head + payload, (sender, 0))


if __name__ == "__main__":
    main()
