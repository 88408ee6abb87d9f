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

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Run
from maceproc.following import mixtures
from maceproc.following.agreement import (
    SCALE_NS,
    Agreement,
    Floats,
    agreement_of,
    disagreement_of,
)
from maceproc.following.doubts import CLEAR, Doubts, disagrees, doubts_of
from maceproc.following.due import Due, due_of
from maceproc.following.numbering import (
    Numbering,
    beyond_calls,
    number_sends,
    with_calls_for_requests,
)
from maceproc.following.positions import Bools, Choice, Indices, Times
from maceproc.following.replies import LATE_STAMP_NS, Replies, find_replies
from maceproc.following.requests import Requests, requests_of_calls
from maceproc.following.run_packets import RunPackets, meets_gap
from maceproc.following.scatter import scatter_of
from maceproc.following.stamps import Stamp, stamp_of
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
    stamp
        Who takes the receive stamps.
    requests
        The packets that the send calls made.
    request
        By ping: its only request, a position in `RunPackets.outbound`.
    replies
        The pings' replies.
    doubts
        What the packets say against the numbers of the lines.
    mixed, contested, gap, early
        By ping: its packets may be the remains of two; another ping may have its reply; events
        were lost while it was on its way; its reply came before its request left.
    """

    packets: RunPackets
    numbering: Numbering
    due: Due
    stamp: Stamp
    requests: Requests
    request: Choice
    replies: Replies
    doubts: Doubts
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
    printed = with_calls_for_requests(pings, printed, packets)
    stamp, first_seq = _conclusions(pings, run, printed, packets)
    numbering = number_sends(pings, run, printed, packets, first_seq)
    due = due_of(pings, run, packets, numbering.send)
    requests = requests_of_calls(numbering, due, packets)
    request = numbering.send.through(requests.request)
    agreement = compare_rtts(pings, numbering, due, stamp, packets)
    replies, due = find_replies(due, numbering, stamp, packets, printed)
    scatter_ns = None
    if disagrees(agreement) and _proven_by_order(pings, numbering, replies, packets):
        rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=0)
        kernel_rtt_ns = replies.turn.of(packets.received_ns, 0) - due.sent_ns
        scatter_ns = scatter_of(rtt_ns, due.step_ns, kernel_rtt_ns, agreement.tested)
        if scatter_ns is not None:
            agreement = compare_rtts(pings, numbering, due, stamp, packets, scatter_ns)
    outbound = mixtures.outbound_mixtures(packets, requests, numbering.send, request)
    inbound = mixtures.inbound_mixtures(due, packets, replies.reply)
    on_its_way = due.sent_ns, due.latest_ns + LATE_STAMP_NS
    return Matches(
        packets,
        numbering,
        due,
        stamp,
        requests,
        request,
        replies,
        doubts_of(
            pings,
            run,
            numbering,
            due,
            replies,
            agreement,
            packets,
            scattered=scatter_ns is not None,
        ),
        mixed=outbound | inbound,
        contested=mixtures.contested(due, packets, replies.reply),
        gap=meets_gap(*on_its_way, packets.lost) & due.answered,
        early=mixtures.came_before_it_left(packets, request, replies.reply),
    )


def _conclusions(
    pings: pd.DataFrame, run: Run, printed: PingOutput, packets: RunPackets
) -> tuple[Stamp, int | None]:
    """Return who takes the receive stamps, and the icmp_seq of the first request.

    The packets decide where they clearly speak against what the text says about the stamps, and
    where the text does not say from which number ping counts. If the packets do not tell the first
    number either, it is None.
    """
    said = stamp_of(run, printed)
    lines = (pings["status"] == "replied").to_numpy()
    stamps: tuple[Stamp, ...] = ("kernel", "program")
    firsts = (0, 1) if printed.first_seq is None else (printed.first_seq,)
    found: dict[tuple[Stamp, int], float] = {}
    for first_seq in firsts:
        numbering = number_sends(pings, run, printed, packets, first_seq)
        if printed.first_seq is None and beyond_calls(numbering)[lines].any():
            continue
        due = due_of(pings, run, packets, numbering.send)
        for stamp in stamps:
            if stamp == said or len(packets.delivered_ns):
                _, here = disagreement_with(pings, numbering, due, stamp, packets)
                found[stamp, first_seq] = float(here.sum())
    said_only = {key: total for key, total in found.items() if key[0] == said}
    best = _clearly_least(found) or _clearly_least(said_only)
    if best is not None:
        return best
    return said, printed.first_seq


def _clearly_least(totals: Mapping[tuple[Stamp, int], float]) -> tuple[Stamp, int] | None:
    """Return the key with the least disagreement, if it is clearly less than that of all others."""
    ordered = sorted(totals, key=lambda key: totals[key])
    if not ordered or any(totals[key] < totals[ordered[0]] + CLEAR for key in ordered[1:]):
        return None
    return ordered[0]


def _proven_by_order(
    pings: pd.DataFrame, numbering: Numbering, replies: Replies, packets: RunPackets
) -> bool:
    """Tell whether the order of calls and replies leaves no other number for any line.

    Every call, and every reply, is there; each call whose reply came has its line, and no other.
    """
    printed = (pings["status"] == "replied").to_numpy()
    in_turn = replies.turn.exists & numbering.send.exists
    complete = int(printed.sum()) == len(packets.inbound)
    return bool(numbering.counted and complete and (in_turn == printed).all())


def exchanged_agreement(pings: pd.DataFrame, matches: Matches, call: Indices) -> float:
    """Return how much more the printed RTTs disagree with the packets of other send calls.

    `call` are the positions of the other calls, by ping.
    """
    numbering, due, packets = matches.numbering, matches.due, matches.packets
    exists = numbering.send.exists & (call >= 0) & (call < len(packets.send_ns))
    (tested, here), (tested_there, there) = (
        disagreement_with(
            pings,
            replace(numbering, send=Choice(position, exists)),
            replace(due, sent_ns=Choice(position, exists).of(packets.send_ns, 0)),
            matches.stamp,
            packets,
        )
        for position in (numbering.send.position, call)
    )
    return float((there - here)[tested & tested_there].sum())


def compare_rtts(
    pings: pd.DataFrame,
    numbering: Numbering,
    due: Due,
    stamp: Stamp,
    packets: RunPackets,
    scale_ns: float = SCALE_NS,
) -> Agreement:
    """Compare the printed RTTs of one run with the packets; `scale_ns` as in `agreement_of`.

    Not compared is a first ping that the kernel stamps, whose stamp may be taken on delivery, and
    what is printed during a gap in the events.
    """
    tested, seen_ns = _to_compare(pings, due, stamp, packets)
    rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=0)
    send, send_ns = numbering.send, packets.send_ns
    return agreement_of(rtt_ns, due.step_ns, send, tested, send_ns, seen_ns, scale_ns)


def disagreement_with(
    pings: pd.DataFrame, numbering: Numbering, due: Due, stamp: Stamp, packets: RunPackets
) -> tuple[Bools, Floats]:
    """Return which pings `compare_rtts` compares, and their disagreement under this numbering."""
    tested, seen_ns = _to_compare(pings, due, stamp, packets)
    rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=0)
    send, send_ns = numbering.send, packets.send_ns
    return disagreement_of(rtt_ns, due.step_ns, send, tested, send_ns, seen_ns)


def _to_compare(
    pings: pd.DataFrame, due: Due, stamp: Stamp, packets: RunPackets
) -> tuple[Bools, Times]:
    """Return which pings can be compared, and when their replies were stamped."""
    tested = due.known & (pings["status"] == "replied").to_numpy()
    tested &= ~meets_gap(due.sent_ns, due.at_ns + due.tolerance_ns, packets.lost)
    if stamp == "program" and len(packets.delivered_ns):
        return tested, packets.delivered_ns
    if len(packets.send_ns):
        tested &= due.sent_ns != packets.send_ns[0]
    return tested, packets.received_ns
