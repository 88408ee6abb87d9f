"""The networks of the bench that any kernel has, recorded for real; the page of the results."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import maceproc
from maceproc.reporting.explain import explain
from tests.kernels.__main__ import run_on_this_kernel
from tests.kernels.machine import setup_script
from tests.kernels.scenarios import HERE, SCENARIOS, SMOKE
from tests.kernels.table import PAGE, RESULTS, with_table
from tests.kernels.verdicts import judge

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
    verdicts = run_on_this_kernel(("uplink-bridge", "vxlan-own-namespace"))
    assert [verdict.problem for verdict in verdicts] == ["", ""]
    assert all(verdict.corrected for verdict in verdicts)


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
