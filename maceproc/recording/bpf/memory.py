"""The memory that the programs in the kernel share with us: ``memory`` in echoes.bpf.c."""

from __future__ import annotations

import ctypes
from typing import Any

from maceproc.echo_rows import ROW_FIELDS

CPUS = 256
COUNTS_A_CPU = 16
ENTERED = 8  # the place of the requests queued on a container's device among the counts
DEVICES = 4096
PROBES = 8
ROWS = 32768
PENDING = 16384
PASSAGES = 4096

_TYPES: dict[str, Any] = {
    "u1": ctypes.c_uint8,
    "u2": ctypes.c_uint16,
    "u4": ctypes.c_uint32,
    "u8": ctypes.c_uint64,
}


class Row(ctypes.Structure):
    """``struct row``: one echo."""

    _fields_ = tuple(
        (field.name, _TYPES[field.code] * field.length if field.length > 1 else _TYPES[field.code])
        for field in ROW_FIELDS
    )


class Device(ctypes.Structure):
    """``struct device``: one device that is watched, and what it is to us."""

    _fields_ = (
        ("netns", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("roles", ctypes.c_uint32),
        ("container", ctypes.c_uint32),
    )


class Content(ctypes.Structure):
    """``struct content``: what an echo carries."""

    _fields_ = (
        ("words", ctypes.c_uint64 * 2),
        ("seq", ctypes.c_uint16),
        ("sum", ctypes.c_uint16),
        ("len", ctypes.c_uint16),
        ("family", ctypes.c_uint8),
        ("payload", ctypes.c_uint8),
    )


class Passage(ctypes.Structure):
    """``struct passage``: a packet between two devices."""

    _fields_ = (
        ("lock", ctypes.c_uint32),
        ("place", ctypes.c_uint32),
        ("skb", ctypes.c_uint64),
        ("queued_ns", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("content", Content),
        ("target", ctypes.c_uint64 * 2),
        ("netns", ctypes.c_uint32),
        ("container", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("id", ctypes.c_uint16),
        ("fragment", ctypes.c_uint8),
    )


FREE, SENT, DONE = range(3)


class Pending(ctypes.Structure):
    """``struct pending``: an echo whose request has left."""

    _fields_ = (
        ("lock", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("generation", ctypes.c_uint64),
        ("taken", ctypes.c_uint64),
        ("content", Content),
        ("row", Row),
    )


class Memory(ctypes.Structure):
    """Everything, in the order of the C source."""

    _fields_ = (
        ("rows_written", ctypes.c_uint64),
        ("device_mask", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("ifindexes", ctypes.c_uint8 * 256),
        ("counts", ctypes.c_uint64 * COUNTS_A_CPU * CPUS),
        ("devices", Device * DEVICES),
        ("states", ctypes.c_uint8 * PENDING),
        ("rows", Row * ROWS),
        ("pending", Pending * PENDING),
        ("outbound", Passage * PASSAGES),
        ("inbound", Passage * PASSAGES),
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
