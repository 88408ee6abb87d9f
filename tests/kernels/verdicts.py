"""What became of the pings that were recorded on the bench, and whether it is right."""

from __future__ import annotations

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
NETEM_ERROR_NS = 4_000_000  # emulated CPUs are slow; what netem adds is a lower bound


@dataclass(frozen=True)
class Verdict:
    """The result of one scenario on one kernel.

    `wrong` counts the pings whose correction is not that of their own packets on the right
    devices; `problem` says in words what is not as it must be, and is empty if all is well.
    """

    scenario: str
    kernel: str
    corrected: int
    answered: int
    wrong: int
    refused: str
    problem: str

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
    return Verdict(name, kernel, *counts, refused, _problem(scenario, counts, corrected))


def _problem(scenario: Scenario, counts: tuple[int, int, int], corrected: pd.DataFrame) -> str:
    """Say what is not as the scenario says it must be; nothing if all is well."""
    count, answered, wrong = counts
    if not answered:
        return "no ping was answered"
    if wrong:
        return f"{wrong} of {answered} pings were corrected wrong"
    if scenario.corrected == "all" and count < LEAST * answered:
        return f"only {count} of {answered} pings were corrected"
    if scenario.corrected == "none" and count:
        return f"{count} pings were corrected where nothing can be"
    return _netem_problem(scenario, corrected) if any(scenario.added_ns) else ""


def _netem_problem(scenario: Scenario, corrected: pd.DataFrame) -> str:
    """Compare the parts of the RTTs with the delays that netem added to each."""
    rest_ns = corrected["bare_metal_rtt_ns"]
    parts = {
        "outbound": corrected["outbound_ns"],
        "inbound": corrected["inbound_ns"],
        "corrected RTT": rest_ns,
    }
    for (part, times_ns), added_ns in zip(parts.items(), scenario.added_ns, strict=True):
        least_ns = times_ns.min()  # netem delays every packet, a busy machine some of them more
        if not added_ns <= least_ns < added_ns + NETEM_ERROR_NS:
            return f"netem added {added_ns} ns to the {part}, its least is {least_ns:.0f} ns"
    return ""


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
