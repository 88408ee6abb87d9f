"""The rows that the tracer in the kernel writes: one ICMP echo each, and the file they are kept in.

The fields are those of ``struct row`` in `maceproc/recording/bpf/echoes.bpf.c`, in its order.
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = b"maceproc echoes\n"
"""A file of rows begins with it; then come a line of JSON and the rows."""


class RowField(NamedTuple):
    """One field of a row: its name, the code of its type (`struct`, `numpy`), unit and meaning."""

    name: str
    code: str
    unit: str
    meaning: str
    length: int = 1


ROW_FIELDS = (
    RowField("number", "u8", "", "from 1, in the order in which rows were written"),
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

ANSWERED, RECEIVED, REPEATED, TWIN, FRAGMENTED, ALTERED, GIVEN_UP = (1 << bit for bit in range(7))
ROW_FLAGS = {
    ANSWERED: "the reply was seen on the outer device",
    RECEIVED: "the reply was seen on the container's device",
    REPEATED: "another reply came",
    TWIN: "another request with the same addresses, identifier and number was on its way",
    FRAGMENTED: "it was sent in fragments: the first one was followed",
    ALTERED: "the reply does not return what the request carried",
    GIVEN_UP: "its place was needed for another echo: a reply would not have been followed",
}

COUNTS = (
    ("busy", "another CPU was at the same place of a table"),
    ("overwritten", "a table had no room for what was on its way"),
    ("other_content", "an sk_buff's address came back with another packet"),
    ("unreadable", "a header was cut, or not in the linear part of the packet"),
    ("no_request", "a reply came that was not followed from an outer device, or sent before"),
    ("unknown_headers", "IPv6 extension headers that are not understood"),
    ("repeated", "another reply came to an echo that was answered"),
    ("late", "a reply came to an echo that counted as unanswered"),
)
"""What the tracer counts per CPU: packets that it could not follow, by reason."""
