"""Which packets were a ping's request and reply.

Nothing in the events carries an icmp_seq, so a match rests on what a ping does and what it prints:

* the k-th send call sends the k-th icmp_seq, when all of them were recorded; otherwise the time a
  line was printed (`ping -D`) must single one out;
* a request is queued on the first device within its send call, by the same task;
* a reply's receive stamp is where the printed RTT says, counted from the send call: the stamp in
  user space is ahead of the call by nearly the same time for every ping of a run.

A match must be the only one possible, and stay so if any events were lost: two packets in flight
can hold one address in turn, and what is left of both can look like one. So a crossing is not
believed if a packet that was not followed itself could be part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Run
from maceproc.following.crossings import OUTBOUND
from maceproc.pings import ICMP_HEADER_BYTES, PingOutput
from maceproc.schema import DELIVERIES, SENDS
from maceproc.units import NS_PER_MS, NS_PER_US

Times = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# System calls that send a datagram (only sendto tells its length), and that receive one.
SEND_CALLS = ("sys_enter_sendto", "sys_enter_sendmsg")
RECEIVE_CALLS = ("sys_exit_recvmsg", "sys_exit_recvfrom")

Stamp = Literal["kernel", "program"]
"""Who takes the receive time stamp: the kernel on the device, or the program when it has it."""

OFFSET_RANGE_NS = (-2 * NS_PER_US, 100 * NS_PER_US)
"""How far the program's send stamp can be ahead of its send call, or, where that was not recorded,
of the first event: 0 to 4 us as a rule, and tens more for the way through the stack."""

OFFSET_OF_FEW_NS = (-2 * NS_PER_US, 10 * NS_PER_US)
MANY = 5
"""The same of fewer pings than these, too few to agree in it by more than chance."""

RESIDUAL_TOLERANCE_NS = 5 * NS_PER_US
"""How far a residual may lie from the run's median, beside the step of the printed RTT.

It varies by less than 2 us in 98 % of the pings, and by 3 us in all but a few in 1000.
"""

PRINT_ERROR_NS = 1 * NS_PER_US  # both stamps are cut to microseconds before they are subtracted

LATE_STAMP_NS = 8 * NS_PER_US
"""How long before its end a receive call takes the stamp that the device did not take.

The kernel stamps packets only while somebody asks for stamps, and is told so by a deferred work
item: the first reply can come before (net/core/dev.c, net_enable_timestamp(), v6.8).
"""

PRINT_DELAY_NS = 1 * NS_PER_MS
"""How long after its reply a line may be printed, where only that time tells which ping it was."""

NONE = -1
"""Position of what was not found."""

FOREVER = np.iinfo(np.int64).max // 2

IP_HEADER_BYTES = (20, 40)  # version 4, version 6
ETHERNET_HEADER_BYTES = 14
SHORTEST_PAYLOAD_BYTES = 46  # Ethernet pads a shorter one, IEEE 802.3


def sends_table(events: Mapping[str, pd.DataFrame], crossings: pd.DataFrame) -> pd.DataFrame:
    """Return SENDS, in order of time, from the tables of a trace.

    Where no send call was recorded, a request's first event stands in its place: what a task
    queued on the container's device. Then the residual holds the way through the stack too.
    """
    if any(name in events for name in SEND_CALLS):
        return _calls(events, SEND_CALLS, SENDS)
    whole = (crossings["direction"] == OUTBOUND) & (crossings["status"] == "complete")
    requests = crossings[whole & ~crossings["softirq"]].sort_values("entered_ns")
    data = {"time_ns": requests["entered_ns"], "pid": requests["pid"]}
    unknown = pd.array([None] * len(requests), dtype="Int64")
    return SENDS.frame(data | {"fd": np.zeros(len(requests)), "len": unknown})


def runs_by_hand(
    printed: Iterable[PingOutput], sends: pd.DataFrame
) -> list[tuple[Run, PingOutput]]:
    """Give every run of a ping its task, when nothing but its output and the events is left.

    In order of time, each run gets the next task that made as many send calls as it sent
    requests; none, if there is no such task.
    """
    tasks = sends.groupby("pid")["time_ns"].agg(["size", "min", "max"]).sort_values("min")
    runs, left = [], list(tasks.itertuples())
    for number, output in enumerate(printed, start=1):
        fitting = [place for place, task in enumerate(left) if task.size == output.sent]
        run = Run(round=number, place="container", traced=True, argv=["ping"])
        if fitting:
            task = left[fitting[0]]
            del left[: fitting[0] + 1]
            run.pid, run.start_ns, run.end_ns = task.Index, task.min, FOREVER
        runs.append((run, output))
    for (run, _), (following, _) in pairwise(runs):
        if following.start_ns:
            run.end_ns = following.start_ns - 1
    return runs


def deliveries_table(events: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return DELIVERIES, in order of time: receive calls that returned data."""
    calls = _calls(events, RECEIVE_CALLS, DELIVERIES)
    return calls[calls["ret"] > 0].reset_index(drop=True)


def _calls(events: Mapping[str, pd.DataFrame], names: tuple[str, ...], table: Any) -> pd.DataFrame:
    calls = [events[name] for name in names if name in events]
    if not calls:
        return table.frame()
    merged = pd.concat([call.reindex(columns=table.names) for call in calls])
    return table.frame(merged.sort_values("time_ns", kind="stable", ignore_index=True))


def stamp_of(run: Run, printed: PingOutput) -> Stamp:
    """Tell who takes the receive stamp: the program in busybox ping and `ping -U`."""
    if printed.stamped_by is not None:
        return printed.stamped_by
    short = [word for word in run.argv[1:] if word.startswith("-") and not word.startswith("--")]
    return "program" if any("U" in word for word in short) else "kernel"


class Verdicts:
    """Status and reason of every ping of a run; the first thing found against a ping stands."""

    def __init__(self, pings: pd.DataFrame) -> None:
        self.status = np.full(len(pings), "", dtype=object)
        self.reason = np.full(len(pings), "", dtype=object)
        printed = pings["status"].to_numpy(dtype=object)
        messages = pings["message"].to_numpy(dtype=object)
        self.against(printed == "duplicate", "duplicate", "answered before")
        for status in ("unanswered", "error"):
            self.against(printed == status, status, messages)

    def against(self, where: Bools, status: str, reason: str | npt.NDArray[Any]) -> None:
        """Settle the pings of which this is true and that are not settled yet."""
        unsettled = where & (self.status == "")
        self.status[unsettled] = status
        self.reason[unsettled] = reason if isinstance(reason, str) else reason[unsettled]


@dataclass(frozen=True)
class Packets:
    """What the events know of one run: its send and receive calls, and packets of its length.

    Times in ns on the trace clock; everything in order of time.
    """

    send_ns: Times
    delivered_ns: Times
    outbound: pd.DataFrame
    inbound: pd.DataFrame
    lost: pd.DataFrame  # LOST
    whole: bool  # no event was lost while the run lasted


@dataclass(frozen=True)
class Matches:
    """The packets of every ping of a run: positions in the tables of `Packets`, or `NONE`."""

    send: Indices
    request: Indices
    reply: Indices
    delivery: Indices
    on_delivery: Bools  # the receive stamp was taken in the receive call
    stamp_known: Bools  # or else in the receive softirq, if this is true
    by_turn: Bools  # its turn tells the reply, not its time

    @property
    def matched_by(self) -> npt.NDArray[np.object_]:
        """What tells the reply: a key of `MATCHED_BY`; None where there is none."""
        kinds = [self.reply == NONE, self.by_turn, self.on_delivery]
        return np.select(kinds, [None, "turn", "delivery"], "time")  # type: ignore[list-item]


MATCHED_BY: Mapping[str, str] = {
    "time": "it is the only packet received when the printed RTT says that the reply was",
    "turn": "no event was lost, as many packets came as replies were printed, and this one came "
    "between this ping's send call and the next",
    "delivery": "it is the only packet received before the call that returned when the printed RTT "
    "says that the reply was stamped",
}
"""What tells a ping's reply from other packets."""


def packets_of_run(
    run: Run,
    printed: PingOutput,
    sends: pd.DataFrame,
    deliveries: pd.DataFrame,
    passages: pd.DataFrame,
    *,
    lost: pd.DataFrame,
    mtu: int = 1500,
) -> Packets:
    """Pick what can belong to one run of a ping: its time, its task, its length, its device.

    `lost` is LOST; `mtu` is the first device's: a longer echo is sent in fragments.
    """
    first_seen_ns = passages["entered_ns"].fillna(passages["left_ns"])
    in_run = first_seen_ns.between(run.start_ns, run.end_ns).fillna(False).astype(bool)
    passages = passages[in_run & _has_echo_length(passages, printed, mtu)]
    out = passages["direction"] == OUTBOUND
    pid = _task_of_run(run, passages[out])
    sends = sends[sends["time_ns"].between(run.start_ns, run.end_ns)]
    sends = _echo_requests(sends[sends["pid"] == pid], printed)
    received = deliveries["time_ns"].between(run.start_ns, run.end_ns)
    received &= deliveries["pid"] == pid
    # In softirq: a packet that waited for a neighbour's address is sent when that comes.
    own = passages["softirq"] | (passages["pid"] == pid)
    outbound = passages[out & own].sort_values("entered_ns", ignore_index=True)
    known = passages["left_ns"].notna() & passages["peer"].isin(outbound["peer"].unique())
    known &= passages["len"].isin(_reply_lengths(outbound))
    inbound = passages[~out & known].sort_values("left_ns", ignore_index=True)
    return Packets(
        sends["time_ns"].to_numpy(),
        deliveries["time_ns"][received].to_numpy(),
        outbound,
        inbound,
        lost,
        whole=not meets_gap(np.array([run.start_ns]), np.array([run.end_ns]), lost).any(),
    )


def meets_gap(start_ns: Times, end_ns: Times, lost: pd.DataFrame) -> Bools:
    """Tell which spans of time meet a gap of LOST, in which a ring buffer lost events."""
    after_ns = np.sort(lost["after_ns"].to_numpy(np.int64, na_value=-FOREVER))
    before_ns = np.sort(lost["before_ns"].to_numpy(np.int64, na_value=FOREVER))
    # Gaps that began before the span ended, less those that ended before it began.
    begun = np.searchsorted(after_ns, end_ns, side="left")
    ended = np.searchsorted(before_ns, start_ns, side="right")
    return np.asarray(begun > ended)


def match_run(
    pings: pd.DataFrame, run: Run, printed: PingOutput, packets: Packets, verdicts: Verdicts
) -> Matches:
    """Find send call, request, reply and delivery of every ping of one run."""
    send = _number_sends(pings, run, printed, packets, verdicts)
    due = _Due(pings, run, packets, send)
    lost_call_ns = _lost_call_ns(due, printed, packets, send)
    by_turn = at(_reply_by_turn(printed, packets), send, NONE)
    stamp = stamp_of(run, printed)
    found = _find_replies(due, stamp, packets, by_turn, verdicts)
    reply = found.reply
    request_of_call = _request_of_call(packets, lost_call_ns)
    request = _find_requests(packets, request_of_call, send, verdicts)
    mixed = _outbound_mixtures(packets, request_of_call, lost_call_ns, send, request)
    mixed |= _inbound_mixtures(due, packets, reply)
    verdicts.against(mixed, "ambiguous", "a packet that was not followed may be part of its way")
    # What is left of two packets with one address, one after the other, can look like one.
    gap = meets_gap(due.sent_ns, due.latest_ns + LATE_STAMP_NS, packets.lost)
    verdicts.against(gap & due.answered, "incomplete", "events were lost while it was on its way")
    early = _came_before_it_left(packets, request, reply)
    verdicts.against(early, "ambiguous", "its reply would have come before its request left")
    return replace(found, send=send, request=request)


def _task_of_run(run: Run, outbound: pd.DataFrame) -> int:
    """Return the pid of a run's ping; NONE when that is not known.

    Where it was not seen when the ping ran (a container's engine starts it, and it may end before
    anybody looks), it is the only task that queued packets of that length on that device.
    """
    if run.pid is not None:
        return run.pid
    tasks = outbound["pid"][~outbound["softirq"]].unique()
    return int(tasks[0]) if len(tasks) == 1 else NONE


def _echo_requests(sends: pd.DataFrame, printed: PingOutput) -> pd.DataFrame:
    """Leave out what else a ping sends (a name to be resolved): another length, another socket."""
    if printed.payload_bytes is not None:
        right = (sends["len"] == printed.payload_bytes + ICMP_HEADER_BYTES).fillna(False)
        sends = sends[right] if right.any() else sends[sends["len"].isna()]
    if sends.empty:
        return sends
    return sends[sends["fd"] == sends["fd"].mode().iloc[0]]


def _has_echo_length(passages: pd.DataFrame, printed: PingOutput, mtu: int) -> Bools:
    """Tell which packets are as long as the ping's echoes, with or without an Ethernet header.

    Of a fragmented echo that is the last fragment: it is whole when that has come.
    """
    if printed.payload_bytes is None:
        return np.full(len(passages), True)
    message = printed.payload_bytes + ICMP_HEADER_BYTES
    packets = [header + _last_fragment(message, mtu - header) for header in IP_HEADER_BYTES]
    packets += [SHORTEST_PAYLOAD_BYTES] * (min(packets) < SHORTEST_PAYLOAD_BYTES)
    fits = passages["len"].isin([*packets, *(p + ETHERNET_HEADER_BYTES for p in packets)])
    return fits.to_numpy(dtype=np.bool_)


def _reply_lengths(requests: pd.DataFrame) -> list[int]:
    """Return the lengths a reply can have: the request's, without or with an Ethernet header."""
    if requests.empty:
        return []
    length = int(requests["len"].mode().iloc[0])
    lengths = [length, length - ETHERNET_HEADER_BYTES]
    return lengths + [SHORTEST_PAYLOAD_BYTES] * (min(lengths) < SHORTEST_PAYLOAD_BYTES)


def _last_fragment(message: int, room: int) -> int:
    """Return the length of a message's last fragment; others are multiples of 8, RFC 791."""
    if message <= room:
        return message
    return message % (room // 8 * 8) or room // 8 * 8


NUMBERING_UNKNOWN = "whether its ping counts from 0 or from 1 is not known"


def _number_sends(
    pings: pd.DataFrame, run: Run, printed: PingOutput, packets: Packets, verdicts: Verdicts
) -> Indices:
    """Find the send call of every ping: by counting, or else by the time its line was printed."""
    calls = len(packets.send_ns)
    if printed.first_seq is None:
        verdicts.against(np.full(len(pings), True), "ambiguous", NUMBERING_UNKNOWN)
        return np.full(len(pings), NONE)
    if printed.sent == calls:
        send = pings["seq"].to_numpy() - printed.first_seq
        return np.where((send >= 0) & (send < calls), send, NONE)
    said = "an unknown number of" if printed.sent is None else f"{printed.sent}"
    send = _sends_by_time(pings, run, packets)
    reason = f"{calls} send calls were recorded for {said} requests: its own cannot be told"
    verdicts.against(send == NONE, "incomplete", reason)
    return send


def _sends_by_time(pings: pd.DataFrame, run: Run, packets: Packets) -> Indices:
    """Find the one send call that can have led to a line printed when it was."""
    printed_ns, slack_ns = _printed_at(pings, run)
    rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    latest_ns = printed_ns - rtt_ns + slack_ns
    first = np.searchsorted(packets.send_ns, latest_ns - slack_ns - PRINT_DELAY_NS, side="left")
    end = np.searchsorted(packets.send_ns, latest_ns, side="right")
    known = (printed_ns < FOREVER) & (rtt_ns < FOREVER)
    return _unclaimed(np.where(known & (end - first == 1), first, NONE))


def _printed_at(pings: pd.DataFrame, run: Run) -> tuple[Times, int]:
    """Return when each line was printed on the trace clock, FOREVER where unknown, and the slack.

    `ping -D` prints UTC; what both clocks said when the run began and ended relates them.
    """
    at_start, at_end = run.start_utc_ns - run.start_ns, run.end_utc_ns - run.end_ns
    utc_ns = pings["received_at_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    if run.start_utc_ns == 0:
        utc_ns = np.full(len(pings), FOREVER)
    printed_ns = np.where(utc_ns < FOREVER, utc_ns - (at_start + at_end) // 2, FOREVER)
    return printed_ns, abs(at_end - at_start) + 100 * NS_PER_US


def _unclaimed(positions: Indices) -> Indices:
    """Keep the positions that nobody else has; NONE for all who share one."""
    found, counts = np.unique(positions[positions != NONE], return_counts=True)
    shared = np.isin(positions, found[counts > 1])
    return np.asarray(np.where(shared, NONE, positions))


class _Due:
    """When the reply of every ping of a run must have come in.

    `known`: by its send call and its printed RTT, at `at_ns` plus the send stamp's offset, give or
    take `tolerance_ns`. Otherwise somewhere between `earliest_ns` and `latest_ns`. `held_up`: the
    printed RTT does not tell, because ping was interrupted between its stamps and its calls.
    """

    def __init__(self, pings: pd.DataFrame, run: Run, packets: Packets, send: Indices) -> None:
        rtt_ns = pings["rtt_ns"].to_numpy(dtype=np.int64, na_value=0)
        step_ns = pings["rtt_resolution_ns"].to_numpy(dtype=np.int64, na_value=0)
        answered = pings["rtt_ns"].notna().to_numpy()
        self.known = answered & (send != NONE)
        self.sent_ns = at(packets.send_ns, send)
        self.at_ns = np.where(self.known, self.sent_ns + rtt_ns, FOREVER)
        self.step_ns = step_ns
        self.tolerance_ns = step_ns // 2 + PRINT_ERROR_NS + RESIDUAL_TOLERANCE_NS
        self.answered = answered
        self.held_up = np.zeros(len(pings), dtype=np.bool_)
        self.seq: Indices = pings["seq"].to_numpy()
        printed_ns, slack_ns = _printed_at(pings, run)
        unknown = printed_ns >= FOREVER
        self.latest_ns = np.where(unknown, FOREVER, printed_ns + slack_ns)
        self.earliest_ns = np.where(unknown, -FOREVER, printed_ns - slack_ns - LONG_PRINT_DELAY_NS)
        self.sent_earliest_ns = np.where(unknown, -FOREVER, self.earliest_ns - rtt_ns)

    def settle(self, offset_ns: int) -> None:
        """Narrow down the known ones, once the offset of the send stamp is estimated."""
        centre_ns = self.at_ns - offset_ns
        self.earliest_ns = np.where(self.known, centre_ns - self.tolerance_ns, self.earliest_ns)
        self.latest_ns = np.where(self.known, centre_ns + self.tolerance_ns, self.latest_ns)


LONG_PRINT_DELAY_NS = 5 * NS_PER_MS
"""How long after its reply a line may be printed, where a longer time only refuses matches."""


def _offset_ns(due: _Due, asked: Bools, seen_ns: Times, lost: pd.DataFrame) -> int | None:
    """Estimate how far the send stamp is ahead of the send call [ns]; None if it cannot be told.

    That is, the printed RTT minus the RTT of the last packet seen before the reply was due; half
    of the pings asked must agree in it, of those that no event was lost of.
    """
    asked = asked & due.known & ~meets_gap(due.sent_ns, due.at_ns + due.tolerance_ns, lost)
    at_ns, slack_ns = due.at_ns[asked], due.tolerance_ns[asked]
    last = np.searchsorted(seen_ns, at_ns + due.step_ns[asked] + PRINT_ERROR_NS, "right") - 1
    offsets_ns = at_ns - at(seen_ns, np.where(last < 0, NONE, last), -FOREVER)
    low, high = OFFSET_RANGE_NS if len(at_ns) >= MANY else OFFSET_OF_FEW_NS
    rounding_ns = due.step_ns[asked] // 2 + PRINT_ERROR_NS
    near = (offsets_ns >= low - rounding_ns) & (offsets_ns <= high + rounding_ns)
    if not near.any():
        return None
    offset = np.clip(np.median(offsets_ns[near]), low, high)
    agree = near & (np.abs(offsets_ns - offset) <= slack_ns)
    return int(offset) if 2 * agree.sum() >= len(at_ns) else None


def _find_replies(
    due: _Due, stamp: Stamp, packets: Packets, by_turn: Indices, verdicts: Verdicts
) -> Matches:
    """Find the packet whose receive stamp gives the printed RTT, and the call that took it.

    Where none does, because the ping was held up or printed no RTT, the one whose turn it was.
    Requests are left open.
    """
    received_ns = packets.inbound["left_ns"].to_numpy(dtype=np.int64)
    first = due.sent_ns == packets.send_ns.min(initial=FOREVER)
    _settle_due(due, first, stamp, packets, by_turn, verdicts)
    timed, count = _only_one(
        received_ns, due.earliest_ns, due.latest_ns, due.known & (stamp == "kernel")
    )
    turn_ns = at(received_ns, by_turn, FOREVER)
    # Pings that follow one another faster than their RTTs can tell.
    fits = ((due.earliest_ns <= turn_ns) & (turn_ns <= due.latest_ns)) | due.held_up
    fits &= stamp == "kernel"
    stamped, count = np.where(fits, by_turn, timed), np.where(fits, 1, count)
    late, delivery = _stamped_on_delivery(due, packets, received_ns)
    on_delivery = (late != NONE) & ((first & (count == 0)) | (stamp == "program"))
    reply = np.where(on_delivery, late, stamped)
    in_time = ~due.answered | (at(received_ns, by_turn, FOREVER) <= due.at_ns)
    in_turn = (reply == NONE) & (count == 0) & in_time
    reply = np.where(in_turn, by_turn, reply)
    elsewhere = first | (stamp == "program")  # may be stamped on a delivery that was not recorded
    stamp_known = ~(in_turn & due.known & elsewhere)
    verdicts.against(count > 1, "ambiguous", "several packets came when its RTT says it came")
    unsure = first & (by_turn == NONE) & (_came_until(due, received_ns) > 1)
    verdicts.against(unsure, "ambiguous", "a packet that came before may have been stamped late")
    missing = np.where(due.answered, "no reply was seen when its RTT says it came", NO_RTT)
    verdicts.against(reply == NONE, "incomplete", missing)
    verdicts.against(_contested(due, received_ns, reply), "ambiguous", "another ping's reply?")
    arrived = _complete(packets.inbound)[reply]
    verdicts.against(~arrived, "incomplete", _why_not(packets.inbound, "its reply")[reply])
    nothing = np.full(len(reply), NONE)
    delivery = np.where(on_delivery, delivery, NONE)
    told_by_turn = (reply != timed) & ~on_delivery
    return Matches(nothing, nothing, reply, delivery, on_delivery, stamp_known, told_by_turn)


NO_OFFSET = "the packets seen do not tell when ping takes its time stamps"
NO_RTT = "ping printed no RTT for it, and which reply is its own cannot be told"


def _settle_due(
    due: _Due, first: Bools, stamp: Stamp, packets: Packets, by_turn: Indices, verdicts: Verdicts
) -> None:
    """Narrow down when replies are due; where they cannot be, only turns can tell.

    The first ping is not asked: who took its stamp is not known yet.
    """
    if stamp == "kernel":
        received_ns = packets.inbound["left_ns"].to_numpy(dtype=np.int64)
        offset_ns = _offset_ns(due, ~first, received_ns, packets.lost)
    else:
        offset_ns = _offset_ns(due, due.known, packets.delivered_ns, packets.lost)
    if offset_ns is None:
        verdicts.against(due.known & (by_turn == NONE), "ambiguous", NO_OFFSET)
        due.known &= by_turn != NONE
        due.held_up = due.known
    due.settle(offset_ns or 0)


def _came_until(due: _Due, received_ns: Times) -> Indices:
    """Count the packets received from each send call until the reply was due at the latest."""
    until = np.searchsorted(received_ns, due.latest_ns + LATE_STAMP_NS, side="right")
    return np.where(due.known, until - np.searchsorted(received_ns, due.sent_ns), 0)


def _reply_by_turn(printed: PingOutput, packets: Packets) -> Indices:
    """Return every send call's reply, if everything adds up; else NONE for all.

    No event was lost, there are as many calls as requests and as many packets as replies, and
    after every call comes at most one packet before the next.
    """
    calls, received_ns = packets.send_ns, packets.inbound["left_ns"].to_numpy(dtype=np.int64)
    reply = np.full(len(calls), NONE)
    turn = np.searchsorted(calls, received_ns, side="right") - 1
    adds_up = printed.sent == len(calls) and printed.received == len(turn)
    if packets.whole and adds_up and (turn >= 0).all() and len(np.unique(turn)) == len(turn):
        reply[turn] = np.arange(len(turn))
    return reply


def _stamped_on_delivery(
    due: _Due, packets: Packets, received_ns: Times
) -> tuple[Indices, Indices]:
    """Find replies whose stamp was taken by the call that delivered them, and that call."""
    delivery, _ = _only_one(
        packets.delivered_ns, due.earliest_ns, due.latest_ns + LATE_STAMP_NS, due.known
    )
    delivered_ns = np.where(delivery == NONE, -FOREVER, at(packets.delivered_ns, delivery))
    reply, _ = _only_one(received_ns, due.sent_ns, delivered_ns, delivery != NONE)
    return reply, delivery


def _only_one(
    times_ns: Times, earliest_ns: Times, latest_ns: Times, where: Bools
) -> tuple[Indices, Indices]:
    """Return the position of the only time within each interval, or NONE, and how many are."""
    first = np.searchsorted(times_ns, earliest_ns, side="left")
    count = np.where(where, np.searchsorted(times_ns, latest_ns, side="right") - first, 0)
    return np.asarray(np.where(count == 1, first, NONE)), count


def _contested(due: _Due, received_ns: Times, reply: Indices) -> Bools:
    """Tell which replies another ping has too, or could have for all that is known of it."""
    shared = (reply != NONE) & (_unclaimed(reply) == NONE)
    unknown = due.answered & ~due.known
    first = np.searchsorted(received_ns, due.earliest_ns[unknown], side="left")
    end = np.searchsorted(received_ns, due.latest_ns[unknown], side="right")
    edges = np.zeros(len(received_ns) + 1, dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, np.maximum(end, first), -1)
    wanted = np.cumsum(edges)[:-1] > 0
    return shared | ((reply != NONE) & np.append(wanted, False)[reply])


def _lost_call_ns(due: _Due, printed: PingOutput, packets: Packets, send: Indices) -> Times:
    """Return for each send call the earliest time a lost call can have followed it, or FOREVER.

    No call was lost if there are as many as ping says; none between two of consecutive icmp_seq.
    What a lost call is known by is the time its ping's line was printed.
    """
    calls = packets.send_ns
    if printed.sent == len(calls):
        return np.full(len(calls), FOREVER)
    seq = np.full(len(calls) + 1, NONE)
    seq[send[send != NONE]] = due.seq[send != NONE]
    earliest = pd.Series(due.sent_earliest_ns, index=due.seq).groupby(level=0).max()
    bound_ns = earliest.reindex(seq[:-1] + 1).fillna(-FOREVER).to_numpy(dtype=np.int64)
    last = printed.sent is not None and due.seq.max(initial=NONE)
    none_lost = (seq[:-1] != NONE) & ((seq[1:] == seq[:-1] + 1) | (seq[:-1] == last))
    return np.where(none_lost, FOREVER, np.maximum(calls, np.where(seq[:-1] == NONE, 0, bound_ns)))


def _request_of_call(packets: Packets, lost_call_ns: Times) -> Indices:
    """Return every send call's packet: queued by the task, or, if it had to wait, in softirq.

    It was queued before there can have been another call. Positions in `packets.outbound`, or
    NONE, or SEVERAL.
    """
    calls = packets.send_ns
    next_call_ns = np.minimum(np.append(calls[1:], FOREVER)[: len(calls)], lost_call_ns)
    queued_ns = packets.outbound["entered_ns"].to_numpy(dtype=np.int64, na_value=-FOREVER)
    softirq = packets.outbound["softirq"].to_numpy()
    found = np.full(len(calls), NONE)
    for waited in (False, True):
        rows = np.flatnonzero(softirq == waited)
        one, count = _only_one(queued_ns[rows], calls, next_call_ns - 1, np.full(len(calls), True))
        found = np.where(found == NONE, np.where(count > 1, SEVERAL, at(rows, one, NONE)), found)
    return found


SEVERAL = -2
"""In place of a position: there is more than one."""


def _find_requests(
    packets: Packets, request_of_call: Indices, send: Indices, verdicts: Verdicts
) -> Indices:
    """Find every ping's request, by its send call; one that was followed all the way."""
    request = at(request_of_call, send, NONE)
    verdicts.against(request == NONE, "incomplete", "its request was not seen on the first device")
    verdicts.against(request == SEVERAL, "ambiguous", "its send call made more than one packet")
    request = np.where(request == SEVERAL, NONE, request)
    followed = _complete(packets.outbound)[request]
    verdicts.against(~followed, "incomplete", _why_not(packets.outbound, "its request")[request])
    return request


def _why_not(passages: pd.DataFrame, whose: str) -> npt.NDArray[Any]:
    """Return why crossings are not complete, in words; the last element is for NONE."""
    return np.append((f"{whose}: " + passages["reason"]).to_numpy(dtype=object), "")


def _complete(passages: pd.DataFrame) -> Bools:
    """Tell which crossings are complete; the last element, for NONE, is False."""
    return np.append(passages["status"].to_numpy() == "complete", False)


def _outbound_mixtures(
    packets: Packets,
    request_of_call: Indices,
    lost_call_ns: Times,
    send: Indices,
    request: Indices,
) -> Bools:
    """Tell which pings' requests may end as another one of the same run.

    That is possible from the next send call on whose own request was not followed.
    """
    followed = _complete(packets.outbound)[np.maximum(request_of_call, NONE)]
    next_call_ns = np.append(packets.send_ns[1:], FOREVER)[: len(followed)]
    unfollowed_ns = np.where(np.append(followed[1:], True)[: len(followed)], FOREVER, next_call_ns)
    unfollowed_ns = np.minimum(unfollowed_ns, lost_call_ns)
    bound_ns = np.minimum.accumulate(unfollowed_ns[::-1])[::-1]
    gone_ns = packets.outbound["wire_ns"].to_numpy(dtype=np.int64, na_value=-FOREVER)
    return at(gone_ns, request, -FOREVER) >= at(bound_ns, send, FOREVER)


def _inbound_mixtures(due: _Due, packets: Packets, reply: Indices) -> Bools:
    """Tell which pings' replies may begin as another ping's reply.

    That is possible if one that was not followed itself can have arrived meanwhile.
    """
    followed = _complete(packets.inbound)[reply]
    unfollowed = due.answered & ~followed
    entered_ns = packets.inbound["entered_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    left_ns = packets.inbound["left_ns"].to_numpy(dtype=np.int64)
    begun = np.searchsorted(np.sort(due.earliest_ns[unfollowed]), at(left_ns, reply, -FOREVER))
    ended = np.searchsorted(np.sort(due.latest_ns[unfollowed]), at(entered_ns, reply, FOREVER))
    return followed & (begun > np.minimum(ended, begun))


def _came_before_it_left(packets: Packets, request: Indices, reply: Indices) -> Bools:
    sent_ns = packets.outbound["wire_ns"].to_numpy(dtype=np.int64, na_value=-FOREVER)
    came_ns = packets.inbound["wire_ns"].to_numpy(dtype=np.int64, na_value=FOREVER)
    return at(came_ns, reply, FOREVER) <= at(sent_ns, request, -FOREVER)


def at(values: npt.NDArray[Any], positions: Indices, default: int = 0) -> npt.NDArray[Any]:
    """Return `values[positions]`, and `default` where a position is NONE."""
    found = np.append(values, default)[np.where(positions == NONE, len(values), positions)]
    return np.asarray(found)
