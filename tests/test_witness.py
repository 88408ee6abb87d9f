"""The exact witness: every match of the events' analysis, against what the packets carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import maceproc
from benchmarks.witness import both_tracers, loss, rivals
from maceproc.following.by_identity import find_echoes
from maceproc.following.witness import witness
from maceproc.pairing import Rows
from maceproc.recording.lab import REMOTE_IPV4, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from tests.test_by_identity import rows_of, run_of
from tests.tracing import can_record
from tests.watched import why_no_bpf

needs_both = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_no_bpf()), reason=why_no_bpf() or "BPF works"),
    pytest.mark.skipif(not can_record, reason="needs root, trace-cmd and tracefs"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=2) as up:
        yield up


def counts(found: pd.DataFrame) -> dict[tuple[str, str], int]:
    return found.groupby(["check", "outcome"], observed=True).size().to_dict()


def by_hand(rows: Rows) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return RTTS, CROSSINGS and HOPS that match every row rightly."""
    from maceproc.following.by_identity import rtts_by_identity
    from maceproc.following.echo_tables import crossings_of_echoes, hops_of_echoes
    from maceproc.pings import parse_runs, pings_table
    from tests.test_by_identity import sidecar_of

    sidecar = sidecar_of(run_of(len(rows)))
    hops = hops_of_echoes(rows, sidecar)
    crossed = crossings_of_echoes(rows, hops, sidecar)
    runs = list(parse_runs(sidecar.runs))
    return rtts_by_identity(pings_table(runs), runs, rows, sidecar), crossed, hops


def test_right_matches_are_right() -> None:
    rows = rows_of(10)
    found = witness(*by_hand(rows), [run_of(10)], rows)
    assert counts(found) == {
        (check, "right"): 10 for check in ("outbound", "inbound", "request", "reply")
    }


def test_a_shifted_number_and_a_rival_are_wrong() -> None:
    rows = rows_of(10)
    rtts, crossed, hops = by_hand(rows)
    shifted = rtts.assign(seq=rtts["seq"] + 1)
    assert counts(witness(shifted, crossed, hops, [run_of(10)], rows))["reply", "wrong"] == 10
    rival = rows.copy()
    rival["id"][3] = 99
    seen = counts(witness(rtts, crossed, hops, [run_of(10)], rival))
    assert seen["request", "wrong"] == seen["reply", "wrong"] == 1
    assert seen["outbound", "right"] == seen["inbound", "right"] == 10


def test_ends_of_two_packets_with_one_address_are_wrong() -> None:
    rows = rows_of(10)
    rows["request_skb"] = rows["request_skb"][0]
    rtts, crossed, hops = by_hand(rows)
    outbound = (crossed["direction"] == "outbound").to_numpy()
    left_ns = crossed["left_ns"].to_numpy(np.int64).copy()
    left_ns[outbound] = np.roll(left_ns[outbound], 1)
    seen = counts(witness(rtts, crossed.assign(left_ns=left_ns), hops, [run_of(10)], rows))
    assert seen["outbound", "wrong"] == 10
    assert seen["inbound", "right"] == 10


def test_packets_that_follow_too_fast_are_not_witnessed() -> None:
    rows = rows_of(2)
    rows["request_skb"] = rows["request_skb"][0]
    rows["queued_ns"][1] = rows["queued_ns"][0] + 12_000
    rtts, crossed, hops = by_hand(rows)
    # The second event's time was taken late, so that it is nearer to none but the second row; the
    # first one's so late that it seems to be the second row's, too.
    late = crossed.assign(entered_ns=crossed["entered_ns"] + 11_000)
    seen = counts(witness(rtts, late, hops, [run_of(2)], rows))
    assert ("outbound", "wrong") not in seen
    assert seen["outbound", "not witnessed"] == 2


def test_without_rows_nothing_is_witnessed() -> None:
    rows = rows_of(10)
    found = witness(*by_hand(rows), [run_of(10)], rows[:0])
    assert set(found["outcome"]) == {"not witnessed"}
    assert len(found) == 40


def test_an_address_that_came_back_is_told_by_its_time() -> None:
    rows = rows_of(10)
    rows["request_skb"] = rows["request_skb"][0]
    rows["reply_skb"] = rows["request_skb"][0]
    found = witness(*by_hand(rows), [run_of(10)], rows)
    assert set(found["outcome"]) == {"right"}


@pytest.mark.usefixtures("lab")
class TestRecorded:
    """Both tracers at once, on the same pings."""

    pytestmark = needs_both

    def test_both_tracers_see_the_same_packets(self, lab: Lab, tmp_path: Path) -> None:
        path = tmp_path / "trace.dat"
        with both_tracers(lab) as rowing:
            command = ["ping", "-i", "0.01", "-c", "100", REMOTE_IPV4]
            record(command, lab_site(lab), path, baseline=False)
        analysis = maceproc.analyze(path)
        sidecar = analysis.capture.sidecar
        assert sidecar is not None
        rtts, rows = analysis.rtts, rowing.rows
        found = find_echoes(analysis.pings, sidecar.runs[0], rows, sidecar)
        assert (found.place >= 0).all()
        assert not found.doubt.any()
        mine = rows[found.place]
        first = analysis.hops.drop_duplicates("journey").set_index("journey")["skbaddr"]
        used = rtts["status"] == "corrected"
        assert used.mean() > 0.95
        for journey, name in (("outbound", "request_skb"), ("inbound", "reply_skb")):
            addresses = first.loc[rtts[f"{journey}_journey"][used].astype(int)]
            assert (addresses.to_numpy() == mine[name][used]).all()
        for segment, begin, end in (
            ("outbound_ns", "queued_ns", "outer_queued_ns"),
            ("inbound_ns", "outer_received_ns", "received_ns"),
        ):
            ours = (mine[end] - mine[begin]).astype(np.int64)[used]
            theirs = rtts[segment][used].to_numpy(np.int64)
            assert np.median(np.abs(ours - theirs)) < np.median(theirs) / 4
        seen = witness(rtts, analysis.crossings, analysis.hops, sidecar.runs, rows)
        assert set(seen["outcome"]) == {"right"}

    @pytest.mark.parametrize("kind", ["rivals", "loss"])
    def test_no_match_of_a_flood_is_wrong(self, lab: Lab, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "trace.dat"
        flood = ["-f", "-q", REMOTE_IPV4]
        rival = [("container", flood), ("container2", flood)]
        lost = loss(lab, 0.05 if kind == "loss" else 0.0001)
        with both_tracers(lab) as rowing, lost, rivals(lab, *rival):
            command = ["ping", "-f", "-c", "2000", "-W", "0.2", REMOTE_IPV4]
            record(command, lab_site(lab), path, baseline=False, buffer_kb=32768)
        analysis = maceproc.analyze(path)
        assert analysis.capture.sidecar is not None
        runs = analysis.capture.sidecar.runs
        found = witness(analysis.rtts, analysis.crossings, analysis.hops, runs, rowing.rows)
        seen = counts(found)
        assert not {name for name, outcome in seen if outcome == "wrong"}, seen
        assert seen["outbound", "right"] > 1000
        assert seen["inbound", "right"] > 1000
