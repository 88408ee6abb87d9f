"""Rows of echoes made by hand, for tests, and the points that they are made of."""

from __future__ import annotations

import ipaddress

import numpy as np

from maceproc.echo_rows import (
    ANSWERED,
    AT_CONTAINER,
    OUTER_QUEUED,
    OUTER_RECEIVED,
    QUEUED,
    RECEIVED,
    REPLY,
    SENT,
)
from maceproc.pairing import POINT_DTYPE, ROW_DTYPE, Points, Rows


def echo_rows(
    count: int,
    *,
    target: str = "192.0.2.2",
    container: int = 1,
    first_seq: int = 1,
    start_ns: int = 1_000_000_000,
    every_ns: int = 10_000_000,
    outbound_ns: int = 8_000,
    wire_ns: int = 100_000,
    inbound_ns: int = 4_000,
    flags: int = ANSWERED | RECEIVED,
) -> Rows:
    """Return rows of echoes that all take the same time."""
    rows = np.zeros(count, ROW_DTYPE)
    address = ipaddress.ip_address(target)
    words = np.frombuffer(address.packed.ljust(16, b"\0"), "<u8")
    rows["number"] = np.arange(1, count + 1)
    rows["queued_ns"] = start_ns + every_ns * np.arange(count)
    rows["outer_queued_ns"] = rows["queued_ns"] + outbound_ns
    rows["sent_ns"] = rows["outer_queued_ns"] + 1_000
    if flags & ANSWERED:
        rows["outer_received_ns"] = rows["sent_ns"] + wire_ns
    if flags & RECEIVED:
        rows["received_ns"] = rows["outer_received_ns"] + inbound_ns
    rows["target"] = rows["remote"] = words
    rows["container"] = container
    rows["netns"] = 4026531840 + container
    rows["family"] = address.version
    rows["flags"] = flags
    rows["local"][:, 0] = 0x010200C0  # 192.0.2.1
    rows["request_skb"] = np.uint64(0xFFFF_8880_0000_0000) + 256 * np.arange(count, dtype=np.uint64)
    rows["reply_skb"] = np.uint64(0xFFFF_8881_0000_0000) + 256 * np.arange(count, dtype=np.uint64)
    rows["inner_ifindex"], rows["outer_ifindex"], rows["outer_in_ifindex"] = 2, 3, 3
    rows["id"] = rows["outer_id"] = 77
    rows["seq"] = first_seq + np.arange(count)
    rows["len"] = 64
    return rows


HOST_NETNS = 4026531000


def points_of(rows: Rows) -> Points:
    """Return the points of these echoes, in the order of the way; of natives too few."""
    points = []
    for point, time, of_reply, inside in (
        (QUEUED, "queued_ns", False, True),
        (OUTER_QUEUED, "outer_queued_ns", False, False),
        (SENT, "sent_ns", False, False),
        (OUTER_RECEIVED, "outer_received_ns", True, False),
        (AT_CONTAINER, "received_ns", True, True),
    ):
        there = rows[rows[time] > 0]
        made = np.zeros(len(there), POINT_DTYPE)
        made["time_ns"], made["point"] = there[time], point
        made["skb"] = there["reply_skb" if of_reply else "request_skb"]
        made["words"][:, 0] = there["stamp"]
        remote = there["target"] if inside else there["remote"]
        ends = (remote, there["local"]) if of_reply else (there["local"], remote)
        made["source"], made["destination"] = ends
        made["id"] = there["id" if inside else "outer_id"]
        made["netns"] = there["netns"] if inside else HOST_NETNS
        device = "inner_ifindex" if inside else "outer_in_ifindex" if of_reply else "outer_ifindex"
        made["ifindex"] = there[device]
        made["kind"] = REPLY if of_reply else 0
        for name in ("container", "pid", "seq", "len", "family"):
            made[name] = there[name]
        points.append(made)
    return np.concatenate(points)
