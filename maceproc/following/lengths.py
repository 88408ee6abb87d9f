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
    possible = _differences(added_bytes)
    difference = np.abs(after - before).astype(np.uint64)
    alike = possible[np.minimum(difference, len(possible) - 1).astype(np.int64)]
    return np.asarray(alike | (np.maximum(before, after) <= SHORTEST_FRAME_BYTES))


def can_be_forwarded(before: Lengths, after: Lengths, added_bytes: Collection[int] = (0,)) -> Bools:
    """Tell where a packet received with one length can be sent on with another one [bytes].

    Fragments may have been put together or made on the way. `_hops.c` has this rule, too.
    """
    return same_packet(before, after, _either_way(added_bytes)) | (after >= SMALLEST_MTU)


def differences_forwarded(added_bytes: Collection[int]) -> Bools:
    """Return a table that tells which differences of length `can_be_forwarded` allows.

    Shape [largest of them + 2]: all larger ones are as the last one, which is not allowed.
    """
    return _differences(_either_way(added_bytes))


def _either_way(added_bytes: Collection[int]) -> set[int]:
    """Behind a tunnel, a packet without its header is queued with an Ethernet header again."""
    return {*added_bytes, *(-added for added in added_bytes)}


def _differences(added_bytes: Collection[int]) -> Bools:
    possible = [abs(sum(pair)) for pair in product(HEADER_LENGTHS, added_bytes)]
    table = np.zeros(max(possible) + 2, dtype=np.bool_)
    table[possible] = True
    return table
