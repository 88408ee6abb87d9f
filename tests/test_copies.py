"""Packets that the kernel copies on their way, and others that look like it, in small tables."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

import maceproc
from maceproc.capture import Link, Machine, Namespace, PathDevice, Sidecar, Target, Tracing
from maceproc.capture_files import open_capture
from maceproc.following.copies import (
    Copying,
    copied_packets,
    copying_of,
    join_copies,
    journeys_of_copies,
    with_reasons,
)
from maceproc.following.crossings import find_crossings
from maceproc.following.follow import EVENTS_USED, follow_pings
from maceproc.following.journeys import follow_packets
from maceproc.following.topology import Way
from maceproc.recording.event_sets import COPY_EVENTS, events_needed
from maceproc.recording.survey import Survey
from maceproc.reporting.explain import explain
from maceproc.schema import LOST
from maceproc.tracedat import read_events
from tests import test_journeys
from tests.deletion import Subject, changed
from tests.kernels.scenarios import SCENARIOS
from tests.kernels.verdicts import judge
from tests.recorded import CAPTURES

COPYING = Copying("bond0.5", ("bond0", "nic0"))
WAY = Way("eth0", "bond0.5", "vct", below=("bond0", "nic0"), cards=("nic0",))

# A request, as recorded on 6.1 and 6.12; the copy's address is B.
COPIED = """
10 net_dev_queue/118     eth0    A task7
11 netif_rx/104          vct     A task7
12 netif_receive_skb/104 vct     A softirq7
13 netif_receive_skb/104 br0     A softirq7
14 consume_skb           -       A softirq7
15 net_dev_queue/118     bond0.5 B softirq7
16 net_dev_queue/118     bond0   B softirq7
17 net_dev_queue/118     nic0    B softirq7
"""


def hops_of(text: str, cpu_of: dict[int, int] | None = None) -> pd.DataFrame:
    """Return the HOPS of a text; `cpu_of` tells of single times [us] which CPU is meant."""
    events = test_journeys.events(in_time(text))
    for table in events.values():
        cpus = (table["time_ns"] // 1000).map(cpu_of or {}).fillna(0)
        table["cpu"] = cpus.astype("int64")
    return follow_packets(events)


def pairs(text: str, lost: pd.DataFrame | None = None, **cpu_of: int) -> list[tuple[float, float]]:
    """Return the times [us] at which originals end and their copies begin."""
    hops = hops_of(text, {int(at[1:]): cpu for at, cpu in cpu_of.items()})
    ended, queued = copied_packets(hops, COPYING, LOST.frame() if lost is None else lost)
    times = hops["time_ns"].to_numpy() / 1000
    return list(zip(times[ended].tolist(), times[queued].tolist(), strict=True))


def edited(time: int, line: str = "") -> str:
    """Return the request's events with another one at a time, or with none."""
    kept = [row for row in COPIED.strip().splitlines() if row.split()[0] != str(time)]
    rows = [*kept, line] if line else kept
    return "\n".join(rows) + "\n"


def in_time(text: str) -> str:
    """Return the lines of a text in the order of their times; equal times stay as they are."""
    return "\n".join(sorted(text.strip().splitlines(), key=lambda row: float(row.split()[0])))


def test_a_copy_that_follows_its_original_s_end_is_joined_to_it() -> None:
    assert pairs(COPIED) == [(14, 15)]
    hops = join_copies(hops_of(COPIED), COPYING, LOST.frame())
    assert list(hops["time_ns"] // 1000) == list(range(10, 18))
    assert list(hops["hop"]) == list(range(8))
    assert set(hops["journey"]) == {0}
    assert journeys_of_copies(hops).tolist() == [0]
    (crossing,) = find_crossings(hops, WAY).itertuples()
    assert (crossing.status, crossing.latency_ns, crossing.wire_ns) == ("complete", 5000, 17000)


def test_other_journeys_keep_their_hops() -> None:
    others = "20 net_dev_queue/98 eth0 C task7\n21 netif_rx/84 vct C task7\n22 netif_rx/84 br0 D"
    whole = hops_of(COPIED + others)
    hops = join_copies(whole, COPYING, LOST.frame())
    assert len(hops) == len(whole)
    assert list(hops["journey"].unique()) == [0, 1, 2]
    assert hops.groupby("journey").size().tolist() == [8, 2, 1]
    assert (hops.groupby("journey")["hop"].max() == hops.groupby("journey").size() - 1).all()


def test_without_a_copy_nothing_changes() -> None:
    hops = hops_of(edited(14))
    pd.testing.assert_frame_equal(join_copies(hops, COPYING, LOST.frame()), hops)
    empty = follow_packets({})
    assert join_copies(empty, COPYING, LOST.frame()).empty


@pytest.mark.parametrize(
    "text",
    [
        edited(14),  # the original did not end, or nothing says so
        edited(14, "14 kfree_skb - A softirq7"),  # it was dropped
        edited(14, "14 consume_skb - C softirq7"),  # another one ended
        edited(13, "13 netif_receive_skb/104 br0 C softirq7"),  # another one was received
        edited(13, "13 netif_rx/104 br0 A softirq7"),  # it waits in the backlog
        edited(15, "15 net_dev_queue/118 bond0.5 A softirq7"),  # the address is in use again
        edited(15, "15 net_dev_queue/118 nic0 B softirq7"),  # on another device
        edited(15, "15 net_dev_queue/118 bond0.5 B task7"),  # a program of the host sent it
        edited(15, "15 net_dev_queue/118 bond0.5 B softirq8"),  # another task's softirq
        edited(15, "15 net_dev_queue/90 bond0.5 B softirq7"),  # a neighbour solicitation
        edited(15, "15 net_dev_queue/74 bond0.5 B softirq7"),  # a TCP reset
        edited(15, "15 net_dev_queue/166 bond0.5 B softirq7"),  # an ICMPv6 error about it
        edited(15, "15 netif_rx/104 bond0.5 B softirq7"),  # received, not sent
        COPIED + "13.5 netif_receive_skb/104 br0 C softirq7",  # two of one poll
        COPIED + "14.5 netif_receive_skb/104 vct C softirq7",  # came between
        COPIED + "14.5 net_dev_queue/90 nic0 C softirq7",  # so did what something else sent
        COPIED + "14.5 consume_skb - C softirq7",
        edited(15, "14 net_dev_queue/118 bond0.5 B softirq7"),  # in which order is not known
        edited(14, "13 consume_skb - A softirq7"),
        COPIED + "15 netif_receive_skb/104 vct C softirq7",
    ],
)
def test_what_may_be_another_packet_is_not_joined(text: str) -> None:
    assert pairs(text) == []


def test_what_happened_on_another_cpu_is_not_between() -> None:
    assert pairs(COPIED, t15=1) == []
    assert pairs(COPIED, t14=1) == []
    assert pairs(COPIED, t15=1, t16=1, t17=1) == []
    assert pairs(COPIED + "14.5 net_dev_queue/90 nic0 C softirq9", t14=0) == []
    other = COPIED.replace("14 consume", "14 consume") + "100 netif_rx/60 br9 C"
    assert pairs(other, t100=1) == [(14, 15)]


def as_short_as_a_solicitation(payload: int) -> str:
    return COPIED.replace("/118", f"/{payload + 14}").replace("/104", f"/{payload}")


@pytest.mark.parametrize(
    ("length", "told"), [(64, 0), (72, 0), (88, 0), (73, 1), (56, 1), (104, 1)]
)
def test_a_solicitation_of_the_same_length_could_be_sent_instead(length: int, told: int) -> None:
    assert len(pairs(as_short_as_a_solicitation(length))) == told


def test_of_packets_in_turn_each_has_its_own() -> None:
    later = COPIED.replace(" A ", " C ").replace(" B ", " D ")
    later = "\n".join(f"{int(row.split()[0]) + 50}{row[2:]}" for row in later.strip().splitlines())
    assert pairs(COPIED + later) == [(14, 15), (64, 65)]


# The copy waits for the next hop's address, and a packet of a timer is sent at once.
WAITS = COPIED + "{at} net_dev_queue/118 bond0.5 C\n{then} net_dev_queue/118 {on} C"


@pytest.mark.parametrize(
    ("at", "on", "told"),
    [
        (900, "bond0", 0),  # sent when the address came
        (4_000_000, "bond0", 0),
        (6_000_000, "bond0", 1),  # nothing waits so long
        (900, "rem0.5", 1),  # another namespace's device of the same name
    ],
)
def test_a_copy_may_be_sent_later_and_another_packet_at_once(at: int, on: str, told: int) -> None:
    assert len(pairs(WAITS.format(at=at, then=at + 1, on=on))) == told


def test_a_packet_from_nowhere_of_another_length_is_no_rival() -> None:
    assert len(pairs(COPIED + "900 net_dev_queue/90 bond0.5 C")) == 1
    assert len(pairs(COPIED + "900 net_dev_queue/118 bond0.5 C task9")) == 1  # a program's


@pytest.mark.parametrize(
    ("cpu", "after_ns", "before_ns", "told"),
    [
        (0, 13_500, 14_500, 0),
        (0, 12_000, 20_000, 0),
        (0, None, 14_000, 0),  # lost since the beginning
        (0, 14_000, None, 0),
        (0, 15_000, 16_000, 1),
        (0, 1_000, 13_000, 1),
        (1, 13_500, 14_500, 1),
    ],
)
def test_lost_events_may_have_been_between(
    cpu: int, after_ns: int | None, before_ns: int | None, told: int
) -> None:
    lost = LOST.from_rows([("", cpu, after_ns, before_ns, None)])
    assert len(pairs(COPIED, lost)) == told


def test_a_request_without_a_copy_says_why() -> None:
    crossings = find_crossings(hops_of(edited(14)), WAY)
    (reason,) = with_reasons(crossings, COPYING, ["net_dev_queue"])["reason"]
    assert reason.startswith("not seen on the outer device: the kernel copies it for bond0.5")
    assert reason.endswith("the event skb:consume_skb, which tells its copy, was not recorded")
    (reason,) = with_reasons(crossings, COPYING, ["consume_skb"])["reason"]
    assert reason.endswith("it cannot be told for certain which packet is its copy")


def surveyed(address: str) -> Survey:
    """Return the survey of a path to a VLAN on a card."""
    path = [PathDevice(netns="ct", dev="eth0")]
    path += [PathDevice(netns="ho", dev=dev) for dev in ("vct", "br0", "nic0.5")]
    links = [
        Link(ifindex=1, name="nic0"),
        Link(ifindex=2, name="nic0.5", kind="vlan", peer_ifindex=1),
        Link(ifindex=3, name="br0", kind="bridge"),
        Link(ifindex=4, name="vct", kind="veth", master="br0", peer_ifindex=2, peer_netns="ct"),
    ]
    inside = [Link(ifindex=2, name="eth0", kind="veth", peer_ifindex=4, peer_netns="ho")]
    target = Target(kind="netns", name="ct", address=address, path=path)
    target.below = [PathDevice(netns="ho", dev="nic0")]
    described = [
        Namespace(name="ct", inode=1, links=inside),
        Namespace(name="ho", inode=2, links=links),
    ]
    return Survey(target, described, None)


def test_the_events_that_tell_copies_are_recorded_where_there_are_any() -> None:
    assert set(COPY_EVENTS) <= set(events_needed(surveyed("fd92::2")))
    assert "skb:consume_skb" not in events_needed(surveyed("10.92.0.2"))
    assert len(set(events_needed(surveyed("fd92::2")))) == len(events_needed(surveyed("fd92::2")))


def test_a_sidecar_tells_where_packets_are_copied() -> None:
    found = surveyed("fd92::2")
    sidecar = Sidecar(
        maceproc="0",
        command=["ping"],
        rounds=1,
        target=found.target,
        runs=[],
        namespaces=found.namespaces,
        tracing=Tracing(
            events=[], event_set="minimal", clock="mono", instance="", buffer_size_kb=1
        ),
        machine=Machine(kernel="6.1", cpu="", cpus=1),
    )
    assert copying_of(sidecar) == Copying("nic0.5", ("nic0",))
    sidecar.target.address = "10.92.0.2"
    assert copying_of(sidecar) is None
    assert copying_of(None) is None


RECORDED = CAPTURES / "kernels" / "bond-vlan-ipv6-6.1.dat"


def test_ipv6_over_a_vlan_on_a_bond_recorded_on_debian_s_kernel() -> None:
    verdict = judge("bond-vlan-ipv6", SCENARIOS["bond-vlan-ipv6"], "6.1", RECORDED)
    assert (verdict.corrected, verdict.answered, verdict.wrong) == (40, 40, 0)
    analysis = maceproc.analyze(RECORDED)
    (finding,) = analysis.findings[analysis.findings["finding"] == "copies"]["message"]
    assert finding.startswith("40 of 40 requests went on as a copy with another address")
    assert "consume_skb" in str(explain(analysis, 3))


def test_without_the_original_s_end_recorded_requests_are_refused_with_the_reason() -> None:
    capture, trace = open_capture(RECORDED), read_events(RECORDED, events=EVENTS_USED)
    events = {name: rows for name, rows in trace.events.items() if name != "consume_skb"}
    assert capture.sidecar
    capture.sidecar.tracing.events.remove("skb:consume_skb")
    rtts = follow_pings(capture, replace(trace, events=events)).rtts
    assert (rtts["status"] == "incomplete").all()
    assert rtts["reason"].str.endswith("which tells its copy, was not recorded").all()


def test_no_event_that_is_missing_changes_a_correction() -> None:
    subject = Subject.of(RECORDED)
    answered = 0
    for seed in range(25):
        _, rtts = subject.without(seed)
        answered += (rtts["status"] == "corrected").sum()
        assert changed(subject, rtts).empty, seed
    assert answered > 100
