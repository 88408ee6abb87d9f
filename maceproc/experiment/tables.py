"""The tables of an experiment, declared as those of a capture are in `maceproc.schema`."""

from __future__ import annotations

from dataclasses import replace

from maceproc.ledger import LEDGER
from maceproc.schema import RTTS, Column, Table

_LEVEL = Column("flows", "int64", "", "background flows")
_TRACER = Column("tracer", "str", "", "what watched; empty where nothing did")
_PLACE = Column("place", "str", "", "container or native")
_COMPARISON = Column("comparison", "str", "", "its name")
_ESTIMATE = Column("estimate_ns", "float64", "ns", "mean over the rounds")
_LOW = Column("low_ns", "float64", "ns", "lower end of its 95 % interval")
_HIGH = Column("high_ns", "float64", "ns", "upper end of its 95 % interval")
_ROUNDS = Column("rounds", "int64", "", "rounds it rests on")
_INTERVAL = (
    _ESTIMATE,
    _LOW,
    _HIGH,
    _ROUNDS,
    Column("resampled", "str", "", "what the interval comes from: rounds, pings or nothing"),
    Column("margin_ns", "float64", "ns", "smallest margin within which it is equivalent to 0"),
)

PINGS = Table(
    "pings",
    "one ping of the experiment",
    (
        _LEVEL,
        Column("round", "int64", "", "round, from 1"),
        replace(_PLACE, dtype="category"),
        replace(_TRACER, dtype="category"),
        Column("seq", "int64", "", "icmp_seq"),
        Column("started_ns", "int64", "ns", "begin of the run it is part of, CLOCK_MONOTONIC"),
        Column("rtt_ns", "Int64", "ns", "RTT as printed; unknown when none was"),
        Column("rtt_resolution_ns", "Int64", "ns", "step of the printed RTT"),
        Column("bare_metal_rtt_ns", "Int64", "ns", "RTT without the crossings"),
        *(RTTS[segment.column] for segment in LEDGER),
        Column("events", "Int64", "", "events on its path"),
        Column("events_inside", "Int64", "", "of these, within the crossings"),
        Column("events_anywhere", "Int64", "", "events on every CPU meanwhile"),
        Column("status", "category", "", "what became of it: `maceproc.following.rtts.STATUSES`"),
        Column("reason", "str", "", "why it has that status, in words"),
    ),
)

SERIES = Table(
    "series",
    "one statistic of one series at one level of traffic",
    (
        _LEVEL,
        Column("series", "str", "", "native untraced, container corrected, ..."),
        _TRACER,
        Column("statistic", "str", "", "median, mean or sd of a round"),
        Column("used", "int64", "", "pings with a value"),
        Column("of", "int64", "", "pings that were answered"),
        Column("effective", "float64", "", "independent pings that would tell as much"),
        *_INTERVAL,
    ),
)

COMPARISONS = Table(
    "comparisons",
    "one difference between series at one level of traffic",
    (
        _LEVEL,
        _COMPARISON,
        _TRACER,
        Column("statistic", "str", "", "of what in each round: median or mean"),
        *_INTERVAL,
        Column("refused", "str", "", "why it is no evidence: the machine changed; empty when not"),
    ),
)

COST_RATIOS = Table(
    "cost_ratios",
    "what the first tracer adds to the container's median RTT, against what another adds",
    (
        _LEVEL,
        _TRACER,
        Column("other", "str", "", "the tracer it is held against"),
        Column("ratio", "float64", "", "of the means over rounds; unknown if other adds nothing"),
        replace(_LOW, name="low", unit=""),
        replace(_HIGH, name="high", unit=""),
        _ROUNDS,
    ),
)

SHIFTS = Table(
    "shifts",
    "one decile of the difference of two series' distributions",
    (
        _LEVEL,
        _COMPARISON,
        Column("quantile", "float64", "", "0.1 to 0.9"),
        _ESTIMATE,
        Column("low_ns", "float64", "ns", "lower end of a 95 % band that holds all nine"),
        Column("high_ns", "float64", "ns", "upper end of that band"),
    ),
)

SEGMENTS = Table(
    "segments",
    "one segment of the ledger that container and native pings share",
    (
        _LEVEL,
        Column("segment", "str", "", "tx stack, outer queue, wire, delivery or residual"),
        Column("container_ns", "float64", "ns", "mean over the container's traced pings"),
        Column("native_ns", "float64", "ns", "mean over the native traced pings"),
        *_INTERVAL,
    ),
)

EVENT_COSTS = Table(
    "event_costs",
    "what one event costs in one place at one level of traffic",
    (
        _LEVEL,
        _PLACE,
        Column("cost_ns", "float64", "ns", "slope of the RTT on the events on the path"),
        _LOW,
        _HIGH,
        Column("zero_ns", "float64", "ns", "RTT of the traced runs extrapolated to no events"),
        Column("untraced_ns", "float64", "ns", "RTT measured without events"),
        Column("off_ns", "float64", "ns", "zero_ns - untraced_ns"),
        replace(_LOW, name="off_low_ns"),
        replace(_HIGH, name="off_high_ns"),
        Column("supported", "bool", "", "the extrapolation finds the untraced RTT"),
    ),
)

EVENTS = Table(
    "events",
    "the events on the path of one tracer's pings",
    (
        _LEVEL,
        _PLACE,
        _TRACER,
        Column("events", "float64", "", "mean per ping"),
        Column("events_inside", "float64", "", "of these, within the crossings"),
        Column("events_anywhere", "float64", "", "on every CPU meanwhile"),
        Column("recorded", "float64", "", "events recorded during a run, for each of its pings"),
        Column("lost", "int64", "", "events the ring buffer lost, in both places together"),
    ),
)

RATES = Table(
    "rates",
    "the traffic of one level",
    (
        _LEVEL,
        Column("blocks", "int64", "", "blocks it was measured in"),
        Column("packets_per_s", "float64", "1/s", "requests of all flows; unknown if not said"),
    ),
)
