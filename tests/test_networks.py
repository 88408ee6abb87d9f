"""The networks of the bench that any kernel has, recorded for real; the page of the results."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import maceproc
from maceproc.reporting.explain import explain
from tests.kernels import machine, verdicts
from tests.kernels.__main__ import NOT_RUN, WRONG, run_on_this_kernel, status_of
from tests.kernels.machine import CannotRun, setup_script
from tests.kernels.scenarios import HERE, SCENARIOS, SMOKE
from tests.kernels.table import PAGE, RESULTS, with_table
from tests.kernels.verdicts import Verdict, judge

CAPTURES = Path(__file__).parents[1] / "captures" / "kernels"


def test_a_vlan_on_a_bond_recorded_on_debian_s_kernel() -> None:
    verdict = judge("bond-vlan", SCENARIOS["bond-vlan"], "6.1", CAPTURES / "bond-vlan-6.1.dat")
    assert (verdict.corrected, verdict.answered, verdict.wrong) == (20, 20, 0)
    assert verdict.problem == ""


def test_its_report_and_explanation_name_the_devices() -> None:
    analysis = maceproc.analyze(CAPTURES / "bond-vlan-6.1.dat")
    report = " ".join(str(analysis).split())
    assert "outbound crossings end on ho:bond0.5, inbound ones begin on ho:nic0" in report
    assert r"\n" not in report
    explanation = str(explain(analysis, 3))
    assert "outbound crossing: from ct:eth0 to ho:bond0.5" in explanation
    assert "inbound crossing: from ho:nic0 to ct:eth0" in explanation


def test_a_judge_sees_crossings_that_end_elsewhere() -> None:
    elsewhere = replace(SCENARIOS["bond-vlan"], outbound="nic0")
    verdict = judge("bond-vlan", elsewhere, "6.1", CAPTURES / "bond-vlan-6.1.dat")
    assert verdict.wrong == 20


@pytest.mark.kernel
def test_uplink_bridge_and_tunnels_are_followed_on_this_kernel() -> None:
    judged = run_on_this_kernel(("uplink-bridge", "vxlan-own-namespace"))
    assert [verdict.problem for verdict in judged] == ["", ""]
    assert all(verdict.corrected for verdict in judged)
    assert "eBPF" not in recorded("uplink-bridge")


def recorded(name: str) -> str:
    """Return what a recording on this kernel said before it began."""
    log = (machine.KERNELS / "results" / "here" / f"{name}.log").read_text()
    return " ".join(log.partition("\npath: ")[2].split())


@pytest.mark.kernel
def test_copies_and_redirections_are_said_before_recording_and_followed_or_refused() -> None:
    copied, redirected, xdp = run_on_this_kernel(("vxlan-ipv6", "redirect-peer", "xdp-driver"))
    assert (copied.problem, copied.wrong) == ("", 0)
    assert copied.corrected
    assert "ho:vxlan0: the kernel copies IPv6 packets that it forwards" in recorded("vxlan-ipv6")
    assert (redirected.problem, redirected.corrected) == ("", 0)
    assert "were seen on the container's device" in redirected.refused
    said = recorded("redirect-peer")
    assert "eBPF programs see packets at ho:vct (tc ingress redirect_peer.o:[tc_outbound])" in said
    assert "ho:nic0 (tc ingress redirect_peer.o:[tc_inbound])" in said
    assert (xdp.problem, xdp.corrected) == ("", 0)
    assert "requests was seen at the host's end of the container's device" in xdp.refused
    said = recorded("xdp-driver")
    assert "eBPF programs see packets at ho:vct (XDP), ho:nic0 (XDP)" in said
    assert "ho:vct: the veth driver copies packets for its XDP program" in said


def test_the_page_shows_the_results_as_they_are() -> None:
    results = json.loads(RESULTS.read_text())
    assert PAGE.read_text() == with_table(PAGE.read_text(), results)
    assert not any(row["problem"] for row in results)
    assert len({row["kernel"] for row in results}) >= 2
    assert {row["scenario"] for row in results} <= set(SCENARIOS)
    assert all(row["wrong"] == 0 for row in results)


def test_every_scenario_makes_what_its_name_says() -> None:
    assert {*HERE, *SMOKE} <= set(SCENARIOS)
    for scenario in SCENARIOS.values():
        assert not re.search(
            r"(?<!\$)\{", setup_script(scenario)
        )  # nothing is left to be filled in


ROOT = Path(__file__).parents[1]


@pytest.fixture
def smoke(tmp_path: Path) -> Callable[[str, str], tuple[int, str]]:
    """Run the smoke's script with a ``make`` and a Python that end as they are told."""

    def run(make: str, bench: str) -> tuple[int, str]:
        for name, script in (("make", make), ("python", bench)):
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        (tmp_path / ".ci").mkdir(exist_ok=True)
        shutil.copy(ROOT / ".ci" / "smoke", tmp_path / ".ci")
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "VENV": str(tmp_path)}
        done = subprocess.run(
            [tmp_path / ".ci" / "smoke"], env=environ, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    ("make", "bench", "status", "said"),
    [
        ("exit 0", "exit 0", 0, "kernel smoke: passed"),
        ("exit 0", "echo bond-vlan 3 wrong; exit 1", 1, "bond-vlan 3 wrong"),
        ("exit 0", "echo 6.1: NOT RUN: no package; exit 3", 0, "kernel smoke: NOT RUN"),
        ("exit 0", "kill -9 $$", 0, "kernel smoke: NOT RUN"),
        (
            '[ "$2" = develop ] || { echo no package >&2; exit 2; }',
            "exit 1",
            0,
            "NOT RUN: qemu and virtme-ng cannot be",
        ),
        ("exit 0", "echo Traceback >&2; exit 2", 2, "Traceback"),
    ],
)
def test_the_smoke_fails_where_something_is_wrong_and_says_where_it_cannot_be_run(
    make: str,
    bench: str,
    status: int,
    said: str,
    smoke: Callable[[str, str], tuple[int, str]],
) -> None:
    ended, output = smoke(make, bench)
    assert ended == status
    assert said in output


def test_the_bench_s_exit_status() -> None:
    right = Verdict("netem", "6.1", 40, 40, 0, "", "")
    wrong, held_up = replace(right, problem="3 wrong"), replace(right, held_up="only 2 of 40")
    assert status_of([right, right], whole=True) == 0
    assert status_of([right, wrong, held_up], whole=True) == WRONG
    assert status_of([right, held_up], whole=True) == NOT_RUN
    assert status_of([right], whole=False) == NOT_RUN
    assert status_of([], whole=False) == NOT_RUN


def test_a_kernel_without_a_package_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = []
    monkeypatch.setattr(machine, "_apt", lambda argv, *_: programs.append(argv))
    monkeypatch.setattr(machine, "newest_package", lambda _: None)
    with pytest.raises(CannotRun, match=r"no package of kernel 6\.1"):
        machine.fetched("6.1", 10)
    assert programs == [["apt-get", "update", "-qq"]]


def test_a_guest_that_does_not_begin_its_script_cannot_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vng").write_text("#!/bin/sh\necho no bootable device\nexit 1\n")
    (tmp_path / "vng").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CannotRun, match=r"6\.1 did not boot in qemu: no bootable device"):
        machine.boot(tmp_path, "6.1", tmp_path / "guest.sh", tmp_path, seconds=60)


def test_a_guest_that_takes_too_long_is_ended_with_what_it_started() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as output:
        with os.fdopen(write_end, "wb") as console:
            argv = ["bash", "-c", "sleep 1000 & sleep 1000"]
            assert not machine.ran_within(argv, console, dict(os.environ), 0.5)
        assert output.read() == b""  # it ends only when no process has the other end


def test_a_busy_machine_is_told_apart_from_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = CAPTURES / "bond-vlan-6.1.dat"
    analysis = maceproc.analyze(trace)
    monkeypatch.setattr(maceproc, "analyze", lambda _: analysis)  # once is enough
    for added_ns in ((10**9, 0, 0), (0, 10**9, 0), (0, 0, 10**9)):
        delayed = replace(SCENARIOS["bond-vlan"], added_ns=added_ns)
        assert "netem added" in judge("bond-vlan", delayed, "6.1", trace).problem
    delayed = replace(SCENARIOS["bond-vlan"], added_ns=(1, 1, 1))
    assert judge("bond-vlan", delayed, "6.1", trace).held_up == ""
    monkeypatch.setattr(verdicts, "NETEM_ERROR_NS", 0)
    verdict = judge("bond-vlan", delayed, "6.1", trace)
    assert verdict.problem == ""
    assert "netem added 1 ns" in verdict.held_up
