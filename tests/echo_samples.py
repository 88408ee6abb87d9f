"""Rows of echoes made by hand, for tests."""

from __future__ import annotations

import ipaddress

import numpy as np

from maceproc.echo_rows import ANSWERED, RECEIVED
from maceproc.echoes import ROW_DTYPE, Rows


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
    rows["id"] = rows["outer_id"] = 77
    rows["seq"] = first_seq + np.arange(count)
    rows["len"] = 64
    return rows
