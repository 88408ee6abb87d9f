"""Points into echoes: by address and content, and nothing that is not certain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.echo_rows import (
    ALTERED,
    ANSWERED,
    AT_CONTAINER,
    FRAGMENT,
    FRAGMENTED,
    LOCAL,
    NATIVE,
    OUTER_QUEUED,
    OUTER_RECEIVED,
    QUEUED,
    RECEIVED,
    REPEATED,
    SENT,
    TWIN,
)
from maceproc.pairing import SETTLED_NS, Points, Rows, pair
from tests.echo_samples import echo_rows, points_of

WHOLE = ANSWERED | RECEIVED


def same(found: Rows, rows: Rows) -> bool:
    """Tell whether rows are the same, but for what points do not tell."""
    names = [name for name in rows.dtype.names or () if name not in ("number", "padding")]
    return all(np.array_equal(found[name], rows[name]) for name in names)


def shuffled(points: Points, seed: int) -> Points:
    return np.random.default_rng(seed).permutation(points)


@settings(deadline=None)
@given(
    count=st.integers(0, 60),
    addresses=st.integers(1, 4),
    seed=st.integers(0, 99),
    target=st.sampled_from(["192.0.2.2", "fd00::2"]),
)
def test_what_was_cut_into_points_is_put_together(
    count: int, addresses: int, seed: int, target: str
) -> None:
    rows = echo_rows(count, target=target)
    # The kernel gives an address out again as soon as its packet is gone.
    for name in ("request_skb", "reply_skb"):
        rows[name] = 0x8880_0000_0000 + 256 * (np.arange(count) % addresses)
    found = pair(shuffled(points_of(rows), seed))
    assert same(found.rows, rows)
    assert len(found.rest) == found.stayed_inside == sum(found.counts.values()) == 0


@settings(deadline=None)
@given(seed=st.integers(0, 999), lost=st.floats(0, 0.6), addresses=st.integers(1, 5))
def test_lost_points_never_join_two_echoes(seed: int, lost: float, addresses: int) -> None:
    rows = echo_rows(40, every_ns=60_000)  # two are on their way at a time
    rows["stamp"] = np.arange(40)
    for name in ("request_skb", "reply_skb"):
        rows[name] = 0x8880_0000_0000 + 256 * (np.arange(40) % addresses)
    points = points_of(rows)
    kept = points[np.random.default_rng(seed).random(len(points)) >= lost]
    for row in pair(kept).rows:
        true = rows[row["seq"] - 1]
        for name in ("queued_ns", "outer_queued_ns"):
            assert row[name] == true[name]
        for name in ("sent_ns", "outer_received_ns", "received_ns"):
            assert row[name] in (0, true[name])


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 2_000_000), max_size=6), seed=st.integers(0, 99))
def test_in_pieces_it_is_the_same_as_at_once(cuts: list[int], seed: int) -> None:
    rows = echo_rows(20, every_ns=90_000)
    rows[7:9]["outer_received_ns"] = 0  # unanswered
    rows[7:9]["received_ns"] = rows[7:9]["reply_skb"] = rows[7:9]["outer_in_ifindex"] = 0
    rows["flags"][7:9] = 0
    points = shuffled(points_of(rows), seed)
    together, _ = in_pieces(points, int(rows["queued_ns"][0]), cuts)
    assert same(together, rows)


def in_pieces(points: Points, start_ns: int, cuts: list[int]) -> tuple[Rows, int]:
    """Pair points piece by piece; return the rows, and how many replies answer no request."""
    waiting, found, counts = points[:0], [], 0
    for until_ns in [start_ns + cut for cut in sorted(cuts)] + [start_ns + 10**10]:
        new = points["time_ns"] <= until_ns
        paired = pair(np.concatenate([waiting, points[new]]), until_ns)
        points, waiting = points[~new], paired.rest
        found.append(paired.rows)
        counts += paired.counts["no_request"]
    assert len(waiting) == 0
    return np.sort(np.concatenate(found), order="queued_ns"), counts


def changed(points: Points, point: int, **values: object) -> Points:
    """Return the points with other values at this point of the way of the second echo."""
    chosen = (points["point"] == point) & (points["seq"] == 2)
    assert chosen.sum() == 1
    for name, value in values.items():
        points[name][chosen] = value
    return points


@pytest.mark.parametrize(
    ("point", "values", "flags"),
    [
        (OUTER_QUEUED, {"kind": FRAGMENT}, WHOLE | FRAGMENTED),
        (AT_CONTAINER, {"words": 5}, ANSWERED),
        (AT_CONTAINER, {"id": 5}, ANSWERED),
        (AT_CONTAINER, {"netns": 5}, ANSWERED),
        (OUTER_RECEIVED, {"id": 5}, 0),
        (OUTER_RECEIVED, {"seq": 5}, 0),
        (OUTER_RECEIVED, {"source": 5}, 0),
        (OUTER_RECEIVED, {"sum": 5}, ANSWERED | ALTERED),
        (SENT, {"ifindex": 9}, WHOLE),
    ],
)
def test_what_differs_on_the_way_is_told(point: int, values: dict[str, int], flags: int) -> None:
    found = pair(changed(points_of(echo_rows(3)), point, **values)).rows
    assert found["flags"].tolist() == [WHOLE, flags, WHOLE]
    assert (found["sent_ns"] > 0).tolist() == [True, point != SENT, True]


@pytest.mark.parametrize("values", [{"words": 5}, {"skb": 5}, {"sum": 5}, {"len": 5}])
def test_a_request_that_left_as_another_is_no_echo(values: dict[str, int]) -> None:
    found = pair(changed(points_of(echo_rows(3)), QUEUED, **values))
    assert found.rows["seq"].tolist() == [1, 3]
    assert found.stayed_inside == 1


def copies(points: Points, point: int, later_ns: int, **values: int) -> Points:
    """Return the points, with a second sight of each one of this point."""
    again = points[points["point"] == point].copy()
    again["time_ns"] += later_ns
    for name, value in values.items():
        again[name] = value
    return np.concatenate([points, again])


@pytest.mark.parametrize("point", [OUTER_QUEUED, SENT, OUTER_RECEIVED, AT_CONTAINER])
def test_a_second_tracepoint_of_the_same_packet_changes_nothing(point: int) -> None:
    rows = echo_rows(5)
    found = pair(copies(points_of(rows), point, 300))
    assert same(found.rows, rows)
    assert found.counts == {"no_request": 0}


@pytest.mark.parametrize(("later_ns", "flags"), [(2_000, WHOLE | REPEATED), (50_000, WHOLE)])
def test_another_reply_is_told_where_it_came_before_the_first_one_was_received(
    later_ns: int, flags: int
) -> None:
    found = pair(copies(points_of(echo_rows(5)), OUTER_RECEIVED, later_ns, skb=99)).rows
    assert set(found["flags"].tolist()) == {flags}


def test_requests_with_the_same_number_are_twins_as_long_as_none_is_answered() -> None:
    one, other, later = echo_rows(1), echo_rows(1), echo_rows(1, start_ns=1_500_000_000)
    for name in ("queued_ns", "outer_queued_ns", "sent_ns", "outer_received_ns", "received_ns"):
        other[name] += 50_000
    other["request_skb"], other["reply_skb"], other["id"] = 1, 2, 5
    found = pair(points_of(np.concatenate([one, other, later]))).rows
    assert (found["flags"] & TWIN > 0).tolist() == [True, True, False]


def test_replies_without_a_request_are_counted() -> None:
    points = points_of(echo_rows(4))
    found = pair(points[points["point"] >= OUTER_RECEIVED])
    assert len(found.rows) == 0
    assert found.counts == {"no_request": 4}


@pytest.mark.parametrize("bridged", [False, True])
def test_the_hosts_own_echoes_have_no_container(bridged: bool) -> None:
    points = points_of(echo_rows(3))
    points = points[(points["point"] != QUEUED) & (points["point"] != AT_CONTAINER)]
    points["kind"][points["point"] == OUTER_QUEUED] = LOCAL
    if bridged:  # a VLAN's card is a second outer device
        points = copies(points, OUTER_QUEUED, 200, ifindex=9)
    known = pair(points, int(points["time_ns"].max()) + SETTLED_NS)
    found = pair(points).rows
    assert same(known.rows, found)
    assert len(known.rest) == 0
    assert set(found["flags"].tolist()) == {WHOLE | NATIVE}
    assert (found["queued_ns"] == found["outer_queued_ns"]).all()
    assert (found["received_ns"] == found["outer_received_ns"]).all()
    assert set(found["outer_ifindex"].tolist()) == {3}


def test_echoes_of_others_on_the_outer_device_are_nobodys() -> None:
    points = points_of(echo_rows(3))
    found = pair(points[(points["point"] != QUEUED) & (points["point"] != AT_CONTAINER)])
    assert len(found.rows) == 0
    assert found.stayed_inside == found.counts["no_request"] == 0


def test_of_what_is_known_nothing_waits() -> None:
    """What can belong to no echo that is still to come is not kept until the timeout."""
    points = points_of(echo_rows(20))
    others = points[(points["point"] != QUEUED) & (points["point"] != AT_CONTAINER)].copy()
    others["id"] += 7
    others["skb"] += 128
    points = copies(copies(points, OUTER_RECEIVED, 300), AT_CONTAINER, 300)
    points = np.concatenate([points, others])
    assert len(pair(points, int(points["time_ns"].max()) + SETTLED_NS).rest) == 0


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 2_000_000), max_size=6))
def test_a_second_tracepoint_in_a_later_piece_is_no_reply_of_its_own(cuts: list[int]) -> None:
    rows = echo_rows(20, every_ns=90_000)
    points = copies(copies(points_of(rows), OUTER_RECEIVED, 900), AT_CONTAINER, 900)
    found, counts = in_pieces(points, int(rows["queued_ns"][0]), cuts)
    assert same(found, rows)
    assert counts == 0
