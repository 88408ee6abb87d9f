"""Runs of several targets: every line has the packets of its own target, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from maceproc.capture import Run
from maceproc.following.by_hand import runs_by_hand
from maceproc.following.matching import match_run
from maceproc.following.rtts import rtts_table
from maceproc.following.run_packets import packets_of_run
from maceproc.following.several_targets import Joined, join_targets
from maceproc.pings import parse_ping, pings_table
from maceproc.schema import DELIVERIES, SENDS
from maceproc.units import NS_PER_US
from tests.test_matching import NO_LOSS, PID, START_NS, VARIED, crossings_of, drawn, ns

A, B = "192.0.2.2", "192.0.2.3"
ARGV = ["fping", "-c", "10", A, B]
Lines = list[tuple[str, int, float]]
LINES: Lines = [((A, B)[call % 2], call // 2, rtt + 2) for call, rtt in enumerate(VARIED)]


def text(lines: Lines, sent: Sequence[int] = (10, 10)) -> str:
    said = [f"{name} : [{seq}], 64 bytes, {rtt / 1000:.3f} ms" for name, seq, rtt in lines]
    for name, count in zip((A, B), sent, strict=True):
        received = sum(line[0] == name for line in lines)
        said.append(f"{name} : xmt/rcv/%loss = {count}/{received}/0%")
    return "\n".join([*said, ""])


def quiet(lines: Lines) -> str:
    """Return what `fping -C -q` prints."""
    rows = [
        f"{name} : " + " ".join(f"{rtt / 1000:.3f}" for who, _, rtt in lines if who == name)
        for name in (A, B)
    ]
    return "\n".join([*rows, ""])


def rtts_of(printed: str, drawing: str = "", argv: Sequence[str] = ARGV) -> pd.DataFrame:
    events = [line.split() for line in (drawing or drawn(20, VARIED)).splitlines()]
    calls = [ns(line[0]) for line in events if line[1] == "send"]
    run = Run(
        round=1, place="container", traced=True, argv=list(argv), pid=PID,
        start_ns=START_NS - 1, end_ns=ns(1e6),
    )  # fmt: skip
    runs = [(run, output) for output in parse_ping(printed, run.argv)]
    data = {"time_ns": calls, "pid": PID, "fd": 3, "len": 64}
    sends = SENDS.frame({name: np.broadcast_to(value, len(calls)) for name, value in data.items()})
    passages = {"container": crossings_of(events)}
    return rtts_table(pings_table(runs), runs, sends, DELIVERIES.frame(), passages, lost=NO_LOSS)


def calls_of(rtts: pd.DataFrame) -> dict[tuple[str, int], int]:
    """Return the number of the send call of every corrected ping."""
    rtts = rtts[rtts["status"] == "corrected"]
    calls = (rtts["sent_ns"] - START_NS) // (1000 * NS_PER_US)
    return dict(zip(zip(rtts["target"], rtts["seq"], strict=True), calls, strict=True))


OWN = {(name, seq): call for call, (name, seq, _) in enumerate(LINES)}


@pytest.mark.parametrize("argv", [ARGV, ["fping"]], ids=["argv", "no argv"])
@pytest.mark.parametrize("printed", [text(LINES), quiet(LINES)], ids=["lines", "-C -q"])
def test_every_target_has_its_own_calls(printed: str, argv: Sequence[str]) -> None:
    assert calls_of(rtts_of(printed, argv=argv)) == OWN


def test_a_target_that_does_not_answer() -> None:
    lost = drawn(20, VARIED)
    for call in range(1, 20, 2):
        lost = lost.replace(f"{call * 1000 + VARIED[call]} reply", "")
    lost = "\n".join(filter(None, lost.splitlines()))
    found = rtts_of(text([line for line in LINES if line[0] == A]), lost)
    assert calls_of(found) == {name: call for name, call in OWN.items() if name[0] == A}
    assert set(found["status"][found["target"] == B]) == {"unanswered"}


@pytest.mark.parametrize("one", range(0, 18, 3))
@pytest.mark.parametrize("far", [1, 2])
@pytest.mark.parametrize("what", ["name", "line", "rtt", "dropped", "twice"])
def test_no_line_is_given_the_packets_of_another(one: int, far: int, what: str) -> None:
    lines = list(LINES)
    here, there = lines[one], lines[one + far]
    if what == "name":
        lines[one], lines[one + far] = (there[0], *here[1:]), (here[0], *there[1:])
    elif what == "line":
        lines[one], lines[one + far] = there, here
    elif what == "rtt":
        lines[one], lines[one + far] = (*here[:2], there[2]), (*there[:2], here[2])
    elif what == "dropped":
        del lines[one]
    else:
        lines.insert(one + far, here)
    found = calls_of(rtts_of(text(lines)))
    assert found.items() <= OWN.items()
    if what == "rtt":
        near = abs(here[2] - there[2]) < 8  # as near as RTTs scatter
        assert near or not found.keys() & {here[:2], there[:2]}


def test_results_that_do_not_tell_the_targets_apart() -> None:
    same = [(name, seq, 52.0) for name, seq, _ in LINES]
    found = rtts_of(quiet(same), drawn(20, [50.0] * 20))
    assert set(found["status"]) == {"ambiguous"}
    assert (
        found["reason"].str.endswith("the printed RTTs do not tell one target from another").all()
    )
    assert calls_of(rtts_of(text(same), drawn(20, [50.0] * 20))) == OWN  # the order of lines does


def test_targets_that_were_not_sent_to_in_turn() -> None:
    found = rtts_of(text(LINES, (4, 16)))
    assert "it did not send to all of them in turn: 4, 16" in found["reason"].iloc[0]


def test_pings_are_numbered_by_their_calls() -> None:
    run = Run(round=1, place="container", traced=True, argv=ARGV, pid=PID)
    outputs = parse_ping(text(LINES), ARGV)
    rows = pings_table([(run, output) for output in outputs])
    parts = [(output, rows[rows["target"] == output.target]) for output in outputs[::-1]]
    joined = join_targets(run, parts)
    assert isinstance(joined, Joined)
    assert joined.ordered
    assert list(joined.pings["seq"]) == list(range(20))
    assert list(joined.target) == [0, 1] * 10
    assert (joined.printed.sent, joined.printed.received, joined.printed.first_seq) == (20, 20, 0)
    sends = SENDS.frame()
    passages = crossings_of([])
    packets = packets_of_run(run, joined.printed, sends, DELIVERIES.frame(), passages, lost=NO_LOSS)
    assert not match_run(joined.pings, run, joined.printed, packets).send.exists.any()


@pytest.mark.parametrize("printed", [text(LINES), quiet(LINES)], ids=["lines", "-C -q"])
def test_a_text_given_by_hand_finds_its_task(printed: str) -> None:
    other = [
        (f"{float(at) + 7000}", *rest)
        for at, *rest in map(str.split, drawn(20, [50.0] * 20).splitlines())
    ]
    events = [line.split() for line in drawn(20, VARIED).splitlines()]
    calls = [(ns(line[0]), PID) for line in events if line[1] == "send"]
    calls += [(ns(line[0]), PID + 1) for line in other if line[1] == "send"]
    times, pids = zip(*sorted(calls), strict=True)
    sends = SENDS.frame({"time_ns": times, "pid": pids, "fd": [3] * 40, "len": [64] * 40})
    outputs = parse_ping(printed)
    runs = runs_by_hand(outputs, sends, DELIVERIES.frame(), crossings_of(events))
    assert [(run.pid, output.target) for run, output in runs] == [(PID, A), (PID, B)]
    assert runs[0][0] is runs[1][0]
