"""Findings: what is said, and only where it is so."""

from __future__ import annotations

from typing import Any

import pandas as pd

from maceproc.capture import Machine, Sidecar, Target, Tracing
from maceproc.following.checks import find_doubts
from maceproc.schema import COMPARISONS, LOST, RTTS, Trace


def findings(**columns: list[object]) -> pd.DataFrame:
    """FINDINGS by name, about traced pings with these columns of RTTS."""
    every = {"arm": "container traced", "status": "corrected"}
    rtts = pd.DataFrame(every | columns).reindex(columns=RTTS.names)
    trace = Trace(events={}, lost=LOST.frame(), clock="mono")
    return find_doubts(None, trace, rtts, COMPARISONS.frame()).set_index("finding")


def about(**tracing: Any) -> pd.DataFrame:
    """FINDINGS by name, of a capture without a ping that was recorded so."""
    sidecar = Sidecar(
        maceproc="0",
        command=["ping"],
        rounds=1,
        target=Target(kind="here"),
        runs=[],
        namespaces=[],
        tracing=Tracing(
            events=[], event_set="list", clock="mono", instance="", buffer_size_kb=64, **tracing
        ),
        machine=Machine(kernel="", cpu="", cpus=2),
    )
    trace = Trace(events={}, lost=LOST.frame(), clock="mono")
    rtts = pd.DataFrame(columns=RTTS.names)
    return find_doubts(sidecar, trace, rtts, COMPARISONS.frame()).set_index("finding")


def test_the_kernel_s_count_of_lost_events_is_told() -> None:
    said = about(events_lost={"0": 329_000, "1": 77})
    message = said.loc["lost events", "message"]
    assert message.startswith("329,077 events were lost, by the kernel's count")
    assert "lost events" not in about().index


def test_missing_events_are_a_problem() -> None:
    said = about(events_missing={"1": 12}).loc["incomplete trace"]
    assert said["level"] == "problem"
    assert "12 events that the trace does not hold" in said["message"]
    told = about(events_missing={"1": 12}, problems=["trace-cmd failed: killed"])
    assert told.loc["incomplete trace", "message"] == "trace-cmd failed: killed"


def test_a_coarse_print_is_said_and_what_is_used_instead() -> None:
    said = findings(
        rtt_ns=[1_250_000, 1_260_000, 950_000],
        rtt_resolution_ns=[10_000, 10_000, 1000],
        residual_ns=[300, 4000, 400],
        rtt_basis=["kernel", "kernel", "printed"],
    )
    assert "steps of 10.0 us: 2 of 3 corrected" in said.loc["print resolution", "message"]


def test_coverage_is_told_of_each_traced_arm_and_natives_only_warn() -> None:
    lost = {"status": ["corrected"] * 4 + ["native", "incomplete"], "reason": [""] * 5 + ["why"]}
    arms = ["container traced"] * 4 + ["native traced"] * 2
    said = findings(arm=arms, rtt_ns=[90_000] * 6, **lost).loc["coverage"]
    assert said["level"] == "warning"
    assert said["message"].startswith(
        "only 1 of 2 answered native traced pings could be followed; most often: why (1)"
    )
    alone = findings(
        arm=["native traced"] * 6,
        rtt_ns=[90_000] * 6,
        reason=["why"] * 6,
        status=["native"] * 3 + ["incomplete"] * 3,
    )
    assert alone.loc["coverage", "level"] == "problem"
    inside = findings(arm=["container traced"] * 6, rtt_ns=[90_000] * 6, **lost).loc["coverage"]
    assert inside["level"] == "problem"
    assert "answered container traced pings could be corrected" in inside["message"]


def test_a_fine_print_is_not_worth_a_word() -> None:
    said = findings(
        rtt_ns=[50_000] * 3,
        rtt_resolution_ns=[1000] * 3,
        residual_ns=[300, 500, 400],
        rtt_basis=["printed"] * 3,
    )
    assert "print resolution" not in said.index
    assert "residual" not in said.index
