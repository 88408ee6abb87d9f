"""ICMP echoes by the tracer in the kernel: the points that it writes, and the rows made of them.

A point is one packet at one device (`maceproc/recording/bpf/echoes.bpf.c`), a row one echo with all
of its points (`maceproc.pairing`). A file of echoes holds points.
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = b"maceproc echoes\n"
"""A file of points begins with it; then come a line of JSON and the points."""


class RowField(NamedTuple):
    """One field of a point or row; `code` is its type as `struct` and `numpy` write it."""

    name: str
    code: str
    unit: str
    meaning: str
    length: int = 1


ROW_FIELDS = (
    RowField("number", "u8", "", "from 1, in the order of time"),
    RowField("queued_ns", "u8", "ns", "request queued on the container's device"),
    RowField("outer_queued_ns", "u8", "ns", "request queued on the outer device"),
    RowField(
        "sent_ns",
        "u8",
        "ns",
        "request handed to the outer device's driver; 0: no queue, see outer_queued",
    ),
    RowField("outer_received_ns", "u8", "ns", "reply first seen on the outer device; 0: none came"),
    RowField("received_ns", "u8", "ns", "reply received on the container's device; 0: not seen"),
    RowField("local", "u8", "", "source address at the outer device", 2),
    RowField("remote", "u8", "", "destination address at the outer device", 2),
    RowField("target", "u8", "", "destination address in the container", 2),
    RowField("stamp", "u8", "", "first 8 bytes of the payload: ping's send stamp"),
    RowField("request_skb", "u8", "", "address of the request's sk_buff"),
    RowField("reply_skb", "u8", "", "address of the reply's sk_buff at the outer device"),
    RowField("netns", "u4", "", "inode number of the container's network namespace"),
    RowField("container", "u4", "", "number that the tracer gave the container"),
    RowField("inner_ifindex", "u4", "", "the container's device"),
    RowField("outer_ifindex", "u4", "", "the outer device, going out"),
    RowField("outer_in_ifindex", "u4", "", "the outer device, coming back"),
    RowField("pid", "u4", "", "task that sent it; in softirq, the task that was interrupted"),
    RowField("id", "u2", "", "ICMP identifier in the container"),
    RowField("outer_id", "u2", "", "ICMP identifier at the outer device"),
    RowField("seq", "u2", "", "ICMP sequence number"),
    RowField("len", "u2", "byte", "ICMP message"),
    RowField("family", "u1", "", "4 or 6"),
    RowField("flags", "u1", "", "bits of `ROW_FLAGS`"),
    RowField("padding", "u1", "", "", 6),
)

ANSWERED, RECEIVED, REPEATED, TWIN, FRAGMENTED, ALTERED, NATIVE = (1 << bit for bit in range(7))
ROW_FLAGS = {
    ANSWERED: "the reply was seen on the outer device",
    RECEIVED: "the reply was seen on the container's device",
    REPEATED: "another reply came",
    TWIN: "another request with the same addresses, identifier and number was on its way",
    FRAGMENTED: "it was sent in fragments: the first one was followed",
    ALTERED: "the reply does not return what the request carried",
    NATIVE: "the host itself sent it: its points are those of the outer device",
}

POINT_FIELDS = (
    RowField("time_ns", "u8", "ns", "when; 0 while it is written"),
    RowField("skb", "u8", "", "address of the packet's sk_buff"),
    RowField("words", "u8", "", "first 16 bytes of the payload: ping's send stamp", 2),
    RowField("source", "u8", "", "source address", 2),
    RowField("destination", "u8", "", "destination address", 2),
    RowField("netns", "u4", "", "inode number of the device's network namespace"),
    RowField("ifindex", "u4", "", "the device"),
    RowField("container", "u4", "", "number that the tracer gave the device's container"),
    RowField("pid", "u4", "", "task that ran; in softirq, the task that was interrupted"),
    RowField("id", "u2", "", "ICMP identifier"),
    RowField("seq", "u2", "", "ICMP sequence number"),
    RowField("sum", "u2", "", "of all bytes but type and identifier, by the ICMP checksum"),
    RowField("len", "u2", "byte", "ICMP message"),
    RowField("point", "u1", "", "which point of the way: `QUEUED` to `AT_CONTAINER`"),
    RowField("kind", "u1", "", "bits: `REPLY`, `FRAGMENT`, `LOCAL`"),
    RowField("family", "u1", "", "4 or 6"),
    RowField("padding", "u1", "", "", 5),
)
"""``struct point`` in `maceproc/recording/bpf/echoes.bpf.c`."""

QUEUED, OUTER_QUEUED, SENT, OUTER_RECEIVED, AT_CONTAINER = range(1, 6)
REPLY, FRAGMENT, LOCAL = (1 << bit for bit in range(3))

UNREAD = {
    "unreadable": "a header was cut, or not in the linear part of the packet",
    "unknown_headers": "IPv6 extension headers that are not understood",
}
"""Headers that the tracer could not read, by reason."""

COUNTS = {
    "no_request": "a reply came to a container and answers no echo that waited: its request left "
    "by no outer device, or was answered before",
    **UNREAD,
}
"""Packets that were not followed, by reason."""
