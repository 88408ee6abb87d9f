"""What one run of a ping printed, and the bounds that hold for any text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from maceproc.pings.flavours import Flavour, Stamp

ICMP_HEADER_BYTES = 8
ICMP_SEQ_MODULUS = 1 << 16

LONGEST_LINE = 1000
"""Longer lines are not understood [characters]; only lists of results and a flood's dots are."""

LONGEST_LIST = 1 << 20
"""The same for one line that lists all results (``fping -C``, JSON) [characters]."""

LINES_KEPT = 3
"""How many lines that were not understood are kept; all are counted."""

ROWS_MADE_UP = 1_000_000
"""So many requests that no line speaks of get rows at most: a text may count without end."""

NEAR = 64
"""An icmp_seq further ahead of the others must be confirmed by the next line."""

GAP_BELIEVED = 1000
"""Without a summary, so many requests in a row are believed to have been sent without a line."""


@dataclass
class PingOutput:
    """What one run of a ping printed about one target."""

    flavour: Flavour = "unknown"
    payload_bytes: int | None = None  # without the 8 bytes of ICMP header
    sent: int | None = None  # as its summary counts; None when it did not get that far
    received: int | None = None
    # A row per reply or error, and per request that a line says had none; keys as in PINGS.
    answers: list[dict[str, Any]] = field(default_factory=list)
    first_seq: int | None = None  # icmp_seq of the first request; None: 0 or 1, not known which
    target: str = ""  # as printed: the name where there is one, else the address; empty if unknown
    targets: int = 1  # how many targets the same run had; each has an output of its own
    stamped_by: Stamp | None = None  # who takes the receive stamp; None when not known
    flavour_why: str = ""
    first_seq_why: str = "no line tells"
    stamped_by_why: str = ""
    begins: bool = False  # the text has the run's beginning: its header
    quiet: bool = False  # it was asked, or seen, to print no line for a reply (-q, -f)
    misread: bool = False  # a line of the run was not understood
    not_understood: int = 0  # how many were; of several targets, told with the first
    not_understood_first: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what else a reader should know
    refused: str = ""  # why nothing can be read, where that is known
