"""Writes what each ping prints of a run whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_SEQ = {
    "iputils": 1,
    "oping": 1,
    **dict.fromkeys(("busybox", "inetutils", "bsd", "fping", "go", "hping"), 0),
}


@dataclass(frozen=True)
class Request:
    """One echo request: the time of its reply [us]; None: lost; and of a further one."""

    rtt_us: int | None
    again_us: int | None = None

    @property
    def answered(self) -> bool:
        return self.rtt_us is not None


def ms(rtt_us: int) -> str:
    """Print a time as iputils and fping do: three digits, but no more than three decimals."""
    value = rtt_us / 1000
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def _lines(requests: list[Request], first: int, line: Callable[[int, str], str]) -> list[str]:
    lines = []
    for number, request in enumerate(requests, start=first):
        if request.rtt_us is not None:
            lines.append(line(number % 65536, ms(request.rtt_us)))
            if request.again_us is not None:
                lines.append(line(number % 65536, ms(request.again_us)) + " (DUP!)")
    return lines


def _unix(header: str, reply: str, summary: str, last: str) -> Callable[[list[Request], int], str]:
    def write(requests: list[Request], first: int) -> str:
        sent, received = len(requests), sum(request.answered for request in requests)
        lines = [header]
        lines += _lines(requests, first, lambda seq, time: reply.format(seq=seq, time=time))
        lines += ["", "--- 192.0.2.1 ping statistics ---"]
        lines += [summary.format(sent=sent, received=received), last]
        return "".join(line + "\n" for line in lines)

    return write


def _fping(requests: list[Request], first: int) -> str:
    lines, further = [], []
    for seq, request in enumerate(requests, start=first):
        about = f"192.0.2.1 : [{seq}], "
        if request.rtt_us is None:
            lines.append(about + "timed out (NaN avg, 100% loss)")
        else:
            lines.append(f"{about}64 bytes, {ms(request.rtt_us)} ms (0.1 avg, 0% loss)")
            if request.again_us is not None:
                time = ms(request.again_us)
                further.append(f"192.0.2.1 : duplicate for [{seq}], 64 bytes, {time} ms")
    received = sum(request.answered for request in requests)
    lines += [*further, "", f"192.0.2.1 : xmt/rcv/%loss = {len(requests)}/{received}/0%"]
    return "".join(line + "\n" for line in lines)


OLD = "{sent} packets transmitted, {received} packets received, 0% packet loss"
WRITERS: dict[str, Callable[[list[Request], int], str]] = {
    "iputils": _unix(
        "PING 192.0.2.1 (192.0.2.1) 56(84) bytes of data.",
        "64 bytes from 192.0.2.1: icmp_seq={seq} ttl=63 time={time} ms",
        "{sent} packets transmitted, {received} received, 0% packet loss, time 1ms",
        "rtt min/avg/max/mdev = 0.027/0.034/0.041/0.007 ms",
    ),
    "busybox": _unix(
        "PING 192.0.2.1 (192.0.2.1): 56 data bytes",
        "64 bytes from 192.0.2.1: seq={seq} ttl=63 time={time} ms",
        OLD,
        "round-trip min/avg/max = 0.060/0.111/0.162 ms",
    ),
    "inetutils": _unix(
        "PING 192.0.2.1 (192.0.2.1): 56 data bytes",
        "64 bytes from 192.0.2.1: icmp_seq={seq} ttl=63 time={time} ms",
        OLD,
        "round-trip min/avg/max/stddev = 0.022/0.035/0.048/0.000 ms",
    ),
    "bsd": _unix(
        "PING6(56=40+8+8 bytes) 2001:db8::2 --> 2001:db8::1",
        "16 bytes from 2001:db8::1, icmp_seq={seq} hlim=63 time={time} ms",
        OLD,
        "round-trip min/avg/max/std-dev = 0.022/0.035/0.048/0.000 ms",
    ),
    "oping": _unix(
        "PING 192.0.2.1 (192.0.2.1) 56 bytes of data.",
        "56 bytes from 192.0.2.1 (192.0.2.1): icmp_seq={seq} ttl=63 time={time} ms",
        "{sent} packets transmitted, {received} received, 0.00% packet loss, time 0.1ms",
        "RTT[ms]: min = 0, median = 0, p(50) = 0, max = 0",
    ),
    "go": _unix(
        "PING 192.0.2.1 (192.0.2.1):",
        "32 bytes from 192.0.2.1: icmp_seq={seq} time={time}ms ttl=63",
        OLD,
        "round-trip min/avg/max/stddev = 1ms/1ms/1ms/0s",
    ),
    "hping": _unix(
        "HPING 192.0.2.1 (eth0 192.0.2.1): icmp mode set, 28 headers + 0 data bytes",
        "len=46 ip=192.0.2.1 ttl=64 id=2344 icmp_seq={seq} rtt={time} ms",
        OLD,
        "round-trip min/avg/max = 0.1/3.7/7.3 ms",
    ),
    "fping": _fping,
}
