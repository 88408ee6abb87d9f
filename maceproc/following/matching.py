"""Which packets were a ping's request and reply.

Nothing in the events carries an icmp_seq, so a match rests on what a ping does and what it prints:

* the k-th send call sends the k-th icmp_seq, if all of them were recorded (`numbering`);
* a request is queued on the first device within its send call, by the same task (`requests`);
* a reply's receive stamp is where the printed RTT says, counted from the send call (`due`,
  `replies`).

A match must be the only one possible, and must stay so if any events were lost (`mixtures`). What
speaks against a match is listed in `verdicts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Run
from maceproc.following import mixtures
from maceproc.following.due import Due, due_of
from maceproc.following.numbering import Numbering, number_sends
from maceproc.following.positions import Bools, Choice
from maceproc.following.replies import LATE_STAMP_NS, Replies, find_replies
from maceproc.following.requests import Requests, requests_of_calls
from maceproc.following.run_packets import RunPackets, meets_gap
from maceproc.following.stamps import stamp_of
from maceproc.pings import PingOutput


@dataclass(frozen=True)
class Matches:
    """The packets of every ping of one run, and all that is known for and against them.

    Attributes
    ----------
    packets
        The packets and calls that the positions of all choices refer to.
    numbering
        The pings' send calls.
    due
        When the replies were due.
    requests
        The packets that the send calls made.
    request
        By ping: its only request, a position in `RunPackets.outbound`.
    replies
        The pings' replies.
    mixed, contested, gap, early
        By ping: its packets may be the remains of two; another ping may have its reply; events
        were lost while it was on its way; its reply came before its request left.
    """

    packets: RunPackets
    numbering: Numbering
    due: Due
    requests: Requests
    request: Choice
    replies: Replies
    mixed: Bools
    contested: Bools
    gap: Bools
    early: Bools

    @property
    def send(self) -> Choice:
        """The pings' send calls: positions in `RunPackets.send_ns`."""
        return self.numbering.send

    @property
    def reply(self) -> Choice:
        """The pings' replies: positions in `RunPackets.inbound`."""
        return self.replies.reply

    @property
    def matched_by(self) -> npt.NDArray[np.object_]:
        """What tells the reply: a key of `replies.MATCHED_BY`; None where there is none."""
        return self.replies.matched_by


def match_run(pings: pd.DataFrame, run: Run, printed: PingOutput, packets: RunPackets) -> Matches:
    """Find send call, request, reply and delivery of every row of PINGS of one run."""
    numbering = number_sends(pings, run, printed, packets)
    due = due_of(pings, run, packets, numbering.send)
    requests = requests_of_calls(numbering, due, packets)
    request = numbering.send.through(requests.request)
    replies, due = find_replies(due, numbering, stamp_of(run, printed), packets, printed)
    outbound = mixtures.outbound_mixtures(packets, requests, numbering.send, request)
    inbound = mixtures.inbound_mixtures(due, packets, replies.reply)
    on_its_way = due.sent_ns, due.latest_ns + LATE_STAMP_NS
    return Matches(
        packets,
        numbering,
        due,
        requests,
        request,
        replies,
        mixed=outbound | inbound,
        contested=mixtures.contested(due, packets, replies.reply),
        gap=meets_gap(*on_its_way, packets.lost) & due.answered,
        early=mixtures.came_before_it_left(packets, request, replies.reply),
    )
