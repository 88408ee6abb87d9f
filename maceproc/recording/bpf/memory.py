"""The memory that the programs in the kernel share with us: ``memory`` in echoes.bpf.c."""

from __future__ import annotations

import ctypes
from typing import Any

from maceproc.echo_rows import POINT_FIELDS

DEVICES = 4096
CHAIN = 32
CHAINS = 256
POINTS = 262144
RINGS = 8

_TYPES: dict[str, Any] = {
    "u1": ctypes.c_uint8,
    "u2": ctypes.c_uint16,
    "u4": ctypes.c_uint32,
    "u8": ctypes.c_uint64,
}


class Point(ctypes.Structure):
    """``struct point``: one packet of an echo at one device."""

    _fields_ = tuple(
        (field.name, _TYPES[field.code] * field.length if field.length > 1 else _TYPES[field.code])
        for field in POINT_FIELDS
    )


class Device(ctypes.Structure):
    """``struct device``: one device that is watched, and what it is to us."""

    _fields_ = (
        ("netns", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("container", ctypes.c_uint32),
        ("roles", ctypes.c_uint16),
        ("next", ctypes.c_uint16),
    )


class Ring(ctypes.Structure):
    """``struct ring``: how many points it was given, and what could not be read."""

    _fields_ = (
        ("taken", ctypes.c_uint64),
        ("unreadable", ctypes.c_uint64),
        ("unknown_headers", ctypes.c_uint64),
        ("padding", ctypes.c_uint64 * 5),
    )


class Memory(ctypes.Structure):
    """Everything, in the order of the C source."""

    _fields_ = (
        ("ring_mask", ctypes.c_uint32),
        ("point_mask", ctypes.c_uint32),
        ("padding", ctypes.c_uint32 * 14),
        ("rings", Ring * RINGS),
        ("chains", ctypes.c_uint16 * CHAINS),
        ("devices", Device * DEVICES),
        ("points", Point * POINTS),
    )


# Roles of a device, by the tracepoint that tells it: the enum in echoes.bpf.c.
INNER_QUEUED, OUTER_QUEUED, OUTER_SENT = 1 << 0, 1 << 1, 1 << 2
OUTER_RX, OUTER_RECEIVE, INNER_RX, INNER_RECEIVE = 1 << 3, 1 << 4, 1 << 5, 1 << 6
PROGRAMS = {
    "on_queue": INNER_QUEUED | OUTER_QUEUED,
    "on_xmit": OUTER_SENT,
    "on_rx": OUTER_RX | INNER_RX,
    "on_receive": OUTER_RECEIVE | INNER_RECEIVE,
}
"""The programs of the object, and the roles they serve."""
ALL_ROLES = (1 << 7) - 1
