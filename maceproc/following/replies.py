"""Which packet was every ping's reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maceproc.following.due import PRINT_ERROR_NS, Due, Offset, estimate_offset
from maceproc.following.numbering import Numbering
from maceproc.following.positions import FOREVER, Bools, Choice, Indices, Times, only_one
from maceproc.following.run_packets import RunPackets
from maceproc.following.stamps import Stamp
from maceproc.pings import PingOutput
from maceproc.units import NS_PER_US

LATE_STAMP_NS = 8 * NS_PER_US
"""How long before its end a receive call takes the stamp, if the device did not take it.

The kernel stamps packets only while somebody asks for stamps. A deferred work item turns that on:
the first reply can come before (net/core/dev.c, net_enable_timestamp(), v6.8).
"""

USUAL = (0.0, 0.9)
"""Quantiles between which the times from send call to reply are usual."""

MATCHED_BY: Mapping[str, str] = {
    "time": "it is the only packet received when the printed RTT says that the reply was",
    "turn": "no event was lost, as many packets came as replies were printed, and this one came "
    "between this ping's send call and the next",
    "delivery": "it is the only packet received before the call that returned when the printed RTT "
    "says that the reply was stamped",
    "identity": "they carry this ping's number and its process's identifier, as the tracer in the "
    "kernel saw",
}
"""What tells a ping's reply from other packets."""


@dataclass(frozen=True)
class Replies:
    """The reply of every ping of a run, and what else could be it.

    Attributes
    ----------
    reply
        Positions in `RunPackets.inbound`.
    delivery
        The receive call that took the stamp, where the device did not: positions in
        `RunPackets.delivered_ns`.
    stamp_known
        Whether it is known who took the stamp: otherwise it may have been a call not recorded.
    turn_told
        Whether the order of calls and packets told the reply, not its time.
    turn
        The reply by the order of calls and packets, where everything adds up.
    offset_known
        Whether the packets tell how far the send stamps are ahead of the send calls.
    several
        Whether several packets came when the reply was due.
    usual_before
        Whether another packet came before, as soon as replies usually come, and the reply took
        longer than usual.
    stamped_late
        Whether a packet that came before may be the reply, stamped when it was delivered: only the
        first ping of a run.
    """

    reply: Choice
    delivery: Choice
    stamp_known: Bools
    turn_told: Bools
    turn: Choice
    offset_known: bool
    several: Bools
    usual_before: Bools
    stamped_late: Bools

    @property
    def matched_by(self) -> npt.NDArray[np.object_]:
        """What tells the reply: a key of `MATCHED_BY`; None where there is none."""
        kinds = [~self.reply.exists, self.turn_told, self.delivery.exists]
        return np.select(kinds, [None, "turn", "delivery"], "time")  # type: ignore[list-item]


def find_replies(
    due: Due, numbering: Numbering, stamp: Stamp, packets: RunPackets, printed: PingOutput
) -> tuple[Replies, Due]:
    """Find the packet whose receive stamp gives the printed RTT, and the call that delivered it.

    Where no packet does, because ping was held up or printed no RTT, the reply is the packet that
    came in the ping's turn. Also returns when the replies were due, with the run's offset.
    """
    send, received_ns = numbering.send, packets.received_ns
    turn = send.through(_reply_by_turn(printed, packets))
    first = send.exists & (due.sent_ns == packets.send_ns.min(initial=FOREVER))
    offset = _offset(due, first, stamp, packets)
    due = due.without_offset(turn.exists) if offset is None else due.settled(offset)

    by_device = stamp == "kernel"
    timed, count = only_one(received_ns, due.earliest_ns, due.latest_ns, due.known & by_device)
    too_late = timed.exists & (timed.of(packets.stamped_after_ns, 0) > _stamped_before(due))
    timed, count = timed.where(~too_late), np.where(too_late, 0, count)
    # Another packet whose event was late may have been stamped in time: either may be the reply.
    late_events = np.where(count > 0, _stamped_until(due.latest_ns, packets), 0)
    timed, count = timed.where(late_events == 0), count + late_events
    turn_ns = turn.of(received_ns, FOREVER)
    # Pings that follow one another faster than their RTTs can tell: the turn decides.
    fits = ((due.earliest_ns <= turn_ns) & (turn_ns <= due.latest_ns)) | due.held_up
    fits &= turn.exists & by_device
    stamped = turn.where(fits).otherwise(timed.where(~fits))
    count = np.where(fits, 1, count)

    late, delivery = _stamped_on_delivery(due, packets, received_ns)
    on_delivery = late.exists & ((first & (count == 0)) | (not by_device))
    reply = late.where(on_delivery).otherwise(stamped.where(~on_delivery))
    in_time = ~due.answered | (turn_ns <= due.at_ns)
    in_turn = ~reply.exists & turn.exists & (count == 0) & in_time
    reply = reply.otherwise(turn.where(in_turn))
    unseen_call = first | (not by_device)  # may have taken the stamp and not been recorded
    found = Replies(
        reply,
        delivery.where(on_delivery),
        stamp_known=~(in_turn & due.known & unseen_call),
        turn_told=reply.exists & reply.differs(timed) & ~on_delivery,
        turn=turn,
        offset_known=offset is not None,
        several=count > 1,
        usual_before=_usual_before(due, reply.where(~fits & ~in_turn), reply, received_ns),
        stamped_late=first & ~turn.exists & (_came_until(due, received_ns) > 1),
    )
    return found, due


def _usual_before(due: Due, told_by_time: Choice, reply: Choice, received_ns: Times) -> Bools:
    """Tell whether a packet came when the reply usually comes, before the one that was chosen.

    A ping that is held up between its send stamp and its send call prints too long an RTT. The
    packet of another program may have come just when that RTT says. Packets that are replies of
    other pings of the run are not meant.
    """
    took_ns = told_by_time.of(received_ns, 0) - due.sent_ns
    asked = told_by_time.exists & due.known
    if not asked.any():
        return asked
    shortest_ns, longest_ns = np.quantile(took_ns[asked], USUAL).astype(np.int64)
    others_ns = np.delete(received_ns, reply.position[reply.exists])
    until_ns = longest_ns + due.tolerance_ns
    first = np.searchsorted(others_ns, due.sent_ns + shortest_ns - due.tolerance_ns, side="left")
    until = np.searchsorted(others_ns, due.sent_ns + until_ns, side="right")
    return asked & (took_ns > until_ns) & (until > first)


def _stamped_before(due: Due) -> Times:
    """Return the latest time at which each reply can have been stamped.

    The send stamp is older than the send call, so the reply was stamped less than one printed RTT
    after the call. A device whose stamp is older than its event makes the offset negative
    (`OFFSET_RANGE_NS`): its events come later by that.
    """
    centre_ns = (due.earliest_ns + due.latest_ns) // 2
    rounding_ns = due.step_ns // 2 + PRINT_ERROR_NS
    return np.where(due.known, np.maximum(due.at_ns, centre_ns) + rounding_ns, FOREVER)


def _stamped_until(latest_ns: Times, packets: RunPackets) -> Indices:
    """Count the packets received after each time that may have been stamped before it."""
    stamped = np.searchsorted(np.sort(packets.stamped_after_ns), latest_ns, side="right")
    return stamped - np.searchsorted(packets.received_ns, latest_ns, side="right")


def _offset(due: Due, first: Bools, stamp: Stamp, packets: RunPackets) -> Offset | None:
    """Estimate the run's offset; None where the packets seen do not tell.

    The first ping is not asked where the kernel stamps: its stamp may be taken on delivery.
    """
    if stamp == "kernel":
        return estimate_offset(due, ~first, packets.received_ns, packets.lost)
    return estimate_offset(due, due.known, packets.delivered_ns, packets.lost)


def _came_until(due: Due, received_ns: Times) -> Indices:
    """Count the packets received from each send call until the reply was due at the latest."""
    until = np.searchsorted(received_ns, due.latest_ns + LATE_STAMP_NS, side="right")
    return np.where(due.known, until - np.searchsorted(received_ns, due.sent_ns), 0)


def _reply_by_turn(printed: PingOutput, packets: RunPackets) -> Choice:
    """Return every send call's reply, if everything adds up; otherwise none for all.

    No event was lost, there are as many calls as requests and as many packets as replies, and
    after every call comes at most one packet before the next.
    """
    calls, received_ns = packets.send_ns, packets.received_ns
    turn = np.searchsorted(calls, received_ns, side="right") - 1
    adds_up = printed.sent == len(calls) and printed.received == len(turn)
    reply = Choice.none(len(calls))
    if packets.whole and adds_up and (turn >= 0).all() and len(np.unique(turn)) == len(turn):
        reply.position[turn] = np.arange(len(turn))
        reply.exists[turn] = True
    return reply


def _stamped_on_delivery(
    due: Due, packets: RunPackets, received_ns: Times
) -> tuple[Choice, Choice]:
    """Find replies whose stamp was taken by the call that delivered them, and that call."""
    latest_ns = due.latest_ns + LATE_STAMP_NS
    delivery, _ = only_one(packets.delivered_ns, due.earliest_ns, latest_ns, due.known)
    delivered_ns = delivery.of(packets.delivered_ns, -FOREVER)
    reply, _ = only_one(received_ns, due.sent_ns, delivered_ns, delivery.exists)
    return reply, delivery
