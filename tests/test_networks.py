"""The networks of the bench that any kernel has, recorded for real; the page of the results."""

from __future__ import annotations

import json

import pytest

from tests.kernels.__main__ import run_on_this_kernel
from tests.kernels.machine import setup_script
from tests.kernels.scenarios import HERE, SCENARIOS, SMOKE
from tests.kernels.table import PAGE, RESULTS, with_table


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


def test_every_scenario_makes_what_its_name_says() -> None:
    assert {*HERE, *SMOKE} <= set(SCENARIOS)
    for scenario in SCENARIOS.values():
        assert "{" not in setup_script(scenario)
