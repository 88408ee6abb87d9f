"""Text without a summary: the calls of the task count the requests."""

from __future__ import annotations

import numpy as np
import pytest

from maceproc.following.by_hand import runs_by_hand
from maceproc.following.scatter import scatter_of
from maceproc.pings import parse_ping
from maceproc.schema import CROSSINGS, DELIVERIES, SENDS
from tests.test_matching import START_NS, VARIED, drawn, lines_of, rtts_of, rules, text

FPING = "\n".join(
    f"192.0.2.2 : [{seq}], 64 bytes, {rtt_ms} ms (0.1 avg, 0% loss)"
    for seq, rtt_ms in enumerate(["0.153", "0.116"])
)


def cut(printed: str) -> str:
    return printed.partition("\n\n---")[0]


@pytest.mark.parametrize("rtts", [VARIED, [50.0] * 20])
def test_calls_count_the_requests(rtts: list[float]) -> None:
    found = rtts_of(drawn(20, rtts), cut(text(lines_of(rtts), 20)))
    assert set(found["status"]) == {"corrected"}
    assert list(found["sent_ns"]) == [START_NS + 1_000_000 * call for call in range(20)]


def test_fping_without_its_summary() -> None:
    found = rtts_of(drawn(2, [151, 114]), FPING)
    assert list(found["status"]) == ["corrected", "corrected"], found["reason"]


def test_a_call_that_no_line_speaks_of_may_be_any() -> None:
    lines = lines_of(VARIED)[:19]
    found = dict(rules(drawn(20, VARIED), cut(text(lines, 20))))
    assert set(found.values()) == {"calls-and-requests-differ"}


def test_another_runs_text_without_a_summary() -> None:
    found = rules(drawn(20, VARIED), cut(text(lines_of(VARIED[::-1]), 20)))
    assert {rule for _, rule in found} == {"rtts-disagree"}


def test_by_hand_the_task_is_found_by_its_calls() -> None:
    times_ns = START_NS + np.arange(5) * 1_000_000
    sends = SENDS.frame(
        {"time_ns": times_ns, "pid": [7, 7, 8, 8, 8], "fd": [3] * 5, "len": [64] * 5}
    )
    (run, _), *_ = runs_by_hand(parse_ping(FPING), sends, DELIVERIES.frame(), CROSSINGS.frame())
    assert run.pid == 7


def noisy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return times from call to reply, and what is printed: 25 us more, give or take 3 us."""
    kernel_ns = (70_000 + 8_000 * rng.standard_normal(12)).astype(np.int64)
    printed_ns = kernel_ns + 25_000 + (3_000 * rng.standard_normal(12)).astype(np.int64)
    return printed_ns, kernel_ns


def test_residuals_may_scatter_where_the_rtts_vary_together() -> None:
    step_ns, tested = np.full(12, 1000), np.full(12, True)
    believed = others = 0
    for seed in range(20):
        printed_ns, kernel_ns = noisy(np.random.default_rng(seed))
        another_ns, _ = noisy(np.random.default_rng(1000 + seed))
        believed += scatter_of(printed_ns, step_ns, kernel_ns, tested) is not None
        others += scatter_of(another_ns, step_ns, kernel_ns, tested) is not None
        # Printed RTTs less than the packets' are not possible.
        assert scatter_of(printed_ns - 40_000, step_ns, kernel_ns, tested) is None
    assert believed >= 18
    assert not others
