"""What is called corrected is true, whatever happened and whatever of it was recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maceproc.following.follow import follow_pings
from tests.deletion import WAYS, gaps
from tests.synthetic import Happened, World, simulate, worlds

TRUTH = ["outbound_ns", "inbound_ns", "wire_rtt_ns"]
quick = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def false(happened: Happened, rtts: pd.DataFrame) -> pd.DataFrame:
    """Return the answered pings whose crossings or wire RTT are not the true ones."""
    corrected = rtts[rtts["status"] == "corrected"].set_index("seq")[TRUTH].astype("int64")
    truth = happened.truth.reindex(corrected.index)
    native = rtts[rtts["status"] == "native"].set_index("seq")[["wire_rtt_ns"]].astype("int64")
    wire = happened.native[["wire_rtt_ns"]].reindex(native.index)
    wrong = [corrected[(corrected != truth).any(axis=1)], native[(native != wire).any(axis=1)]]
    return pd.concat(wrong)


def ledger_gap_ns(rtts: pd.DataFrame) -> pd.Series:
    """Return the RTT minus all segments and the residual, of the corrected pings [ns]."""
    corrected = rtts[(rtts["status"] == "corrected") & rtts["residual_ns"].notna()]
    segments = ["tx_stack_ns", "outbound_ns", "outer_queue_ns", "wire_rtt_ns", "inbound_ns"]
    return corrected["rtt_ns"] - corrected[[*segments, "delivery_ns", "residual_ns"]].sum(axis=1)


@quick
@given(worlds)
@example(World(seed=1))
@example(World(seed=2, interval_us=20, wire_us=3000, neighbours=2))
@example(  # a rival's replies come shortly after most replies, as if the offset were negative
    World(
        seed=2, pings=7, interval_us=20, wire_us=5, step_us=1, rivals=1, addresses=1, cpus=2,
        first_on_delivery=True,
    )
)  # fmt: skip
def test_what_is_corrected_is_true_and_its_ledger_closes(world: World) -> None:
    happened = simulate(world)
    rtts = follow_pings(happened.capture, happened.trace).rtts
    assert false(happened, rtts).empty
    assert (ledger_gap_ns(rtts) == 0).all()
    left = rtts[~rtts["status"].isin(["corrected", "native"])]
    assert (left["reason"] != "").all()


@quick
@given(worlds, st.integers(0, 2**32 - 1))
def test_it_stays_true_when_events_are_lost(world: World, seed: int) -> None:
    happened = simulate(world)
    delete = WAYS[seed % len(WAYS)]
    events = delete(np.random.default_rng(seed), happened.trace.events)
    lost = gaps(happened.trace.events, events)
    rtts = follow_pings(happened.capture, replace(happened.trace, events=events, lost=lost)).rtts
    assert false(happened, rtts).empty


@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 2), st.sampled_from([1, 5, 40]))
def test_every_ping_is_corrected_when_nothing_stands_in_the_way(
    seed: int, neighbours: int, step_us: int
) -> None:
    world = World(seed, interval_us=20_000, step_us=step_us, neighbours=neighbours)
    happened = simulate(world)
    rtts = follow_pings(happened.capture, happened.trace).rtts
    assert (rtts["status"] == "corrected").all(), rtts["reason"].tolist()


@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 2), st.booleans(), st.sampled_from([1, 5, 40]))
def test_what_the_host_answers_stands_in_no_ping_s_way(
    seed: int, asking: int, own_lists: bool, step_us: int
) -> None:
    """The host's answers get the addresses of replies, and are as long as they are."""
    world = World(seed, interval_us=20_000, step_us=step_us, asking=asking, native=True, waits=True)
    happened = simulate(replace(world, own_lists=own_lists))
    rtts = follow_pings(happened.capture, happened.trace).rtts
    assert set(rtts["status"]) == {"corrected", "native"}, rtts["reason"].tolist()
    assert false(happened, rtts).empty


@quick
@given(worlds)
def test_an_address_used_again_never_joins_two_packets(world: World) -> None:
    # What the host itself sends in softirq may be joined to a packet of its length.
    happened = simulate(replace(world, asking=0, native=False, waits=False))
    hops = follow_pings(happened.capture, happened.trace).hops
    packet = [happened.packets[key] for key in zip(hops["time_ns"], hops["skbaddr"], strict=True)]
    assert (hops.assign(packet=packet).groupby("journey")["packet"].nunique() == 1).all()


@quick
@given(worlds, st.randoms(use_true_random=False))
def test_order_of_cpus_and_of_simultaneous_events_changes_nothing(world: World, random) -> None:
    happened = simulate(world)
    numbers = list(range(world.cpus))
    random.shuffle(numbers)
    names = list(happened.trace.events)
    random.shuffle(names)
    shuffled = {}
    for name in names:
        rows = happened.trace.events[name]
        rows = rows.assign(cpu=rows["cpu"].map(dict(enumerate(numbers))).astype("int32"))
        # A stable sort by time of shuffled rows: simultaneous ones end up in any order.
        order = list(range(len(rows)))
        random.shuffle(order)
        shuffled[name] = rows.iloc[order].sort_values("time_ns", kind="stable")
    before = follow_pings(happened.capture, happened.trace).rtts
    after = follow_pings(happened.capture, replace(happened.trace, events=shuffled)).rtts
    pd.testing.assert_frame_equal(before, after)
