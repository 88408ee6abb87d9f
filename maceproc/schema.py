"""The tables: every column with its dtype, unit and meaning, declared once.

Code, JSON, Parquet and documentation use these names. Times are int64 nanoseconds on the trace
clock unless the name says UTC. A nullable dtype (``Int64``, ``UInt64``) marks a column that can be
unknown. Addresses are never float64: for kernel addresses its step is 2048, so two packets could
get one address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maceproc import ledger

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Version of the tables and of ``analyze --json``; grows when a column changes its meaning."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    dtype: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table: its name, what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        """Return the column of that name; KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return [column.name for column in self.columns]

    def frame(self, data: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Build a DataFrame with exactly these columns and dtypes; without data, an empty one.

        Arrays that have the dtype are not copied. Raises KeyError when a column is missing and
        ValueError when a value does not fit.
        """
        import pandas as pd

        if data is None:
            data = {name: [] for name in self.names}
        # The rows of a pandas Series count by position, not by its index.
        values = {name: getattr(data[name], "array", data[name]) for name in self.names}
        columns = {
            c.name: pd.Series(values[c.name], dtype=c.dtype, copy=False) for c in self.columns
        }
        return pd.DataFrame(columns, copy=False)

    def from_rows(self, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
        """Build a DataFrame from rows with a value for every column, in order."""
        return self.frame({name: [row[i] for row in rows] for i, name in enumerate(self.names)})


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows for JSON: every kind of missing value is None, fractions have 3 digits.

    Addresses (uint64) become hexadecimal strings, because most readers of JSON keep only 53 bits.
    """
    wide = [name for name in table if str(table[name].dtype).lower() == "uint64"]
    table = table.assign(**{name: table[name].map("{:#x}".format) for name in wide})
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=3))
    return rows


@dataclass(frozen=True, eq=False)
class Trace:
    """What a reader returns, whatever the file format.

    Attributes
    ----------
    events
        Per event name (``net_dev_queue``, without its system) a DataFrame in time order: the
        columns of `EVENTS`, then the event's own fields under the kernel's names. Integer fields
        keep the kernel's width and sign, pointers are uint64, strings are categoricals.
    lost
        The `LOST` table.
    clock
        The trace clock's name (``mono``, ``local``, ...); empty when the file does not say.
    info
        What else the file tells about itself (version, compression, CPUs, uname, ...).
    notes
        What was found wrong while reading (truncated file, skipped lines), one sentence each.
    """

    events: Mapping[str, pd.DataFrame]
    lost: pd.DataFrame
    clock: str
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _segment(segment: ledger.Segment) -> Column:
    return Column(segment.column, "Int64", "ns", segment.meaning)


EVENTS = Table(
    "events",
    "one tracepoint hit",
    (
        Column("time_ns", "int64", "ns", "trace clock"),
        Column("cpu", "int32", "", "CPU it was recorded on"),
        Column("pid", "int32", "", "task that ran; in softirq, the task that was interrupted"),
        Column("flags", "uint8", "", "common_flags: 0x08 hardirq, 0x10 softirq, ..."),
        Column("comm", "category", "", "command name of the pid; <...> when unknown"),
    ),
)

LOST = Table(
    "lost",
    "one gap in one CPU's ring buffer",
    (
        Column("buffer", "category", "", "buffer instance; empty for the top one"),
        Column("cpu", "int32", "", "CPU whose events were lost"),
        Column("after_ns", "Int64", "ns", "last event before the gap; unknown at the start"),
        Column("before_ns", "Int64", "ns", "first event after the gap; unknown at the end"),
        Column("count", "Int64", "", "number of events lost; unknown when the kernel did not say"),
    ),
)

PINGS = Table(
    "pings",
    "one echo request: replied to, or known to have been sent",
    (
        Column("round", "int64", "", "round of the recording, from 1"),
        Column("arm", "category", "", "container traced, container untraced, native untraced, ..."),
        Column("target", "str", "", "what was pinged, as printed; empty when not known"),
        Column("seq", "int64", "", "icmp_seq, counted on where it wraps at 65536"),
        Column("rtt_ns", "Int64", "ns", "RTT as printed; unknown when none was"),
        Column("rtt_resolution_ns", "Int64", "ns", "step of the printed RTT"),
        Column("received_at_ns", "Int64", "ns", "UTC, as ping -D prints it"),
        Column("size_bytes", "Int64", "byte", "ICMP message that came back"),
        Column("ttl", "Int64", "", "time to live of the reply"),
        Column("status", "category", "", "replied, duplicate, error, unanswered or unprinted"),
        Column("message", "str", "", "what ping said instead of a time"),
    ),
)

HOPS = Table(
    "hops",
    "one event of a journey",
    (
        Column("journey", "int64", "", "journey it belongs to"),
        Column("hop", "int32", "", "position within the journey, from 0"),
        Column("skbaddr", "uint64", "", "address of the packet's sk_buff"),
        Column("event", "category", "", "the kernel's name of the event"),
        Column("dev", "category", "", "device name; missing where the event names none"),
        Column("netns", "category", "", "namespace of the device; missing when not known"),
        Column("time_ns", "int64", "ns", "trace clock"),
        Column("cpu", "int32", "", "CPU it was recorded on"),
        Column("pid", "int32", "", "task that ran; in softirq, the task that was interrupted"),
        Column("softirq", "bool", "", "in softirq, not in the task's own system call"),
        Column("len", "int64", "byte", "skb->len; 0 where the event has none"),
    ),
)

JOURNEYS = Table(
    "journeys",
    "one life of one packet",
    (
        Column("journey", "int64", "", "number, in order of address and time"),
        Column("skbaddr", "uint64", "", "address of the packet's sk_buff"),
        Column("hops", "int64", "", "number of its events"),
        Column("start_ns", "int64", "ns", "first hop"),
        Column("end_ns", "int64", "ns", "last hop"),
    ),
)

CROSSINGS = Table(
    "crossings",
    "one packet between the container's device and the outer device",
    (
        Column("journey", "int64", "", "journey it is part of"),
        Column("direction", "category", "", "outbound or inbound, seen from the container"),
        Column("entered_ns", "Int64", "ns", "queued on the first device, or received there"),
        Column("left_ns", "Int64", "ns", "the same point of the stack on the last device"),
        Column("latency_ns", "Int64", "ns", "left_ns - entered_ns"),
        Column("wire_ns", "Int64", "ns", "outer device: handed to its driver, or first received"),
        Column("peer", "category", "", "the host's end of the container's veth pair"),
        Column("len", "int64", "byte", "skb->len where it was first seen"),
        Column("pid", "int32", "", "task in whose context it was first seen"),
        Column("softirq", "bool", "", "first seen in softirq, not in the task's own system call"),
        Column("first_hop", "int64", "", "row of HOPS where it was first seen"),
        Column("last_hop", "int64", "", "row of HOPS where it was last seen"),
        Column("status", "category", "", "complete or incomplete"),
        Column("reason", "str", "", "what is missing"),
    ),
)

SENDS = Table(
    "sends",
    "one system call that sends a packet",
    (
        Column("time_ns", "int64", "ns", "entry of the system call"),
        Column("pid", "int32", "", "task that sends"),
        Column("fd", "int64", "", "its socket"),
        Column("len", "Int64", "byte", "payload, from the ICMP header on; unknown for sendmsg"),
    ),
)

DELIVERIES = Table(
    "deliveries",
    "one system call that received a packet",
    (
        Column("time_ns", "int64", "ns", "return of the system call"),
        Column("pid", "int32", "", "task that received"),
        Column("ret", "int64", "byte", "length received"),
    ),
)

RTTS = Table(
    "rtts",
    "one ping, corrected or with the reason why not",
    (
        *(PINGS[name] for name in ("round", "arm", "target", "seq")),
        *(PINGS[name] for name in ("rtt_ns", "rtt_resolution_ns")),
        Column(
            "kernel_rtt_ns",
            "Int64",
            "ns",
            "receive time stamp - entry of the send call (BPF: queue)",
        ),
        Column("bare_metal_rtt_ns", "Int64", "ns", "RTT without the crossings, see rtt_basis"),
        Column("native_rtt_ns", "Int64", "ns", "what this host's own ping would have printed"),
        Column("rtt_basis", "category", "", "the RTT corrected: printed, or kernel if too coarse"),
        _segment(ledger.WIRE),
        _segment(ledger.TX_STACK),
        _segment(ledger.OUTBOUND),
        _segment(ledger.OUTER_QUEUE),
        _segment(ledger.INBOUND),
        _segment(ledger.DELIVERY),
        _segment(ledger.RESIDUAL),
        Column("sent_ns", "Int64", "ns", "entry of the send call, trace clock"),
        Column("received_ns", "Int64", "ns", "receive time stamp, trace clock"),
        Column("outbound_journey", "Int64", "", "journey of the request"),
        Column("inbound_journey", "Int64", "", "journey of the reply"),
        Column(
            "matched_by",
            "category",
            "",
            "what tells the reply: `maceproc.following.replies.MATCHED_BY`",
        ),
        Column("causes", "str", "", "what delayed it, as far as events show"),
        Column(
            "status", "category", "", "what became of it: `maceproc.following.verdicts.STATUSES`"
        ),
        Column("reason", "str", "", "why it has that status, in words"),
        Column(
            "rule",
            "category",
            "",
            "the rule that decided it: `maceproc.following.verdicts.RULES`",
        ),
    ),
)

WITNESSED = Table(
    "witnessed",
    "one match of packets, checked against what the packets carry",
    (
        Column("check", "category", "", "outbound, inbound, request or reply"),
        Column("round", "int64", "", "round of the recording; 0 where no ping is meant"),
        Column("seq", "int64", "", "icmp_seq of the ping, or that the packet carries"),
        Column("journey", "int64", "", "journey that was matched"),
        Column("outcome", "category", "", "right, wrong or not witnessed"),
    ),
)

SERIES = Table(
    "series",
    "one way of looking at the pings: raw, corrected, native, ...",
    (
        Column("series", "str", "", "name of the series"),
        Column("arm", "str", "", "arm the pings are from"),
        Column("column", "str", "", "column of RTTS the values are from"),
        Column("used", "int64", "", "pings with a value"),
        Column("of", "int64", "", "pings that were answered"),
        Column("median_ns", "float64", "ns", "median"),
        Column("mean_ns", "float64", "ns", "mean"),
        Column("sd_ns", "float64", "ns", "standard deviation"),
        Column("p5_ns", "float64", "ns", "5th percentile"),
        Column("p95_ns", "float64", "ns", "95th percentile"),
    ),
)

COMPARISONS = Table(
    "comparisons",
    "difference between the medians of two series",
    (
        Column("comparison", "str", "", "perturbation, overhead or residual error"),
        Column("series", "str", "", "the series that is compared"),
        Column("against", "str", "", "the series it is compared with"),
        Column("estimate_ns", "float64", "ns", "median of the first minus median of the second"),
        Column("low_ns", "float64", "ns", "lower end of the 95 % interval"),
        Column("high_ns", "float64", "ns", "upper end of the 95 % interval"),
        Column("rounds", "int64", "", "rounds that have both"),
        Column("resampled", "str", "", "what the interval comes from: rounds or pings"),
        Column("margin_ns", "float64", "ns", "smallest margin they are equivalent within, 95 %"),
        Column("refused", "str", "", "why it is no evidence: the machine changed; empty when not"),
    ),
)

CLOSURE = Table(
    "closure",
    "one term of what is between a corrected RTT and the native one",
    (
        Column("term", "str", "", "its name"),
        Column("estimate_ns", "float64", "ns", "mean over the rounds of the difference of medians"),
        Column("low_ns", "float64", "ns", "lower end of its 95 % interval"),
        Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("rounds", "int64", "", "rounds it rests on"),
        Column("share", "float64", "", "of the container's overhead; unknown if that is not told"),
        Column("meaning", "str", "", "what it is, in words"),
    ),
)

EVENTS_ON_PATH = Table(
    "events_on_path",
    "one traced ping, and the events recorded while it was on its way",
    (
        PINGS["round"],
        Column("arm", "category", "", "container traced or native traced"),
        PINGS["seq"],
        Column("events", "int64", "", "on its path: where its packets were handled in this kernel"),
        Column("events_inside", "int64", "", "of these, within the crossings"),
        Column("events_outside", "int64", "", "of these, before, between and after them"),
        Column("events_wire", "int64", "", "while on the wire; on the path if the remote is here"),
        Column("events_anywhere", "int64", "", "on every CPU, until the receive stamp"),
    ),
)

EVENT_COSTS = Table(
    "event_costs",
    "what the events of one traced arm cost its pings",
    (
        Column("arm", "str", "", "container traced or native traced"),
        Column("pings", "int64", "", "pings whose events were counted"),
        Column("events", "float64", "", "mean number of events on a ping's path"),
        Column("events_inside", "float64", "", "of these, within the crossings"),
        Column("events_anywhere", "float64", "", "mean number of events on every CPU"),
        Column("cost_ns", "float64", "ns", "what they add to the RTT"),
        Column("low_ns", "float64", "ns", "lower end of its 95 % interval"),
        Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("cost_per_event_ns", "float64", "ns", "cost divided by the events on the path"),
        Column("left_ns", "float64", "ns", "share of the cost that the correction leaves"),
        Column("share", "float64", "", "cost divided by the untraced RTT"),
        Column("basis", "str", "", "measured against untraced runs, or assumed per event"),
        Column("verdict", "str", "", "negligible, small, large, or why that is not told"),
    ),
)

STEPS = Table(
    "steps",
    "one step of the corrected pings' way, from one event to the next",
    (
        Column("direction", "str", "", "outbound or inbound, seen from the container"),
        Column("step", "int64", "", "position on the way, from 0"),
        Column("start", "str", "", "namespace:device event where it begins"),
        Column("end", "str", "", "namespace:device event where it ends"),
        Column("used", "int64", "", "pings that took it"),
        Column("median_ns", "float64", "ns", "median"),
        Column("p95_ns", "float64", "ns", "95th percentile"),
        Column("segment", "str", "", "segment of the ledger it is part of"),
    ),
)

FINDINGS = Table(
    "findings",
    "one reason to doubt a result, or a thing to know about it",
    (
        Column("finding", "str", "", "its name"),
        Column("level", "str", "", "note, warning or problem"),
        Column("message", "str", "", "what was found, with numbers"),
        Column("advice", "str", "", "what to do about it"),
    ),
)
