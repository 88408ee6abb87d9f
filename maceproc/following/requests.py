"""Which packet every send call made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from maceproc.following.due import Due
from maceproc.following.numbering import Numbering
from maceproc.following.positions import FOREVER, Bools, Choice, Times, only_one
from maceproc.following.run_packets import RunPackets


@dataclass(frozen=True)
class Requests:
    """The packet of every send call of a run.

    Attributes
    ----------
    request
        By send call: its only packet, a position in `RunPackets.outbound`.
    several
        By send call: whether it made more than one packet, so that `request` chose none.
    lost_call_ns
        By send call: the earliest time at which a call that was not recorded can have followed it
        [ns]; `FOREVER` where no such call is possible.
    """

    request: Choice
    several: Bools
    lost_call_ns: Times


def requests_of_calls(numbering: Numbering, due: Due, packets: RunPackets) -> Requests:
    """Find every send call's packet.

    The task queued the packet before its next call. A packet that had to wait for the neighbour's
    link-layer address was queued in softirq.
    """
    calls = packets.send_ns
    lost_call_ns = _lost_call_ns(numbering, due, packets)
    next_call_ns = np.minimum(np.append(calls[1:], FOREVER)[: len(calls)], lost_call_ns)
    queued_ns = packets.outbound["entered_ns"].to_numpy(dtype=np.int64, na_value=-FOREVER)
    softirq = packets.outbound["softirq"].to_numpy()
    request = Choice.none(len(calls))
    several = np.zeros(len(calls), dtype=np.bool_)
    for waited in (False, True):
        rows = np.flatnonzero(softirq == waited)
        found, count = only_one(queued_ns[rows], calls, next_call_ns - 1)
        undecided = ~request.exists & ~several
        several |= undecided & (count > 1)
        request = request.otherwise(
            Choice(found.of(rows, 0), found.exists & undecided & (count == 1))
        )
    return Requests(request, several, lost_call_ns)


def _lost_call_ns(numbering: Numbering, due: Due, packets: RunPackets) -> Times:
    """Return for each send call the earliest time that a lost call can have followed it.

    No call was lost if there are as many as ping says, and none was lost between the calls of two
    consecutive icmp_seq. A lost call is known only by the time that its ping's line was printed.
    """
    calls, send = packets.send_ns, numbering.send
    if numbering.counted:
        return np.full(len(calls), FOREVER)
    numbered = np.zeros(len(calls) + 1, dtype=np.bool_)
    numbered[send.position[send.exists]] = True
    seq = np.zeros(len(calls) + 1, dtype=np.int64)
    seq[send.position[send.exists]] = due.seq[send.exists]
    here, after = numbered[:-1], numbered[1:]
    earliest = pd.Series(due.sent_earliest_ns, index=due.seq).groupby(level=0).max()
    next_seq = np.where(here, seq[:-1] + 1, 0)
    bound_ns = earliest.reindex(next_seq).fillna(-FOREVER).to_numpy(dtype=np.int64)
    last_seq = due.seq.max(initial=-1) if numbering.requests is not None else None
    last = np.full(len(calls), False) if last_seq is None else seq[:-1] == last_seq
    none_lost = here & ((after & (seq[1:] == seq[:-1] + 1)) | last)
    return np.where(none_lost, FOREVER, np.maximum(calls, np.where(here, bound_ns, 0)))
