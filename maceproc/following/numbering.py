"""Which send call sent every ping: by counting the calls, or by the time its line was printed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.due import PRINT_DELAY_NS, printed_at
from maceproc.following.positions import FOREVER, Bools, Choice, only_one
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
        Whether the k-th call was taken for the k-th icmp_seq, because there were as many calls as
        requests. Otherwise the time that the line was printed told the call.
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
