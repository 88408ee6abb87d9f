# ruff: noqa: RUF001  # words of other languages
"""What one line of a ping's output says.

A form is a regular expression with what it means. It is looked for anywhere in the line: other
programs put words before it (docker compose, `ts`, syslog, a quote sign). Every quantifier has a
bound, so that a line costs no more than its length, whatever is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from maceproc.pings.flavours import ANY, Flavour
from maceproc.pings.printed import read_time, read_utc

Kind = Literal[
    "header",  # a run begins
    "prologue",  # comes before a header
    "reply",
    "late",  # no reply yet, or none in time, to an icmp_seq
    "error",  # an ICMP message about an icmp_seq
    "summary",  # how many were sent and received
    "results",  # every RTT of a run on one line
    "title",  # a summary of this target follows
    "interval",  # summaries of a part of the run follow
    "flood",  # dots
    "remark",  # worth telling, without an icmp_seq
    "known",  # understood, and nothing to keep
    "refused",  # understood to be what cannot be read
]


@dataclass(frozen=True)
class Line:
    """What a line says: its kind, who prints such a line, and its fields under PINGS' names."""

    kind: Kind
    flavours: frozenset[Flavour] = ANY
    target: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """How a line can look: a text that it must hold, an expression, and what it then means."""

    holds: str
    expression: re.Pattern[str]
    kind: Kind
    flavours: frozenset[Flavour] = ANY

    def search(self, text: str) -> re.Match[str] | None:
        """Look for the form in a line."""
        return self.expression.search(text) if self.holds in text else None


def form(holds: str, expression: str, kind: Kind, *flavours: Flavour) -> Form:
    """Declare a form; without flavours, anyone may print it."""
    return Form(holds, re.compile(expression), kind, frozenset(flavours) or ANY)


# ping -D and fping -D, right before what they print; fewer decimals are another program's stamp.
_STAMP = re.compile(r"\[(\d{9,10}\.\d{5,6})\] ?$")


def stamp_before(match: re.Match[str]) -> dict[str, Any]:
    """Return ``received_at_ns`` where `ping -D` put its time stamp before what was found."""
    stamp = _STAMP.search(match.string[max(match.start() - 40, 0) : match.start()])
    received_at_ns = read_utc(stamp[1]) if stamp else None
    return {} if received_at_ns is None else {"received_at_ns": received_at_ns}


NO_TIME = "no time was printed"
TOO_SHORT = "no time printed: the payload is too short to carry a time stamp"
SHORTEST_WITH_STAMP = 8 + 16  # struct timeval of 64-bit machines

_TIME = re.compile(r"\b(?:time|rtt)(?P<sign>=<|[=<]) ?(?P<value>.{1,40})")
_TTL = re.compile(r"\b(?:ttl|hlim|hops)=(\d{1,3})\b")


def read_rest(rest: str, size_bytes: int | None) -> dict[str, Any]:
    """Read what follows the icmp_seq of a reply: ttl, time and remarks in brackets."""
    fields: dict[str, Any] = {"message": ""}
    if ttl := _TTL.search(rest):
        fields["ttl"] = int(ttl[1])
    if time := _TIME.search(rest):
        fields |= read_rtt(time["value"], below="<" in time["sign"])
    elif "(truncated)" not in rest:
        short = size_bytes is not None and size_bytes < SHORTEST_WITH_STAMP
        fields["message"] = TOO_SHORT if short else NO_TIME
    return fields | marks(rest, fields["message"])


def read_rtt(text: str, *, below: bool = False) -> dict[str, Any]:
    """Read a printed RTT with its unit; of one not understood, a message."""
    time = read_time(text)
    shown = text.partition("(")[0].strip()
    if time is None:
        return {"message": f"the printed time {shown!r} was not understood"}
    if below:
        return {"message": f"RTT printed only as below {shown}"}
    return {"rtt_ns": time.value_ns, "rtt_resolution_ns": time.step_ns}


# What iputils adds to a reply, in the languages it is translated to (its po/*.po).
_DUPLICATE = re.compile(
    r"\((?:DUP[A-Z]{0,10}É? ?|Kaksoiskappale|YİNELENEN|ДУБЛЮВАННЯ|重复|重複|중복)!\)", re.IGNORECASE
)
_TRUNCATED = re.compile(
    r"\((?:truncated|abgeschnitten|kısaltıldı|terpotong|troncato|tronqué|truncado|trunchiat|"
    r"typistetty|zkráceno|обрізано|წაკვეთილია|切り詰められました|己截斷|已截断|잘린)\)"
)


def marks(rest: str, message: str) -> dict[str, Any]:
    """Read what is said of a reply in brackets."""
    fields: dict[str, Any] = {}
    if _DUPLICATE.search(rest):
        fields["status"] = "duplicate"
    if _TRUNCATED.search(rest):
        fields["message"] = TRUNCATED
    elif "(BAD CHECKSUM!)" in rest:
        fields |= {"status": "error", "rtt_ns": None, "rtt_resolution_ns": None}
        fields["message"] = "a reply with a wrong checksum came"
    elif "(DIFFERENT ADDRESS!)" in rest:
        fields["message"] = "; ".join(filter(None, [message, "it came from another address"]))
    return fields


TRUNCATED = "the reply was truncated"
