"""Containers that are made for the runs: whose veths are theirs."""

from __future__ import annotations

from typing import Any

from maceproc.capture import Link, Machine, Namespace, PathDevice, Run, Sidecar, Target, Tracing
from maceproc.following.crossings import find_crossings
from maceproc.following.follow import follow_way, peers_of_runs
from maceproc.following.journeys import follow_packets
from maceproc.following.topology import way_of
from maceproc.schema import LOST, Trace
from maceproc.units import NS_PER_US
from tests.test_journeys import events

# The first container's veth was veth1, that of the traced run is veth2. The container's device and
# the host's towards wire0 have the same name. A is freed at 11 and given to the container's next
# request, which softirq sends because it waited for the neighbour's address.
RECORDED = ("net_dev_queue", "netif_rx")
NATIVE = """
10 net_dev_queue eth0  A task8
11 netif_rx/84   wire0 A task8
"""
HELD_UP = """
30 net_dev_queue eth0  A
31 netif_rx/84   veth2 A
32 net_dev_queue eth0  A
33 netif_rx/84   wire0 A
"""
EXCHANGE = """
40 net_dev_queue eth0  B task9
41 netif_rx/84   veth2 B task9
42 net_dev_queue eth0  B
43 netif_rx/84   wire0 B
50 net_dev_queue wire0 A
51 netif_rx/84   eth0  A
52 net_dev_queue br0   A
53 net_dev_queue veth2 A
54 netif_rx/84   eth0  A
"""
NEIGHBOUR = """
60 net_dev_queue eth0  B task5
61 netif_rx/84   veth3 B task5
62 net_dev_queue eth0  B
63 netif_rx/84   wire0 B
"""
ALL = "".join((NATIVE, HELD_UP, EXCHANGE, NEIGHBOUR)).replace("\n\n", "\n")
PATH = (("once", "eth0"), ("host", "veth1"), ("host", "br0"), ("host", "eth0"))
LINKS = {
    "once": [Link(ifindex=2, name="eth0", kind="veth", peer_netns="host", peer_ifindex=7)],
    "host": [
        Link(ifindex=2, name="eth0", kind="veth", peer_ifindex=2),
        Link(ifindex=5, name="br0", kind="bridge"),
        Link(ifindex=7, name="veth1", kind="veth", peer_netns="once", peer_ifindex=2, master="br0"),
    ],
}


def run_of(place: Any, pid: int | None, start: int, end: int) -> Run:
    """Return a traced run between two times [us]."""
    times = {"start_ns": start * NS_PER_US, "end_ns": end * NS_PER_US}
    return Run(round=1, place=place, traced=True, argv=["ping", "192.0.2.2"], pid=pid, **times)


def recorded(pid: int | None = 9, *others: Run) -> Sidecar:
    """Return the sidecar of a native run, then one of a container; `pid` is the second one's."""
    return Sidecar(
        maceproc="0",
        command=["docker", "run", "ping", "192.0.2.2"],
        rounds=1,
        target=Target(
            kind="container", path=[PathDevice(netns=n, dev=d) for n, d in PATH], transient=True
        ),
        runs=[run_of("native", 8, 5, 15), run_of("container", pid, 25, 70), *others],
        namespaces=[
            Namespace(name=name, inode=inode, links=list(links))
            for inode, (name, links) in enumerate(LINKS.items(), 1)
        ],
        tracing=Tracing(
            events=[f"net:{name}" for name in RECORDED],
            event_set="minimal", clock="mono", instance="", buffer_size_kb=1,
        ),
        machine=Machine(kernel="6", cpu="", cpus=1),
    )  # fmt: skip


def peers(text: str, sidecar: Sidecar) -> set[str]:
    way = way_of(sidecar, "", "", "")
    crossings = find_crossings(follow_packets(events(text), RECORDED), way, RECORDED)
    return peers_of_runs(crossings, sidecar)


def test_a_native_ping_whose_address_a_container_got_names_no_veth() -> None:
    assert peers(ALL, recorded()) == {"veth2"}


def test_without_a_pid_whatever_sent_during_the_run_may_be_the_run_s() -> None:
    assert peers(ALL, recorded(pid=None)) == {"veth2", "veth3"}
    assert peers(ALL, recorded(pid=77)) == {"veth2", "veth3"}  # of a thread, or a helper


def test_without_a_pid_the_way_of_a_ping_outside_of_containers_is_no_veth() -> None:
    outside = """
26 net_dev_queue eth0  B task8
27 netif_rx/84   wire0 B task8
28 net_dev_queue eth0  B task8
28.5 netif_rx/84 wire0 B task8
29 net_dev_queue eth0  A task8
29.5 netif_rx/84 wire0 A task8
"""
    text = "".join((outside, HELD_UP, EXCHANGE)).replace("\n\n", "\n")
    assert peers(text, recorded(pid=None)) == {"veth2"}


def test_a_container_that_was_there_before_is_a_neighbour() -> None:
    assert peers(ALL.replace("veth3", "veth1"), recorded(pid=None)) == {"veth1", "veth2"}
    sidecar = recorded(pid=None)
    sidecar.namespaces[1].links.append(Link(ifindex=9, name="veth3", kind="veth"))
    assert peers(ALL, sidecar) == {"veth2"}


def test_every_run_s_own_veth_is_found() -> None:
    later = run_of("container", 5, 59, 70)
    assert peers(ALL, recorded(9, later)) == {"veth2", "veth3"}


def test_the_replies_of_such_a_container_are_followed() -> None:
    sidecar = recorded()
    lost = LOST.frame()
    trace = Trace(events(ALL), lost, "mono")
    packets = follow_way(trace, sidecar, way_of(sidecar, "", "", ""))
    found = packets.crossings
    assert set(found["peer"]) == {"veth2"}
    came = found[found["direction"] == "inbound"]
    assert list(came["status"]) == ["complete"]
    assert list(came["latency_ns"]) == [3 * NS_PER_US]
