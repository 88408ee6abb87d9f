"""A capture by the tracer in the kernel: every ping has the echo with its number, or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import maceproc
from maceproc.capture import Link, Machine, Namespace, PathDevice, Run, Sidecar, Target, Tracing
from maceproc.capture_files import save_sidecar, sidecar_path
from maceproc.echo_rows import ANSWERED, MAGIC, RECEIVED
from maceproc.errors import AnalysisError, TraceFormatError
from maceproc.following.by_identity import NO_ROW, SAME_NUMBER, SEVERAL_IDS, TOO_SHORT
from maceproc.pairing import POINT_DTYPE, Rows
from maceproc.traces import read_trace
from tests.echo_samples import echo_rows, points_of

PID = 4711
START_NS = 5_000_000_000
UTC_NS = 1_700_000_000_000_000_000
NETNS = 4026531841
RTT_NS = 113_000  # of `echo_rows`, by the kernel


def run_of(count: int, *, first: int = 1, rtt_us: int = 120) -> Run:
    lines = [f"64 bytes from 192.0.2.2: icmp_seq={seq & 0xFFFF} ttl=63 time=0.{rtt_us} ms"
        for seq in range(first, first + count)]  # fmt: skip
    output = "\n".join(
        [
            "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data.",
            *lines,
            "",
            "--- 192.0.2.2 ping statistics ---",
            f"{count} packets transmitted, {count} received, 0% packet loss, time 1ms",
            f"rtt min/avg/max/mdev = 0.{rtt_us}/0.{rtt_us}/0.{rtt_us}/0.000 ms",
            "",
        ]
    )
    return Run(
        round=1,
        place="container",
        traced=True,
        argv=["ping", "-i", "0.01", "192.0.2.2"],
        pid=PID,
        exit_status=0,
        output=output,
        start_ns=START_NS - 1_000,
        end_ns=START_NS + 10**12,
        start_utc_ns=UTC_NS,
        end_utc_ns=UTC_NS + 10**12,
    )


def sidecar_of(run: Run) -> Sidecar:
    inner = Link(ifindex=2, name="eth0", kind="veth", offloads={"generic-receive-offload": False})
    path = [("web", "eth0"), ("host", "veth1"), ("host", "eno1")]
    return Sidecar(
        maceproc="0.1.0",
        command=["ping", "192.0.2.2"],
        rounds=1,
        target=Target(
            kind="netns",
            name="web",
            address="192.0.2.2",
            path=[PathDevice(netns=netns, dev=dev) for netns, dev in path],
        ),
        runs=[run],
        namespaces=[
            Namespace(name="web", inode=NETNS, links=[inner]),
            Namespace(name="host", inode=1, links=[Link(ifindex=3, name="eno1")]),
        ],
        tracing=Tracing(
            events=[],
            event_set="bpf",
            clock="mono",
            instance="",
            buffer_size_kb=1,
            tracer="bpf",
        ),
        machine=Machine(kernel="6.1", cpu="", cpus=2),
    )


def capture_of(tmp_path: Path, rows: Rows, run: Run) -> Path:
    path = tmp_path / "trace.dat"
    head = json.dumps({"point_bytes": POINT_DTYPE.itemsize}).encode()
    path.write_bytes(MAGIC + head + b"\n" + points_of(rows).tobytes())
    save_sidecar(sidecar_path(path), sidecar_of(run))
    return path


def rows_of(count: int, **options: int) -> Rows:
    rows = echo_rows(count, start_ns=START_NS, **options)
    rows["pid"] = PID
    return rows


def test_every_ping_is_corrected_by_its_own_echo(tmp_path: Path) -> None:
    rows = rows_of(20)
    rows["outer_queued_ns"] += np.arange(20, dtype=np.uint64)  # each one different
    shuffled = np.random.default_rng(3).permutation(rows)
    rtts = maceproc.analyze(capture_of(tmp_path, shuffled, run_of(20))).rtts
    assert rtts["status"].tolist() == ["corrected"] * 20
    assert rtts["matched_by"].tolist() == ["identity"] * 20
    assert rtts["outbound_ns"].tolist() == [8_000 + n for n in range(20)]
    assert rtts["kernel_rtt_ns"].tolist() == [RTT_NS] * 20
    assert rtts["tx_stack_ns"].isna().all()
    assert (rtts["residual_ns"] == 120_000 - RTT_NS).all()
    assert (rtts["bare_metal_rtt_ns"] == 120_000 - rtts["outbound_ns"] - 4_000).all()


def test_numbers_count_on_where_they_wrap(tmp_path: Path) -> None:
    count = 70_000
    run = run_of(count)
    rtts = maceproc.analyze(capture_of(tmp_path, rows_of(count), run)).rtts
    assert rtts["seq"].tolist() == list(range(1, count + 1))
    assert (rtts["status"] == "corrected").all()
    assert (rtts["sent_ns"].diff().dropna() == 10_000_000).all()


def test_echoes_of_others_are_not_its_own(tmp_path: Path) -> None:
    mine, rival, elsewhere, before = rows_of(5), rows_of(5), rows_of(5), rows_of(5)
    rival["pid"], rival["id"], rival["outer_id"] = 12, 99, 99
    elsewhere["target"] = elsewhere["remote"] = 5
    others = [moved(rival, 0, 1), moved(elsewhere, 0, 2), moved(before, -(10**9), 3)]
    rows = np.concatenate([mine, *others])
    rtts = maceproc.analyze(capture_of(tmp_path, rows, run_of(5))).rtts
    assert (rtts["status"] == "corrected").all()
    assert (rtts["outbound_ns"] == 8_000).all()


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (lambda rows: rows[:2], "incomplete", NO_ROW),
        (lambda rows: _with_another(rows, id_=77, outer_id=78), "ambiguous", SAME_NUMBER),
        (lambda rows: _with_another(rows, id_=99, outer_id=77), "ambiguous", "another request"),
        (lambda rows: _flagged(rows, ANSWERED), "incomplete", "not to the container's"),
        (lambda rows: _slow(rows, 50_000), "ambiguous", TOO_SHORT),
    ],
)
def test_what_is_not_certain_is_not_corrected(
    tmp_path: Path, change: object, status: str, reason: str
) -> None:
    rows = change(rows_of(3))  # type: ignore[operator]
    rtts = maceproc.analyze(capture_of(tmp_path, rows, run_of(3))).rtts
    assert rtts["status"].tolist() == ["corrected", "corrected", status]
    assert reason in rtts["reason"].iloc[2]
    assert rtts["bare_metal_rtt_ns"].isna().tolist() == [False, False, True]


def moved(rows: Rows, by_ns: int, by_address: int) -> Rows:
    """Return the same echoes at another time, in other packets."""
    rows = rows.copy()
    for name in ("queued_ns", "outer_queued_ns", "sent_ns", "outer_received_ns", "received_ns"):
        rows[name] = rows[name].astype(np.int64) + by_ns
    for name in ("request_skb", "reply_skb"):
        rows[name] += by_address << 20
    return rows


def _with_another(rows: Rows, id_: int, outer_id: int) -> Rows:
    """Return the rows, and another echo with the number of the last one, 20 us later."""
    other = moved(rows[2:], 20_000, 1)
    other["id"], other["outer_id"] = id_, outer_id
    other["pid"] = PID if id_ == 77 else 12
    return np.concatenate([rows, other])


def _flagged(rows: Rows, flags: int) -> Rows:
    rows["flags"][2] = flags
    if not flags & RECEIVED:
        rows["received_ns"][2] = 0
    return rows


def _slow(rows: Rows, by_ns: int) -> Rows:
    rows["received_ns"][2] += by_ns
    return rows


def test_without_a_pid_one_program_is_certain_and_two_are_not(tmp_path: Path) -> None:
    run = run_of(3)
    run.pid = None
    mine, rival = rows_of(3), moved(rows_of(3), 0, 1)
    rival["id"] = rival["outer_id"] = 99
    rtts = maceproc.analyze(capture_of(tmp_path, mine, run)).rtts
    assert (rtts["status"] == "corrected").all()
    both = np.concatenate([mine, rival])
    rtts = maceproc.analyze(capture_of(tmp_path, both, run)).rtts
    assert (rtts["status"] == "ambiguous").all()
    assert set(rtts["reason"]) == {SEVERAL_IDS}


def test_a_cut_capture_gives_what_is_whole(tmp_path: Path) -> None:
    path = capture_of(tmp_path, rows_of(4), run_of(4))
    path.write_bytes(path.read_bytes()[:-7])
    analysis = maceproc.analyze(path)
    assert analysis.rtts["status"].tolist() == ["corrected"] * 3 + ["incomplete"]
    assert "its last point is cut" in "\n".join(analysis.findings["message"])


def test_every_way_of_showing_it_works(tmp_path: Path) -> None:
    analysis = maceproc.analyze(capture_of(tmp_path, rows_of(30), run_of(30)))
    text = str(analysis)
    assert "30 of 30" in text or "30/30" in text, text
    assert json.loads(json.dumps(analysis.as_dict()))["rtts"][0]["matched_by"] == "identity"
    assert "<html" in analysis.as_html()
    assert len(analysis.hops) == 30 * 5
    assert len(analysis.crossings) == 60
    crossed = analysis.crossings.iloc[0]
    hops = analysis.hops.iloc[[crossed["first_hop"], crossed["last_hop"]]]
    assert hops["event"].tolist() == ["net_dev_queue", "net_dev_start_xmit"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = capture_of(tmp_path, rows_of(3), run_of(3))
    with pytest.raises(TraceFormatError, match="record --tracer bpf"):
        read_trace(path)
    sidecar_path(path).unlink()
    with pytest.raises(AnalysisError, match="no sidecar"):
        maceproc.analyze(path)


def test_devices_by_hand_are_refused(tmp_path: Path) -> None:
    path = capture_of(tmp_path, rows_of(3), run_of(3))
    with pytest.raises(AnalysisError, match="its tracer watched the devices"):
        maceproc.analyze(path, outer="eth9", peer="veth9")
