"""Real pings, recorded in the lab, analyzed, and held against independent witnesses."""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import maceproc
from maceproc import Analysis, Lab
from maceproc.cli import cli
from maceproc.ledger import COLUMNS
from maceproc.recording.lab import NETNS_DIR, REMOTE_IPV4
from maceproc.recording.record import record
from maceproc.recording.sites import lab_site
from maceproc.reporting.document import as_dict
from maceproc.reporting.explain import explain
from maceproc.reporting.report import as_text

pytestmark = pytest.mark.kernel

PINGS, ROUNDS, FLOODS = 60, 3, 8
CLOSE_NS = 5_000  # what the project promises for 99 % of the pings


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=1 + FLOODS) as made:
        yield made


@pytest.fixture(scope="module")
def idle(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    path = tmp_path_factory.mktemp("idle") / "trace.dat"
    record(["ping", "-i", "0.01", "-c", str(PINGS)], lab_site(lab), path, rounds=ROUNDS)
    return maceproc.analyze(path)


@contextlib.contextmanager
def running(lab: Lab, role: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a namespace of the lab as long as the block lasts."""
    enter = ["nsenter", f"--net={NETNS_DIR / lab.netns(role)}", "--"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([*enter, *argv], stdout=quiet, stderr=quiet, stdin=quiet) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def corrected(analysis: Analysis) -> pd.DataFrame:
    return analysis.rtts[analysis.rtts["status"] == "corrected"]


def test_every_ping_is_corrected(idle: Analysis) -> None:
    traced = idle.rtts[idle.rtts["arm"] == "container traced"]
    assert len(traced) == PINGS * ROUNDS
    assert (traced["status"] == "corrected").mean() >= 0.995, traced["reason"].value_counts()


def test_every_row_of_every_arm_is_there(idle: Analysis) -> None:
    counts = idle.rtts.groupby(["round", "arm"], observed=True).size()
    assert len(counts) == 4 * ROUNDS
    assert (counts == PINGS).all()
    untraced = idle.rtts["arm"].isin(["container untraced", "native untraced"])
    assert (idle.rtts.loc[untraced, "status"] == "untraced").all()


def test_the_ledger_closes(idle: Analysis) -> None:
    rows = corrected(idle)
    assert (rows[list(COLUMNS.values())].sum(axis=1) == rows["rtt_ns"]).all()
    segments = rows[[name for name in COLUMNS.values() if name != "residual_ns"]]
    assert (segments >= 0).all(axis=None)
    by_hand = rows["rtt_ns"] - rows["outbound_ns"] - rows["inbound_ns"]
    assert (rows["bare_metal_rtt_ns"] == by_hand).all()


def test_printed_and_kernel_rtt_differ_by_a_constant(idle: Analysis) -> None:
    # The first ping of a run aside, whose stamp may be taken on delivery.
    residual_ns = corrected(idle).query("seq > 1")["residual_ns"].astype(float)
    spread_ns = (residual_ns - residual_ns.median()).abs()
    assert (spread_ns <= CLOSE_NS).mean() >= 0.99


def test_comparisons_have_intervals_and_a_caution(idle: Analysis) -> None:
    names = set(idle.comparisons["comparison"])
    expected = {"perturbation", "perturbation, native", "container overhead", "corrected - native"}
    assert names == expected
    assert (idle.comparisons["low_ns"] <= idle.comparisons["high_ns"]).all()
    assert "few rounds" in set(idle.findings["finding"])


def test_the_container_is_slower_and_the_correction_takes_that_out(idle: Analysis) -> None:
    median = idle.series.set_index("series")["median_ns"]
    assert median["container, untraced"] > median["native, untraced"]
    assert median["container, corrected"] < median["container, traced"]
    assert 0 < median["wire"] < median["container, corrected"]


def test_steps_follow_the_path(idle: Analysis) -> None:
    assert idle.capture.sidecar is not None
    way = [str(hop) for hop in idle.capture.sidecar.target.path]
    outbound = idle.steps[idle.steps["direction"] == "outbound"]
    assert outbound["start"].iloc[0] == f"{way[0]} net_dev_queue"
    assert outbound["end"].iloc[-1] == f"{way[-1]} net_dev_queue"
    inbound = idle.steps[idle.steps["direction"] == "inbound"]
    assert inbound["start"].iloc[0] == f"{way[-1]} netif_rx"
    assert inbound["end"].iloc[-1] == f"{way[0]} netif_rx"


def test_the_report_and_the_json_say_the_same(idle: Analysis) -> None:
    text, data = as_text(idle), as_dict(idle)
    assert f"corrected: {data['summary']['coverage']['corrected']} of {PINGS * ROUNDS}" in text
    assert data["schema_version"] == 1
    assert len(data["rtts"]) == len(idle.rtts)
    assert data["perturbation"]["comparison"] == "perturbation"
    json.dumps(data, allow_nan=False)


def test_command_line(idle: Analysis) -> None:
    path = str(idle.capture.trace)
    runner = CliRunner()
    report = runner.invoke(cli, ["analyze", path], catch_exceptions=False)
    assert "container:eth0 -> host:veth" in report.output
    as_json = runner.invoke(cli, ["analyze", path, "--json"], catch_exceptions=False)
    assert json.loads(as_json.output)["capture"]["clock"] == "mono"
    one = runner.invoke(cli, ["explain", path, "5", "--round", "2"], catch_exceptions=False)
    assert "icmp_seq 5, round 2, container traced: corrected" in one.output


def test_explain_shows_the_whole_way(idle: Analysis) -> None:
    ping = explain(idle, 7, 2)
    assert ping.events["event"].iloc[0] == "send call"
    assert ping.ledger.sum() == ping.ping["rtt_ns"]
    assert ping.candidates["taken"].sum() == 1
    with pytest.raises(maceproc.MaceprocError, match=f"icmp_seq {PINGS + 1}.*1 to {PINGS}"):
        explain(idle, PINGS + 1)


def test_text_and_trace_dat_give_the_same_values(lab: Lab, tmp_path: Path) -> None:
    made = tmp_path / "trace.dat"
    argv = ["ping", "-i", "0.01", "-c", str(PINGS)]
    record(argv, lab_site(lab), made, rounds=ROUNDS, baseline=False)
    whole = maceproc.analyze(made)
    text, ping = tmp_path / "trace.txt", tmp_path / "ping.txt"
    with text.open("wb") as file:
        subprocess.run(["trace-cmd", "report", "-t", "-l", str(made)], stdout=file, check=True)
    assert whole.capture.sidecar is not None
    ping.write_text("".join(run.output for run in whole.capture.sidecar.runs))
    peer = whole.capture.sidecar.target.path[1].dev
    by_hand = maceproc.analyze(text, ping=ping, inner="eth0", outer="eth0", peer=peer)
    ours = corrected(whole).set_index(["round", "seq"])["bare_metal_rtt_ns"]
    theirs = corrected(by_hand).set_index(["round", "seq"])["bare_metal_rtt_ns"]
    both = ours.index.intersection(theirs.index)
    assert len(both) >= 0.9 * len(ours)
    assert (ours[both] == theirs[both]).all()


def test_a_native_ping_has_a_wire_rtt_and_nothing_to_correct(lab: Lab, tmp_path: Path) -> None:
    from maceproc.recording.sites import Netns, Site

    host = Site("host", "", Netns("host", str(NETNS_DIR / lab.netns("host"))))
    record(["ping", "-i", "0.01", "-c", "20", "192.0.2.2"], host, tmp_path / "trace.dat")
    analysis = maceproc.analyze(tmp_path / "trace.dat")
    traced = analysis.rtts[analysis.rtts["arm"] == "native traced"]
    assert (traced["status"] == "native").mean() >= 0.95, traced["reason"].value_counts()
    assert traced["bare_metal_rtt_ns"].isna().all()
    assert traced["outbound_ns"].isna().all()
    native = traced[traced["status"] == "native"]
    assert (native["wire_rtt_ns"] < native["rtt_ns"]).all()
    assert "perturbation, native" in set(analysis.comparisons["comparison"])


@pytest.mark.parametrize(
    ("argv", "share"),
    [
        (["ping", "-f", "-c", "200"], 0.99),
        (["ping", "-A", "-c", "200"], 0.99),
        (["ping", "-i", "0", "-c", "200"], 0.99),
        (["ping", "-U", "-i", "0.01", "-c", "50"], 0.95),
        (["ping", "-s", "8", "-i", "0.01", "-c", "50"], 0.95),
        (["ping", "-i", "0.01", "-c", "50", "fd6d:6163:6500:2::2"], 0.95),
        (["busybox", "ping", "-i", "0.01", "-c", "50", "192.0.2.2"], 0.9),
        (["fping", "-c", "50", "-p", "10", "192.0.2.2"], 0.95),
    ],
    ids=["-f", "-A", "-i 0", "-U", "-s 8", "IPv6", "busybox", "fping"],
)
def test_other_ways_to_ping(lab: Lab, tmp_path: Path, argv: list[str], share: float) -> None:
    record(argv, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    rtts = maceproc.analyze(tmp_path / "trace.dat").rtts
    assert (rtts["status"] == "corrected").mean() >= share, rtts["reason"].value_counts()


def test_a_veth_with_gro_may_receive_without_netif_rx(tmp_path: Path) -> None:
    with Lab() as lab:
        ends = (("container", "eth0", "gro", "on"), ("host", lab.port(1), "tso", "off"))
        for role, *words in ends:
            command = ["ip", "netns", "exec", lab.netns(role), "ethtool", "-K", *words]
            subprocess.run(command, check=True)
        argv = ["ping", "-i", "0.01", "-c", "50"]
        record(argv, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    analysis = maceproc.analyze(tmp_path / "trace.dat")
    assert len(corrected(analysis)) >= 49, analysis.rtts["reason"].value_counts()
    inbound = analysis.crossings[analysis.crossings["direction"] == "inbound"]
    assert set(analysis.hops.loc[inbound["last_hop"], "event"]) == {"netif_receive_skb"}


def test_a_napi_thread_forwards_in_its_own_context(tmp_path: Path) -> None:
    with Lab() as lab:
        port = lab.port(1)
        for role, command in (
            ("container", "ethtool -K eth0 tso off"),  # else netif_rx() is used all the same
            ("host", f"ethtool -K {port} gro on"),
            ("host", f"echo 1 > /sys/class/net/{port}/threaded"),
        ):
            argv = ["ip", "netns", "exec", lab.netns(role), "sh", "-c", command]
            subprocess.run(argv, check=True)
        argv = ["ping", "-i", "0.01", "-c", "50"]
        record(argv, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    analysis = maceproc.analyze(tmp_path / "trace.dat")
    assert len(corrected(analysis)) >= 49, analysis.rtts["reason"].value_counts()
    received = analysis.hops[analysis.hops["dev"] == port]
    received = received[received["event"] == "netif_receive_skb"]
    assert len(received)
    assert not received["softirq"].any()


def test_fragments_are_never_mistaken(lab: Lab, tmp_path: Path) -> None:
    argv = ["ping", "-s", "8000", "-i", "0.01", "-c", "30"]
    record(argv, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    rtts = maceproc.analyze(tmp_path / "trace.dat").rtts
    assert len(rtts) == 30
    assert set(rtts["status"]) <= {"incomplete", "ambiguous"}
    assert (rtts["reason"] != "").all()


# What else runs: where, what, and how much of ours must be corrected beside it.
LOADS = {
    "floods": ([(f"container{n + 2}", ("ping", "-f", REMOTE_IPV4)) for n in range(FLOODS)], 0.99),
    "two pings beside it": ([("container", ("ping", "-i", "0.003", REMOTE_IPV4))] * 2, 0.9),
    "a flood beside it": ([("container", ("ping", "-f", REMOTE_IPV4))], 0),
}


@pytest.mark.parametrize("load", LOADS)
def test_tcpdump_agrees_under_load(lab: Lab, tmp_path: Path, load: str) -> None:
    trace, dump = tmp_path / "trace.dat", tmp_path / "wire.pcap"
    capture = ["tcpdump", "-i", "eth0", "-w", str(dump), "--time-stamp-precision=nano"]
    capture += ["-B", "65536", "-s", "96", "-Z", "root", "icmp"]
    others, share = LOADS[load]
    with contextlib.ExitStack() as stack:
        for role, argv in others:
            stack.enter_context(running(lab, role, *argv))
        stack.enter_context(running(lab, "host", *capture))
        while not dump.exists() or dump.stat().st_size == 0:
            time.sleep(0.05)
        argv = ["ping", "-i", "0.01", "-c", "100"]
        record(argv, lab_site(lab), trace, baseline=False, buffer_kb=65536)
        time.sleep(2)  # until tcpdump has taken its last block of packets
    analysis = maceproc.analyze(trace)
    rtts = analysis.rtts
    if not len(analysis.trace.lost):
        assert (rtts["status"] == "corrected").mean() >= share, rtts["reason"].value_counts()
    rows = corrected(analysis).set_index("seq")
    wire = echoes_of(read_pcap(dump), analysis)
    assert rows.index.isin(wire.index).all()
    off_ns = (rows["wire_rtt_ns"].astype(float) - wire.loc[rows.index]).abs()
    assert rows.empty or (off_ns <= CLOSE_NS).mean() >= 0.99
    # A wrong match would be off by the time between two pings.
    assert (off_ns < 2_000_000).all()


def read_pcap(path: Path) -> pd.DataFrame:
    """Read the ICMP echoes of a nanosecond pcap: time_ns, type, id, seq."""
    data, rows, place = path.read_bytes(), [], 24
    assert struct.unpack_from("<I", data)[0] == 0xA1B23C4D
    while place + 16 <= len(data):
        seconds, nanoseconds, length, _ = struct.unpack_from("<4I", data, place)
        frame = data[place + 16 : place + 16 + length]
        place += 16 + length
        header = 14 + (frame[14] & 15) * 4
        kind, _, _, ident, seq = struct.unpack_from("!BBHHH", frame, header)
        rows.append((seconds * 10**9 + nanoseconds, kind, ident, seq))
    return pd.DataFrame(rows, columns=["time_ns", "type", "id", "seq"])


def echoes_of(echoes: pd.DataFrame, analysis: Analysis) -> pd.Series:
    """Return tcpdump's reply - request [ns] per seq, of the flow that was sent when ours was."""
    assert analysis.capture.sidecar is not None
    run = analysis.capture.sidecar.runs[0]
    sent_ns = analysis.rtts.set_index("seq")["sent_ns"].dropna().astype(np.int64)
    sent_ns = sent_ns + (run.start_utc_ns - run.start_ns)
    requests = echoes[echoes["type"] == 8]
    best = max(
        (flow for _, flow in requests.groupby("id")),
        key=lambda flow: (
            (flow.groupby("seq")["time_ns"].first().reindex(sent_ns.index) - sent_ns).abs()
            < 5_000_000
        ).sum(),
    )
    ours = echoes[echoes["id"] == best["id"].iloc[0]]
    first = ours.groupby(["type", "seq"])["time_ns"].first()
    return (first[0] - first[8]).dropna()
