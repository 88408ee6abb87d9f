"""The programs whose output is understood: how each counts, and who takes its receive stamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Flavour = Literal[
    "iputils", "busybox", "toybox", "inetutils", "bsd", "fping", "oping", "go", "hping", "unknown"
]

Stamp = Literal["kernel", "program"]
"""Who takes the receive time stamp: the kernel on the device, or the program when it has it."""


@dataclass(frozen=True)
class Habits:
    """What is known of one program from its source."""

    first_seq: int
    stamped_by: Stamp | None
    source: str  # where that is written


HABITS: Mapping[Flavour, Habits] = {
    # ping_common.c: pinger() sends ntransmitted + 1; SO_TIMESTAMP unless -U.
    "iputils": Habits(1, "kernel", "iputils ping/ping_common.c"),
    # networking/ping.c: sendping4() sends ntransmitted, unpack4() takes the time after recvfrom().
    "busybox": Habits(0, "program", "busybox networking/ping.c"),
    # toys/net/ping.c: ping_main() sends ++seq, and takes the time after recvfrom(), in ms.
    "toybox": Habits(1, "program", "toybox toys/net/ping.c"),
    # ping/ping.c: send_echo() sends ping_num_xmit; print_echo() takes the time by gettimeofday().
    "inetutils": Habits(0, "program", "inetutils ping/ping_echo.c"),
    # sbin/ping/ping.c of FreeBSD and macOS: ntransmitted; SO_TIMESTAMP.
    "bsd": Habits(0, "kernel", "FreeBSD sbin/ping/ping.c"),
    # src/fping.c: num_sent; SO_TIMESTAMP since 4.0, SO_TIMESTAMPNS since 5.0.
    "fping": Habits(0, "kernel", "fping src/fping.c, 4.0 and later"),
    # src/liboping.c: a host's sequence is 1 after ping_host_add(); SO_TIMESTAMP.
    "oping": Habits(1, "kernel", "liboping src/liboping.c"),
    # ping.go of go-ping and pro-bing: sequence from 0; time.Now() after ReadFrom().
    "go": Habits(0, "program", "pro-bing ping.go"),
    # hping3, sendicmp.c: from 0; rtt.c, rtt(), takes the time once libpcap has given the packet.
    "hping": Habits(0, "program", "hping3 rtt.c"),
}

ANY: frozenset[Flavour] = frozenset(HABITS)
