"""Which send call sent every ping: by counting the calls, or by the time its line was printed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.due import PRINT_DELAY_NS, printed_at
from maceproc.following.positions import FOREVER, Bools, Choice, Indices, only_one
from maceproc.following.run_packets import RunPackets
from maceproc.pings import PingOutput


@dataclass(frozen=True)
class Numbering:
    """The send call of every ping of a run.

    Attributes
    ----------
    send
        Positions in `RunPackets.send_ns`.
    counted
        Whether there were as many calls as requests, so that the k-th call was taken to send the
        k-th icmp_seq. Otherwise the time at which the line was printed told the call.
    first_seq
        The icmp_seq of the first request; None where that could not be told.
    calls, requests
        How many send calls were recorded, and how many requests ping says it sent.
    """

    send: Choice
    counted: bool
    first_seq: int | None
    calls: int
    requests: int | None


def number_sends(
    pings: pd.DataFrame,
    run: Run,
    printed: PingOutput,
    packets: RunPackets,
    first_seq: int | None,
) -> Numbering:
    """Find the send call of every row of PINGS of one run.

    `first_seq` is the icmp_seq of the first request; None where that is not known.
    """
    calls = len(packets.send_ns)
    counted = printed.sent == calls
    if not counted:
        send = _sends_by_time(pings, run, packets)
    elif first_seq is None:
        send = Choice.none(len(pings))
    else:
        place = pings["seq"].to_numpy() - first_seq
        send = Choice(place, (place >= 0) & (place < calls))
    return Numbering(send, counted, first_seq, calls, printed.sent)


def with_calls_for_requests(
    pings: pd.DataFrame, printed: PingOutput, packets: RunPackets
) -> PingOutput:
    """Return what was printed, with as many requests as calls where it does not count them.

    Text without a summary: it was cut, or the summary went elsewhere (fping prints it to stderr).
    The calls stand for the requests if no event was lost and the last number printed is that of
    the last call. Otherwise requests may have been sent that no line speaks of.
    """
    needed = requests_spoken_of(pings["seq"].to_numpy(), printed)
    if printed.sent is not None or not packets.whole or needed != len(packets.send_ns):
        return printed
    return replace(printed, sent=needed)


def requests_spoken_of(seq: Indices, printed: PingOutput) -> int:
    """Return how many requests were sent at least, by the largest number; 0 if none is known."""
    known = printed.first_seq is not None and len(seq)
    return int(max(seq)) - int(printed.first_seq or 0) + 1 if known else 0


def beyond_calls(numbering: Numbering) -> Bools:
    """Tell which rows have a number that counting gives no send call to."""
    return ~numbering.send.exists & numbering.counted & (numbering.first_seq is not None)


def _sends_by_time(pings: pd.DataFrame, run: Run, packets: RunPackets) -> Choice:
    """Find the only send call that can have led to a line that was printed when it was."""
    printed_ns, slack_ns = printed_at(pings, run)
    rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    known = (printed_ns < FOREVER) & (rtt_ns < FOREVER)
    latest_ns = printed_ns - rtt_ns + slack_ns
    earliest_ns = latest_ns - slack_ns - PRINT_DELAY_NS
    send, _ = only_one(packets.send_ns, earliest_ns, latest_ns, known)
    return send.unshared()
