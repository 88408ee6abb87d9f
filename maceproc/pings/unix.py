"""The lines of iputils, busybox, toybox, inetutils, BSD and macOS ping, oping, hping, Go's pingers.

They have a common ancestor, so one line can be several programs'; each form says whose.
"""

from __future__ import annotations

import re
from typing import Any

from maceproc.pings.lines import Form, Line, form, read_rest, stamp_before

_NAME = r"(?P<name>[^\s()]{1,255})"
_ADDRESS = r"\((?P<address>[^()\s]{1,255}(?: \([^()\s]{1,255}\))?)\)"
_PAYLOAD = r"(?P<payload>\d{1,6})"

HEADERS: tuple[Form, ...] = (
    # PING 192.0.2.1 (192.0.2.1) from 192.0.2.7 eth0: 56(84) bytes of data.
    form(
        "bytes of data",
        rf"\bPING {_NAME} ?{_ADDRESS} .{{0,400}}?\b{_PAYLOAD}\(\d{{1,6}}\) bytes of data",
        "header",
        "iputils",
    ),
    # PING localhost (127.0.0.1) 56 bytes of data.
    form(
        "bytes of data", rf"\bPING {_NAME} {_ADDRESS} {_PAYLOAD} bytes of data", "header", "oping"
    ),
    # PING 192.0.2.1 (192.0.2.1): 56 data bytes, id 0x046a = 1130
    form(
        "data bytes, id",
        rf"\bPING {_NAME} {_ADDRESS}: {_PAYLOAD} data bytes, id 0x",
        "header",
        "inetutils",
    ),
    # PING 192.0.2.1 (192.0.2.1): 56 data bytes
    form(
        "data bytes",
        rf"\bPING {_NAME} {_ADDRESS}: {_PAYLOAD} data bytes",
        "header",
        *("busybox", "inetutils", "bsd"),
    ),
    # PING 192.0.2.1 (192.0.2.1) from 198.51.100.2: 56 data bytes
    form(
        "data bytes",
        rf"\bPING {_NAME} {_ADDRESS} from [^\s]{{1,255}}[^\s:]: {_PAYLOAD} data bytes$",
        "header",
        *("busybox", "bsd"),
    ),
    # PING ::1(::1) from ::1 lo: 56 data bytes; PING ::1 (::1) 56 data bytes
    form(
        "data bytes",
        rf"\bPING {_NAME} ?{_ADDRESS} (?:.{{0,400}}[ :] )?{_PAYLOAD} data bytes",
        "header",
        "iputils",
    ),
    # Ping 192.0.2.1 (192.0.2.1) from eth0 (192.0.2.7): 56(84) bytes.
    form(
        "Ping ",
        rf"\bPing {_NAME} {_ADDRESS}(?: from \S{{1,255}} \([^()\s]{{1,255}}\))?: "
        rf"{_PAYLOAD}\(\d{{1,6}}\) bytes\.",
        "header",
        "toybox",
    ),
    # PING6(56=40+8+8 bytes) 2001:db8::2 --> 2001:db8::1
    form(
        "PING6(",
        rf"\bPING6\(\d{{1,6}}=40\+8\+{_PAYLOAD} bytes\) \S{{1,255}} --> (?P<name>\S{{1,255}})",
        "header",
        "bsd",
    ),
    # PING 192.0.2.1 (192.0.2.1): sending timestamp requests
    form(
        "requests",
        rf"\bPING {_NAME} {_ADDRESS}: sending \w{{1,20}} requests",
        "header",
        "inetutils",
    ),
    # PING 192.0.2.1 (192.0.2.1):
    form("PING", rf"\bPING {_NAME} {_ADDRESS}:$", "header", "go"),
    # HPING 192.0.2.1 (eth0 192.0.2.1): icmp mode set, 28 headers + 0 data bytes
    form(
        "HPING",
        rf"\bHPING {_NAME} \([^()]{{1,300}}\): icmp mode set, \d{{1,3}} headers \+ {_PAYLOAD} data",
        "header",
        "hping",
    ),
)

_REPLY = form(
    " bytes from ",
    r"(?<![\d.])(?P<size>\d{1,6}) bytes from (?P<source>[^=]{1,300}?)(?P<comma>[:,]) "
    r"(?P<word>icmp_seq|icmp_req|icmp6_seq|seq)=(?P<seq>\d{1,9})(?!\d)(?P<rest>.*)$",
    "reply",
)
# len=46 ip=192.0.2.1 ttl=64 id=2344 icmp_seq=0 rtt=0.1 ms
_HPING_REPLY = form(
    "len=",
    r"\blen=\d{1,6} ip=\S{1,100} "
    r"(?P<rest>ttl=\d{1,3} .{0,60}icmp_seq=(?P<seq>\d{1,9}) rtt=.{1,40})$",
    "reply",
    "hping",
)
# From 192.0.2.254 icmp_seq=3 Destination Host Unreachable; busybox and BSD do not tell the icmp_seq
_ERROR = form(
    "From ",
    r"\bFrom (?P<source>[^=]{1,300}?):? icmp_seq=(?P<seq>\d{1,9}) ?(?P<message>.{1,300})$",
    "error",
    "iputils",
)
LATE: tuple[Form, ...] = (
    form(
        "no answer yet", r"\bno answer yet for icmp_seq=(?P<seq>\d{1,9})(?!\d)", "late", "iputils"
    ),
    form("timeout", r"\bRequest timeout for icmp_seq (?P<seq>\d{1,9})(?!\d)", "late", "bsd"),
    form(
        "timeout",
        r"\becho reply from (?P<source>[^=]{1,300}?): icmp_seq=(?P<seq>\d{1,9}) timeout",
        "late",
        "oping",
    ),
)
_COUNTS = r"(?<!\d)(?P<sent>\d{1,12}) packets? tra(?:ns)?mitted, (?P<received>\d{1,12}) "
SUMMARIES: tuple[Form, ...] = (
    form(
        "duplicates, ", _COUNTS + r"packets received, \d+ duplicates, ", "summary", "go", "busybox"
    ),
    form(
        "received", _COUNTS + r"packets received, .{0,80}\d\.\d% packet", "summary", "bsd", "hping"
    ),
    form(
        "received",
        _COUNTS + r"packets received",
        "summary",
        *("busybox", "inetutils", "bsd", "go", "hping"),
    ),
    form("received", _COUNTS + r"received, .{0,80}\.\d\d% packet loss", "summary", "oping"),
    form("received", _COUNTS + r"received, \d{1,3}% packet loss$", "summary", "toybox", "iputils"),
    form("received", _COUNTS + r"received", "summary", "iputils", "oping"),
)
_TITLE = form("--", r"(?:^|[^-])-{2,4} (?P<name>\S{1,255}) h?ping6? statistics? -{2,4}", "title")

# Lines that carry no icmp_seq and are of use only to tell who printed them.
KNOWN: tuple[Form, ...] = (
    form("rtt min/avg/max/mdev", r"\brtt min/avg/max/mdev", "known", "iputils"),
    form("std-dev", r"\bround-trip min/avg/max/std-dev", "known", "bsd"),
    form("stddev", r"\bround-trip min/avg/max/stddev", "known", "inetutils", "bsd", "go"),
    form(
        "round-trip",
        r"\bround-trip min/avg/max = ",
        "known",
        *("busybox", "toybox", "hping", "bsd"),
    ),
    form("RTT[ms]", r"RTT\[ms\]: ", "known", "oping"),
    form("pipe ", r"(?:^|\s)pipe \d+$", "known", "iputils"),
    form("iputils", r"\bping from iputils", "known", "iputils"),
    form("ai->ai_", r"\bai->ai_family", "prologue", "iputils"),
    form("PATTERN", r"\bPATTERN: 0x", "prologue"),
    form(" packets, ", r"\d+/\d+ packets, \d+% loss", "known"),
    form("\t", r"^\s*(?:RR:|TS:|[LS]SRR:)?\s*\t\s*\S+( \(\S+\))?(\t.*)?$", "known"),
    form("icmp_", r"\bicmp_[ort]time = \d+", "known"),
    form("wrong data byte", r"\bwrong data byte #\d+ should be ", "remark"),
    form("#", r"(?:^|\s)#\d+\t[0-9a-f ]+$", "known"),
    form("IP Hdr Dump", r"\bIP Hdr Dump:", "known"),
    form("Vr HL TOS", r"\bVr HL TOS +Len", "known"),
    form(" ", r"^ ?[46] +5 +[0-9a-f]{2} [0-9a-f]{4} [0-9a-f]{4} ", "known"),
    form("Unrecorded hops", r"\bUnrecorded hops: \d+", "known"),
    form("NOP", r"^NOP$", "known"),
    form("bytes from", r"(?<![\d.])\d{1,6} bytes from [^=]{1,300}: [A-Z][A-Za-z ]{3,60}", "remark"),
    form("arning: ", r"\b[Ww]arning: .", "remark"),
    form("WARNING: ", r"\bWARNING: .", "remark"),
    form(
        "ping",
        r"(?:^|[\s/\]])(?:sudo: )?(?:(?:busybox|inetutils|iputils)[- ])?[fo]?ping[46]?: .{2,}",
        "remark",
    ),
)
# ping -f: a dot for each request that was not answered, or not yet; an E or C for a bad one.
_FLOOD = frozenset(".EC ")


def read_unix(text: str) -> Line | None:
    """Read a line of one of these programs; None when it is none of theirs."""
    if match := _REPLY.search(text):
        return _reply(match)
    if match := _HPING_REPLY.search(text):
        fields = {"seq": int(match["seq"]), "status": "replied", **read_rest(match["rest"], None)}
        return Line("reply", _HPING_REPLY.flavours, "", fields)
    if match := _ERROR.search(text):
        message = f"{match['message'].strip()} (from {match['source']})"
        fields = {"seq": int(match["seq"]), "status": "error", "message": message}
        return Line("error", _ERROR.flavours, "", fields | stamp_before(match))
    for late in LATE:
        if match := late.search(text):
            source = match.groupdict().get("source") or ""
            return Line("late", late.flavours, source, {"seq": int(match["seq"])})
    return _about_the_run(text)


def _about_the_run(text: str) -> Line | None:
    for header in HEADERS:
        if match := header.search(text):
            payload = match.groupdict().get("payload")
            fields: dict[str, Any] = {"payload_bytes": None if payload is None else int(payload)}
            fields["address"] = match.groupdict().get("address") or ""
            return Line("header", header.flavours, match["name"], fields)
    for summary in SUMMARIES:
        if match := summary.search(text):
            counts = {"sent": int(match["sent"]), "received": int(match["received"])}
            return Line("summary", summary.flavours, "", counts)
    if match := _TITLE.search(text):
        return Line("title", _TITLE.flavours, match["name"])
    for known in KNOWN:
        if known.search(text):
            return Line(known.kind, known.flavours)
    return read_flood(text)


def read_flood(text: str) -> Line | None:
    """Read the dots of a flood: all are on one line, however many; None when it is no such line."""
    return Line("flood") if "." in text and _FLOOD.issuperset(text) else None


def _reply(match: re.Match[str]) -> Line:
    """Read a reply: who printed it shows in the word before the number and in the time's form."""
    size_bytes, rest = int(match["size"]), match["rest"]
    fields: dict[str, Any] = {
        "seq": int(match["seq"]),
        "status": "replied",
        "size_bytes": size_bytes,
        **stamp_before(match),
        **read_rest(rest, size_bytes),
    }
    if match["comma"] == ",":
        return Line("reply", frozenset({"bsd"}), match["source"], fields)
    if match["word"] == "seq":
        return Line("reply", frozenset({"busybox"}), match["source"], fields)
    if match["word"] in ("icmp_req", "icmp6_seq"):
        return Line("reply", frozenset({"iputils", "busybox"}), match["source"], fields)
    if re.match(r" time=[\d.hm]+[µμnum]?s(?: |$)", rest):
        return Line("reply", frozenset({"go"}), match["source"], fields)
    return Line("reply", _whose(match["source"], rest), match["source"], fields)


def _whose(source: str, rest: str) -> frozenset[Any]:
    """Tell whose ``icmp_seq=`` line it is by what only some of them print."""
    if "ident=" in rest or "(truncated)" in rest:
        return frozenset({"iputils"})
    if "(" in source:  # name and address: the others print the address alone
        return frozenset({"iputils", "oping"})
    if "time=" not in rest or re.search(r" time=\d+ ms$", rest):
        return frozenset({"iputils", "toybox", "inetutils", "bsd"})
    return frozenset({"iputils", "inetutils", "bsd"})
