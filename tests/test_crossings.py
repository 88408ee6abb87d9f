"""Crossings and passages of packets in small tables made by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
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


def passages(*texts: str, way: Way = NAMESAKES, links: Links = LINKS) -> pd.DataFrame:
    """Return what the outer device received, as replies of a native ping may be."""
    hops = follow_packets(events("".join(texts).replace("\n\n", "\n")), links=links)
    found = find_passages(hops, way, find_crossings(hops, way), links)
    return found[(found["direction"] == "inbound") & (found["status"] == "complete")]


def received(*texts: str, way: Way = NAMESAKES, links: Links = LINKS) -> list[float]:
    """Return when replies of a native ping came in that were sent to no container [us]."""
    inbound = passages(*texts, way=way, links=links)
    return sorted(inbound["entered_ns"][~inbound["sent_on"]] / 1000)


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


@pytest.mark.parametrize(("task", "at_once"), [(" softirq3", False), ("", True)])
def test_what_was_sent_on_may_be_another_packet(task: str, at_once: bool) -> None:
    """The host's answer to a container that pings it is as long as a native ping's reply."""
    answer = ANSWERED.replace("/54", "").replace("/40", "/84").replace(" A\n", f" A{task}\n")
    found = passages(CROSSED, NATIVE, answer).set_index("entered_ns")
    assert found["sent_on"].to_dict() == {20_000: True, 40_000: True}
    assert found["at_once"].to_dict() == {20_000: True, 40_000: at_once}


def test_what_an_unknown_container_received_on_a_namesake_is_no_native_reply() -> None:
    other = "60 net_dev_queue br0 B\n61 net_dev_queue veth9 B\n62 netif_receive_skb/84 eth0 B"
    assert received(NATIVE, other) == [40, 62]  # veth9 may be at the other end of the host's eth0
    known = replace(LINKS, known=frozenset({"eth0", "veth1"}))
    assert received(NATIVE, other, links=known) == [40]


def test_a_request_for_an_address_is_no_reply_of_a_neighbour() -> None:
    """The neighbour received 84 bytes; its address was given to the host's ARP request."""
    hops = follow_packets(events(RESOLVING), links=LINKS)
    found = find_crossings(hops, NAMESAKES)
    assert list(found["len"]) == [28]
    assert list(found["status"]) == ["incomplete"]


RESOLVING = """
1  net_dev_queue    br0   A task5
2  net_dev_queue    veth9 A task5
3  netif_rx/84      eth0  A task5
40 net_dev_queue/42 br0   A
41 net_dev_queue/42 veth1 A
42 netif_rx/28      eth0  A
"""


@pytest.mark.parametrize("payload", range(19))
def test_a_reply_that_ethernet_padded_crosses(payload: int) -> None:
    length = 28 + payload
    reply = f"""
    1 netif_receive_skb/46 eno1 A
    2 net_dev_queue/{length + 14} br0 A
    3 net_dev_queue/{length + 14} veth1 A
    4 netif_rx/{length} eth0 A
    """
    found = find_crossings(
        follow_packets(events(reply), links=DOCKER), Way("eth0", "eno1", "veth1")
    )
    assert list(found["status"]) == ["complete"]


def test_without_a_crossing_one_that_is_stamped_in_the_backlog_decides() -> None:
    assert received(NATIVE) == [40]
    assert received(NATIVE, FOREIGN) == [51]  # it may be the host's, whose other event was lost


def test_a_veth_without_gro_receives_in_the_backlog_only() -> None:
    veth = Way("eth0", "eth0", "veth1", outer_uses_netif_rx=True)
    assert received(NATIVE, FOREIGN.replace("veth9", "wire0"), way=veth) == [51]
