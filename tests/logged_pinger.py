"""A pinger that prints what iputils' ping prints, and keeps a log of when it sent which echo.

    python -m tests.logged_pinger LOG THREADS COUNT INTERVAL_S OPTION TARGET...

Every thread pings its target, one of those given in turn, from a raw socket of its own, and counts
from 1; the main thread alone, if THREADS is 1, pings them all one after the other. OPTION is
``hop`` or ``destination``: every request has this IPv6 extension header (RFC 3542); or ``none``.
The log has a line per answered echo: SEQ SENT_NS RTT_NS, by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

HEADERS = {"hop": socket.IPV6_HOPOPTS, "destination": socket.IPV6_DSTOPTS}
EIGHT_BYTES = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # next header, length, PadN of four
PAYLOAD = bytes(56)


def main() -> None:
    log, threads, count, interval_s, option, *targets = sys.argv[1:]
    own = [targets[number % len(targets)] for number in range(max(int(threads), len(targets)))]
    answered: list[tuple[int, int, int]] = []
    print(f"PING {targets[0]} ({targets[0]}) 56(84) bytes of data.")
    rest = (int(count), float(interval_s), option, answered)
    if int(threads) == 1:
        for number, target in enumerate(own):
            ping(number, target, *rest)
    else:
        started = [threading.Thread(target=ping, args=(*one, *rest)) for one in enumerate(own)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    sent = len(own) * int(count)
    print(f"\n--- {targets[0]} ping statistics ---")
    print(f"{sent} packets transmitted, {len(answered)} received, 0% packet loss, time 1ms")
    with Path(log).open("a", encoding="ascii") as file:
        file.writelines(f"{seq} {sent_ns} {rtt_ns}\n" for seq, sent_ns, rtt_ns in answered)


def ping(
    number: int,
    target: str,
    count: int,
    interval_s: float,
    option: str,
    answered: list[tuple[int, int, int]],
) -> None:
    """Ping a target from a socket of its own; add every answered echo to a list."""
    six = ":" in target
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    identifier = (os.getpid() + number) & 0xFFFF
    with socket.socket(family, socket.SOCK_RAW, protocol) as opened:
        if option != "none":
            opened.setsockopt(socket.IPPROTO_IPV6, HEADERS[option], EIGHT_BYTES)
        opened.settimeout(1.0)
        for seq in range(1, count + 1):
            echo = with_checksum(128 if six else 8, identifier, seq)
            sent_ns = time.monotonic_ns()
            opened.sendto(echo, (target, 0))
            rtt_ns = reply_to(opened, 129 if six else 0, 0 if six else 20, identifier, seq, sent_ns)
            if rtt_ns is not None:
                answered.append((seq, sent_ns, rtt_ns))
                shown = f"64 bytes from {target}: icmp_seq={seq} ttl=63 time={rtt_ns / 1e6:.3f} ms"
                sys.stdout.write(f"{shown}\n")
            time.sleep(interval_s)


def with_checksum(kind: int, identifier: int, seq: int) -> bytes:
    """Return an echo request; the kernel fills in the checksum of ICMPv6."""
    echo = struct.pack("!BBHHH", kind, 0, 0, identifier, seq) + PAYLOAD
    total = sum(struct.unpack(f"!{len(echo) // 2}H", echo))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", kind, 0, checksum, identifier, seq) + PAYLOAD


def reply_to(
    opened: socket.socket, kind: int, at: int, identifier: int, seq: int, sent_ns: int
) -> int | None:
    """Return the RTT of the reply to an echo [ns]; None if none came within a second."""
    while time.monotonic_ns() < sent_ns + 10**9:
        try:
            packet = opened.recv(2048)
        except OSError:
            return None
        now_ns = time.monotonic_ns()
        found, _, _, its_identifier, its_seq = struct.unpack_from("!BBHHH", packet, at)
        if (found, its_identifier, its_seq) == (kind, identifier, seq):
            return now_ns - sent_ns
    return None


if __name__ == "__main__":
    main()
