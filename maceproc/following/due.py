"""When the reply of every ping of a run must have been received.

The receive stamp is taken one printed RTT after the send stamp. The program takes the send stamp in
user space, shortly before its send call; the time between the two is the run's *offset*. It is
nearly the same for every ping of a run, and it is estimated from the packets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.positions import FOREVER, Bools, Choice, Indices, Times
from maceproc.following.run_packets import RunPackets, meets_gap
from maceproc.units import NS_PER_MS, NS_PER_US

OFFSET_RANGE_NS = (-5 * NS_PER_US, 100 * NS_PER_US)
"""The offsets that are possible.

The send stamp is 0 to 4 us ahead of the send call as a rule. Where the send call was not recorded,
the way through the stack to the first event is part of the offset. It is negative for a native ping
whose device receives by netif_receive_skb(): the kernel stamps the packet before that event fires
(net/core/dev.c, netif_receive_skb_internal(), v6.8), 1 to 3 us before it where caches are cold.
"""

OFFSET_OF_FEW_NS = (-5 * NS_PER_US, 10 * NS_PER_US)
"""The offsets that are accepted for fewer than `MANY` pings: so few can agree by chance."""

MANY = 5

RESIDUAL_TOLERANCE_NS = 5 * NS_PER_US
"""How far a residual may lie from the run's offset, in addition to the step of the printed RTT.

It varies by less than 2 us in 98 % of the pings, and by 3 us in all but a few in 1000.
"""

FINE_STEP_NS = 1 * NS_PER_US
"""A printed RTT of larger steps is coarser than what is corrected: the kernel's RTT is used.

That has nanoseconds, and leaves out only the time from the send stamp to the send call.
"""

PRINT_ERROR_NS = 1 * NS_PER_US  # both stamps are cut to microseconds before they are subtracted

PRINT_DELAY_NS = 1 * NS_PER_MS
"""How long after its reply a line may be printed, where only that time tells which ping it was."""

LONG_PRINT_DELAY_NS = 5 * NS_PER_MS
"""How long after its reply a line may be printed, where assuming too long a time is safe."""


class Offset(NamedTuple):
    """How far the send stamps of a run are ahead of the send calls: from `low_ns` to `high_ns`.

    Both are the same where the packets leave no choice.
    """

    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class Due:
    """When the reply of every ping of a run must have been received; arrays by ping [ns].

    Attributes
    ----------
    seq
        The icmp_seq.
    answered
        Whether an RTT was printed.
    known
        Whether send call and printed RTT tell when the reply was due.
    held_up
        Whether the printed RTT is not to be believed, because ping was interrupted between its
        stamps and its calls. Then only the order of calls and packets can tell the reply.
    sent_ns
        The send call; 0 where it is not known.
    at_ns
        Send call plus printed RTT. The stamp was taken here, minus the offset, give or take
        `tolerance_ns`. `FOREVER` where it is not known.
    step_ns
        The step of the printed RTT.
    tolerance_ns
        The tolerance of `at_ns`.
    earliest_ns, latest_ns
        The interval in which the reply was received, as far as it is known.
    sent_earliest_ns
        When the request can have been sent at the earliest, by the time its line was printed.
    """

    seq: Indices
    answered: Bools
    known: Bools
    held_up: Bools
    sent_ns: Times
    at_ns: Times
    step_ns: Times
    tolerance_ns: Times
    earliest_ns: Times
    latest_ns: Times
    sent_earliest_ns: Times

    def settled(self, offset: Offset) -> Due:
        """Return the same with the intervals of the known pings narrowed, by the offset."""
        earliest_ns = self.at_ns - offset.high_ns - self.tolerance_ns
        latest_ns = self.at_ns - offset.low_ns + self.tolerance_ns
        return replace(
            self,
            earliest_ns=np.where(self.known, earliest_ns, self.earliest_ns),
            latest_ns=np.where(self.known, latest_ns, self.latest_ns),
        )

    def without_offset(self, by_turn: Bools) -> Due:
        """Return the same for a run whose offset cannot be estimated.

        Only pings whose turn tells their reply (`by_turn`) are known then, and they count as held
        up: their printed RTT is not used.
        """
        known = self.known & by_turn
        return replace(self, known=known, held_up=known).settled(Offset(0, 0))


def due_of(pings: pd.DataFrame, run: Run, packets: RunPackets, send: Choice) -> Due:
    """Return when the replies of a run's PINGS are due, before the offset is estimated."""
    rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=0)
    step_ns = pings["rtt_resolution_ns"].to_numpy(dtype=np.int64, na_value=0)
    answered = pings["rtt_ns"].notna().to_numpy()
    known = answered & send.exists
    sent_ns = send.of(packets.send_ns, 0)
    printed_ns, slack_ns = printed_at(pings, run)
    unknown = printed_ns >= FOREVER
    earliest_ns = np.where(unknown, -FOREVER, printed_ns - slack_ns - LONG_PRINT_DELAY_NS)
    return Due(
        seq=pings["seq"].to_numpy(),
        answered=answered,
        known=known,
        held_up=np.zeros(len(pings), dtype=np.bool_),
        sent_ns=sent_ns,
        at_ns=np.where(known, sent_ns + rtt_ns, FOREVER),
        step_ns=step_ns,
        tolerance_ns=step_ns // 2 + PRINT_ERROR_NS + RESIDUAL_TOLERANCE_NS,
        earliest_ns=earliest_ns,
        latest_ns=np.where(unknown, FOREVER, printed_ns + slack_ns),
        sent_earliest_ns=np.where(unknown, -FOREVER, earliest_ns - rtt_ns),
    )


def printed_at(pings: pd.DataFrame, run: Run) -> tuple[Times, int]:
    """Return when each line was printed on the trace clock, and how exactly that is known [ns].

    `FOREVER` where it is not known. `ping -D` prints UTC; both clocks were read when the run began
    and when it ended.
    """
    at_start, at_end = run.start_utc_ns - run.start_ns, run.end_utc_ns - run.end_ns
    utc_ns = pings["received_at_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    if run.start_utc_ns == 0:
        utc_ns = np.full(len(pings), FOREVER)
    printed_ns = np.where(utc_ns < FOREVER, utc_ns - (at_start + at_end) // 2, FOREVER)
    return printed_ns, abs(at_end - at_start) + 100 * NS_PER_US


def estimate_offset(due: Due, asked: Bools, seen_ns: Times, lost: pd.DataFrame) -> Offset | None:
    """Estimate how far the send stamp is ahead of the send call; None if it cannot be told.

    That is the printed RTT minus the RTT of the last packet seen before the reply was due. Where
    packets of others follow shortly after most replies, they look as if the offset were negative:
    it is estimated without them, too, and both estimates hold. Pings during which events were lost
    are not asked.
    """
    asked = asked & due.known & ~meets_gap(due.sent_ns, due.at_ns + due.tolerance_ns, lost)
    whole_range = OFFSET_RANGE_NS if asked.sum() >= MANY else OFFSET_OF_FEW_NS
    found = _offset_within(whole_range, due, asked, seen_ns)
    if found is None:
        return None
    ahead = _offset_within((0, whole_range[1]), due, asked, seen_ns)
    both = (found, found if ahead is None else ahead)
    return Offset(min(both), max(both))


def _offset_within(
    within_ns: tuple[int, int], due: Due, asked: Bools, seen_ns: Times
) -> int | None:
    """Estimate the offset [ns] within a range; None if it cannot be told.

    The lines in the smallest steps tell it; half of the pings asked must agree in it.
    """
    at_ns, slack_ns = due.at_ns[asked], due.tolerance_ns[asked]
    low, high = within_ns
    rounding_ns = due.step_ns[asked] // 2 + PRINT_ERROR_NS
    last = np.searchsorted(seen_ns, at_ns - low + rounding_ns, "right") - 1
    offsets_ns = at_ns - Choice(last, last >= 0).of(seen_ns, -FOREVER)
    near = (offsets_ns >= low - rounding_ns) & (offsets_ns <= high + rounding_ns)
    if not near.any():
        return None
    steps_ns = due.step_ns[asked]
    finest = near & (steps_ns == steps_ns[near].min())
    if finest.sum() < MANY:
        low, high = max(low, OFFSET_OF_FEW_NS[0]), min(high, OFFSET_OF_FEW_NS[1])
    offset = np.clip(np.median(offsets_ns[finest]), low, high)
    agree = near & (np.abs(offsets_ns - offset) <= slack_ns)
    return int(offset) if 2 * agree.sum() >= len(at_ns) else None
