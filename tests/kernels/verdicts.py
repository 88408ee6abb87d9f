"""What became of the pings that were recorded on the bench, and whether it is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import maceproc
from tests.kernels.scenarios import Scenario

APART_NS = 25_000_000  # pings follow one another by 50 ms
LATE_NS = 45_000_000  # ping prints after the reply came, in an emulator long after, before the next
EARLY_NS = 1_000_000  # the two clocks are read one after the other
LEAST = 0.5  # of the pings; an emulator that is held up scatters a run's RTTs, and it is refused
NOT_FOLLOWED = ("no-request", "request-not-followed", "reply-not-followed")  # whatever the load
NETEM_ERROR_NS = 4_000_000  # emulated CPUs are slow; what netem adds is a lower bound


@dataclass(frozen=True)
class Verdict:
    """The result of one scenario on one kernel.

    `wrong` counts the pings whose correction is not that of their own packets on the right
    devices; `problem` says in words what is not as it must be, and is empty if all is well;
    `held_up` what is so because the machine was too busy for an emulator, and shows nothing.
    """

    scenario: str
    kernel: str
    corrected: int
    answered: int
    wrong: int
    refused: str
    problem: str
    held_up: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return it as it is written to the results file."""
        return asdict(self)


def judge(name: str, scenario: Scenario, kernel: str, trace: Path) -> Verdict:
    """Analyze a recording of the bench, and compare it with what the scenario says is right."""
    if not trace.exists():
        log = trace.with_suffix(".log")
        said = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
        return Verdict(name, kernel, 0, 0, 0, "", f"nothing was recorded: {''.join(said)}")
    analysis = maceproc.analyze(trace)
    rtts = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    answered = rtts[rtts["rtt_ns"].notna()]
    corrected = answered[answered["status"] == "corrected"]
    wrong = sum(not _is_right(analysis, row, scenario) for row in corrected.itertuples())
    refusals = answered["reason"][answered["status"] != "corrected"]
    refused = str(refusals.mode().iloc[0]) if len(refusals) else ""
    counts = len(corrected), len(answered), wrong
    problem = _problem(scenario, counts, answered)
    held_up = "" if problem else _held_up(scenario, answered)
    return Verdict(name, kernel, *counts, refused, problem, held_up)


def _problem(scenario: Scenario, counts: tuple[int, int, int], answered: pd.DataFrame) -> str:
    """Say what is not as the scenario says it must be; nothing if all is well."""
    corrected, all_answered, wrong = counts
    if not all_answered:
        return "no ping was answered"
    if wrong:
        return f"{wrong} of {all_answered} pings were corrected wrong"
    if scenario.corrected == "none" and corrected:
        return f"{corrected} pings were corrected where nothing can be"
    lost = (answered["status"].eq("uncrossed") | answered["rule"].isin(NOT_FOLLOWED)).sum()
    if scenario.corrected == "all" and lost > LEAST * all_answered:
        return f"{lost} of {all_answered} pings were not followed"
    for part, least_ns, added_ns in _netem_parts(scenario, answered):
        if least_ns < added_ns:
            return f"netem added {added_ns} ns to the {part}, its least is {least_ns:.0f} ns"
    return ""


def _held_up(scenario: Scenario, answered: pd.DataFrame) -> str:
    """Say what a machine too busy for an emulator left unshown; nothing if all was shown."""
    corrected = (answered["status"] == "corrected").sum()
    if scenario.corrected == "all" and corrected < LEAST * len(answered):
        return f"only {corrected} of {len(answered)} pings took the time that was printed"
    for part, least_ns, added_ns in _netem_parts(scenario, answered):
        if least_ns >= added_ns + NETEM_ERROR_NS:
            return f"netem added {added_ns} ns to the {part}, its least is {least_ns:.0f} ns"
    return ""


def _netem_parts(scenario: Scenario, answered: pd.DataFrame) -> Iterator[tuple[str, float, int]]:
    """Give each part of the corrected RTTs: its name, its least, and what netem added to it [ns].

    netem delays every packet, and a busy machine delays some of them more; so the least counts.
    """
    corrected = answered[answered["status"] == "corrected"]
    if not any(scenario.added_ns) or corrected.empty:
        return
    parts = {
        "outbound": corrected["outbound_ns"],
        "inbound": corrected["inbound_ns"],
        "corrected RTT": corrected["bare_metal_rtt_ns"],
    }
    for (part, times_ns), added_ns in zip(parts.items(), scenario.added_ns, strict=True):
        yield part, float(times_ns.min()), added_ns


def _is_right(analysis: maceproc.Analysis, row: Any, scenario: Scenario) -> bool:
    """Tell whether a corrected ping's packets are its own, and its crossings end where they must.

    Its own they are if its reply came when ping says, by its clock, that it printed this icmp_seq:
    other pings are far from that. The devices are those that the network was built with.
    """
    crossings = analysis.crossings
    ends = []
    for journey, direction in (
        (row.outbound_journey, "outbound"),
        (row.inbound_journey, "inbound"),
    ):
        of_ping = (crossings["journey"] == journey) & (crossings["direction"] == direction)
        complete = crossings[of_ping & (crossings["status"] == "complete")]
        near = complete[(complete["left_ns"] - row.sent_ns).between(0, row.rtt_ns + APART_NS)]
        if near.empty:
            return False
        ends.append(near.iloc[0])
    out, back = ends
    hops = analysis.hops
    at_outer = (hops["journey"] == out["journey"]) & (hops["time_ns"] == out["left_ns"])
    at_card = (hops["journey"] == back["journey"]) & (hops["time_ns"] == back["entered_ns"])
    devices_right = (hops["dev"][at_outer].astype(str) == scenario.outbound).any() and bool(
        hops["dev"][at_card].astype(str).isin(scenario.inbound).any()
    )
    in_order = row.sent_ns <= out["entered_ns"] < out["left_ns"] <= back["entered_ns"]
    return bool(devices_right and in_order and _is_of_its_time(analysis, row, back["left_ns"]))


def _is_of_its_time(analysis: maceproc.Analysis, row: Any, received_ns: int) -> bool:
    """Tell whether a reply came at the time that ``ping -D`` printed with this icmp_seq."""
    sidecar = analysis.capture.sidecar
    if sidecar is None:
        return False
    run = next(r for r in sidecar.runs if r.arm == "container traced" and r.round == row.round)
    printed_ns = analysis.pings["received_at_ns"][row.Index]
    utc_ns = received_ns - run.start_ns + run.start_utc_ns
    return bool(pd.notna(printed_ns) and -EARLY_NS <= printed_ns - utc_ns <= LATE_NS)
