"""What is found and followed in HOPS by compiled loops is what NumPy finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.following import hop_loops
from maceproc.following.crossings import find_crossings, find_passages
from maceproc.following.hop_arrays import HOP_EVENTS, Kind
from maceproc.following.journeys import Links
from maceproc.following.topology import Way
from maceproc.following.walk import NOWHERE, Walk
from maceproc.schema import HOPS

compiled = hop_loops.loops
pytestmark = pytest.mark.skipif(compiled is None, reason="installed without the compiled loops")

# Outbound, inbound and native journeys through a container's eth0, its peer and the host's eth0.
JOURNEYS = (
    "queue eth0, xmit eth0, rx veth1, receive veth1, queue eth0, xmit eth0",
    "receive eth0, queue br0, queue veth1, xmit veth1, rx eth0, receive eth0, copy -",
    "queue eth0, xmit eth0, free -",
    "receive eth0, free -",
    "queue br0, queue veth9, xmit veth9, rx eth0, receive eth0",
    "queue bond0, xmit bond0, queue eno1, xmit eno1",
)
SHORT = {
    "queue": "net_dev_queue",
    "xmit": "net_dev_start_xmit",
    "rx": "netif_rx",
    "receive": "netif_receive_skb",
    "copy": "skb_copy_datagram_iovec",
    "free": "consume_skb",
}
DEVICES = ("eth0", "veth1", "br0", "veth9", "bond0", "eno1")


def random_hops(seed: int, journeys: int = 40) -> pd.DataFrame:
    """Return HOPS of journeys of which some hops were lost, put elsewhere or repeated."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for journey in range(journeys):
        steps = [step.split() for step in str(rng.choice(JOURNEYS)).split(", ")]
        if rng.random() < 0.3:  # an address that another packet got at once
            steps += [step.split() for step in str(rng.choice(JOURNEYS)).split(", ")]
        for number, (event, dev) in enumerate(step for step in steps if rng.random() < 0.9):
            changed = str(rng.choice(DEVICES)) if rng.random() < 0.1 else dev
            rows.append(
                {
                    "journey": journey,
                    "hop": number,
                    "event": SHORT[event],
                    "dev": None if changed == "-" else changed,
                    "len": int(rng.choice([84, 84, 98, 134])),
                    "pid": int(rng.choice([0, 9])),
                    "cpu": int(rng.random() < 0.2),
                    "softirq": bool(rng.random() < 0.5),
                }
            )
    table = pd.DataFrame(rows, columns=["journey", "hop", "event", "dev", "len", "pid", "cpu",
                                        "softirq"])  # fmt: skip
    events = [name for name in HOP_EVENTS if name in set(table["event"])]
    return HOPS.frame(
        {
            **{name: table[name] for name in table},
            "skbaddr": table["journey"].to_numpy().astype(np.uint64),
            "time_ns": np.arange(len(table)) * 1000,
            "event": pd.Categorical(table["event"], events),
            "dev": pd.Categorical(table["dev"], DEVICES),
            "netns": pd.Categorical.from_codes(np.full(len(table), -1, np.int8), []),
        }
    )


names = st.sampled_from(DEVICES)
yes_no = st.sampled_from([True, False, None])
ways = st.builds(
    Way,
    inner=st.sampled_from(["eth0", "eth0", "veth9"]),
    outer=st.sampled_from(["eth0", "eth0", "bond0", "eno1"]),
    peer=st.sampled_from(["veth1", "veth1", ""]),
    outer_again=st.sampled_from([1, 1, 2]),
    inner_uses_netif_rx=yes_no,
    outer_uses_netif_rx=yes_no,
    below=st.sampled_from([(), ("eno1",)]),
    card_again=st.sampled_from([1, 1, 2]),
    added_bytes=st.sampled_from([(0,), (0, 50)]),
)
sets = st.frozensets(names)
pairs = st.frozensets(st.tuples(names, names))
links = st.builds(Links, pairs, sets, sets, pairs)
recorded = st.none() | st.frozensets(st.sampled_from(sorted(HOP_EVENTS)), min_size=2)


def by_numpy(function: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hop_loops, "loops", None)
        return function()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), ways, links, recorded)
def test_crossings_and_passages_are_those_of_numpy(
    seed: int, way: Way, known: Links, enabled: frozenset[str] | None
) -> None:
    hops = random_hops(seed)

    def find() -> tuple[pd.DataFrame, pd.DataFrame]:
        crossings = find_crossings(hops, way, enabled)
        return crossings, find_passages(hops, way, crossings, known, enabled)

    for found, expected in zip(find(), by_numpy(find), strict=True):
        pd.testing.assert_frame_equal(found, expected)


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.data(), st.integers(-3, 3), st.sampled_from(["i1", "i2", "i4"]))
def test_positions_are_those_of_numpy(
    seed: int, data: st.DataObject, steps: int, codes: str
) -> None:
    hops = random_hops(seed, journeys=6)
    walk = Walk(hops)
    walk._codes = walk._codes.astype(codes)
    walk._hops = walk._events, walk._codes, walk._codes.dtype.itemsize
    kinds = data.draw(st.frozensets(st.sampled_from(Kind)))
    wanted = walk.are(data.draw(st.none() | sets), *kinds)
    places = st.lists(st.integers(NOWHERE, len(hops) - 1), max_size=20)
    positions = np.array(data.draw(places) if len(hops) else [], np.int64)
    others = positions[::-1].copy()
    for look in (
        lambda: walk.find(wanted),
        lambda: walk.find(~wanted),
        lambda: walk.step(positions, steps),
        lambda: walk.step(positions, steps, wanted),
        lambda: walk.where(positions, wanted),
        lambda: walk.nth(others, np.arange(len(positions)) + steps, positions),
    ):
        found = look()
        assert found.dtype == np.int64
        assert np.array_equal(found, by_numpy(look))


def test_no_hops_have_no_positions() -> None:
    for hops in (HOPS.frame(), random_hops(1, journeys=1)[:1]):
        walk = Walk(hops)
        assert len(walk.find(walk.are(["br9"], *Kind))) == 0
        here = np.array([NOWHERE, *range(len(hops))])
        assert list(walk.step(here, 5)) == list(walk.step(here, -5)) == [NOWHERE] * len(here)


WANTED = np.ones((1, 2), np.bool_)
GOOD: dict[str, Any] = {
    "events": np.zeros(2, np.int8),
    "devices": np.array([0, -1], np.int8),
    "size": 1,
    "wanted": WANTED,
    "width": 2,
    "journeys": np.zeros(2, np.int64),
    "origins": np.array([0, 1]),
    "positions": np.array([0, 1]),
    "steps": 0,
    "found": np.zeros(2, np.int64),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"events": np.ones(2, np.int8)}, "unknown"),
        ({"events": np.full(2, -1, np.int8)}, "unknown"),
        ({"devices": np.ones(2, np.int8)}, "unknown"),
        ({"devices": np.full(2, -2, np.int8)}, "unknown"),
        ({"devices": np.zeros(1, np.int8)}, "size"),
        ({"size": 3}, "size"),
        ({"width": 0}, "size"),
        ({"width": 3}, "size"),
        ({"found": np.zeros(1, np.int64)}, "size"),
        ({"journeys": np.zeros(1, np.int64)}, "size"),
        ({"positions": np.zeros(1, np.int64)}, "size"),
    ],
)
def test_hops_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    assert compiled is not None
    search = ("events", "devices", "size", "wanted", "width")
    given = {**GOOD, **wrong}
    with pytest.raises(ValueError, match=message):
        compiled.keep_hops(*given.values())
    if not {"journeys", "positions"} & set(wrong):
        with pytest.raises(ValueError, match=message):
            compiled.find_hops(*(given[name] for name in search), given["found"])


@pytest.mark.parametrize("place", [NOWHERE, 2, 1 << 62, -(1 << 62)])
@pytest.mark.parametrize("steps", [0, 2, -3, (1 << 63) - 1, -(1 << 63)])
def test_positions_outside_are_nowhere(place: int, steps: int) -> None:
    assert compiled is not None
    for outside in ("origins", "positions"):
        places = {"origins": np.zeros(2, int), "positions": np.zeros(2, int)}
        places[outside] = np.array([place, 0])
        found = np.zeros(2, np.int64)
        compiled.keep_hops(*{**GOOD, **places, "steps": steps, "found": found}.values())
        expected = [NOWHERE, 0 if steps == 0 else NOWHERE]
        if (outside, place, steps) == ("positions", NOWHERE, 2):  # as one that was not seen, and 2
            expected[0] = 1
        assert list(found) == expected
