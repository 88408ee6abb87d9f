"""Crossings and passages of packets in small tables made by hand."""

from __future__ import annotations

import pytest

from maceproc.following.crossings import find_crossings, find_passages
from maceproc.following.journeys import Links, follow_packets
from maceproc.following.topology import Way
from tests.test_journeys import DOCKER, events

# A container's eth0 is a veth; the host's eth0 is not, and receives without netif_rx.
NAMESAKES = Way("eth0", "eth0", "veth1")
CROSSED = """
10 net_dev_queue     eth0  A task7
11 netif_rx/84       veth1 A task7
11.5 netif_receive_skb/84 veth1 A
12 net_dev_queue     eth0  A
20 netif_receive_skb/84 eth0 B
21 net_dev_queue     br0   B
22 net_dev_queue     veth1 B
23 netif_rx/84       eth0  B
24 netif_receive_skb/84 eth0 B
"""
NATIVE = """
30 net_dev_queue     eth0  A task8
40 netif_receive_skb/84 eth0 A
"""
FOREIGN = """
50 net_dev_queue     veth9 B
51 netif_rx/84       eth0  B
"""
LINKS = Links(DOCKER.pairs, DOCKER.ports, frozenset({"veth1"}), DOCKER.dead_ends)


def received(*texts: str, way: Way = NAMESAKES) -> list[float]:
    """Return when replies of a native ping may have come in [us]."""
    hops = follow_packets(events("".join(texts).replace("\n\n", "\n")), links=LINKS)
    crossings = find_crossings(hops, way)
    passages = find_passages(hops, way, crossings, LINKS)
    inbound = passages[(passages["direction"] == "inbound") & (passages["status"] == "complete")]
    return sorted(inbound["entered_ns"] / 1000)


def test_a_crossing_between_namesakes() -> None:
    hops = follow_packets(events(CROSSED), links=LINKS)
    crossings = find_crossings(hops, NAMESAKES)
    assert list(crossings["status"]) == ["complete"] * 2
    assert list(crossings["latency_ns"]) == [2000, 3000]


@pytest.mark.parametrize("foreign", ["", FOREIGN])
def test_a_native_reply_is_not_lost_among_namesakes(foreign: str) -> None:
    assert received(CROSSED, NATIVE, foreign) == [40]  # at 20 came what was sent on


# What the host's own TCP answers to a container, in memory that was the native reply's.
ANSWERED = """
41 net_dev_queue/54 br0   A
42 net_dev_queue/54 veth1 A
43 netif_rx/40      eth0  A
44 netif_receive_skb/40 eth0 A
"""


def test_a_native_reply_is_not_lost_if_a_packet_to_a_container_gets_its_address() -> None:
    assert received(CROSSED, NATIVE, ANSWERED) == [40]
    same_length = ANSWERED.replace("/54", "").replace("/40", "/84")
    assert received(CROSSED, NATIVE, same_length) == []  # it may have been sent on


def test_without_a_crossing_one_that_is_stamped_in_the_backlog_decides() -> None:
    assert received(NATIVE) == [40]
    assert received(NATIVE, FOREIGN) == [51]  # it may be the host's, whose other event was lost


def test_a_veth_without_gro_receives_in_the_backlog_only() -> None:
    veth = Way("eth0", "eth0", "veth1", outer_uses_netif_rx=True)
    assert received(NATIVE, FOREIGN.replace("veth9", "wire0"), way=veth) == [51]
