"""Whether the lines of a run can have other numbers than their own, as far as packets tell.

Ping's text may have been read wrong, cut, or be another run's. What the packets say against it:

* **disagreement**: the printed RTTs are not near those of the packets (`agreement`);
* **a missing line**: a reply came that no line speaks of. A line that is numbered wrong takes the
  place of another; that one takes the place of the next, and so on up to a reply without a line:
  the replies are printed in the order in which they come. So all lines up to the nearest such
  reply are numbered wrong, or none is: their RTTs together must speak clearly for these numbers.
  If every reply has its line, no line can be numbered wrong. A line too many, whose number was
  never sent, does the same to the lines between it and that end;
* **order**: lines are printed in the order in which the replies came;
* **fit**: where the order alone tells the packets, the RTT is not theirs;
* **time**: `ping -D` says when a line was printed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.agreement import Agreement, Floats
from maceproc.following.due import (
    LONG_PRINT_DELAY_NS,
    RESIDUAL_TOLERANCE_NS,
    Due,
    printed_at,
)
from maceproc.following.numbering import Numbering, beyond_calls
from maceproc.following.positions import FOREVER, Bools, Choice, Indices, Times
from maceproc.following.replies import Replies
from maceproc.following.run_packets import RunPackets
from maceproc.following.scatter import LARGEST_SCATTER_NS

CLEAR = 6.0
"""The logarithm of the likelihood ratio that clearly speaks for one numbering: 400 to 1."""

OVERWHELMING = 2 * CLEAR
"""What speaks against a numbering although no line is missing."""

NEAR_A_CONSTANT = 1.2
"""The median disagreement of a run's lines, if the residuals are near one constant.

With RTTs printed in steps of 1 us, half of the residuals are within 1.5 us of it.
"""

NEAR_LINES = 32
"""How many lines apart two lines with each other's number are looked for."""

SCATTERS = 6
"""How many times the median distance of a run's residuals one of them may lie from the middle.

Added to the rounding of the printed RTT. That is 4 standard deviations where they are distributed
normally.
"""

FEW = 3
"""Of fewer lines than these, a median says nothing."""


@dataclass(frozen=True)
class Doubts:
    """What speaks against the numbers of a run's lines, by ping.

    Attributes
    ----------
    disagrees
        The run's printed RTTs do not agree with its packets.
    undecided
        A reply without a line is near, and the RTTs do not clearly speak for these numbers.
    shifted
        The RTTs agree much better with the packets of another ping.
    disordered
        The line is printed before another whose reply came earlier, or after one whose reply came
        later; or against the order of the calls, where these are too close to tell; or its number
        is in another order than its send call.
    misdated
        The line was printed before its reply came, or long after it and after another reply.
    unfit
        The line's RTT is not that of the packet that came in its turn.
    """

    disagrees: Bools
    undecided: Bools
    shifted: Bools
    disordered: Bools
    misdated: Bools
    unfit: Bools


def doubts_of(
    pings: pd.DataFrame,
    run: Run,
    numbering: Numbering,
    due: Due,
    replies: Replies,
    agreement: Agreement,
    packets: RunPackets,
    *,
    scattered: bool,
) -> Doubts:
    """Return what the packets say against the numbers of the rows of PINGS of one run.

    `scattered` says that the residuals scatter too much to tell one line from another (`scatter`).
    """
    printed = (pings["status"] == "replied").to_numpy()
    reply = replies.reply.where(printed)
    order = _order_of_replies(printed, reply, due, packets)
    order |= _exchangeable(numbering.send.where(printed), due)
    if not numbering.counted:
        order |= _order_of_calls(pings, numbering.send.where(printed))
    missing = _missing_lines(numbering, reply, printed, packets)
    missing = np.union1d(missing, _surplus_lines(pings, numbering))
    undecided = _undecided(numbering.send, agreement, missing)
    numbered = numbering.counted and not len(missing)
    if len(missing) or order.any():
        undecided |= replies.turn_told  # that supposes that every reply has its line
    # A ping without a line has no RTT of its own to speak for it: it is as sure as the lines are.
    unsure = bool((printed & undecided).any() or order.any())
    return Doubts(
        disagrees=printed & (disagrees(agreement) | _strange(numbering.send, agreement)),
        undecided=np.where(printed, undecided, unsure & replies.turn_told),
        shifted=printed & _shifted(numbering.send, agreement),
        disordered=order,
        misdated=_misdated(pings, run, reply, packets, numbered=numbered),
        unfit=printed
        & _unfit(_as_scattered(due, replies, packets), replies, packets, agreement)
        & (not scattered),
    )


def disagrees(agreement: Agreement) -> bool:
    """Tell whether a run's residuals are near no constant, and no nearer than by chance."""
    here = agreement.here[agreement.tested]
    if len(here) == 0:
        return False
    if len(here) < FEW:
        return agreement.offset_ns is None
    better = (agreement.chance - agreement.here)[agreement.tested].sum()
    return bool(np.median(here) > NEAR_A_CONSTANT and better < CLEAR)


def _missing_lines(
    numbering: Numbering, reply: Choice, printed: Bools, packets: RunPackets
) -> Indices:
    """Return the send calls without a line of a reply, whose reply may have come all the same.

    It may be any packet that is no line's reply and that came after the call; one that nobody took
    from the socket has no line.
    """
    if not numbering.counted or not printed.any():
        return np.array([], dtype=np.int64)
    has_line = np.zeros(len(packets.send_ns), dtype=np.bool_)
    lines = numbering.send.where(printed)
    has_line[lines.position[lines.exists]] = True
    without = np.flatnonzero(~has_line)
    if not packets.whole:
        return without
    taken = np.zeros(len(packets.received_ns), dtype=np.bool_)
    taken[reply.position[reply.exists]] = True
    left_ns = packets.received_ns[~taken]
    if len(packets.delivered_ns):
        left_ns = left_ns[left_ns < packets.delivered_ns[-1]]
    latest_ns = left_ns.max(initial=-FOREVER)
    return without[packets.send_ns[without] < latest_ns]


def _surplus_lines(pings: pd.DataFrame, numbering: Numbering) -> Indices:
    """Return where lines have numbers that no call is left for: before the calls, or after them.

    One line too many pushes the numbers of all lines between it and that end, as a missing line
    does: -1 and the number of calls stand for the two ends.
    """
    line = (pings["status"] != "unanswered").to_numpy() & beyond_calls(numbering)
    place = numbering.send.position[line]
    return np.unique(np.where(place < 0, -1, numbering.calls))


def _undecided(send: Choice, agreement: Agreement, missing: Indices) -> Bools:
    """Tell which lines the RTTs do not clearly give to their call, where a line is missing.

    Looked at are all lines from the missing one to this one: shifted by so much towards it, or
    with packets of other pings.
    """
    undecided = np.zeros(len(send), dtype=np.bool_)
    if not len(missing):
        return undecided
    rows = _in_order_of_calls(send)
    call = send.position[rows]
    gain = (agreement.other - agreement.here)[:, rows]
    by_chance = (agreement.chance - agreement.here)[rows]
    for direction in (-1, 1):
        towards = np.vstack([gain[agreement.shift * direction > 0], by_chance])
        side = slice(None, None, -direction)
        segment = np.searchsorted(missing, call, side="left")
        sums = np.array([_sum_within(row[side], segment[side])[side] for row in towards])
        bounded = segment > 0 if direction < 0 else segment < len(missing)
        undecided[rows] |= bounded & (sums.min(axis=0) < CLEAR)
    return undecided


def _sum_within(values: Floats, segment: Indices) -> Floats:
    """Return the running sum of values, begun anew with every segment."""
    total = np.cumsum(values)
    begins = np.flatnonzero(np.append(True, segment[1:] != segment[:-1]))[: len(values)]
    before = np.append(0.0, total)[begins]
    lengths = np.diff(np.append(begins, len(values)))
    return np.asarray(total - np.repeat(before, lengths))


def _shifted(send: Choice, agreement: Agreement) -> Bools:
    """Tell which lines lie in a stretch of lines that agrees much better when shifted."""
    shifted = np.zeros(len(send), dtype=np.bool_)
    rows = _in_order_of_calls(send)
    for gain in (agreement.other - agreement.here)[:, rows]:
        shifted[rows] |= _least_sum_around(gain) <= -OVERWHELMING
    return shifted


def _strange(send: Choice, agreement: Agreement) -> Bools:
    """Tell which lines lie in a stretch that agrees clearly better with packets of other pings."""
    strange = np.zeros(len(send), dtype=np.bool_)
    rows = _in_order_of_calls(send)
    gain = (agreement.chance - agreement.here)[rows]
    strange[rows] = _least_sum_around(gain) <= -CLEAR
    return strange


def _in_order_of_calls(send: Choice) -> Indices:
    """Return the rows that have a send call, in the order of the calls."""
    rows = np.flatnonzero(send.exists)
    return rows[np.argsort(send.position[rows], kind="stable")]


def _least_sum_around(values: Floats) -> Floats:
    """Return for each value the least sum of a stretch of values that contains it."""
    return _least_sum_ending(values) + _least_sum_ending(values[::-1])[::-1] - values


def _least_sum_ending(values: Floats) -> Floats:
    """Return for each value the least sum of a stretch of values that ends with it."""
    total = np.cumsum(values)
    before = np.maximum.accumulate(np.append(0.0, total))[: len(values)]
    return np.asarray(total - before)


def _order_of_replies(printed: Bools, reply: Choice, due: Due, packets: RunPackets) -> Bools:
    """Tell which lines are printed in another order than their replies came, or were due."""
    found = np.zeros(len(reply), dtype=np.bool_)
    rows = np.flatnonzero(reply.exists | (due.known & printed))
    came_ns = reply.of(packets.received_ns, 0)
    earliest_ns = np.where(reply.exists, came_ns, due.earliest_ns)[rows]
    latest_ns = np.where(reply.exists, came_ns, due.latest_ns)[rows]
    found[rows] = _inverted(earliest_ns, latest_ns)
    return found


def _exchangeable(send: Choice, due: Due) -> Bools:
    """Tell which lines are printed against the order of their calls, which are too close to tell.

    Of two calls that follow each other faster than printed RTTs can tell, the lines may have each
    other's number.
    """
    found = np.zeros(len(send), dtype=np.bool_)
    rows = np.flatnonzero(send.exists)
    for distance in range(1, min(NEAR_LINES, len(rows))):
        one, two = rows[:-distance], rows[distance:]
        backwards = send.position[one] > send.position[two]
        apart_ns = due.sent_ns[one] - due.sent_ns[two]
        close = backwards & (apart_ns <= due.tolerance_ns[one] + due.tolerance_ns[two])
        found[one[close]] = found[two[close]] = True
    return found


def _order_of_calls(pings: pd.DataFrame, send: Choice) -> Bools:
    """Tell which lines' calls, found by their time, do not go with their icmp_seq.

    From one line to another, icmp_seq grows at least by as much as the number of the call: some
    calls may not have been recorded.
    """
    found = np.zeros(len(send), dtype=np.bool_)
    rows = np.flatnonzero(send.exists)
    seq = pings["seq"].to_numpy()[rows]
    rows = rows[np.argsort(seq, kind="stable")]
    call = send.position[rows]
    lost_before = pings["seq"].to_numpy()[rows] - call
    found[rows] = _inverted(call, call) | _inverted(lost_before, lost_before)
    return found


def _inverted(least: Indices | Times, most: Indices | Times) -> Bools:
    """Tell which values, known within bounds, are less than one before, or more than one after."""
    if not len(least):
        return np.zeros(0, dtype=np.bool_)
    before = np.maximum.accumulate(least)
    after = np.minimum.accumulate(most[::-1])[::-1]
    return np.asarray((most < before) | (least > after))


def _misdated(
    pings: pd.DataFrame, run: Run, reply: Choice, packets: RunPackets, *, numbered: bool
) -> Bools:
    """Tell which lines were not printed when their reply had come.

    A ping that waits for a CPU prints late. That is believed where every request has its line
    (`numbered`), and the lines were printed one after the other.
    """
    printed_ns, slack_ns = printed_at(pings, run)
    received_ns = reply.of(packets.received_ns, 0)
    known = reply.exists & (printed_ns < FOREVER)
    early = printed_ns + slack_ns < received_ns
    if numbered and (np.diff(printed_ns[known]) >= 0).all():
        return np.asarray(known & early)
    late = printed_ns - received_ns > LONG_PRINT_DELAY_NS + slack_ns
    until = np.searchsorted(packets.received_ns, printed_ns + slack_ns, side="right")
    another = until - np.searchsorted(packets.received_ns, received_ns, side="right") > 0
    return np.asarray(known & (early | (late & another)))


def _as_scattered(due: Due, replies: Replies, packets: RunPackets) -> Due:
    """Return the same with wider intervals where the run's residuals scatter more than usual.

    On a slow machine the time from ping's stamp to its send call differs by several microseconds
    from ping to ping: in emulated machines the median distance is up to 4 us, elsewhere 0.6 us.
    Lines in coarser steps scatter by their rounding, so they are not asked about finer ones.
    """
    turn_ns = replies.turn.of(packets.received_ns, 0)
    distance_ns = turn_ns - (due.earliest_ns + due.latest_ns) // 2
    known = due.known & replies.turn.exists & replies.offset_known
    wider_ns = np.zeros(len(distance_ns), dtype=np.int64)
    for step_ns in np.unique(due.step_ns[known]):
        asked_ns = distance_ns[known & (due.step_ns <= step_ns)]
        if len(asked_ns) < FEW:
            continue
        scatter_ns = int(np.median(np.abs(asked_ns - np.median(asked_ns))))
        usual_ns = SCATTERS * min(scatter_ns, LARGEST_SCATTER_NS)
        alike = due.known & (due.step_ns == step_ns)
        wider_ns[alike] = max(usual_ns - RESIDUAL_TOLERANCE_NS, 0)
    return replace(due, earliest_ns=due.earliest_ns - wider_ns, latest_ns=due.latest_ns + wider_ns)


def _unfit(due: Due, replies: Replies, packets: RunPackets, agreement: Agreement) -> Bools:
    """Tell which lines have an RTT that is not that of the packet that came in their turn.

    A ping that is held up between its stamp and its send call prints such an RTT, which is rare:
    none of 2,600 pings did, idle and beside floods, and 5 of 600 beside two streams on both CPUs.
    A line with the RTT of another ping has such a one, too. The first ping's stamp may be taken on
    delivery, so that its RTT can be longer; it is not believed either where another line's RTT is
    of no packet.
    """
    turn_ns = replies.turn.of(packets.received_ns, 0)
    if not replies.offset_known:  # fewer than half of the lines agree in one
        distance_ns = np.abs(due.at_ns - (agreement.offset_ns or 0) - turn_ns)
        return np.asarray(agreement.tested & replies.turn.exists & (distance_ns > due.tolerance_ns))
    is_first = due.sent_ns == packets.send_ns.min(initial=FOREVER)
    short, long = turn_ns > due.latest_ns, turn_ns < due.earliest_ns
    known = due.known & replies.turn.exists
    unfit = known & (short | long) & ~(is_first & ~short) & ~replies.delivery.exists
    loose = known & is_first & (long | replies.delivery.exists)
    return np.asarray(unfit | (loose & unfit.any()))
