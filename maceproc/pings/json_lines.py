"""JSON that pings print: `fping -J` (5.3 and later) and `ping -j` of iputils."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from maceproc.pings.flavours import Flavour
from maceproc.pings.fping import FPING
from maceproc.pings.lines import NO_TIME, SHORTEST_WITH_STAMP, TOO_SHORT, TRUNCATED, Line
from maceproc.pings.printed import in_unit
from maceproc.units import NS_PER_MS

IPUTILS: frozenset[Flavour] = frozenset({"iputils"})
LARGEST_SEQ = 10**9


def read_json(text: str) -> Line | None:
    """Read a line that holds one JSON object of a ping; None when there is none."""
    start = text.find("{")
    if start < 0 or not text.rstrip().endswith("}"):
        return None
    try:
        # Numbers stay text: how many decimals were printed is the step of an RTT.
        said = json.loads(text[start:], parse_float=str, parse_int=_bounded)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    for name, read in _OF_FPING.items():
        inner = said.get(name)
        if isinstance(inner, dict):
            return read(inner)
    return _of_iputils(said, duplicate="(DUP!)" in text[:start])


def _bounded(digits: str) -> int | str:
    return int(digits) if len(digits) <= 12 else digits


def _number(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_SEQ
    return value if fits else None


def _rtt(value: Any) -> dict[str, Any]:
    time = in_unit(str(value), NS_PER_MS)
    if time is None:
        return {"message": f"the printed time {str(value)[:40]!r} was not understood"}
    return {"message": "", "rtt_ns": time.value_ns, "rtt_resolution_ns": time.step_ns}


def _fping_reply(said: dict[str, Any], status: str = "replied") -> Line | None:
    seq = _number(said, "seq")
    if seq is None or "rtt" not in said:
        return None
    fields = {"seq": seq, "status": status, "size_bytes": _number(said, "size")}
    return Line("reply", FPING, _host(said), fields | _rtt(said["rtt"]))


def _fping_duplicate(said: dict[str, Any]) -> Line | None:
    return _fping_reply(said, "duplicate")


def _fping_timeout(said: dict[str, Any]) -> Line | None:
    seq = _number(said, "seq")
    return None if seq is None else Line("late", FPING, _host(said), {"seq": seq})


def _fping_summary(said: dict[str, Any]) -> Line | None:
    sent, received = _number(said, "xmt"), _number(said, "rcv")
    if sent is None or received is None:
        return None
    return Line("summary", FPING, _host(said), {"sent": sent, "received": received})


def _fping_results(said: dict[str, Any]) -> Line | None:
    values = said.get("values")
    if not isinstance(values, list):
        return None
    rtts = [None if value in (None, "-") else _rtt(value) for value in values]
    return Line("results", FPING, _host(said), {"rtts": rtts})


def _known(_said: dict[str, Any]) -> Line | None:
    return Line("known", FPING)


_OF_FPING: Mapping[str, Callable[[dict[str, Any]], Line | None]] = {
    "resp": _fping_reply,
    "dup": _fping_duplicate,
    "duplicate": _fping_duplicate,
    "timeout": _fping_timeout,
    "summary": _fping_summary,
    "vSum": _fping_results,
    "intSum": _known,
    "stats": _known,
    "alive": _known,
    "unreachable": _known,
}


def _host(said: Mapping[str, Any]) -> str:
    host = said.get("host")
    return host[:255] if isinstance(host, str) else ""


def _of_iputils(said: dict[str, Any], *, duplicate: bool) -> Line | None:
    """Read an object of `ping -j` (iputils ping/ping_json.c): flat, with text for the time."""
    seq, size_bytes = _number(said, "seq"), _number(said, "bytes")
    if seq is not None and size_bytes is not None:
        fields: dict[str, Any] = {"seq": seq, "status": "duplicate" if duplicate else "replied"}
        fields |= {"size_bytes": size_bytes, "ttl": _number(said, "ttl")}
        if "time" in said:
            fields |= _rtt(said["time"])
        elif said.get("info") == "truncated":
            fields["message"] = TRUNCATED
        else:
            fields["message"] = TOO_SHORT if size_bytes < SHORTEST_WITH_STAMP else NO_TIME
        return Line("reply", IPUTILS, _host(said), fields)
    sent, received = _number(said, "transmitted"), _number(said, "received")
    if sent is not None and received is not None:
        return Line("summary", IPUTILS, _host(said), {"sent": sent, "received": received})
    if "error" in said or "version" in said or "info" in said:
        return Line("remark" if "error" in said else "known", IPUTILS)
    return None
