"""ICMP echoes as the tracer in the kernel saw them: a file of its points, and what rows say.

    queued ------- outer_queued - sent ------ wire ------ outer_received ------- received
      |  outbound  |                                      |  inbound              |
      |            |-------- corrected RTT ---------------|                       |
      |------------------------ kernel RTT ---------------------------------------|

Every time is the kernel's own. A ping's RTT has its socket and its program in it besides, before
`queued` and after `received`: these are in neither of the two RTTs.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maceproc.echo_rows import (
    ALTERED,
    ANSWERED,
    FRAGMENTED,
    MAGIC,
    RECEIVED,
    REPEATED,
    ROW_FLAGS,
    TWIN,
)
from maceproc.errors import TraceFormatError
from maceproc.pairing import POINT_DTYPE, Paired, Points, Rows, pair

NOT_CERTAIN = (TWIN, ALTERED, FRAGMENTED, REPEATED)
"""Flags that make a row ambiguous, the one that is told first being first."""

STATUSES = ("complete", "ambiguous", "incomplete", "unanswered")
COMPLETE, AMBIGUOUS, INCOMPLETE, UNANSWERED = range(4)
REASONS = (
    "",
    *(ROW_FLAGS[flag] for flag in NOT_CERTAIN),
    "the reply came to the outer device, not to the container's",
    "no reply came",
)


class Durations(NamedTuple):
    """What a row says, as arrays [ns]; only where the status is complete or ambiguous is it true.

    `corrected` is what is left of `kernel_rtt` without the way between the container's device and
    the outer one: `outer_received` - `outer_queued`, a wait in the outer device's queue included.
    """

    kernel_rtt: NDArray[np.int64]
    outbound: NDArray[np.int64]
    wire: NDArray[np.int64]
    inbound: NDArray[np.int64]
    corrected: NDArray[np.int64]


class EchoFile(NamedTuple):
    """A file of echoes: what its head says, its echoes, and how many bytes at its end are cut."""

    facts: dict[str, Any]
    paired: Paired
    cut_bytes: int

    @property
    def rows(self) -> Rows:
        """A row for each echo."""
        return self.paired.rows


def is_echo_file(path: Path) -> bool:
    """Tell whether a file begins as one of echoes does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def points_from(data: bytes) -> Points:
    """Return whole points as an array."""
    return np.frombuffer(data, POINT_DTYPE)


def read_echo_file(path: str | Path) -> EchoFile:
    """Read a file of echoes; of one that was cut, every point that is whole.

    Raises TraceFormatError when it is no such file.
    """
    content = Path(path).read_bytes()
    end = content.find(b"\n", len(MAGIC))
    if not content.startswith(MAGIC) or end < 0:
        raise TraceFormatError(
            path, offset=0, found=repr(content[:16]), expected=f"{MAGIC!r} and a line of JSON"
        )
    try:
        facts = json.loads(content[len(MAGIC) : end])
    except ValueError as error:
        raise TraceFormatError(
            path, offset=len(MAGIC), found=f"no JSON ({error})", expected="a line of JSON"
        ) from error
    if not isinstance(facts, dict) or facts.get("point_bytes") != POINT_DTYPE.itemsize:
        raise TraceFormatError(
            path,
            offset=len(MAGIC),
            found=f"points of another form: {facts!r:.80}",
            expected=f"points of {POINT_DTYPE.itemsize} bytes",
            hint="read it with the maceproc that wrote it",
        )
    start, point_bytes = end + 1, POINT_DTYPE.itemsize
    count, cut = divmod(len(content) - start, point_bytes)
    return EchoFile(facts, pair(np.frombuffer(content, POINT_DTYPE, count, start)), cut)


def durations(rows: Rows) -> Durations:
    """Return the segments of every row [ns]."""
    queued, outer_queued = _ns(rows, "queued_ns"), _ns(rows, "outer_queued_ns")
    outer_received, received = _ns(rows, "outer_received_ns"), _ns(rows, "received_ns")
    sent = sent_ns(rows)
    return Durations(
        kernel_rtt=received - queued,
        outbound=outer_queued - queued,
        wire=outer_received - sent,
        inbound=received - outer_received,
        corrected=outer_received - outer_queued,
    )


def sent_ns(rows: Rows) -> NDArray[np.int64]:
    """Return when requests were handed to the outer device's driver [ns].

    Of a device without a queue that is not watched: it is in the call that queues them.
    """
    sent = _ns(rows, "sent_ns")
    return np.where(sent > 0, sent, _ns(rows, "outer_queued_ns"))


def judge(rows: Rows) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return of each row its status and its reason, as places in `STATUSES` and `REASONS`."""
    flags = rows["flags"]
    answered, received = (flags & ANSWERED) > 0, (flags & RECEIVED) > 0
    status = np.full(len(rows), COMPLETE, np.int8)
    reason = np.zeros(len(rows), np.int8)
    status[~received], reason[~received] = INCOMPLETE, len(REASONS) - 2
    status[~answered], reason[~answered] = UNANSWERED, len(REASONS) - 1
    for place in range(len(NOT_CERTAIN), 0, -1):
        doubtful = (flags & NOT_CERTAIN[place - 1]) > 0
        status[doubtful], reason[doubtful] = AMBIGUOUS, place
    return status, reason


def address_text(family: int, words: tuple[int, int]) -> str:
    """Return an address as people write it, from a row's two words."""
    data = words[0].to_bytes(8, "little") + words[1].to_bytes(8, "little")
    if family == 4:
        return str(ipaddress.IPv4Address(data[:4]))
    return str(ipaddress.IPv6Address(data))


def _ns(rows: Rows, name: str) -> NDArray[np.int64]:
    return rows[name].astype(np.int64)
