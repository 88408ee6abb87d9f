"""Packets followed in small tables made by hand."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_lowercase

import pandas as pd
import pytest

import maceproc
from maceproc.capture_files import open_capture
from maceproc.following import hop_loops, journeys, side_by_side
from maceproc.following.journeys import Links, follow_packets, journeys_table
from maceproc.following.topology import links_of
from tests.recorded import path_of

SOFTIRQ = 0x10
A, B, C, D = (0xFFFF_8881_0000_0000 + 0x100 * n for n in range(1, 5))

# A container behind a bridge, as `maceproc.following.topology.links_of` reads it from a sidecar.
DOCKER = Links(
    pairs=frozenset({("eth0", "veth1"), ("veth1", "eth0")}),
    ports=frozenset({"eth0", "veth1", "eno1"}),
    known=frozenset({"eth0", "veth1", "eno1"}),
    dead_ends=frozenset({("veth1", "eth0")}),
)


def events(text: str) -> dict[str, pd.DataFrame]:
    """Read lines: time [us], event, device, address, and `task7` where it is not softirq.

    `softirq7` is softirq while task 7 was running, which is 0 otherwise.
    """
    rows = [line.split() for line in text.strip().splitlines()]
    tables: dict[str, list[tuple[object, ...]]] = {}
    for rank, (time, event, dev, address, *context) in enumerate(rows):
        name, _, length = event.partition("/")
        flags = 0 if context and context[0].startswith("task") else SOFTIRQ
        pid = int(context[0].lstrip(ascii_lowercase)) if context else 0
        tables.setdefault(name, []).append(
            (rank, int(float(time) * 1000), pid, flags, globals()[address], int(length or 98), dev)
        )
    return {name: _table(lines) for name, lines in tables.items()}


def _table(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    names = ["rank", "time_ns", "pid", "flags", "skbaddr", "len", "name"]
    table = pd.DataFrame(rows, columns=names).set_index("rank")
    dtypes = {"skbaddr": "uint64", "flags": "uint8", "pid": "int32", "name": "category"}
    return table.assign(cpu=0).astype(dtypes)


def lives(text: str, links: Links = DOCKER) -> list[list[float]]:
    """Return the times [us] of every journey's hops."""
    hops = follow_packets(events(text), links=links)
    return [list(own["time_ns"] / 1000) for _, own in hops.groupby("journey")]


REQUEST = """
1 net_dev_queue      eth0  A task7
2 net_dev_start_xmit eth0  A task7
3 netif_rx/84        veth1 A task7
4 netif_receive_skb/84 veth1 A
5 net_dev_queue      eno1  A
6 net_dev_start_xmit eno1  A
"""


def test_a_request_is_one_life_from_the_container_to_the_wire() -> None:
    assert lives(REQUEST) == [[1, 2, 3, 4, 5, 6]]


def test_a_reply_is_one_life_over_the_bridge() -> None:
    reply = """
    1 netif_receive_skb/84 eno1 A
    2 net_dev_queue br0   A
    3 net_dev_start_xmit br0 A
    4 net_dev_queue veth1 A
    5 net_dev_start_xmit veth1 A
    6 netif_rx/84   eth0  A
    7 netif_receive_skb/84 eth0 A
    """
    assert lives(reply) == [[1, 2, 3, 4, 5, 6, 7]]


def test_addresses_do_not_mix() -> None:
    both = REQUEST + "\n".join(f"1{line}" for line in REQUEST.replace(" A", " B").split("\n")[1:-1])
    assert [len(life) for life in lives(both)] == [6, 6]


@pytest.mark.parametrize(
    ("end", "beginning"),
    [
        ("net_dev_start_xmit eno1 A", "net_dev_queue eth0 A task7"),  # sent, freed, born in a task
        ("net_dev_start_xmit eno1 A", "net_dev_queue br0 A"),  # ... in softirq
        ("net_dev_start_xmit eno1 A", "netif_rx/84 veth1 A"),  # no link leads there
        ("net_dev_queue eno1 A", "netif_receive_skb eno1 A"),  # a reply with its request's address
        ("netif_rx/84 eth0 A", "netif_rx/84 eno1 A"),  # received twice, by two ports
        ("netif_receive_skb/84 veth1 A", "net_dev_queue eth0 A task7"),  # forwarding is no task's
        ("consume_skb - A", "net_dev_queue eth0 A"),
        ("net_dev_queue eth0 A task7", "net_dev_start_xmit/1500 eth0 A task7"),  # another length
        ("net_dev_queue br0 A task7", "net_dev_queue veth1 A task8"),  # another call
        ("netif_rx/84 veth9 A", "net_dev_queue/42 br0 A"),  # the host's own ARP request
        ("netif_receive_skb/1500 eno1 A", "net_dev_queue/54 br0 A"),  # ... or TCP reset
        ("netif_rx/72 veth1 A", "net_dev_queue/98 eth0 A"),  # it had waited for an ARP reply
    ],
)
def test_an_address_used_again_begins_a_new_life(end: str, beginning: str) -> None:
    assert lives(f"1 {end}\n2 {beginning}") == [[1], [2]]


@pytest.mark.parametrize(
    "text",
    [
        "1 netif_receive_skb/46 eno1 A\n2 net_dev_queue/43 br0 A",  # a short frame's padding is cut
        "1 netif_receive_skb/20 eno1 A\n2 net_dev_queue/1514 br0 A",  # the last of the fragments
        "1 netif_receive_skb/3000 eno1 A\n2 net_dev_queue/1510 br0 A",  # cut into fragments
        "1 netif_receive_skb/84 eno1 A\n2 net_dev_queue/102 br0 A",  # a VLAN's tag
    ],
)
def test_what_is_forwarded_may_change_its_length(text: str) -> None:
    assert lives(text) == [[1, 2]]


def test_what_comes_out_of_a_tunnel_is_shorter() -> None:
    text = "1 netif_rx/134 eno1 A\n2 net_dev_queue br0 A"
    assert lives(text) == [[1], [2]]
    assert lives(text, replace(DOCKER, added_bytes=(0, 50))) == [[1, 2]]


def test_what_a_task_writes_to_a_tap_device_is_forwarded_in_its_call() -> None:
    text = "0 net_dev_queue eth0 B\n1 netif_receive_skb/84 eno1 A task9\n2 net_dev_queue br0 A task"
    assert lives(f"{text}9") == [[1, 2], [0]]
    assert lives(f"{text}8") == [[1], [2], [0]]
    queued = text.replace("netif_receive_skb", "netif_rx")  # that is left to softirq
    assert lives(f"{queued}9") == [[1], [2], [0]]


def test_a_task_does_not_take_up_what_waited_in_the_backlog() -> None:
    text = "1 netif_rx/84 eth0 A task9\n2 netif_receive_skb/84 eth0 A"
    other = "\n0 net_dev_queue eno1 B"
    assert lives(text + other) == [[1, 2], [0]]
    assert lives(text + " task9" + other) == [[1], [2], [0]]


def test_what_arrived_in_a_container_is_not_forwarded() -> None:
    text = "1 net_dev_queue veth1 A\n2 netif_rx/84 eth0 A\n3 net_dev_queue eno1 A"
    assert lives(text) == [[1, 2], [3]]
    assert lives(text, Links()) == [[1, 2, 3]]  # nothing is known: it may be


def test_an_event_that_was_recorded_elsewhere_is_not_skipped() -> None:
    skipping = "1 net_dev_queue eth0 A task7\n3 netif_rx/84 veth1 A task7"
    assert lives(skipping) == [[1, 3]]
    xmit = "\n9 net_dev_start_xmit eno1 B"  # so net_dev_start_xmit was on
    assert lives(skipping + xmit) == [[1], [3], [9]]


def test_journeys_are_summarized() -> None:
    journeys = journeys_table(follow_packets(events(REQUEST), links=DOCKER))
    assert journeys.to_dict("records") == [
        {"journey": 0, "skbaddr": A, "hops": 6, "start_ns": 1000, "end_ns": 6000}
    ]


def test_nothing_gives_nothing() -> None:
    assert follow_packets({}).empty
    assert journeys_table(follow_packets({})).empty


@pytest.mark.parametrize("loops", ["compiled", "numpy"])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("name", ["every_event", "in_flight"])
def test_blocks_and_threads_change_nothing(
    name: str, rows: int, loops: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = maceproc.read_events(path_of(name), end_ns=first_part_ns(name))
    links = links_of(open_capture(path_of(name)).sidecar)
    whole = follow_packets(trace.events, links=links)
    if loops == "numpy":
        monkeypatch.setattr(hop_loops, "loops", None)
    monkeypatch.setattr(journeys, "BLOCK_ROWS", rows)
    monkeypatch.setattr(side_by_side, "FEW_ROWS", 0)
    monkeypatch.setattr(side_by_side, "THREADS", 3)
    pd.testing.assert_frame_equal(follow_packets(trace.events, links=links), whole)
    assert len(whole) > 100


def first_part_ns(name: str) -> int:
    """Return a time before which a capture has some thousand hops."""
    queued = maceproc.read_events(path_of(name)).events["net_dev_queue"]["time_ns"]
    return int(queued.iloc[min(1000, len(queued) - 1)])
