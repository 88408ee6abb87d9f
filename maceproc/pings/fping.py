"""The lines of fping 2.4 to 5.4; several targets are told apart by the name before the colon.

Up to 4.4 the printed size holds the IP header too, of IPv4 (fping 5.0, CHANGELOG.md).
"""

from __future__ import annotations

import re
from typing import Any

from maceproc.pings.flavours import Flavour
from maceproc.pings.lines import Line, form, stamp_before
from maceproc.pings.output import ICMP_HEADER_BYTES
from maceproc.pings.printed import NUMBER, in_unit
from maceproc.units import NS_PER_MS

FPING: frozenset[Flavour] = frozenset({"fping"})

# "host.example (192.0.2.1) : ", filled up with spaces to the width of the longest
_TARGET = r"(?P<target>[^\s|]{1,255}(?: \([^()\s]{1,255}\))?)\s{0,255}:"

# 192.0.2.1 : [0], 64 bytes, 0.123 ms (0.12 avg, 0% loss) [<- 192.0.2.9]
_REPLY = form(
    ": [",
    rf"{_TARGET} \[(?P<seq>\d{{1,9}})\], (?P<size>\d{{1,6}}) bytes, (?P<time>{NUMBER}) ms",
    "reply",
)
_LATE = form(": [", rf"{_TARGET} \[(?P<seq>\d{{1,9}})\], timed out", "late")
_DUPLICATE = form(
    ": duplicate for [",
    rf"{_TARGET} duplicate for \[(?P<seq>\d{{1,9}})\], (?P<size>\d{{1,6}}) bytes, "
    rf"(?P<time>{NUMBER}) ms",
    "reply",
)
_SUMMARY = form(
    ": xmt/rcv/%",
    rf"{_TARGET} xmt/rcv/%(?:loss|return) = (?P<sent>\d{{1,12}})/(?P<received>\d{{1,12}})/\d",
    "summary",
)
_INTERVAL = form("[", r"(?:^|\s)\[\d{1,2}:\d\d:\d\d\]$", "interval")
_SAID = (
    form(" for ICMP Echo sent to ", r"\bICMP .{1,80} from \S+ for ICMP Echo sent to \S", "remark"),
    form(" is alive", r"\S is alive(?: \([\d.]+ ms\))?", "remark"),
    form(" is unreachable", r"\S is unreachable$", "remark"),
    form(" error while sending ping", r": error while sending ping: ", "remark"),
    form("", r"^\s+\d+ (?:targets|alive|unreachable|unknown addresses)$", "known"),
    form("", r"^\s+\d+ (?:timeouts \(|ICMP Echo|other ICMP received)", "known"),
    form("round trip time", r"[\d.]+ ms \((?:min|avg|max) round trip time\)", "known"),
    form("elapsed real time", r"sec \(elapsed real time\)", "known"),
)
# 192.0.2.1 : 0.153 - 0.116                                                        fping -C 3 -q
_RESULTS = re.compile(rf"(?:-|{NUMBER})")
_LAST_TARGET = re.compile(r"(?P<target>[^\s|]{1,255}(?: \([^()\s]{1,255}\))?)\s{0,255}$")


def read_fping(text: str) -> Line | None:
    """Read a line of fping; None when it is none of its."""
    for kind in (_REPLY, _DUPLICATE):
        if match := kind.search(text):
            status = "replied" if kind is _REPLY else "duplicate"
            fields = {"seq": int(match["seq"]), "status": status, **stamp_before(match)}
            fields |= {"size_bytes": int(match["size"]), **_rtt(match["time"])}
            if "[<- " in text[match.end() :]:
                fields["message"] = "it came from another address"
            return Line("reply", FPING, match["target"], fields)
    if match := _LATE.search(text):
        return Line("late", FPING, match["target"], {"seq": int(match["seq"])})
    if match := _SUMMARY.search(text):
        counts = {"sent": int(match["sent"]), "received": int(match["received"])}
        return Line("summary", FPING, match["target"], counts | {"alone": match.start() == 0})
    if _INTERVAL.search(text):
        return Line("interval", FPING)
    for said in _SAID:
        if said.search(text):
            return Line(said.kind, FPING)
    return None


def read_results(text: str) -> Line | None:
    """Read the line of `fping -C` that lists every RTT of a target; it can be very long."""
    before, colon, after = text.rpartition(" : ")
    values = after.split()
    if not colon or not values or not all(map(_RESULTS.fullmatch, values)):
        return None
    match = _LAST_TARGET.search(before[-600:])
    if match is None or not any("." in value or value == "-" for value in values):
        return None
    rtts = [None if value == "-" else _rtt(value) for value in values]
    return Line("results", FPING, match["target"], {"rtts": rtts})


def _rtt(text: str) -> dict[str, Any]:
    time = in_unit(text, NS_PER_MS)
    if time is None:
        return {"message": f"the printed time {text!r} was not understood"}
    return {"message": "", "rtt_ns": time.value_ns, "rtt_resolution_ns": time.step_ns}


DEFAULT_PAYLOAD_BYTES = 56
IPV4_HEADER_BYTES = 20


def payload_of(answers: list[dict[str, Any]], target: str) -> int | None:
    """Return the payload that fping's sizes tell of [bytes]; None when two are possible.

    Two decimals below 1 ms are those of fping up to 4.2, whose sizes hold the IPv4 header.
    """
    sizes = {answer["size_bytes"] for answer in answers if answer.get("size_bytes")}
    if len(sizes) != 1:
        return None
    payload = sizes.pop() - ICMP_HEADER_BYTES
    below_1_ms = [a for a in answers if (a.get("rtt_ns") or NS_PER_MS) < NS_PER_MS]
    old = any(answer["rtt_resolution_ns"] == NS_PER_MS // 100 for answer in below_1_ms)
    if ":" not in target and (old or payload - IPV4_HEADER_BYTES == DEFAULT_PAYLOAD_BYTES):
        payload -= IPV4_HEADER_BYTES
    elif payload != DEFAULT_PAYLOAD_BYTES and ":" not in target:
        return None
    return payload if payload >= 0 else None
