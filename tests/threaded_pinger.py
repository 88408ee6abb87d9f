"""A pinger as programs have one inside: many threads, each with an ICMP datagram socket, icmp(7).

    python -m tests.threaded_pinger TARGET[,TARGET...] THREADS COUNT INTERVAL_S

Each thread pings one target after the other and prints ``TARGET SENT ANSWERED`` at its end. The
kernel chooses each socket's identifier; every thread counts from 1, so that numbers repeat.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

ECHO, ECHO_V6 = 8, 128


def main() -> None:
    targets, threads, count, interval_s = sys.argv[1:]
    started = [
        threading.Thread(target=ping, args=(targets.split(","), int(count), float(interval_s)))
        for _ in range(int(threads))
    ]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def ping(targets: list[str], count: int, interval_s: float) -> None:
    for target in targets:
        answered = sum(one(target, count, interval_s))
        sys.stdout.write(f"{target} {count} {answered}\n")


def one(target: str, count: int, interval_s: float) -> list[bool]:
    """Ping a target from a socket of its own; tell of each echo whether it was answered."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if ":" in target else socket.IPPROTO_ICMP
    answered = []
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as opened:
        opened.settimeout(1.0)
        opened.connect((target, 0))
        for seq in range(1, count + 1):
            kind = ECHO_V6 if ":" in target else ECHO
            opened.send(struct.pack("!BBHHH", kind, 0, 0, 0, seq) + os.urandom(32))
            try:
                answered.append(struct.unpack_from("!H", opened.recv(2048), 6)[0] == seq)
            except OSError:
                answered.append(False)
            time.sleep(interval_s)
    return answered


if __name__ == "__main__":
    main()
