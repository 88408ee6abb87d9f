"""Each rule that decides about a ping, in runs drawn as text.

A drawing has a line per event: the time [us] and what happened. ``send`` is a send call,
``request`` a packet that it queued, ``reply`` a packet that the container's device received, and
``delivery`` the return of a receive call. A packet that is ``torn`` was not followed to its end. A
reply that was ``held 20`` had its last event but one 20 us before. A packet that is ``slow``
crossed in 20 us instead of 2. One that is ``inside`` was not seen on the outer device. One that was
``sent_on`` seems to have been sent on to a container, perhaps ``at_once``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from maceproc.capture import Run
from maceproc.following.crossings import NOT_SEEN
from maceproc.following.rtts import rtts_table
from maceproc.following.verdicts import RULES
from maceproc.pings import parse_ping, pings_table
from maceproc.schema import CROSSINGS, DELIVERIES, LOST, SENDS
from maceproc.units import NS_PER_US

PID = 7
UTC_NS = 1_700_000_000_000_000_000
START_NS = 1_000_000_000
NO_LOSS = LOST.frame()


def crossings_of(lines: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Build CROSSINGS from the lines of a drawing that are packets."""
    packets = [line for line in lines if line[1] in ("request", "reply")]
    at = np.array([ns(line[0]) for line in packets], dtype=np.int64)
    out = np.array([line[1] == "request" for line in packets], dtype=bool)
    inside = np.array(["inside" in line for line in packets], dtype=bool)
    torn = np.array(["torn" in line for line in packets], dtype=bool) | inside
    early = np.array(["early" in line for line in packets], dtype=bool)
    crossing = np.array([20_000 if "slow" in line else 2000 for line in packets], dtype=np.int64)
    # A request is queued at its time and then crosses; a reply has crossed at its time.
    entered, left = np.where(out, at, at - crossing), np.where(out, at + crossing, at)
    wire = np.where(out, left, entered) - np.where(early, 10_000 * NS_PER_US, 0)
    hidden = pd.arrays.IntegerArray
    held_ns = [ns(line[3]) - START_NS if "held" in line else 0 for line in packets]
    count = len(packets)
    table = CROSSINGS.frame(
        {
            "journey": np.arange(count),
            "direction": np.where(out, "outbound", "inbound"),
            "entered_ns": hidden(entered, torn & ~out),
            "left_ns": hidden(left, torn & out),
            "latency_ns": hidden(left - entered, torn),
            "wire_ns": hidden(wire, torn),
            "peer": ["veth1"] * count,
            "len": np.where(out, 98, 84),
            "pid": np.where(out, PID, 0),
            "softirq": ~out,
            "first_hop": np.arange(count),
            "last_hop": np.arange(count),
            "status": np.where(torn, "incomplete", "complete"),
            "reason": np.where(inside, NOT_SEEN, np.where(torn, "torn", "")),
        }
    )
    sent_on = {word: [word in line for line in packets] for word in ("sent_on", "at_once")}
    return table.assign(stamped_after_ns=at - held_ns, **sent_on)


def ns(microseconds: str | float) -> int:
    return START_NS + round(float(microseconds) * NS_PER_US)


def drawn(count: int, rtts: Sequence[float], step: float = 1000) -> str:
    """Draw a run whose replies come so long [us] after their send calls."""
    lines = []
    for number in range(count):
        start = number * step
        lines += [f"{start} send", f"{start + 1} request", f"{start + rtts[number]} reply"]
    return "\n".join(lines)


def text(
    rtts: Sequence[tuple[int, float]], sent: int, received: int | None = None, decimals: int = 3
) -> str:
    """Return what iputils ping prints for pairs of icmp_seq and RTT [us]."""
    lines = [
        f"64 bytes from 192.0.2.2: icmp_seq={seq} ttl=63 time={rtt / 1000:.{decimals}f} ms"
        for seq, rtt in rtts
    ]
    return summarized(lines, sent, len(rtts) if received is None else received)


def summarized(lines: Sequence[str], sent: int, received: int) -> str:
    header = "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data."
    counts = f"{sent} packets transmitted, {received} received, 0% packet loss, time 1ms"
    return "\n".join([header, *lines, "", "--- 192.0.2.2 ping statistics ---", counts])


def rules(
    drawing: str,
    printed: str,
    lost: pd.DataFrame = NO_LOSS,
    *,
    place: str = "container",
    traced: bool = True,
    first_known: bool = True,
) -> list[tuple[int, str]]:
    """Return icmp_seq and deciding rule of every ping of a run that printed this."""
    rtts = rtts_of(drawing, printed, lost, place=place, traced=traced, first_known=first_known)
    return list(zip(rtts["seq"], rtts["rule"], strict=True))


def rtts_of(
    drawing: str,
    printed: str,
    lost: pd.DataFrame = NO_LOSS,
    *,
    place: str = "container",
    traced: bool = True,
    first_known: bool = True,
) -> pd.DataFrame:
    """Return RTTS of a run that printed this."""
    lines = [line.split() for line in drawing.strip().splitlines()]
    calls = [ns(line[0]) for line in lines if line[1] == "send"]
    returns = [ns(line[0]) for line in lines if line[1] == "delivery"]
    end_ns = ns(1e6)
    run = Run(
        round=1, place=place, traced=traced, argv=["ping"], pid=PID,
        start_ns=START_NS - 1, end_ns=end_ns,
        start_utc_ns=START_NS - 1 + UTC_NS, end_utc_ns=end_ns + UTC_NS,
    )  # fmt: skip
    output = parse_ping(printed)[-1]
    pings = pings_table([(run, output)])
    if not first_known:
        output = replace(output, first_seq=None)
    data = {"time_ns": calls, "pid": PID, "fd": 3, "len": 64}
    sends = SENDS.frame({k: np.broadcast_to(v, len(calls)) for k, v in data.items()})
    deliveries = DELIVERIES.frame(
        {"time_ns": returns, "pid": [PID] * len(returns), "ret": [84] * len(returns)}
    )
    passages: Mapping[str, pd.DataFrame] = {place: crossings_of(lines)}
    rtts = rtts_table(pings, [(run, output)], sends, deliveries, passages, lost=lost)
    assert ((rtts["reason"] != "") | rtts["status"].isin(["corrected", "native"])).all()
    assert [RULES[rule].status for rule in rtts["rule"]] == list(rtts["status"])
    return rtts


# RTTs that differ from ping to ping, and what ping prints for them: 2 us more.
VARIED = [50.0, 61, 83, 52, 74, 95, 58, 66, 87, 54, 79, 63, 91, 57, 70, 84, 60, 76, 53, 88]
CONSTANT = [50.0] * 20


def lines_of(rtts: Sequence[float], first: int = 1) -> list[tuple[int, float]]:
    return [(seq, rtt + 2) for seq, rtt in enumerate(rtts, start=first)]


def test_a_run_where_everything_adds_up() -> None:
    for rtts in (VARIED, CONSTANT):
        found = rules(drawn(20, rtts), text(lines_of(rtts), 20))
        assert found == [(seq, "corrected") for seq in range(1, 21)]
    native = rules(drawn(20, VARIED), text(lines_of(VARIED), 20), place="native")
    assert {rule for _, rule in native} == {"native"}


def test_untraced() -> None:
    assert rules("", text([(1, 52)], 1), traced=False) == [(1, "untraced")]


TWO = drawn(2, [50, 50])
TWO_LINES = [(1, 52.0), (2, 52.0)]
REPLY = "64 bytes from 192.0.2.2: icmp_seq={} ttl=63 time=0.0{} ms"


@pytest.mark.parametrize(
    ("rule", "seq", "drawing", "printed"),
    [
        ("printed-unanswered", 2, "0 send\n1 request\n50 reply\n1000 send\n1001 request",
         text([(1, 52)], 2)),
        ("printed-duplicate", 1, TWO,
         summarized([REPLY.format(1, 52), REPLY.format(1, 60) + " (DUP!)"], 1, 1)),
        ("printed-error", 2, TWO,
         summarized([REPLY.format(1, 52),
                     "From 192.0.2.254 icmp_seq=2 Destination Host Unreachable"], 2, 1)),
        ("calls-and-requests-differ", 2, TWO, text(TWO_LINES, 3, 2)),
        ("printed-error", 9, TWO, text([(1, 52), (9, 52)], 2)),  # two requests were sent
        ("replies-unseen", 2, "0 send\n1 request\n1000 send\n1001 request", text(TWO_LINES, 2)),
        ("rtts-disagree", 2, TWO, text([(1, 52), (2, 90)], 2)),
        ("printed-in-another-order", 1, TWO, text(TWO_LINES[::-1], 2)),
        ("stamps-not-told", 1, "0 send\n1 request\n50 reply\n900 reply", text([(1, 300)], 1)),
        ("several-replies", 2, TWO + "\n1052 reply", text(TWO_LINES, 2)),
        ("several-replies", 2, TWO + "\n1070 reply held 21", text(TWO_LINES, 2)),  # late event
        ("usual-reply-before", 2, drawn(6, [50] * 6).replace("1050 reply", "1100 reply")
         + "\n1047 reply", text([(n, 102 if n == 2 else 52) for n in range(1, 7)], 6)),
        ("stamped-late", 1, TWO + "\n30 reply", text(TWO_LINES, 2)),
        ("no-reply", 2, drawn(6, VARIED).replace("1061 reply", "1900 reply"),
         text(lines_of(VARIED[:6]), 6, 5)),
        ("contested-reply", 2, drawn(3, [50, 50, 50]),
         text([(1, 52), (2, 52), (2, 52), (3, 52)], 3)),
        ("reply-not-followed", 2, TWO.replace("1050 reply", "1050 reply torn"),
         text(TWO_LINES, 2)),
        ("no-request", 2, TWO.replace("1001 request", "999 request"), text(TWO_LINES, 2)),
        ("several-requests", 2, TWO + "\n1002 request", text(TWO_LINES, 2)),
        ("request-not-followed", 2, TWO.replace("1001 request", "1001 request torn"),
         text(TWO_LINES, 2)),
        ("reply-before-request", 2, TWO.replace("1050 reply", "1050 reply early"),
         text(TWO_LINES, 2)),
        ("coarse-without-stamp", 1, drawn(4, [50] * 4),
         text([(1, 800), (2, 52), (3, 52), (4, 52)], 4, decimals=2)),
    ],
)  # fmt: skip
def test_a_rule_holds_of_a_ping(rule: str, seq: int, drawing: str, printed: str) -> None:
    # In order of time, but for what is drawn: the tables are sorted as the readers sort them.
    found = rules(drawing, printed)
    assert (seq, rule) in found, found


@pytest.mark.parametrize(
    ("printed_us", "rule"),
    [
        (50, "corrected"),  # the kernel stamped the reply when it came
        (890, "corrected"),  # the program stamped it when it had taken it
        (400, "coarse-without-stamp"),  # nobody stamped it while it waited
        (700, "coarse-without-stamp"),
        (950, "coarse-without-stamp"),
    ],
)
def test_a_coarse_rtt_ends_where_its_reply_can_have_been_stamped(
    printed_us: float, rule: str
) -> None:
    # The first reply waits in the socket for 840 us, as it does where ping is kept from running.
    drawing = "0 send\n1 request slow\n50 reply slow\n890 delivery\n" + "\n".join(
        f"{at} send\n{at + 1} request slow\n{at + 50} reply slow\n{at + 60} delivery"
        for at in (1000, 2000, 3000)
    )
    printed = text([(1, printed_us), (2, 50), (3, 50), (4, 50)], 4, decimals=2)
    assert (1, rule) in rules(drawing, printed)


@pytest.mark.parametrize(("held", "rule"), [(1, "no-reply"), (3, "corrected")])
def test_no_reply_is_stamped_later_than_its_rtt_after_the_send_call(held: int, rule: str) -> None:
    """The send stamp comes before the send call: 52 us after that the reply was stamped already.

    Ping 2 was held up before its call, so that its own reply came early, and one of another program
    near the time that the printed RTT says. What stamps a packet comes after its event before.
    """
    own = drawn(6, [50] * 6).replace("1050 reply", "1036 reply")
    found = dict(rules(own + f"\n1056 reply held {held}", text(lines_of([50] * 6), 6)))
    assert found.pop(2) == rule
    assert set(found.values()) == {"corrected"}


def test_a_long_rtt_is_believed_where_no_other_packet_came_when_replies_usually_come() -> None:
    rtts = [50.0, 100, *[50.0] * 18]
    for beside in ("1020 reply", "1070 reply", "1130 reply"):
        found = rules(f"{drawn(20, rtts)}\n{beside}", text(lines_of(rtts), 20))
        assert {rule for _, rule in found} == {"corrected"}


def test_what_the_host_itself_sent_to_the_container_is_no_reply() -> None:
    drawing = f"{drawn(20, CONSTANT)}\n" + "\n".join(
        f"{1000 * n + 51} reply inside" for n in (3, 9)
    )
    found = rules(drawing, text(lines_of(CONSTANT), 20))
    assert {rule for _, rule in found} == {"corrected"}
    lost = LOST.from_rows([("", 0, ns(500), ns(510), 3)])  # of these two, either may be the reply
    assert (4, "several-replies") in rules(drawing, text(lines_of(CONSTANT), 20), lost)


def test_replies_that_the_outer_device_does_not_show_are_not_followed() -> None:
    drawing = drawn(6, VARIED).replace(" reply", " reply inside") + "\n200 reply"
    found = rules(drawing, text(lines_of(VARIED[:6]), 6))
    assert {rule for _, rule in found} == {"reply-not-followed"}


@pytest.mark.parametrize(
    ("replies", "native"),
    [
        ("3050 reply sent_on at_once", True),  # nothing else came between the calls
        ("3050 reply sent_on at_once\n3070 reply", False),  # either may be the reply
        ("3050 reply sent_on\n3070 reply\n8300 reply", True),
        ("3050 reply\n3051 reply sent_on", True),  # as many came beside as were received
    ],
)
def test_a_native_reply_that_seems_to_have_been_sent_on(replies: str, native: bool) -> None:
    drawing = drawn(20, CONSTANT).replace("3050.0 reply", replies)
    found = dict(rules(drawing, text(lines_of(CONSTANT), 20), place="native"))
    assert (found.pop(4) == "native") == native
    assert set(found.values()) == {"native"}


def test_numbers_exchanged_of_calls_that_are_too_close_to_tell() -> None:
    burst = "0 send\n1 request\n2000 send\n2001 request\n2005 send\n2006 request\n"
    drawing = burst + "50 reply\n5000 reply\n9000 reply"
    right = [(1, 52.0), (2, 3000.0), (3, 7000.0)]
    assert (2, "corrected") in rules(drawing, text(right, 3, decimals=2))
    found = dict(rules(drawing, text([(1, 52), (3, 3000), (2, 7000)], 3, decimals=2)))
    assert found[2] == found[3] == "printed-in-another-order"


def test_events_lost_while_a_ping_was_on_its_way() -> None:
    lost = LOST.from_rows([("", 0, ns(1010), ns(1020), 3)])
    found = dict(rules(drawn(6, VARIED), text(lines_of(VARIED[:6]), 6), lost))
    assert found.pop(2) == "events-lost"
    assert set(found.values()) == {"corrected"}


def test_a_request_that_was_not_followed_may_end_another() -> None:
    torn = TWO.replace("1001 request", "1001 request torn").replace("1 request\n", "1500 request\n")
    found = rules(torn, text(TWO_LINES, 2))
    assert "corrected" not in {rule for _, rule in found}


def test_a_line_is_not_of_the_ping_whose_reply_came_at_another_time() -> None:
    drawing = drawn(3, [50, 50, 50], step=20_000)
    stamps = [UTC_NS + ns(number * 20_000 + 80) for number in (0, 1, 2)]

    def stamped(order: Sequence[int]) -> str:
        lines = [
            f"[{stamps[place] / 1e9:.6f}] {REPLY.format(seq, 52)}"
            for seq, place in enumerate(order, start=1)
        ]
        return summarized(lines, 3, 3)

    assert {rule for _, rule in rules(drawing, stamped([0, 1, 2]))} == {"corrected"}
    assert (2, "printed-at-another-time") in rules(drawing, stamped([0, 0, 2]))
    assert (2, "printed-at-another-time") in rules(drawing, stamped([2, 2, 1]))
    # A ping that had to wait for a CPU prints two lines at a time.
    assert {rule for _, rule in rules(drawing, stamped([0, 2, 2]))} == {"corrected"}


def test_rtts_of_two_lines_exchanged() -> None:
    exchanged = [*VARIED]
    exchanged[4], exchanged[8] = VARIED[8] + 40, VARIED[4]
    told = [*VARIED]
    told[4], told[8] = VARIED[4], VARIED[8] + 40
    drawing = drawn(20, told)
    assert {rule for _, rule in rules(drawing, text(lines_of(told), 20))} == {"corrected"}
    found = dict(rules(drawing, text(lines_of(exchanged), 20)))
    assert found[5] == "rtt-of-no-packet"
    assert found[9] == "rtt-of-no-packet"
    # A ping that was held up before its send call prints such an RTT, too.
    exchanged[8] = told[8]
    found = dict(rules(drawing, text(lines_of(exchanged), 20)))
    assert found.pop(5) == "rtt-of-no-packet"
    assert set(found.values()) == {"corrected"}


@pytest.mark.parametrize("off", [-20, -12, 9, 20])
@pytest.mark.parametrize("first", [8, 13, 15])
def test_coarse_lines_do_not_excuse_a_fine_one(first: int, off: int) -> None:
    coarse = [
        f"64 bytes from 192.0.2.2: icmp_seq={seq} ttl=63 time=0 ms" for seq in range(1, first)
    ]
    told = [rtt + 2 for rtt in VARIED[first - 1 :]]
    told[2] += off
    fine = [
        f"64 bytes from 192.0.2.2: icmp_seq={seq} ttl=63 time={rtt / 1000:.3f} ms"
        for seq, rtt in enumerate(told, start=first)
    ]
    found = dict(rules(drawn(20, VARIED), summarized([*coarse, *fine], 20, 20)))
    assert found.pop(first + 2) == "rtt-of-no-packet"
    assert {found[seq] for seq in range(first, 21) if seq in found} == {"corrected"}


@pytest.mark.parametrize("missing", range(1, 18))
def test_lines_after_one_that_was_left_out_are_not_numbered_on(missing: int) -> None:
    told = VARIED[:missing] + VARIED[missing + 1 :]
    found = dict(rules(drawn(20, VARIED), text(lines_of(told), 20)))
    assert not [seq for seq in range(missing + 1, 20) if found[seq] == "corrected"]


def test_a_line_left_out_is_no_harm_where_rtts_tell_the_numbers() -> None:
    told = [line for line in lines_of(VARIED) if line[0] != 10]
    found = dict(rules(drawn(20, VARIED), text(told, 20)))
    assert found[1] == found[20] == "corrected"


def test_a_line_left_out_where_all_rtts_are_the_same() -> None:
    told = [line for line in lines_of(CONSTANT) if line[0] != 10]
    found = dict(rules(drawn(20, CONSTANT), text(told, 20)))
    assert {found[seq] for seq in found if seq != 10} == {"number-undecided"}


def test_a_reply_that_never_came_is_no_doubt() -> None:
    told = [line for line in lines_of(CONSTANT) if line[0] != 10]
    drawing = drawn(20, CONSTANT).replace("9050.0 reply\n", "")
    found = dict(rules(drawing, text(told, 20)))
    assert found.pop(10) == "printed-unanswered"
    assert set(found.values()) == {"corrected"}


def test_numbers_shifted_within_a_run() -> None:
    told = [*VARIED[:5], VARIED[4], *VARIED[5:15], *VARIED[16:]]  # one twice, another not
    found = dict(rules(drawn(20, VARIED), text(lines_of(told), 20)))
    assert {found[seq] for seq in range(8, 15)} <= {"number-shifted", "rtts-disagree"}


def test_rtts_tell_from_where_ping_counts() -> None:
    for first in (0, 1):
        told = lines_of(VARIED[1:19], first=first + 1)
        found = dict(rules(drawn(20, VARIED), text(told, 20), first_known=False))
        assert found[8] == "corrected", found
    told = lines_of(CONSTANT[1:19], first=1)
    found = dict(rules(drawn(20, CONSTANT), text(told, 20), first_known=False))
    assert {found[seq] for seq in range(1, 19)} == {"first-number-unknown"}


@pytest.mark.parametrize("rtts", [VARIED, CONSTANT])
@pytest.mark.parametrize("source", ["", " from 10.0.0.2"])
@pytest.mark.parametrize("timed", [True, False])
def test_busybox_whose_first_reply_was_lost(
    rtts: Sequence[float], source: str, timed: bool
) -> None:
    drawing = drawn(20, rtts).replace(f"{rtts[0]} reply\n", "", 1)
    returns = [f"{1000 * call + rtts[call] + 8} delivery" for call in range(1, 20)]
    lines = [
        f"64 bytes from 192.0.2.2: seq={seq} ttl=63"
        + f" time={(rtts[seq] + 10) / 1000:.3f} ms" * timed
        for seq in range(1, 20)
    ]
    header = f"PING 192.0.2.2 (192.0.2.2){source}: 56 data bytes"
    counts = "20 packets transmitted, 19 packets received, 5% packet loss"
    printed = "\n".join([*lines, "", "--- 192.0.2.2 ping statistics ---", counts])
    found = rtts_of("\n".join([drawing, *returns]), f"{header}\n{printed}")
    corrected = found[found["status"] == "corrected"]
    assert (corrected["sent_ns"] == START_NS + corrected["seq"] * 1000 * NS_PER_US).all()
    assert source or len(corrected) == 19


def test_another_runs_text() -> None:
    found = rules(drawn(20, VARIED), text(lines_of(VARIED[::-1]), 20))
    assert {rule for _, rule in found} == {"rtts-disagree"}


def test_every_rule_has_a_name_of_its_own() -> None:
    assert all(name == rule.name for name, rule in RULES.items())
    assert len({rule.status for rule in RULES.values()}) > 5
