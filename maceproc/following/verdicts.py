"""What becomes of every ping: its status and the reason for it, by a list of rules.

The rules are asked in order; the first that holds of a ping decides (`rules.decide`). What a rule
looks at was found before, in `matching`: a rule decides, it searches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following.due import FINE_STEP_NS, OFFSET_RANGE_NS
from maceproc.following.mixtures import complete
from maceproc.following.numbering import beyond_calls
from maceproc.following.positions import FOREVER, Bools, Times
from maceproc.following.rules import Case, Rule, Verdicts, Words, decide

STATUSES: Mapping[str, str] = {
    "corrected": "both crossings were followed; the RTT is given without them",
    "native": "ran on the bare machine: nothing to correct; the wire RTT is given",
    "uncrossed": "its path has no crossing that can be seen; the RTT stays as printed",
    "untraced": "ran without tracing: there are no events to correct it with",
    "unanswered": "no reply was printed",
    "unprinted": "ping printed no line for it (-f, -q)",
    "duplicate": "a further reply to a request that was answered before",
    "error": "an ICMP error came instead of a reply",
    "incomplete": "an event that is needed was lost or not recorded",
    "ambiguous": "more than one packet could be this ping's",
}

NO_CROSSING = "its path has no crossing that can be seen"
"""The reason of what is `uncrossed`."""


def judge(case: Case) -> Verdicts:
    """Return the verdict on every ping of a run, by the rules for its kind."""
    if not case.run.traced:
        return decide(UNTRACED_RULES, case)
    return decide(CONTAINER_RULES if case.run.place == "container" else NATIVE_RULES, case)


def _printed(status: str) -> Callable[[Case], Bools]:
    return lambda case: np.asarray(case.pings["status"].to_numpy(dtype=object) == status)


def _messages(case: Case) -> Words:
    return case.pings["message"].to_numpy(dtype=object)


def _always(case: Case) -> Bools:
    return np.full(len(case.pings), True)


def _no_call_told(case: Case) -> Bools:
    numbering = case.traced.numbering
    return ~numbering.send.exists & (not numbering.counted)


def _calls_for_requests(case: Case) -> str:
    numbering = case.traced.numbering
    said = "an unknown number of" if numbering.requests is None else f"{numbering.requests}"
    return f"{numbering.calls} send calls were recorded for {said} requests: its own cannot be told"


def _beyond_the_calls(case: Case) -> Bools:
    return beyond_calls(case.traced.numbering)


def _first_unknown(case: Case) -> Bools:
    numbering = case.traced.numbering
    return np.full(len(case.pings), numbering.counted and numbering.first_seq is None)


def _replies_unseen(case: Case) -> Bools:
    seen, answered = len(case.traced.packets.received_ns), case.traced.due.answered.sum()
    return np.asarray(case.traced.doubts.disagrees & (2 * seen < answered))


def _few_replies(case: Case) -> str:
    if case.run.place == "container" and case.traced.packets.outbound.empty:
        return (
            f"none of {len(case.traced.packets.send_ns)} requests was seen at the host's end of "
            "the container's device: they were copied on their way there (by a veth for an XDP "
            "program in driver mode), had another length, or left by another device"
        )
    answered, seen = case.traced.due.answered.sum(), len(case.traced.packets.received_ns)
    return (
        f"of {answered} replies, {seen} were seen on the container's device: others came by "
        "another one, had another length, or were moved past it (by an eBPF program)"
    )


def _no_offset(case: Case) -> Bools:
    matches = case.traced
    known = matches.due.answered & matches.send.exists
    return known & ~matches.replies.turn.exists & (not matches.replies.offset_known)


def _missing_reply(case: Case) -> Words:
    answered = case.traced.due.answered
    return np.where(answered, "no reply was seen when its RTT says it came", NO_RTT).astype(object)


NO_RTT = "ping printed no RTT for it, and which reply is its own cannot be told"


def _reply_not_followed(case: Case) -> Bools:
    return ~case.traced.reply.of(complete(case.traced.packets.inbound), absent=False)


def _why_reply(case: Case) -> Words:
    return "its reply: " + case.traced.reply.of(_reasons(case.traced.packets.inbound), "")


def _no_request(case: Case) -> Bools:
    matches = case.traced
    return ~matches.request.exists & ~_several_requests(case)


def _several_requests(case: Case) -> Bools:
    return case.traced.send.of(case.traced.requests.several, absent=False)


def _request_not_followed(case: Case) -> Bools:
    return ~case.traced.request.of(complete(case.traced.packets.outbound), absent=False)


def _why_request(case: Case) -> Words:
    return "its request: " + case.traced.request.of(_reasons(case.traced.packets.outbound), "")


def _reasons(passages: pd.DataFrame) -> npt.NDArray[np.object_]:
    return passages["reason"].to_numpy(dtype=object)


def _coarse_without_stamp(case: Case) -> Bools:
    coarse = ~fine(case.pings) & ~case.traced.replies.stamp_known
    return coarse & ~printed_is_enough(case)


def printed_is_enough(case: Case) -> Bools:
    """Tell which coarsely printed RTTs can be corrected although it is not known who stamped.

    The crossings are longer than the step of the RTT, and the RTT is one that ends where the reply
    can have been stamped: by the kernel when it arrived, or in the receive call that took it
    (net/socket.c, __sock_recv_timestamp(), v6.8); nothing stamps it while it waits for the call.
    """
    matches, packets = case.traced, case.traced.packets
    resolution_ns = case.pings["rtt_resolution_ns"].to_numpy(np.int64, na_value=FOREVER)
    out_ns = matches.request.of(_latency(packets.outbound), 0)
    crossings_ns = out_ns + matches.reply.of(_latency(packets.inbound), 0)
    received_ns = matches.reply.of(packets.received_ns, FOREVER)
    calls_ns = np.append(packets.delivered_ns, FOREVER)
    taken_ns = calls_ns[np.searchsorted(packets.delivered_ns, received_ns)]
    rtt_ns = case.pings["rtt_ns"].to_numpy(np.int64, na_value=0)
    printed_ns = matches.send.of(packets.send_ns, 0) + rtt_ns
    slack_ns = resolution_ns + OFFSET_RANGE_NS[1]
    ends_in_time = (received_ns <= printed_ns + resolution_ns) & (printed_ns <= taken_ns)
    ends_in_time &= (printed_ns <= received_ns + slack_ns) | (taken_ns <= printed_ns + slack_ns)
    seen = matches.send.exists & matches.reply.exists & (taken_ns < FOREVER)
    return np.asarray((resolution_ns < crossings_ns) & ends_in_time & seen)


def _latency(passages: pd.DataFrame) -> Times:
    return passages["latency_ns"].to_numpy(np.int64, na_value=0)


def fine(rows: pd.DataFrame) -> Bools:
    """Tell which RTTs were printed finely enough to be corrected."""
    return (rows["rtt_resolution_ns"] <= FINE_STEP_NS).fillna(False).to_numpy(dtype=bool)


PRINTED_RULES: tuple[Rule, ...] = (
    Rule("printed-duplicate", "duplicate", _printed("duplicate"), "answered before"),
    Rule("printed-unanswered", "unanswered", _printed("unanswered"), _messages),
    Rule("printed-error", "error", _printed("error"), _messages),
)
"""What ping itself says of its pings."""

MATCH_RULES: tuple[Rule, ...] = (
    Rule(
        "several-targets",
        "ambiguous",
        lambda case: np.full(len(case.pings), bool(case.unsettled)),
        lambda case: (
            f"its run had several targets, and which send call was for which is not known: "
            f"{case.unsettled}"
        ),
    ),
    Rule("calls-and-requests-differ", "incomplete", _no_call_told, _calls_for_requests),
    Rule(
        "number-without-call",
        "incomplete",
        _beyond_the_calls,
        "its icmp_seq is not one of the requests that ping says it sent",
    ),
    Rule(
        "first-number-unknown",
        "ambiguous",
        _first_unknown,
        "neither ping's text nor its packets tell whether it counts from 0 or from 1",
    ),
    Rule("replies-unseen", "incomplete", _replies_unseen, _few_replies),
    Rule(
        "rtts-disagree",
        "ambiguous",
        lambda case: case.traced.doubts.disagrees,
        "the printed RTTs of this run do not agree with its packets: is this text another run's?",
    ),
    Rule(
        "printed-at-another-time",
        "ambiguous",
        lambda case: case.traced.doubts.misdated,
        "its line was not printed when the reply of that number came",
    ),
    Rule(
        "printed-in-another-order",
        "ambiguous",
        lambda case: case.traced.doubts.disordered,
        "its line is printed in another order than the replies came in",
    ),
    Rule(
        "rtt-of-no-packet",
        "ambiguous",
        lambda case: case.traced.doubts.unfit,
        "its packets, told by their order, took another time than the printed RTT: it may be "
        "another line's",
    ),
    Rule(
        "number-shifted",
        "ambiguous",
        lambda case: case.traced.doubts.shifted,
        "the printed RTTs agree better with the packets if the numbers are shifted",
    ),
    Rule(
        "number-undecided",
        "ambiguous",
        lambda case: case.traced.doubts.undecided,
        "a reply came that no line speaks of, and the printed RTTs do not tell which number is "
        "missing",
    ),
    Rule(
        "stamps-not-told",
        "ambiguous",
        _no_offset,
        "the packets seen do not tell when ping takes its time stamps",
    ),
    Rule(
        "several-replies",
        "ambiguous",
        lambda case: case.traced.replies.several,
        "several packets came when its RTT says it came",
    ),
    Rule(
        "usual-reply-before",
        "ambiguous",
        lambda case: case.traced.replies.usual_before,
        "another packet came when its reply usually comes, and its RTT is longer than usual: ping "
        "may have been held up before it sent",
    ),
    Rule(
        "stamped-late",
        "ambiguous",
        lambda case: case.traced.replies.stamped_late,
        "a packet that came before may have been stamped late",
    ),
    Rule("no-reply", "incomplete", lambda case: ~case.traced.reply.exists, _missing_reply),
    Rule(
        "contested-reply",
        "ambiguous",
        lambda case: case.traced.contested,
        "another ping's reply?",
    ),
    Rule("reply-not-followed", "incomplete", _reply_not_followed, _why_reply),
    Rule("no-request", "incomplete", _no_request, "its request was not seen on the first device"),
    Rule(
        "several-requests",
        "ambiguous",
        _several_requests,
        "its send call made more than one packet",
    ),
    Rule("request-not-followed", "incomplete", _request_not_followed, _why_request),
    Rule(
        "mixed-packets",
        "ambiguous",
        lambda case: case.traced.mixed,
        "a packet that was not followed may be part of its way",
    ),
    Rule(
        "events-lost",
        "incomplete",
        lambda case: case.traced.gap,
        "events were lost while it was on its way",
    ),
    Rule(
        "reply-before-request",
        "ambiguous",
        lambda case: case.traced.early,
        "its reply would have come before its request left",
    ),
)
"""What speaks against the packets that were matched."""

CONTAINER_RULES = (
    *PRINTED_RULES,
    *MATCH_RULES,
    Rule(
        "coarse-without-stamp",
        "incomplete",
        _coarse_without_stamp,
        "ping printed too coarsely, and when its reply was stamped is not known",
    ),
    Rule("corrected", "corrected", _always, ""),
)
NATIVE_RULES = (*PRINTED_RULES, *MATCH_RULES, Rule("native", "native", _always, ""))
UNTRACED_RULES = (
    *PRINTED_RULES,
    Rule("untraced", "untraced", _always, "no tracepoint was enabled"),
)

RULES: Mapping[str, Rule] = {
    rule.name: rule for rule in (*CONTAINER_RULES, *NATIVE_RULES, *UNTRACED_RULES)
}
"""Every rule by its name."""
