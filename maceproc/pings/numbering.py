"""Which icmp_seq are true: where they wrap, which was the first, and which were never sent."""

from __future__ import annotations

from typing import Any

from maceproc.pings.output import ICMP_SEQ_MODULUS, NEAR

Lines = list[dict[str, Any]]

REMARKS_ONLY = ("Redirect", "Source Quench")
"""ICMP messages that do not mean that a request was lost."""


def unwrap(lines: Lines, *, begins: bool) -> Lines:
    """Count icmp_seq on where it wraps at 65536; late ones may step back, but not by half.

    A number far ahead of the newest is believed only where the next line goes on from there: a
    remote host can answer with any number. `begins` says that the run's first line is here.
    """
    found: Lines = []
    newest = 0 if begins else None
    for place, line in enumerate(lines):
        counted = _count_on(lines, place, newest)
        found.append(strange(line) if counted is None else line | {"seq": counted})
        if counted is not None:
            newest = counted if newest is None else max(newest, counted)
    return found


def _count_on(lines: Lines, place: int, newest: int | None) -> int | None:
    """Return the number of a line, counted on from the newest; None when it is not believed."""
    seq = lines[place]["seq"]
    if seq >= ICMP_SEQ_MODULUS:
        return None
    if newest is None:
        return int(seq) if len(lines) == 1 or _goes_on(lines, place, None) else None
    ahead = (seq - newest) % ICMP_SEQ_MODULUS
    late = newest + ahead - ICMP_SEQ_MODULUS
    if ahead >= ICMP_SEQ_MODULUS // 2 and late >= 0:
        return int(late)
    return int(newest + ahead) if ahead <= NEAR or _goes_on(lines, place, newest) else None


def _goes_on(lines: Lines, place: int, newest: int | None) -> bool:
    """Tell whether one of the next two lines is near this one, and not near the newest."""
    for line in lines[place + 1 : place + 3]:
        step = (line["seq"] - lines[place]["seq"]) % ICMP_SEQ_MODULUS
        if min(step, ICMP_SEQ_MODULUS - step) <= NEAR:
            return newest is None or (line["seq"] - newest) % ICMP_SEQ_MODULUS > NEAR
    return False


def strange(line: dict[str, Any]) -> dict[str, Any]:
    """Mark a line whose icmp_seq cannot be that of a request of this run."""
    return line | {"strange": True}


def first_seq_by_numbers(seqs: set[int], sent: int | None) -> set[int]:
    """Return which of 0 and 1 can be the first icmp_seq, by those seen; none if neither can."""
    possible = {0, 1}
    if not seqs:
        return possible
    if 0 in seqs:
        possible = {0}
    if sent is not None:
        possible = {first for first in possible if max(seqs) < first + sent}
        if len(seqs) == sent:
            possible &= {min(seqs)}
    return possible


def settle(lines: Lines, first_seq: int | None, sent: int | None) -> Lines:
    """Return a row per request that a line speaks of, and one more per further reply.

    A reply stands, whatever ICMP said beside it; what it said becomes a remark on the reply.
    """
    rows: dict[int, dict[str, Any]] = {}
    others: Lines = []
    for line in lines:
        seq = line["seq"]
        if line.get("strange") or not _was_sent(seq, first_seq, sent):
            others.append(_never_sent(line, sent))
        elif seq not in rows:
            rows[seq] = dict(line)
        elif line["kind"] == "reply" and _is_answer(rows[seq]):
            others.append(_row(line | {"status": "duplicate"}))
        else:
            rows[seq] = _joined(rows[seq], line)
    return [*(_row(row) for row in rows.values()), *others]


def _was_sent(seq: int, first_seq: int | None, sent: int | None) -> bool:
    low = first_seq or 0
    return seq >= low and (sent is None or seq < (1 if first_seq is None else low) + sent)


def _is_answer(row: dict[str, Any]) -> bool:
    return row["kind"] == "reply" and row["status"] != "error"


def _joined(row: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """Join two lines about one request: the reply stands before an error, that before nothing."""
    order = {"reply": 0, "error": 1, "late": 2}
    first, second = sorted((row, line), key=lambda one: order[one["kind"]])
    if second["kind"] != "error":
        return dict(first)
    said = dict.fromkeys(filter(None, (first.get("message"), second["message"])))
    joined = "; ".join(said)
    return first | {"message": joined if len(joined) < 300 else first["message"]}


def _never_sent(line: dict[str, Any], sent: int | None) -> dict[str, Any]:
    seq = line["seq"]
    if sent is None:
        why = f"icmp_seq {seq} is far from all others: this ping can hardly have sent it"
    else:
        why = f"icmp_seq {seq} was not sent: the summary counts {sent} requests"
    row = _row(line | {"status": "error", "message": why}) | {"strange": True}
    return {name: value for name, value in row.items() if not name.startswith("rtt")}


def _row(line: dict[str, Any]) -> dict[str, Any]:
    row = {"message": "", **line}
    if row["kind"] == "late":
        row |= {"status": "unanswered", "message": row["message"] or "ping said: no answer in time"}
    elif row["kind"] == "error" and row["message"].startswith(REMARKS_ONLY):
        row |= {"status": "unanswered", "message": f"no reply; {row['message']}"}
    return {name: value for name, value in row.items() if name not in ("kind", "strange")}
