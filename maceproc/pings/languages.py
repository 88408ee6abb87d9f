# ruff: noqa: RUF001  # letters and signs of other languages are what this module is about
"""iputils ping in other languages (its po/*.po), and pings that cannot be read.

A translation keeps the order of the numbers, the signs between them, and mostly ``icmp_seq=`` and
``ttl=``; the unit of its times is always the millisecond. So numbers are read by their place.
"""

from __future__ import annotations

import re
from typing import Any

from maceproc.pings.flavours import Flavour
from maceproc.pings.lines import (
    NO_TIME,
    SHORTEST_WITH_STAMP,
    TOO_SHORT,
    Line,
    form,
    marks,
    stamp_before,
)
from maceproc.pings.printed import in_unit
from maceproc.units import NS_PER_MS

IPUTILS: frozenset[Flavour] = frozenset({"iputils"})

# 64 Bytes von 192.0.2.1: icmp_seq=1 ttl=63 Zeit=0.153 ms
_REPLY = re.compile(
    r"(?<!\S)(?P<key>[^\s=]{1,20}) ?=(?P<seq>\d{1,9})(?: [^\s=]{1,12}=\d{1,9})? "
    r"(?:ttl|TTL) ?=(?P<ttl>\d{1,3})(?!\d)(?P<rest>.*)$"
)
_SIZE = re.compile(r"(?<!\S)(\d{1,6}) [^\d\s]")
_TIME = re.compile(r"[^\s=]{1,20}=(?P<number>\d{1,12}(?:\.\d{1,9})?) ?[^\s\d(.]{1,12}(?!\S)")
_OTHER_TIME = re.compile(r"[^\s=]{1,20}=(?P<shown>\d\S{0,30}(?: ?[^\s\d(.]{1,12}(?!\S))?)")
# Von 192.0.2.254 icmp_seq=3 Zielhost nicht erreichbar; noch keine Antwort für icmp_seq=3
_OTHER = re.compile(
    r"(?:(?P<source>[^\s=]{1,255}(?: \([^()\s]{1,255}\))?) )?"
    r"(?<!\S)(?:icmp_seq|icm_seq|icmp_sql|pořadí)=(?P<seq>\d{1,9})(?!\d)(?P<message>.*)$"
)
_HEADER = re.compile(
    r"(?<!\w)(?:PING|ПІНГ) (?P<name>[^\s()]{1,255}) ?\([^()\s]{1,255}(?: \([^()\s]{1,255}\))?\) "
    r"(?:[^()]{1,300}: )?(?:[^\d:()]{1,40} )?(?P<payload>\d{1,6}) ?(?:\(\d{1,6}\))?[^\d:]{1,60}$"
)
# 2 Pakete übertragen, 2 empfangen, 0% Paketverlust, Zeit 1001ms
_SUMMARY = re.compile(
    r"(?<![\d.,=])(?P<sent>\d{1,12})[^\d,，%=]{0,60}[,，] ?[^\d,，%=]{0,60}(?P<received>\d{1,12})"
    r"[^\d,，%=]{0,60}(?:, ?\+\d{1,12}[^\d,%=]{1,60}){0,3}, ?[^\d,%]{0,40}"
    r"(?:%\d|\d{1,3}(?:\.\d{1,9})? ?%)"
)
_TITLE = re.compile(r"(?:^|\s)-{2,4} \S.{0,300}\S -{2,4}$")
_RTTS = re.compile(r"\S/\S.{0,80} = \d[\d.]{0,15}/\d[\d.]{0,15}/\d")

WINDOWS = "the ping of Windows prints no icmp_seq: which reply is whose cannot be told"
_WINDOWS = (
    form("TTL=", r"[=<]\d{1,9} ?ms TTL=\d{1,3}$", "refused"),
    form("[", r"^Pinging \S+ (?:\[\S+\] )?with \d{1,6} bytes of data:?", "refused"),
    form("statistics for", r"^Ping statistics for \S+:$", "refused"),
    form("Sent = ", r"\bSent = \d+, Received = \d+, Lost = \d+", "refused"),
    form("Pinging", r"^Pinging \S+ with \d{1,6} bytes of data:", "refused"),
)


def read_windows(text: str) -> Line | None:
    """Tell a line of the ping of Windows, which cannot be read; None for any other."""
    return Line("refused") if any(windows.search(text) for windows in _WINDOWS) else None


def read_translated(text: str) -> Line | None:
    """Read a line of iputils ping that is not in English; None when it is none of its."""
    if "=" in text and (match := _REPLY.search(text)):
        return _reply(match)
    return _about_a_request(text) or _about_the_run(text)


def _about_a_request(text: str) -> Line | None:
    if "seq=" not in text and "sql=" not in text and "pořadí=" not in text:
        return None
    if match := _OTHER.search(text):
        source, message = match["source"] or "", match["message"].strip()
        if message and re.search(r"[\d.:)]", source):
            said = {"status": "error", "message": f"{message} (from {source})"}
            return Line("error", IPUTILS, "", {"seq": int(match["seq"]), **said})
        return Line("late", IPUTILS, "", {"seq": int(match["seq"])})
    return None


def _about_the_run(text: str) -> Line | None:
    if ("PING " in text or "ПІНГ " in text) and (match := _HEADER.search(text)):
        return Line("header", IPUTILS, match["name"], {"payload_bytes": int(match["payload"])})
    if "%" in text and (match := _SUMMARY.search(text)):
        counts = {"sent": int(match["sent"]), "received": int(match["received"])}
        return Line("summary", IPUTILS, "", counts)
    if _TITLE.search(text) or _RTTS.search(text):
        return Line("known", IPUTILS)
    return None


def _reply(match: re.Match[str]) -> Line:
    rest, before = match["rest"], match.string[: match.start()]
    fields: dict[str, Any] = {"seq": int(match["seq"]), "status": "replied", "message": ""}
    fields |= {"ttl": int(match["ttl"]), **_stamp(before)}
    sizes = _SIZE.findall(before)
    if sizes:
        fields["size_bytes"] = int(sizes[-1])
    time = _TIME.search(rest)
    rtt = in_unit(time["number"], NS_PER_MS) if time else None
    if rtt:
        fields |= {"rtt_ns": rtt.value_ns, "rtt_resolution_ns": rtt.step_ns}
    elif other := _OTHER_TIME.search(rest):  # 0,045 ms: iputils prints points in every language
        fields["message"] = f"the printed time {other['shown']!r} was not understood"
    else:
        short = bool(sizes) and int(sizes[-1]) < SHORTEST_WITH_STAMP
        fields["message"] = TOO_SHORT if short else NO_TIME
    return Line("reply", IPUTILS, "", fields | marks(rest, fields["message"]))


_SIZED = re.compile(r"(?<!\S)\d{1,6} [^\d\s]")


def _stamp(before: str) -> dict[str, Any]:
    """Read the stamp of `ping -D`, right before the size."""
    sized = _SIZED.search(before)
    return stamp_before(sized) if sized else {}
