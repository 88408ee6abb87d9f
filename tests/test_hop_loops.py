"""The compiled loops of following packets give what NumPy gives, from any tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.following import hop_loops, side_by_side
from maceproc.following.hop_arrays import HOP_EVENTS, Kind
from maceproc.following.hop_order import ORDERED, ordered_hops
from maceproc.following.journeys import Links, follow_packets

compiled = hop_loops.loops
pytestmark = pytest.mark.skipif(compiled is None, reason="installed without the compiled loops")

DEVICES = ("eth0", "veth1", "br0", "eno1")
NEVER_MANY = 1 << 40

pairs = st.frozensets(st.tuples(st.sampled_from(DEVICES), st.sampled_from(DEVICES)))
devices = st.frozensets(st.sampled_from(DEVICES))
added = st.sampled_from([(0,), (0, 50)])
links = st.builds(Links, pairs, devices, devices, pairs, added)

# Few addresses, times, tasks and lengths, so that most hops could belong together.
hop = st.fixed_dictionaries(
    {
        "event": st.sampled_from(sorted(HOP_EVENTS)),
        "time_ns": st.integers(0, 30),
        "skbaddr": st.sampled_from([0xFFFF_8881_0000_0100, 0xFFFF_FFFF_FFFF_FFFF, 0, 7]),
        "cpu": st.integers(0, 1),
        "pid": st.sampled_from([0, 9]),
        "flags": st.sampled_from([0, 0x10, 0x18]),
        "len": st.sampled_from([84, 98, 98, 134, 40, 42, 600]),
        "name": st.sampled_from([*DEVICES, None]),
    }
)
traces = st.tuples(st.lists(hop, max_size=40), st.booleans(), st.booleans())


def tables(hops: list[dict[str, Any]], short: bool, sort: bool) -> dict[str, pd.DataFrame]:
    """Return a table per event: typed as a trace.dat's (`short`) or a text's; in order of time."""
    if sort:
        hops = sorted(hops, key=lambda row: row["time_ns"])
    names = ["event", "time_ns", "skbaddr", "cpu", "pid", "flags", "len", "name"]
    whole = pd.DataFrame(hops, columns=names).astype(
        {
            "time_ns": np.int64,
            "skbaddr": np.uint64,
            "cpu": np.int32,
            "pid": np.int32,
            "flags": np.uint8,
            "len": np.uint32 if short else np.int64,
            "name": "category",
        }
    )
    whole.index = whole.index.astype(np.int32 if short else np.int64)
    return dict(list(whole.groupby("event")))


def check_followed(events: Mapping[str, pd.DataFrame], known: Links, threads: int) -> int:
    """Check that both ways give the same HOPS; return how many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "THREADS", threads)
        patch.setattr(side_by_side, "FEW_ROWS", 0 if threads > 1 else NEVER_MANY)
        found = follow_packets(events, links=known)
        patch.setattr(hop_loops, "loops", None)
        pd.testing.assert_frame_equal(found, follow_packets(events, links=known))
    return len(found)


@settings(deadline=None)
@given(traces, links, st.integers(1, 3))
def test_packets_are_followed_as_by_numpy(
    trace: tuple[list[dict[str, Any]], bool, bool], known: Links, threads: int
) -> None:
    assert check_followed(tables(*trace), known, threads) == len(trace[0])


def random_trace(seed: int, rows: int) -> tuple[dict[str, pd.DataFrame], Links]:
    """Return many hops of few addresses, of which most can follow one another; and some links."""
    rng = np.random.default_rng(seed)
    usual = rng.random((3, rows)) < 0.9
    table = pd.DataFrame(
        {
            "event": rng.choice(list(HOP_EVENTS)[:6], rows),
            "time_ns": np.sort(rng.integers(0, rows, rows)),
            "skbaddr": rng.choice([7, 8], rows),
            "cpu": np.where(usual[0], 0, 1),
            "pid": np.where(usual[1], 9, 8),
            "flags": np.where(rng.random(rows) < 0.7, 0x10, 0),
            "len": np.where(usual[2], 98, 84),
            "name": rng.choice(DEVICES, rows),
        }
    )
    every = [(a, b) for a in DEVICES for b in DEVICES]
    some = [frozenset(pair for pair in every if rng.random() < 0.3) for _ in range(2)]
    few = [frozenset(dev for dev in DEVICES if rng.random() < 0.4) for _ in range(2)]
    known = Links(pairs=some[0], ports=few[0], known=few[1], dead_ends=some[1])
    return tables(table.to_dict("records"), short=True, sort=True), known


@pytest.mark.parametrize("seed", range(8))
def test_long_lives_are_cut_as_by_numpy(seed: int) -> None:
    events, known = random_trace(seed, 2000)
    check_followed(events, known, threads=2)
    several = follow_packets(events, links=known)["hop"]
    assert several.max() > 1


def test_addresses_are_counted_however_many_they_are() -> None:
    rng = np.random.default_rng(3)
    rows = 30_000
    address = rng.integers(0, 20_000, rows, dtype=np.uint64) * np.uint64(0x1_0000_0100)
    table = pd.DataFrame(
        {
            "time_ns": np.sort(rng.integers(0, rows // 2, rows)),
            "cpu": np.zeros(rows, np.int32),
            "pid": np.zeros(rows, np.int32),
            "flags": np.full(rows, 0x10, np.uint8),
            "skbaddr": address,
            "len": np.full(rows, 98, np.uint32),
            "name": pd.Categorical.from_codes(rng.integers(0, 4, rows), list(DEVICES)),
        }
    )
    events = {"net_dev_queue": table[::2], "netif_receive_skb": table[1::2]}
    assert check_followed(events, Links(), threads=2) == rows


def test_tables_out_of_order_are_left_to_numpy() -> None:
    rows = [{"event": "netif_rx", "time_ns": time, "skbaddr": 7, "len": 84} for time in (2, 1)]
    unknown = {"cpu": 0, "pid": 0, "flags": 0, "name": "eth0"}
    events = tables([{**row, **unknown} for row in rows], short=True, sort=False)
    assert list(ordered_hops(events)["time_ns"]) == [1, 2]


def test_addresses_made_to_collide_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = 0x9E37_79B9_7F4A_7C15  # of slot_of() in _hops.c
    inverse = pow(factor, -1, 1 << 64)
    crowded = [(inverse * ((7 << 32) + n)) % (1 << 64) for n in range(2000)]
    unknown = {"cpu": 0, "pid": 0, "flags": 0, "len": 84, "name": "eth0"}
    rows = [{"event": "netif_rx", "skbaddr": a, **unknown} for a in crowded]
    events = tables([{**r, "time_ns": n} for n, r in enumerate(rows)], short=True, sort=True)
    table = source(
        times=np.arange(2000), ranks=np.arange(2000, dtype=np.int32),
        cpus=np.zeros(2000, np.int32), pids=np.zeros(2000, np.int32),
        flags=np.zeros(2000, np.uint8), addresses=np.array(crowded, np.uint64),
        codes=np.zeros(2000, np.int8), end=2000,
    )  # fmt: skip
    assert compiled is not None
    assert compiled.count_addresses([table]) is None
    addresses = np.sort(np.array(crowded, np.uint64))
    assert not compiled.place_hops([table], addresses, np.arange(2000), room(2000))
    found = ordered_hops(events)
    monkeypatch.setattr(hop_loops, "loops", None)
    expected = ordered_hops(events)
    assert all(np.array_equal(found[name], expected[name]) for name in ORDERED)


def source(**changed: Any) -> tuple[Any, ...]:
    """Return a table of two hops as `place_hops` takes it."""
    columns: dict[str, Any] = {
        "times": np.array([1, 2]),
        "ranks": np.array([0, 1], np.int32),
        "cpus": np.zeros(2, np.int32),
        "pids": np.zeros(2, np.int32),
        "flags": np.zeros(2, np.uint8),
        "addresses": np.array([7, 7], np.uint64),
        "codes": np.zeros(2, np.int8),
        "places": np.array([0, -1], np.int16),
        "lengths": None,
    }
    end = changed.pop("end", 2)
    return (tuple({**columns, **changed}.values()), 4, 1, 8, int(Kind.RX), 0, 0, end)


def room(rows: int, dtypes: str = "u8 i8 i4 i4 ? i8 i2 i1 i1") -> tuple[Any, ...]:
    """Return the columns of ordered hops."""
    return tuple(np.zeros(rows, dtype) for dtype in dtypes.split())


ADDRESSES, STARTS = np.array([7], np.uint64), np.array([0])


@pytest.mark.parametrize(
    ("table", "addresses", "starts", "rows"),
    [
        (source(), ADDRESSES, STARTS, 1),  # no room for the second hop
        (source(), ADDRESSES, STARTS - 1, 2),
        (source(), ADDRESSES + np.uint64(1), STARTS, 2),  # an address that was not counted
        (source(), ADDRESSES, np.zeros(2, np.int64), 2),
        (source(codes=np.array([0, 1], np.int8)), ADDRESSES, STARTS, 2),  # no such device
        (source(codes=np.array([0, -2], np.int8)), ADDRESSES, STARTS, 2),
        (source(places=np.empty(0, np.int16)), ADDRESSES, STARTS, 2),
        (source(times=np.array([1])), ADDRESSES, STARTS, 2),
        (source(end=3), ADDRESSES, STARTS, 2),
    ],
)
def test_places_that_cannot_be_are_refused(
    table: tuple[Any, ...], addresses: Any, starts: Any, rows: int
) -> None:
    assert compiled is not None
    with pytest.raises(ValueError, match=r"place|device|rows|size"):
        compiled.place_hops([table], addresses, starts, room(rows))


def rules(count: int, kinds: int = 6) -> tuple[Any, ...]:
    shapes = ((kinds, kinds, 2), (count + 1,), (count + 1, count + 1), (count + 1, count + 1))
    return (*(np.ones(shape, np.bool_) for shape in shapes), np.ones(1, np.bool_), True)


@pytest.mark.parametrize(
    ("column", "value", "given_rules", "end", "found"),
    [
        ("kind", 6, rules(1), 2, "unknown"),
        ("kind", -1, rules(1), 2, "unknown"),
        ("dev", 1, rules(1), 2, "unknown"),
        ("dev", 0, rules(1, kinds=5), 2, "size"),
        ("dev", 0, rules(1), 3, "no such rows"),
    ],
)
def test_lives_that_cannot_be_are_refused(
    column: str, value: int, given_rules: tuple[Any, ...], end: int, found: str
) -> None:
    assert compiled is not None
    hops = room(2)
    hops[ORDERED.index(column)][1] = value
    with pytest.raises(ValueError, match=found):
        compiled.number_lives(hops, given_rules, 0, end, np.zeros(2, int), np.zeros(2, np.int32))
