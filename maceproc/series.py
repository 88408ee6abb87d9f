"""The series: the ways of looking at the pings, and the differences between them.

A series is one column of RTTS in one arm. An arm is one way of running the ping: in the container
or natively on the host, traced or untraced. Each series has the name that ``maceproc analyze``
prints and, where the experiment reports it, the name that it has there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from maceproc import ledger

CONTAINER_TRACED, CONTAINER_UNTRACED = "container traced", "container untraced"
NATIVE_TRACED, NATIVE_UNTRACED = "native traced", "native untraced"
TRACED_ARMS = (CONTAINER_TRACED, NATIVE_TRACED)


class Label(NamedTuple):
    """What a series is called, and what that means."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Series:
    """One way of looking at the pings.

    Attributes
    ----------
    name
        What ``maceproc analyze`` calls it.
    arm
        The arm that the pings are from.
    column
        The column of RTTS that the values are from [ns].
    meaning
        What it is, in a few words.
    in_experiment
        What the experiment calls it; None where the experiment does not report it.
    """

    name: str
    arm: str
    column: str
    meaning: str
    in_experiment: Label | None = None

    @property
    def place(self) -> str:
        """Where the ping ran: container or native."""
        return self.arm.partition(" ")[0]

    @property
    def traced(self) -> bool:
        """Whether events were recorded while the ping ran."""
        return self.arm in TRACED_ARMS


RAW = Series(
    "container, traced",
    CONTAINER_TRACED,
    "rtt_ns",
    "while events were recorded",
    Label("container traced", "traced, as ping reports it"),
)
CORRECTED = Series(
    "container, corrected",
    CONTAINER_TRACED,
    "bare_metal_rtt_ns",
    "RTT - outbound - inbound crossing",
    Label("container corrected", "RTT - outbound - inbound crossing"),
)
NATIVE_RTT = Series(
    "container, as native",
    CONTAINER_TRACED,
    "native_rtt_ns",
    "what this host's own ping would have printed",
)
WIRE = Series(
    "wire",
    CONTAINER_TRACED,
    ledger.WIRE.column,
    "outer device: sent to first received",
    Label("container wire", "outer device: sent to first received"),
)
UNTRACED = Series(
    "container, untraced",
    CONTAINER_UNTRACED,
    "rtt_ns",
    "as ping reports it",
    Label("container untraced", "untraced, as ping reports it"),
)
NATIVE_RAW = Series(
    "native, traced",
    NATIVE_TRACED,
    "rtt_ns",
    "from the host, while events were recorded",
    Label("native traced", "from the host, traced"),
)
NATIVE_WIRE = Series(
    "wire, native",
    NATIVE_TRACED,
    ledger.WIRE.column,
    "outer device: sent to first received",
    Label("native wire", "outer device: sent to first received"),
)
NATIVE = Series(
    "native, untraced",
    NATIVE_UNTRACED,
    "rtt_ns",
    "the same ping from the host",
    Label("native untraced", "from the host, untraced"),
)

ALL_SERIES = (RAW, UNTRACED, NATIVE_RAW, NATIVE, NATIVE_RTT, CORRECTED, WIRE, NATIVE_WIRE)
"""Every series of RTTs, in the order of the table SERIES."""

SHOWN = (UNTRACED, RAW, NATIVE_RTT, CORRECTED, NATIVE, NATIVE_RAW, WIRE, NATIVE_WIRE)
"""The same series, in the order in which people read them."""

OUTBOUND, INBOUND = (
    Series(segment.name, CONTAINER_TRACED, segment.column, segment.meaning)
    for segment in ledger.CROSSINGS
)
QUANTITIES = (*SHOWN, OUTBOUND, INBOUND)
"""What ``maceproc compare`` compares between captures, ping by ping."""

MEANING = {series.name: series.meaning for series in SHOWN}
"""What each series is, by its name, in the order in which people read them."""


class Difference(NamedTuple):
    """The difference between the medians of two series of one capture."""

    name: str
    series: Series
    against: Series
    meaning: str


PERTURBATION = Difference(
    "perturbation", RAW, UNTRACED, "what tracing added to the container's RTT"
)
NATIVE_PERTURBATION = Difference(
    "perturbation, native", NATIVE_RAW, NATIVE, "what tracing added to the native RTT"
)
OVERHEAD = Difference("container overhead", UNTRACED, NATIVE, "container - native, both untraced")
REMAINDER = Difference("corrected - native", CORRECTED, NATIVE, "what the correction leaves")
DIFFERENCES = (PERTURBATION, NATIVE_PERTURBATION, OVERHEAD, REMAINDER)
"""Every difference, in the order of the table COMPARISONS."""

DIFFERENCE_MEANING = {difference.name: difference.meaning for difference in DIFFERENCES}
