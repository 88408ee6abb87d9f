"""What all lines of a run, and its command line, say together: flavour, numbering, stamps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maceproc.pings import fping
from maceproc.pings.flavours import ANY, HABITS, Flavour
from maceproc.pings.invocation import Invocation
from maceproc.pings.lines import TRUNCATED
from maceproc.pings.numbering import first_seq_by_numbers, settle, strange, unwrap
from maceproc.pings.output import ICMP_HEADER_BYTES, ICMP_SEQ_MODULUS, PingOutput

Evidence = Mapping[frozenset[Flavour], str]


def conclude(
    output: PingOutput, lines: list[dict[str, Any]], evidence: Evidence, invocation: Invocation
) -> None:
    """Fill in flavour, first seq, stamps, payload and answers of a run; `lines` are its numbers."""
    possible = _flavours(output, evidence, invocation)
    wraps = output.sent is None or output.sent >= ICMP_SEQ_MODULUS
    if possible != {"fping"} and wraps:
        lines = unwrap(lines, begins=output.begins)
    else:
        limit = None if output.sent is None else output.sent
        lines = [
            strange(line) if limit is not None and line["seq"] > limit else line for line in lines
        ]
    _number(output, possible, lines)
    output.answers = settle(lines, output.first_seq, output.sent)
    _name_stamps(output, invocation)
    _find_payload(output, invocation)
    for answer in output.answers:
        size_bytes, payload = answer.get("size_bytes"), output.payload_bytes
        if answer["message"] == TRUNCATED and size_bytes and payload is not None:
            whole = payload + ICMP_HEADER_BYTES
            answer["message"] = f"{TRUNCATED}: {size_bytes} of {whole} bytes came back"


def _flavours(output: PingOutput, evidence: Evidence, invocation: Invocation) -> frozenset[Flavour]:
    """Return the programs that print all of these lines; none when the lines contradict."""
    telling = {flavours: text for flavours, text in evidence.items() if flavours != ANY}
    if invocation.program:
        telling[frozenset({invocation.program})] = "the command line"
    if not telling:
        output.flavour_why = "no line tells which program printed this"
        return ANY
    possible = frozenset.intersection(*telling)
    if not possible:
        parts = [f"{text!r} is of {_names(flavours)}" for flavours, text in telling.items()]
        output.flavour_why = f"its lines are of different programs: {'; '.join(parts[:3])}"
        return possible
    candidates = possible - {"bsd"} or possible  # it does not run on Linux
    if len(candidates) > 1:
        output.flavour_why = f"its lines can be of {_names(candidates)}"
        return possible
    (output.flavour,) = candidates
    shown = min(telling, key=len)
    output.flavour_why = (
        f"only {output.flavour} prints all of its lines, such as {telling[shown]!r}"
    )
    return candidates


def _names(flavours: frozenset[Flavour]) -> str:
    return " or ".join(sorted(flavours))


def _number(output: PingOutput, possible: frozenset[Flavour], lines: list[dict[str, Any]]) -> None:
    """Decide what icmp_seq the first request had: by the numbers, and by the program's habit."""
    seqs = {line["seq"] for line in lines if not line.get("strange")}
    by_numbers = first_seq_by_numbers(seqs, output.sent)
    habits = {HABITS[flavour].first_seq for flavour in possible} or {0, 1}
    agreed = habits & by_numbers
    if len(agreed) == 1:
        (output.first_seq,) = agreed
        output.first_seq_why = _why(output, habits, by_numbers)
    elif by_numbers and not agreed:
        (output.first_seq,) = by_numbers
        looks = f"looks like {_names(possible)}, but counts from {output.first_seq}"
        output.flavour, output.flavour_why = "unknown", looks
        output.first_seq_why = _shown(seqs, output)
    elif not by_numbers and len(habits) == 1:
        (output.first_seq,) = habits
        habit = f"{_names(possible)} counts from {output.first_seq}"
        output.first_seq_why = f"{habit}; not all numbers printed can be of one run"
    else:
        output.first_seq_why = "neither the program nor the numbers tell whether it was 0 or 1"


def _why(output: PingOutput, habits: set[int], by_numbers: set[int]) -> str:
    if len(habits) == 1:
        agree = ", and its numbers agree" if len(by_numbers) == 1 else ""
        if output.flavour == "unknown":
            return f"every program that prints such lines counts from {output.first_seq}{agree}"
        return f"{output.flavour} counts from {output.first_seq}{agree}"
    return "its numbers leave no other"


def _shown(seqs: set[int], output: PingOutput) -> str:
    shown = f"icmp_seq {min(seqs)} to {max(seqs)} were printed"
    return shown if output.sent is None else f"{shown} for {output.sent} requests"


def _name_stamps(output: PingOutput, invocation: Invocation) -> None:
    habits = HABITS.get(output.flavour)
    if habits is None:
        output.stamped_by_why = "the program is not known"
        return
    output.stamped_by, output.stamped_by_why = habits.stamped_by, habits.source
    if output.flavour == "iputils" and "U" in invocation.letters:
        output.stamped_by, output.stamped_by_why = "program", "ping -U"


def _find_payload(output: PingOutput, invocation: Invocation) -> None:
    """Find the payload: the header's, else the command line's, else that of what came back."""
    if output.payload_bytes is not None:
        return
    if invocation.payload_bytes is not None:
        output.payload_bytes = invocation.payload_bytes
    elif output.flavour == "fping":
        output.payload_bytes = fping.payload_of(output.answers, output.target)
    elif sizes := [answer["size_bytes"] for answer in output.answers if answer.get("size_bytes")]:
        output.payload_bytes = max(sizes) - ICMP_HEADER_BYTES
    if output.payload_bytes is not None and output.payload_bytes < 0:
        output.payload_bytes = None
