"""Events are counted on the path of the ping they fell into, and cost what they cost there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from maceproc.following import event_costs
from maceproc.reporting.document import as_dict
from maceproc.reporting.report import as_text
from maceproc.reporting.report_tables import event_cost_lines
from maceproc.schema import COMPARISONS, HOPS, RTTS, SERIES
from tests.recorded import NAMES, analyzed

# One ping: sent at 100, queued at 110, out at 130, back at 200, in at 250, where it was stamped.
PING = {
    "round": 1, "arm": "container traced", "seq": 1, "status": "corrected",
    "sent_ns": 100, "tx_stack_ns": 10, "outbound_ns": 20, "outer_queue_ns": 0, "wire_rtt_ns": 70,
    "inbound_ns": 50, "delivery_ns": 0, "received_ns": 250,
    "outbound_journey": 0, "inbound_journey": 1,
}  # fmt: skip


def hops_on(request_cpu: int, reply_cpu: int, received_again: bool) -> pd.DataFrame:
    end = "netif_rx" if received_again else "consume_skb"
    rows = [
        (0, 0, "net_dev_queue", request_cpu, 110),
        (0, 1, "net_dev_queue", request_cpu, 130),
        (0, 2, end, request_cpu, 140),
        (1, 0, "netif_rx", reply_cpu, 200),
        (1, 1, "netif_rx", reply_cpu, 250),
    ]
    table = pd.DataFrame(rows, columns=["journey", "hop", "event", "cpu", "time_ns"])
    empty = {"skbaddr": 0, "pid": 0, "len": 0, "softirq": False, "dev": None, "netns": None}
    return HOPS.frame(table.assign(**empty))


def counted(times: dict[int, list[int]], **hops) -> dict[str, int]:
    rtts = RTTS.frame(pd.DataFrame([PING]).reindex(columns=RTTS.names))
    arrays = {cpu: np.array(at) for cpu, at in times.items()}
    (row,) = event_costs.count_events(rtts, hops_on(**hops), arrays).to_dict("records")
    return {name: int(row[name]) for name in row if name.startswith("events")}


def test_events_are_counted_where_and_when_they_delay() -> None:
    times = {0: [99, 100, 110, 129, 130, 150, 249], 1: [120, 200, 249, 250]}
    found = counted(times, request_cpu=0, reply_cpu=1, received_again=True)
    # 99 is before, 250 when the stamp was taken; of CPU 1 nothing counts until the reply is there.
    assert found == {
        "events": 7,
        "events_inside": 4,
        "events_outside": 1,
        "events_wire": 2,
        "events_anywhere": 9,
    }


def test_what_happens_on_a_real_wire_delays_nobody() -> None:
    times = {0: [100, 110, 150]}
    far = counted(times, request_cpu=0, reply_cpu=0, received_again=False)
    here = counted(times, request_cpu=0, reply_cpu=0, received_again=True)
    assert (far["events"], here["events"]) == (2, 3)
    assert far["events_wire"] == here["events_wire"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_matched_ping_is_counted(name: str) -> None:
    analysis = analyzed(name)
    seen = analysis.events_on_path
    matched = analysis.rtts["status"].isin(["corrected", "native"])
    assert len(seen) <= matched.sum()
    assert (seen["events"] <= seen["events_anywhere"]).all()
    assert (seen["events_inside"] + seen["events_outside"] <= seen["events"]).all()
    assert (seen["events"] >= 1).all()  # at least its own send call


def test_more_events_are_seen_when_more_are_recorded() -> None:
    few, many = (analyzed(name).event_costs.iloc[0]["events"] for name in ("idle", "every_event"))
    assert many > 3 * few


def summarized(low_ns: float, high_ns: float, *, refused: str = "") -> pd.Series:
    estimate = (low_ns + high_ns) / 2
    costs = pd.DataFrame(
        {"arm": "container traced", "events": 8, "events_inside": 6, "events_anywhere": 9},
        index=[0],
    )
    series = SERIES.from_rows(
        [
            (
                "container, traced",
                "container traced",
                "rtt_ns",
                9,
                9,
                60_000 + estimate,
                *[0.0] * 4,
            ),
            ("container, untraced", "container untraced", "rtt_ns", 9, 9, 60_000, *[0.0] * 4),
        ]
    )
    row = ("perturbation", "", "", estimate, low_ns, high_ns, 9, "rounds", 0.0, refused)
    return event_costs.summarize(costs, series, COMPARISONS.from_rows([row])).iloc[0]


def test_cost_is_what_was_measured_and_what_the_correction_leaves() -> None:
    row = summarized(3000, 5000)
    assert (row["basis"], row["verdict"]) == ("measured", "small")
    assert row["cost_per_event_ns"] == 4000 / 8
    assert row["left_ns"] == pytest.approx(1000)  # 2 of 8 events are outside the crossings
    assert row["share"] == pytest.approx(4 / 60)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((500, 700), "negligible"),
        ((9000, 11000), "large"),
        ((-100, 2000), event_costs.UNTOLD),
        ((-9000, -3600), event_costs.IMPOSSIBLE),
    ],
)
def test_verdict(interval: tuple[float, float], verdict: str) -> None:
    assert summarized(*interval)["verdict"] == verdict


def test_a_negative_cost_is_never_a_finding() -> None:
    table = pd.DataFrame([summarized(-9000, -3600)])
    said = " ".join(event_cost_lines(table))
    assert "tracing cannot speed a ping up: the rounds differ by more than the interval" in said
    assert not any(word in said for word in ("small", "large", "an event", "stay in"))


def test_a_refused_perturbation_is_not_used() -> None:
    assert summarized(3000, 5000, refused="the machine changed")["basis"] == "assumed"


def test_the_report_has_it() -> None:
    analysis = analyzed("idle")
    row = as_dict(analysis)["observer"][0]
    assert f"{row['events']:.1f} events on a ping's path" in as_text(analysis)
