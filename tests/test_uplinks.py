"""The devices under an outer device, and packets that pass them, in tables made by hand."""

from __future__ import annotations

import pytest

from maceproc.capture import Link, Machine, Namespace, PathDevice, Sidecar, Target, Tracing
from maceproc.following.crossings import find_crossings
from maceproc.following.journeys import follow_packets
from maceproc.following.topology import Way, stack_of, way_of
from maceproc.recording.explorer import Explorer
from maceproc.recording.sites import Netns
from maceproc.recording.unseen import _copy_notes
from maceproc.uplinks import added_bytes, cards_of, devices_below
from tests.test_journeys import events


def device(
    ifindex: int, name: str, kind: str = "", master: str | None = None, on: int | None = None
) -> Link:
    return Link(ifindex=ifindex, name=name, kind=kind, master=master, peer_ifindex=on)


def host(*links: Link) -> list[Namespace]:
    return [Namespace(name="ho", inode=1, links=list(links))]


def hop(dev: str) -> PathDevice:
    return PathDevice(netns="ho", dev=dev)


def stack(namespaces: list[Namespace], outer: str, *path: str) -> tuple[list[str], list[str]]:
    below = devices_below(namespaces, hop(outer), [hop(dev) for dev in path])
    cards = cards_of(namespaces, hop(outer), below)
    return [lower.dev for lower in below], [card.dev for card in cards]


BONDED = (
    device(1, "nic0", master="bond0"),
    device(2, "nic1", master="bond0"),
    device(3, "bond0", "bond"),
    device(4, "bond0.5", "vlan", on=3),
)


@pytest.mark.parametrize(
    ("links", "outer", "below", "cards"),
    [
        ((device(1, "nic0"),), "nic0", [], ["nic0"]),
        (BONDED, "bond0.5", ["bond0", "nic0", "nic1"], ["nic0", "nic1"]),
        (
            (*BONDED, device(5, "bond0.5.7", "vlan", on=4)),
            "bond0.5.7",
            ["bond0.5", "bond0", "nic0", "nic1"],
            ["nic0", "nic1"],
        ),
        (
            (device(1, "nic0", "veth", "br1"), device(2, "br1", "bridge"), device(3, "tap0")),
            "br1",
            ["nic0"],
            ["nic0"],
        ),
        ((device(1, "team0", "team"),), "team0", [], ["team0"]),  # without a port
        ((device(1, "v", "vlan", on=9),), "v", [], ["v"]),  # on a device that is not described
    ],
)
def test_the_stack_under_a_device(
    links: tuple[Link, ...], outer: str, below: list[str], cards: list[str]
) -> None:
    assert stack(host(*links), outer) == (below, cards)


def test_the_container_s_own_port_is_no_uplink() -> None:
    ports = (
        device(1, "vct", "veth", "br0"),
        device(2, "nic0", "", "br0"),
        device(3, "br0", "bridge"),
    )
    assert stack(host(*ports), "br0", "vct", "br0") == (["nic0"], ["nic0"])


class _Known(Explorer):
    """An explorer of one namespace that is described already."""

    def __init__(self, *links: Link) -> None:
        super().__init__([Netns("ho", "/proc/self/ns/net")])
        self._links = {link.name: link for link in links}

    def link(self, netns: Netns, name: str) -> Link | None:
        return self._links.get(name)


VETH, BR0 = device(10, "vct", "veth", "br0"), device(11, "br0", "bridge")


@pytest.mark.parametrize(
    ("links", "path", "below", "copied"),
    [
        ((VETH, BR0, *BONDED), "vct br0 bond0.5", "bond0 nic0", "bond0.5 (vlan)"),
        ((VETH, BR0, *BONDED), "vct br0 bond0", "nic0", ""),
        ((VETH, BR0, *BONDED), "vct br0 nic0", "", ""),
        ((VETH, BR0, device(4, "vx", "vxlan"), *BONDED), "vct br0 vx nic0", "", "vx (vxlan)"),
        ((VETH, BR0, device(4, "wg0", "wireguard")), "vct br0 wg0", "", "wg0 (wireguard)"),
        ((VETH, BR0, device(4, "nic0.5", "vlan", "br0")), "vct br0 nic0.5", "", ""),  # a port
        (
            (device(10, "vct", "veth"), device(4, "br1", "bridge"), device(5, "nic0.5", "vlan")),
            "vct br1",
            "nic0.5",
            "nic0.5 (vlan)",
        ),
    ],
)
def test_where_ipv6_packets_are_copied(
    links: tuple[Link, ...], path: str, below: str, copied: str
) -> None:
    hops = [hop(dev) for dev in ("eth0", *path.split())]
    target = Target(kind="netns", name="ct", address="fd92::2", path=hops)
    target.below = [hop(dev) for dev in below.split()]
    notes = _copy_notes(_Known(*links), target)
    assert [copied in note for note in notes] == [True] * bool(copied)
    target.address = "10.92.0.2"
    assert _copy_notes(_Known(*links), target) == []


def test_devices_that_are_on_one_another_end() -> None:
    circle = device(1, "a", "vlan", on=2), device(2, "b", "vlan", on=1)
    assert stack(host(*circle), "a") == (["b"], ["b"])


def test_what_tunnels_add() -> None:
    assert added_bytes([device(1, "eth0", "veth")]) == (0,)
    assert {0, 50, 70} <= set(added_bytes([device(1, "v", "vxlan")]))
    assert 100 in added_bytes([device(1, "v", "vxlan"), device(2, "w", "vxlan")])


WAY = Way("eth0", "bond0.5", "vct", below=("bond0", "nic0", "nic1"), cards=("nic0", "nic1"))
OUT = """
10 net_dev_queue     eth0    A task7
11 netif_rx/84       vct     A task7
12 netif_receive_skb/84 vct  A
13 net_dev_queue     bond0.5 A
14 net_dev_queue     bond0   A
15 net_dev_queue     nic0    A
"""
BACK = """
20 netif_rx/84       {card}  B
21 netif_receive_skb/84 {card} B
22 net_dev_queue     br0     B
23 net_dev_queue     vct     B
24 netif_rx/84       eth0    B
"""


def crossings(text: str, way: Way = WAY) -> list[tuple[str, str, object, object]]:
    """Return direction, status, latency [us] and time on the wire [us] of every crossing."""
    found = find_crossings(follow_packets(events(text.replace("\n\n", "\n"))), way)
    return [
        (row.direction, row.status, row.latency_ns / 1000, row.wire_ns / 1000)
        if row.status == "complete"
        else (row.direction, row.status, None, None)
        for row in found.itertuples()
    ]


@pytest.mark.parametrize("card", ["nic0", "nic1"])
def test_it_goes_out_at_the_top_and_comes_in_at_a_card(card: str) -> None:
    assert crossings(OUT + BACK.format(card=card)) == [
        ("outbound", "complete", 3, 15),
        ("inbound", "complete", 4, 20),
    ]


def test_what_does_not_get_to_a_card_is_not_on_the_wire() -> None:
    dropped = OUT[: OUT.index("15 net")]
    assert crossings(dropped) == [("outbound", "incomplete", None, None)]
    received_again = dropped + "16 netif_rx/84 rem0 A\n17 netif_receive_skb/84 rem0 A\n"
    assert crossings(received_again + "18 net_dev_queue nic0 A\n")[0][1] == "incomplete"


def test_a_card_may_have_the_name_of_the_container_s_device() -> None:
    way = Way("eth0", "bond0", "vct", below=("eth0",), cards=("eth0",))
    text = (OUT + BACK.format(card="nic0")).replace("nic0", "eth0").replace("bond0.5", "br9")
    assert crossings(text, way) == [
        ("outbound", "complete", 4, 15),
        ("inbound", "complete", 4, 20),
    ]


def test_a_sidecar_s_own_stack_is_taken_as_it_is() -> None:
    path = [PathDevice(netns="ct", dev="eth0"), hop("vct"), hop("bond0.5")]
    sidecar = _sidecar(path, host(*BONDED))
    assert [lower.dev for lower in stack_of(sidecar)] == ["bond0", "nic0", "nic1"]
    sidecar.target.below = [hop("bond0"), hop("nic1")]
    way = way_of(sidecar, "", "", "")
    assert (way.outer, way.below, way.cards) == ("bond0.5", ("bond0", "nic1"), ("nic1",))
    by_hand = way_of(sidecar, "", "nic0", "")
    assert (by_hand.outer, by_hand.below, by_hand.cards) == ("nic0", (), ("nic0",))


def _sidecar(path: list[PathDevice], namespaces: list[Namespace]) -> Sidecar:
    return Sidecar(
        maceproc="0",
        command=["ping"],
        rounds=1,
        target=Target(kind="netns", path=path),
        runs=[],
        namespaces=namespaces,
        tracing=Tracing(
            events=[], event_set="minimal", clock="mono", instance="", buffer_size_kb=1
        ),
        machine=Machine(kernel="6.1", cpu="", cpus=1),
    )


def test_the_tag_of_a_vlan_in_a_vlan_is_in_the_packet() -> None:
    kinds = ["", "vlan", "vlan", "bond"]
    links = [Link(ifindex=n, name=f"d{n}", kind=kind) for n, kind in enumerate(kinds, 1)]
    assert added_bytes(links) == (0, 4, 8)
