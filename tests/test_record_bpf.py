"""`record --tracer bpf`: every ping by its own echo, also where events could not tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import maceproc
from benchmarks.witness import rivals
from maceproc.cli import cli
from maceproc.errors import TargetError, TracingError
from maceproc.recording.bpf import libbpf
from maceproc.recording.bpf.trial import try_tracer
from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6, Lab
from maceproc.recording.record import record
from maceproc.recording.sites import here_site, lab_site
from tests.watched import why_no_bpf

needs_bpf = pytest.mark.skipif(bool(why_no_bpf()), reason=why_no_bpf() or "BPF works")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=2) as up:
        yield up


@pytest.mark.kernel
@needs_bpf
@pytest.mark.parametrize("address", [REMOTE_IPV4, REMOTE_IPV6])
def test_every_ping_is_corrected_and_the_ledger_closes(
    lab: Lab, tmp_path: Path, address: str
) -> None:
    command = ["ping", "-i", "0.01", "-c", "20", address]
    capture = record(command, lab_site(lab), tmp_path / "t.dat", rounds=2, tracer="bpf")
    assert capture.sidecar is not None
    tracing = capture.sidecar.tracing
    assert (tracing.tracer, tracing.points_lost, tracing.unread) == ("bpf", 0, {})
    analysis = maceproc.analyze(capture.trace)
    traced = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    assert traced["status"].tolist() == ["corrected"] * 40
    segments = ["outbound_ns", "outer_queue_ns", "wire_rtt_ns", "inbound_ns", "residual_ns"]
    assert (traced[segments].sum(axis=1) == traced["rtt_ns"]).all()
    assert (traced["residual_ns"] > -1000).all()
    natives = analysis.rtts[analysis.rtts["arm"] == "native traced"]
    assert natives["status"].tolist() == ["native"] * 40
    segments = ["outer_queue_ns", "wire_rtt_ns", "residual_ns"]
    assert (natives[segments].sum(axis=1) == natives["rtt_ns"]).all()
    assert traced["native_rtt_ns"].notna().all() == (len(analysis.native.rounds.terms) >= 3)
    assert len(analysis.rtts) == 160
    assert len(analysis.trace.info) == 2


@pytest.mark.kernel
@needs_bpf
def test_a_flood_beside_floods_of_its_container_is_told_whole(lab: Lab, tmp_path: Path) -> None:
    flood = ["-f", "-q", REMOTE_IPV4]
    with rivals(lab, *[("container", flood)] * 2, ("container2", flood)):
        command = ["ping", "-i", "0.005", "-c", "200", REMOTE_IPV4]
        capture = record(command, lab_site(lab), tmp_path / "t.dat", baseline=False, tracer="bpf")
    rtts = maceproc.analyze(capture.trace).rtts
    answered = rtts[rtts["status"] != "unanswered"]  # floods make a backlog overflow now and then
    assert len(answered) > 100
    corrected = answered["status"] == "corrected"
    assert capture.sidecar is not None
    if capture.sidecar.tracing.points_lost:  # the reader did not run while a ring filled
        assert set(answered.loc[~corrected, "rule"]) <= {"no-row"}
        assert corrected.mean() > 0.9
    else:
        assert corrected.all(), answered.loc[~corrected, ["seq", "status", "reason"]]
    assert answered.loc[corrected, "matched_by"].eq("identity").all()


@pytest.mark.kernel
@needs_bpf
def test_a_killed_recording_keeps_what_was_written(lab: Lab, tmp_path: Path) -> None:
    words = [
        "record",
        "--rounds",
        "1",
        "--lab",
        lab.name,
        "--tracer",
        "bpf",
        "--no-baseline",
        "-o",
        "t.dat",
        "--",
    ]
    ping = ["ping", "-i", "0.01", "-c", "1000", REMOTE_IPV4]
    argv = [sys.executable, "-m", "maceproc", *words, *ping]
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not any(
            path.stat().st_size > 20_000 for path in tmp_path.rglob("t.dat") if path.is_file()
        ):
            assert time.monotonic() < deadline, list(tmp_path.rglob("*"))
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    done = CliRunner().invoke(cli, ["salvage", str(tmp_path / "t.dat")])
    assert done.exit_code == 0, done.output
    analysis = maceproc.analyze(tmp_path / "t.dat")
    assert len(analysis.crossings) > 40
    assert "interrupted" in set(analysis.findings["finding"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_a_crossing_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises((TargetError, TracingError), match=r"nothing is crossed|BTF|libbpf"):
        record(["ping", "-c", "1", "127.0.0.1"], here_site(), tmp_path / "t.dat", tracer="bpf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LIBRARY", "libbpf.so.none", "libbpf.so.none: not found"),
        ("KERNEL_BTF", Path("/nonexistent"), "does not describe its types"),
    ],
)
def test_what_is_missing_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, said: str
) -> None:
    monkeypatch.setattr(libbpf, name, value)
    libbpf._library.cache_clear()
    level, message, advice = try_tracer()
    libbpf._library.cache_clear()
    assert level == "warning"
    assert said in message
    assert advice


def test_options_of_the_other_tracer_are_refused() -> None:
    words = ["record", "--tracer", "bpf", "--events", "full", "--", "ping", "192.0.2.1"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert "--events and --buffer-kb go with --tracer ftrace or perf" in done.output
