"""The ledger: the segments that an RTT is made of, in the order of the packet's way.

One ping, with kernel times on one clock:

    send call    queued         queued           received       received     program
       |----------|--------------|------ wire -----|--------------|------------|
        tx stack   outbound       outer queue       inbound        delivery
                   crossing                         crossing

The segments add up to the printed RTT; the residual is what is left when all others are subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["inside", "outside", "wire", "unseen"]
Direction = Literal["outbound", "inbound", ""]


@dataclass(frozen=True)
class Segment:
    """One segment of an RTT.

    Attributes
    ----------
    name
        Its name, for people and in JSON.
    column
        The column of RTTS that holds it [ns].
    meaning
        The points between which it is measured.
    part
        ``inside`` a crossing; ``outside`` the crossings, but on this host; on the ``wire``;
        ``unseen`` by any event.
    direction
        Whether the request (``outbound``) or the reply (``inbound``) passes it; empty for the wire
        and for the residual.
    start, end
        Where it begins and ends, in words; empty for the residual, which has no place.
    short
        Its name where several stand in one line.
    """

    name: str
    column: str
    meaning: str
    part: Part
    direction: Direction = ""
    start: str = ""
    end: str = ""
    short: str = ""


TX_STACK = Segment(
    "tx stack",
    "tx_stack_ns",
    "send call to the container's device queue",
    "outside",
    "outbound",
    "send call",
    "first device",
    "tx stack",
)
OUTBOUND = Segment(
    "outbound crossing",
    "outbound_ns",
    "outbound crossing",
    "inside",
    "outbound",
    "queued on the container's device",
    "queued on the outer device",
    "outbound",
)
OUTER_QUEUE = Segment(
    "outer queue",
    "outer_queue_ns",
    "outer device: queue to driver",
    "outside",
    "outbound",
    "queued on the outer device",
    "its driver",
    "queue",
)
WIRE = Segment(
    "wire",
    "wire_rtt_ns",
    "outer device: first receive event - driver's send",
    "wire",
    "",
    "outer device",
    "and back",
    "wire",
)
INBOUND = Segment(
    "inbound crossing",
    "inbound_ns",
    "inbound crossing",
    "inside",
    "inbound",
    "received on the outer device",
    "received on the container's device",
    "inbound",
)
DELIVERY = Segment(
    "delivery",
    "delivery_ns",
    "receive event to the stamp; 0 if the kernel took it",
    "outside",
    "inbound",
    "container's device",
    "the program",
    "delivery",
)
RESIDUAL = Segment(
    "residual",
    "residual_ns",
    "RTT - all segments: what the events do not show",
    "unseen",
    short="residual",
)

LEDGER = (TX_STACK, OUTBOUND, OUTER_QUEUE, WIRE, INBOUND, DELIVERY, RESIDUAL)
"""Every segment in the order of the way; their times add up to the RTT."""

COLUMNS = {segment.name: segment.column for segment in LEDGER}
"""The column of RTTS by the segment's name, in the order of the way."""

CROSSINGS = (OUTBOUND, INBOUND)
"""What the correction takes out of the RTT."""

SHARED = tuple(segment for segment in LEDGER if segment.part != "inside")
"""What a native ping has too; in the order of the way they add up to the corrected RTT."""
