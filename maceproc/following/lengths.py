"""Which lengths one packet can have at two events."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Lengths = npt.NDArray[np.int64]

# The bytes by which the lengths of a packet on two devices may differ: up to two VLAN tags, an
# Ethernet header, or both.
HEADER_LENGTHS = (0, 4, 8, 14, 18, 22)

SHORTEST_PAYLOAD_BYTES = 46
"""Ethernet pads a shorter one, IEEE 802.3: a card receives this length, the stack cuts it again."""

SHORTEST_FRAME_BYTES = SHORTEST_PAYLOAD_BYTES + 14
"""Up to this length, with the Ethernet header, a card receives all packets as equally long."""

SMALLEST_MTU = 512
"""What was put together from fragments, or cut into them, leaves with at least this length.

The first fragment fills the MTU but for 7 bytes, and hosts must accept 576 bytes (RFC 791).
"""


def same_packet(before: Lengths, after: Lengths, added_bytes: Collection[int] = (0,)) -> Bools:
    """Tell where two lengths are those of one packet, but for headers of devices [bytes].

    `added_bytes` is what tunnels and VLANs on the way may add.
    """
    headers = [abs(sum(pair)) for pair in product(HEADER_LENGTHS, added_bytes)]
    # The kind "table" reads the answers from an array; no length needs more than 32 bits.
    differences = np.clip(np.abs(after - before), -1, max(headers) + 1)
    alike = np.isin(differences.astype(np.int32), np.array(headers, np.int32), kind="table")
    return alike | (np.maximum(before, after) <= SHORTEST_FRAME_BYTES)


def can_be_forwarded(before: Lengths, after: Lengths, added_bytes: Collection[int] = (0,)) -> Bools:
    """Tell where a packet received with one length can be sent on with another one [bytes].

    Fragments may have been put together or made on the way.
    """
    # Behind a tunnel, a packet without the tunnel's header is queued with an Ethernet header again.
    either_way = {*added_bytes, *(-added for added in added_bytes)}
    return same_packet(before, after, either_way) | (after >= SMALLEST_MTU)
