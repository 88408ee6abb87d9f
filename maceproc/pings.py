"""What a ping printed, into the PINGS table.

Understood are iputils ping, busybox ping and fping; lines that are none of theirs are left alone.
The step of a printed RTT is the unit of its last digit: iputils prints three decimals of a
millisecond only below 1 ms, then fewer (iputils ping/ping_common.c, gather_statistics()).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from maceproc.schema import PINGS
from maceproc.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.capture import Run

Flavour = Literal["iputils", "busybox", "fping", "unknown"]

ICMP_SEQ_MODULUS = 1 << 16
ICMP_HEADER_BYTES = 8

_STAMP = r"(?:\[(?P<stamp>\d+(?:\.\d+)?)\] ?)?"
_TIME = r"(?P<time>\d+(?:\.\d+)?) ?ms"

# 64 bytes from 192.0.2.1: icmp_seq=1 ttl=63 time=0.129 ms (DUP!)      iputils; busybox says seq=0
_REPLY = re.compile(
    _STAMP + r"(?P<size>\d+) bytes from (?P<source>.+?): "
    r"(?:icmp_|icmp6_)?(?P<word>seq|req)=(?P<seq>\d+)"
    r"(?: ident=\d+)?(?: (?:ttl|hlim)=(?P<ttl>\d+))?(?: time[=<]" + _TIME + r")?(?P<rest>.*)$"
)
# 192.0.2.1 : [0], 64 bytes, 0.123 ms (0.12 avg, 0% loss)                              fping -c
_FPING_REPLY = re.compile(
    _STAMP + r"\S+\s*: \[(?P<seq>\d+)\], (?P<size>\d+) bytes, " + _TIME + r"(?P<rest>.*)$"
)
_FPING_TIMEOUT = re.compile(_STAMP + r"\S+\s*: \[(?P<seq>\d+)\], timed out")
# From 192.0.2.254 icmp_seq=3 Destination Host Unreachable                              iputils
_ERROR = re.compile(
    _STAMP + r"From (?P<source>\S+?):? (?:\(\S+\) )?icmp_seq=(?P<seq>\d+) (?P<message>.+)$"
)
_IPUTILS_HEADER = re.compile(r"PING .* (?P<payload>\d+)(?:\(\d+\))? (?:bytes of data|data bytes)")
_BUSYBOX_HEADER = re.compile(r"PING \S+ \(\S+\): (?P<payload>\d+) data bytes")
_SUMMARY = re.compile(r"(?P<sent>\d+) packets transmitted, (?P<received>\d+) (?:packets )?received")
_FPING_SUMMARY = re.compile(r"\S+\s*: xmt/rcv/%loss = (?P<sent>\d+)/(?P<received>\d+)/")


@dataclass
class PingOutput:
    """What one run of a ping printed."""

    flavour: Flavour = "unknown"
    payload_bytes: int | None = None  # without the 8 bytes of ICMP header
    sent: int | None = None  # as its summary counts; None when it did not get that far
    received: int | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)  # one per line about an icmp_seq

    @property
    def first_seq(self) -> int:
        """The icmp_seq of the first request: iputils counts from 1, the others from 0."""
        return 1 if self.flavour == "iputils" else 0


def parse_ping(text: str) -> list[PingOutput]:
    """Read a ping's output; several runs one after another give several results.

    A run begins at its header line; output without one is a single run.
    """
    runs = [PingOutput()]
    for line in text.splitlines():
        if header := _match_header(line):
            if runs[-1] != PingOutput():
                runs.append(PingOutput())
            runs[-1].flavour, runs[-1].payload_bytes = header
        else:
            _read_line(line, runs[-1])
    for run in runs:
        _unwrap_sequence(run.answers)
        sizes = [answer["size_bytes"] for answer in run.answers if "size_bytes" in answer]
        if run.payload_bytes is None and sizes:  # fping has no header line
            run.payload_bytes = sizes[0] - ICMP_HEADER_BYTES
    return runs


def parse_runs(runs: Iterable[Run]) -> Iterator[tuple[Run, PingOutput]]:
    """Pair every run of a sidecar with what it printed."""
    for run in runs:
        yield run, parse_ping(f"{run.output}\n{run.errors}")[-1]


def pings_table(runs: Iterable[tuple[Run, PingOutput]]) -> pd.DataFrame:
    """Build PINGS: a row per answer, and one per request that no line speaks of."""
    rows: list[dict[str, Any]] = []
    for run, printed in runs:
        identity = {"round": run.round, "arm": run.arm}
        rows += [identity | row for row in (*printed.answers, *_unseen(printed))]
    rows.sort(key=lambda row: (row["round"], row["arm"]))
    return PINGS.frame({name: [row.get(name) for row in rows] for name in PINGS.names})


def _match_header(line: str) -> tuple[Flavour, int] | None:
    # busybox: "PING a (b): 56 data bytes"; iputils: "PING a (b) 56(84) bytes of data." or, IPv6,
    # "PING a (b) 56 data bytes"
    if match := _BUSYBOX_HEADER.match(line):
        return "busybox", int(match["payload"])
    if match := _IPUTILS_HEADER.match(line):
        return "iputils", int(match["payload"])
    return None


def _read_line(line: str, run: PingOutput) -> None:
    if match := _REPLY.match(line):
        if run.flavour == "unknown":
            run.flavour = "iputils" if "icmp_" in line else "busybox"
        run.answers.append(_reply(match, duplicate="DUP!" in match["rest"]))
    elif match := _FPING_REPLY.match(line):
        run.flavour = "fping"
        run.answers.append(_reply(match, duplicate="duplicate" in match["rest"]))
    elif match := _FPING_TIMEOUT.match(line):
        run.flavour = "fping"
    elif match := _ERROR.match(line):
        run.flavour = "iputils"
        run.answers.append(
            _answer(match, status="error", message=f"{match['message']} (from {match['source']})")
        )
    elif match := _SUMMARY.search(line) or _FPING_SUMMARY.match(line):
        run.sent, run.received = int(match["sent"]), int(match["received"])


def _reply(match: re.Match[str], *, duplicate: bool) -> dict[str, Any]:
    groups = match.groupdict()
    answer = _answer(match, status="duplicate" if duplicate else "replied")
    answer["size_bytes"] = int(groups["size"])
    if groups.get("ttl"):
        answer["ttl"] = int(groups["ttl"])
    if groups["time"]:
        answer["rtt_ns"], answer["rtt_resolution_ns"] = _printed_ms(groups["time"])
    else:
        answer["message"] = "no time printed: the payload is too short to carry a time stamp"
    return answer


def _answer(match: re.Match[str], *, status: str, message: str = "") -> dict[str, Any]:
    answer = {"seq": int(match["seq"]), "status": status, "message": message}
    if match["stamp"]:
        answer["received_at_ns"] = _decimal(match["stamp"], NS_PER_S)[0]
    return answer


def _printed_ms(text: str) -> tuple[int, int]:
    """Return a printed time [ms] and the step of its last digit, both in ns."""
    return _decimal(text, NS_PER_MS)


def _decimal(text: str, unit_ns: int) -> tuple[int, int]:
    # In integers: a float64 second since 1970 steps by 238 ns.
    whole, _, decimals = text.partition(".")
    step_ns = unit_ns // 10 ** len(decimals)
    return int(whole) * unit_ns + (int(decimals) * step_ns if decimals else 0), step_ns


def _unwrap_sequence(answers: list[dict[str, Any]]) -> None:
    """Count icmp_seq on where it wraps, in place; a late reply may step back, but not by half."""
    newest = answers[0]["seq"] if answers else 0
    for answer in answers:
        step = (answer["seq"] - newest) % ICMP_SEQ_MODULUS
        if step >= ICMP_SEQ_MODULUS // 2:
            step -= ICMP_SEQ_MODULUS
        answer["seq"] = newest + step
        newest = max(newest, answer["seq"])


def _unseen(run: PingOutput) -> Iterator[dict[str, Any]]:
    """Yield a row for every request that no line speaks of."""
    seen = {answer["seq"] for answer in run.answers}
    if not seen and run.sent is None:
        return
    replies = sum(answer["status"] == "replied" for answer in run.answers)
    if run.received is not None and run.received > replies:
        # ping -f prints dots, ping -q nothing.
        row = {"status": "unprinted", "message": "ping printed no line for it"}
    else:
        row = {"status": "unanswered", "message": "no reply"}
    end = run.first_seq + run.sent if run.sent is not None else max(seen) + 1
    yield from ({"seq": seq} | row for seq in range(run.first_seq, end) if seq not in seen)
