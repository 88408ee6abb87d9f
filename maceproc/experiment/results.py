"""From the captures of an experiment to its tables; nothing but its files is needed.

Estimates are means over rounds, with intervals from resampling rounds: `maceproc.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.capture import Sidecar, open_capture
from maceproc.errors import CaptureError
from maceproc.experiment.plan import Block, Experiment, file_name, finished, load_experiment
from maceproc.experiment.run import TRAFFIC_FILE
from maceproc.experiment.traffic import load_reports
from maceproc.following import event_costs as observer
from maceproc.following.follow import EVENTS_USED, follow_pings
from maceproc.following.perturbation import spread_ties
from maceproc.schema import FINDINGS, Column, Table
from maceproc.statistics import NOTHING, ROUNDS_TO_RESAMPLE, Estimate, Statistic
from maceproc.tracedat import read_events
from maceproc.units import NS_PER_US, format_us

_INTERVAL = (
    Column("estimate_ns", "float64", "ns", "mean over the rounds"),
    Column("low_ns", "float64", "ns", "lower end of its 95 % interval"),
    Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
    Column("rounds", "int64", "", "rounds it rests on"),
    Column("resampled", "str", "", "what the interval comes from: rounds, pings or nothing"),
    Column("margin_ns", "float64", "ns", "smallest margin within which it is equivalent to 0"),
)
_LEVEL = Column("flows", "int64", "", "background flows")
_TRACER = Column("tracer", "str", "", "what watched; empty where nothing did")

PINGS = Table(
    "pings",
    "one ping of the experiment",
    (
        _LEVEL,
        Column("round", "int64", "", "round, from 1"),
        Column("place", "category", "", "container or native"),
        Column("tracer", "category", "", "what watched; empty where nothing did"),
        Column("seq", "int64", "", "icmp_seq"),
        Column("started_ns", "int64", "ns", "begin of the run it is part of, CLOCK_MONOTONIC"),
        Column("rtt_ns", "Int64", "ns", "RTT as printed; unknown when none was"),
        Column("rtt_resolution_ns", "Int64", "ns", "step of the printed RTT"),
        Column("bare_metal_rtt_ns", "Int64", "ns", "RTT without the crossings"),
        Column("tx_stack_ns", "Int64", "ns", "send call to the first device's queue"),
        Column("outbound_ns", "Int64", "ns", "outbound crossing"),
        Column("outer_queue_ns", "Int64", "ns", "outer device: queue to driver"),
        Column("wire_rtt_ns", "Int64", "ns", "outer device: first receive event - driver's send"),
        Column("inbound_ns", "Int64", "ns", "inbound crossing"),
        Column("delivery_ns", "Int64", "ns", "receive event to the stamp; 0 if the kernel took it"),
        Column("residual_ns", "Int64", "ns", "RTT - all segments: what the events do not show"),
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
        Column("series", "str", "", "native control, container corrected, ..."),
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
        Column("comparison", "str", "", "its name"),
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
        Column("low", "float64", "", "lower end of its 95 % interval"),
        Column("high", "float64", "", "upper end of its 95 % interval"),
        Column("rounds", "int64", "", "rounds it rests on"),
    ),
)

SHIFTS = Table(
    "shifts",
    "one decile of the difference of two series' distributions",
    (
        _LEVEL,
        Column("comparison", "str", "", "its name"),
        Column("quantile", "float64", "", "0.1 to 0.9"),
        Column("estimate_ns", "float64", "ns", "mean over the rounds"),
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
        Column("place", "str", "", "container or native"),
        Column("cost_ns", "float64", "ns", "slope of the RTT on the events on the path"),
        Column("low_ns", "float64", "ns", "lower end of its 95 % interval"),
        Column("high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("zero_ns", "float64", "ns", "RTT of the traced runs extrapolated to no events"),
        Column("untraced_ns", "float64", "ns", "RTT measured without events"),
        Column("off_ns", "float64", "ns", "zero_ns - untraced_ns"),
        Column("off_low_ns", "float64", "ns", "lower end of its 95 % interval"),
        Column("off_high_ns", "float64", "ns", "upper end of its 95 % interval"),
        Column("supported", "bool", "", "the extrapolation finds the untraced RTT"),
    ),
)

EVENTS = Table(
    "events",
    "the events on the path of one tracer's pings",
    (
        _LEVEL,
        Column("place", "str", "", "container or native"),
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

# Zero events explain the untraced RTT when they are equivalent within the larger of these.
SUPPORT_NS, SUPPORT_SHARE = 1 * NS_PER_US, 0.05
WANTED_NS = 1 * NS_PER_US  # the precision that the rounds needed are told for

STATISTICS: Mapping[str, Statistic] = {
    "median": statistics.median,
    "mean": statistics.mean,
    "sd": statistics.deviation,
}


class Source(NamedTuple):
    """Where a series comes from: place, traced or not, and the column of PINGS."""

    place: str
    traced: bool
    column: str


# The paper's series. A native ping crosses nothing: corrected, it is what it was, which leaves in
# it what the tracer costs outside of crossings.
SOURCES: Mapping[str, Source] = {
    "native control": Source("native", False, "rtt_ns"),
    "native monitored": Source("native", True, "rtt_ns"),
    "native corrected": Source("native", True, "bare_metal_rtt_ns"),
    "native untraced": Source("native", True, "untraced_rtt_ns"),
    "native wire": Source("native", True, "wire_rtt_ns"),
    "native off the wire": Source("native", True, "off_wire_ns"),
    "container control": Source("container", False, "rtt_ns"),
    "container monitored": Source("container", True, "rtt_ns"),
    "container corrected": Source("container", True, "bare_metal_rtt_ns"),
    "container untraced": Source("container", True, "untraced_rtt_ns"),
    "container wire": Source("container", True, "wire_rtt_ns"),
    "container off the wire": Source("container", True, "off_wire_ns"),
}
# In the order of the way; they add up to the corrected RTT.
SHARED_SEGMENTS: Mapping[str, str] = {
    "tx stack": "tx_stack_ns",
    "outer queue": "outer_queue_ns",
    "wire": "wire_rtt_ns",
    "delivery": "delivery_ns",
    "residual": "residual_ns",
}

# name -> series with their signs; of one tracer, where it is traced.
CONTRASTS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "container overhead": (("container control", 1), ("native control", -1)),
    "perturbation, native": (("native monitored", 1), ("native control", -1)),
    "perturbation, container": (("container monitored", 1), ("container control", -1)),
    "perturbation inside the crossings": (
        ("container monitored", 1),
        ("container control", -1),
        ("native monitored", -1),
        ("native control", 1),
    ),
    "corrected - native control": (("container corrected", 1), ("native control", -1)),
    "corrected - native corrected": (("container corrected", 1), ("native corrected", -1)),
    "untraced - native control": (("container untraced", 1), ("native control", -1)),
    "the same, off the wire": (("container off the wire", 1), ("native off the wire", -1)),
    "wire, container - native": (("container wire", 1), ("native wire", -1)),
}


@dataclass(frozen=True)
class Results:
    """An experiment's tables; each is computed when it is first asked for."""

    directory: Path
    experiment: Experiment
    blocks: list[Block]  # those that are finished
    raw_pings: pd.DataFrame
    events: pd.DataFrame

    @cached_property
    def event_costs(self) -> pd.DataFrame:
        """What an event costs, by place and level: `EVENT_COSTS`."""
        return event_costs(self.raw_pings)

    @cached_property
    def pings(self) -> pd.DataFrame:
        """Every ping: `PINGS`, and two columns more [ns].

        `off_wire_ns` is the corrected RTT without the wire: what this host took. `untraced_rtt_ns`
        is the corrected RTT without what the events outside the crossings cost, where the cost of
        an event is known well enough.
        """
        pings = add_untraced(self.raw_pings, self.event_costs)
        return pings.assign(off_wire_ns=pings["bare_metal_rtt_ns"] - pings["wire_rtt_ns"])

    @cached_property
    def values(self) -> Values:
        """The values of every series, by level, tracer and round."""
        return Values(self.pings)

    @cached_property
    def series(self) -> pd.DataFrame:
        """Location and spread of every series: `SERIES`."""
        return SERIES.from_rows(list(_series_rows(self)))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Every difference between series: `COMPARISONS`."""
        return COMPARISONS.from_rows(list(_comparison_rows(self)))

    @cached_property
    def cost_ratios(self) -> pd.DataFrame:
        """What the first tracer costs against every other: `COST_RATIOS`."""
        return COST_RATIOS.from_rows(list(_cost_ratio_rows(self)))

    @cached_property
    def shifts(self) -> pd.DataFrame:
        """Differences of the deciles: `SHIFTS`."""
        return SHIFTS.from_rows(list(_shift_rows(self)))

    @cached_property
    def segments(self) -> pd.DataFrame:
        """Where corrected and native RTTs of the first tracer differ: `SEGMENTS`."""
        return SEGMENTS.from_rows(list(_segment_rows(self)))

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The traffic of every level: `RATES`."""
        return RATES.from_rows(list(_rate_rows(self)))

    @cached_property
    def findings(self) -> pd.DataFrame:
        """Reasons to doubt the results: `maceproc.schema.FINDINGS`."""
        return FINDINGS.from_rows(list(_doubts(self)))

    @property
    def rounds(self) -> int:
        """How many rounds are finished, at one level at least."""
        return len({block.round for block in self.blocks})

    @property
    def tracer(self) -> str:
        """The tracer that the corrected series are of: the first one."""
        return self.experiment.plan.tracers[0]

    def comparison(
        self, flows: int, name: str, tracer: str = "", statistic: str = "median"
    ) -> Estimate:
        """Return one difference; `statistics.NOTHING` when it was not measured."""
        table = self.comparisons
        found = table[
            (table["flows"] == flows)
            & (table["comparison"] == name)
            & (table["tracer"] == tracer)
            & (table["statistic"] == statistic)
        ]
        columns = list(Estimate._fields)
        return Estimate(*found[columns].iloc[0]) if len(found) else NOTHING


def read_results(directory: Path, tell: Callable[[int, int], None] = lambda *_: None) -> Results:
    """Read the captures of an experiment, and follow the packets of each.

    `tell` is told how many captures are read, of how many. Raises CaptureError when there is no
    experiment or no finished block.
    """
    experiment = load_experiment(directory)
    kept = finished(directory)
    blocks = [block for block in experiment.blocks() if (block.round, block.flows) in kept]
    if not blocks:
        raise CaptureError(
            f"{directory}: no block is finished", hint="run the experiment first, or further"
        )
    tables: list[pd.DataFrame] = []
    counts: list[pd.DataFrame] = []
    total = len(blocks) * len(experiment.plan.tracers)
    for block in blocks:
        for tracer in experiment.plan.tracers:
            tell(len(tables), total)
            path = directory / block.path / file_name(tracer)
            rows, recorded = _read_capture(path, block.flows, tracer)
            if tracer != experiment.plan.tracers[0]:
                rows = rows[rows["tracer"] != ""]  # the untraced runs are in each of them
            tables.append(rows)
            counts.append(recorded.assign(flows=block.flows, tracer=tracer))
    tell(total, total)
    pings = PINGS.frame(pd.concat(tables, ignore_index=True))
    events = _events_table(pings, pd.concat(counts, ignore_index=True))
    return Results(directory, experiment, blocks, pings, events)


def _read_capture(path: Path, flows: int, tracer: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the PINGS of one capture, and how many events it recorded and lost, by place."""
    capture = open_capture(path)
    if capture.sidecar is None:
        raise CaptureError(f"{path}: its sidecar is missing", hint="remove the block; run again")
    trace = read_events(path, events=EVENTS_USED)
    followed = follow_pings(capture, trace)
    rtts = followed.rtts
    times = observer.times_by_cpu(read_events(path, fields=()).events)
    seen = observer.count_events(rtts, followed.hops, times)
    counts = ["events", "events_inside", "events_anywhere"]
    rows = rtts.merge(
        seen[["round", "arm", "seq", *counts]], how="left", on=["round", "arm", "seq"]
    )
    rows[counts] = rows[counts].astype("Int64")
    arm = rows["arm"].astype(str)
    started = {(run.round, run.arm): run.start_ns for run in capture.sidecar.runs}
    native = (rows["status"] == "native").to_numpy()
    bare_ns = rows["bare_metal_rtt_ns"].mask(native, rows["rtt_ns"])
    rows = rows.assign(
        flows=flows,
        place=arm.str.partition(" ")[0],
        tracer=np.where(arm.str.endswith(" traced"), tracer, ""),
        started_ns=[started[key] for key in zip(rows["round"], arm, strict=True)],
        bare_metal_rtt_ns=bare_ns,
    )
    return rows[PINGS.names], _recorded(capture.sidecar, times)


def _recorded(sidecar: Sidecar, times: Mapping[int, observer.Times]) -> pd.DataFrame:
    lost = sum(sidecar.tracing.events_lost.values())
    traced = [run for run in sidecar.runs if run.traced]
    rows = []
    for run in traced:
        span = (run.start_ns, run.end_ns)
        during = sum(int(np.diff(np.searchsorted(t, span))[0]) for t in times.values())
        rows.append((run.place, during, lost / len(traced)))
    return pd.DataFrame(rows, columns=["place", "recorded", "lost"])


def _events_table(pings: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
    columns = ["events", "events_inside", "events_anywhere"]
    traced = pings[pings["tracer"] != ""].astype({"place": str, "tracer": str})
    group = ["flows", "place", "tracer"]
    grouped = traced.astype(dict.fromkeys(columns, "float64")).groupby(group)
    table = grouped[columns].mean()
    totals = recorded.groupby(group)[["recorded", "lost"]].sum()
    table["recorded"] = totals["recorded"] / grouped.size()
    table["lost"] = totals.groupby(["flows", "tracer"])["lost"].transform("sum").round().astype(int)
    return EVENTS.frame(table.reset_index())


class Values:
    """The values of every series, round by round; printed ones with their ties spread."""

    def __init__(self, pings: pd.DataFrame) -> None:
        self.levels = sorted(int(flows) for flows in pings["flows"].unique())
        self.tracers = [name for name in pings["tracer"].cat.categories if name]
        groups = pings.groupby(["flows", "place", "tracer"], observed=True, sort=False)
        self._rows = dict(iter(groups))

    def rows(self, flows: int, series: str, tracer: str = "") -> pd.DataFrame:
        """Return the rows of PINGS that a series is taken from; of a control, the untraced ones."""
        source = SOURCES[series]
        key = (flows, source.place, tracer if source.traced else "")
        return self._rows.get(key, next(iter(self._rows.values())).iloc[:0])

    def table(self, flows: int, series: str, tracer: str = "") -> pd.DataFrame:
        """Return columns ``round`` and ``value_ns`` of the pings that have a value."""
        rows, column = self.rows(flows, series, tracer), SOURCES[series].column
        rows = rows[rows[column].notna() & (rows["status"] != "duplicate")]
        value_ns = rows[column].astype("float64")
        if column in ("rtt_ns", "bare_metal_rtt_ns") and not _is_corrected(series):
            value_ns = spread_ties(value_ns, rows["rtt_resolution_ns"], rows["round"])
        return pd.DataFrame({"round": rows["round"], "value_ns": value_ns})

    def by_round(self, flows: int, series: str, tracer: str = "") -> dict[int, statistics.Values]:
        """Return the values of every round."""
        table = self.table(flows, series, tracer)
        return {
            int(number): values.to_numpy() for number, values in table.groupby("round")["value_ns"]
        }

    def started(self, flows: int, series: str, tracer: str = "") -> pd.Series:
        """Return when the series' run of each round began [ns]."""
        return self.rows(flows, series, tracer).groupby("round")["started_ns"].first()


def _is_corrected(series: str) -> bool:
    """Tell whether a series' values have nanoseconds, though ping prints microseconds."""
    return series in ("container corrected", "container untraced", "native untraced")


def _tracers_of(results: Results, names: Sequence[str]) -> list[str]:
    traced = any(SOURCES[name].traced for name in names)
    return results.experiment.plan.tracers if traced else [""]


def _series_rows(results: Results) -> Iterator[tuple[object, ...]]:
    values = results.values
    for flows in values.levels:
        for name in SOURCES:
            for tracer in _tracers_of(results, [name]):
                samples = list(values.by_round(flows, name, tracer).values())
                samples = [sample for sample in samples if len(sample) > 1]
                rows = values.rows(flows, name, tracer)
                answered = int((rows["rtt_ns"].notna() & (rows["status"] != "duplicate")).sum())
                used = sum(map(len, samples))
                if not used:
                    continue
                effective = sum(map(statistics.effective_size, samples))
                for statistic, function in STATISTICS.items():
                    estimate = statistics.location(samples, function)
                    yield (flows, name, tracer, statistic, used, answered, effective, *estimate)


def _comparison_rows(results: Results) -> Iterator[tuple[object, ...]]:
    values = results.values
    for flows in values.levels:
        for name, terms in CONTRASTS.items():
            for tracer in _tracers_of(results, [series for series, _ in terms]):
                refused = _refusal(results, flows, terms, tracer)
                for statistic in ("median", "mean"):
                    found = contrast(values, flows, terms, tracer, STATISTICS[statistic])
                    if found.rounds:
                        told = refused(found)
                        yield (flows, name, tracer, statistic, *found, told)


def contrast(
    values: Values,
    flows: int,
    terms: Sequence[tuple[str, int]],
    tracer: str,
    statistic: Statistic = statistics.median,
) -> Estimate:
    """Estimate a sum of series with signs, from the rounds that have all of them."""
    sums = sums_by_round(values, flows, terms, tracer, statistic)
    if len(sums) < ROUNDS_TO_RESAMPLE and len(terms) == 2:
        first, second = (values.by_round(flows, series, tracer) for series, _ in terms)
        return statistics.difference([(first[n], second[n]) for n in sums], statistic)
    return statistics.estimate_rounds(np.array(list(sums.values())))


def sums_by_round(
    values: Values,
    flows: int,
    terms: Sequence[tuple[str, int]],
    tracer: str,
    statistic: Statistic = statistics.median,
) -> dict[int, float]:
    """Return a sum of series with signs for each round that has all of them [ns]."""
    samples = [(sign, values.by_round(flows, series, tracer)) for series, sign in terms]
    rounds = set.intersection(*(set(by_round) for _, by_round in samples))
    return {
        n: sum(sign * float(statistic(by_round[n])) for sign, by_round in samples)
        for n in sorted(rounds)
    }


def _cost_ratio_rows(results: Results) -> Iterator[tuple[object, ...]]:
    first, *others = results.experiment.plan.tracers
    for flows in results.values.levels:
        costs = {
            tracer: sums_by_round(
                results.values, flows, CONTRASTS["perturbation, container"], tracer
            )
            for tracer in (first, *others)
        }
        for other in others:
            rounds = sorted(costs[first].keys() & costs[other])
            pair = (np.array([costs[tracer][n] for n in rounds]) for tracer in (first, other))
            yield (flows, first, other, *statistics.ratio(*pair))


def _refusal(
    results: Results, flows: int, terms: Sequence[tuple[str, int]], tracer: str
) -> Callable[[Estimate], str]:
    """Return what tells why an estimate is no evidence: the control drifted, the arms apart."""
    values = results.values
    control = terms[-1][0] if not SOURCES[terms[-1][0]].traced else "native control"
    medians = {n: np.median(v) for n, v in values.by_round(flows, control).items()}
    starts = pd.DataFrame(
        {series: values.started(flows, series, tracer) for series, _ in terms}
    ).dropna()
    drift = statistics.find_drift(np.array([medians[n] for n in sorted(medians)]))
    if starts.empty or not drift.significant:
        return lambda _: ""
    plus = starts[[series for series, sign in terms if sign > 0]].mean(axis=1)
    minus = starts[[series for series, sign in terms if sign < 0]].mean(axis=1)
    bias_ns = statistics.bias_bound(drift, plus.to_numpy(), minus.to_numpy())
    told = (
        f"{control} changed by {format_us(drift.change_ns, signed=True)} us after round "
        f"{sorted(medians)[drift.at - 1]}: that alone can make {format_us(bias_ns)} us"
    )
    return lambda estimate: told if statistics.refuses(estimate, bias_ns) else ""


def _segment_rows(results: Results) -> Iterator[tuple[object, ...]]:
    values = results.values
    for flows in values.levels:
        container, native = (
            values.rows(flows, f"{place} corrected", results.tracer)
            for place in ("container", "native")
        )
        container, native = (
            rows[rows["status"].isin(["corrected", "native"])] for rows in (container, native)
        )
        for segment, column in SHARED_SEGMENTS.items():
            ours, theirs = (
                pd.DataFrame({"round": rows["round"], "value_ns": rows[column].astype("float64")})
                for rows in (container, native)
            )
            pairs = statistics.pair_rounds(ours.dropna(), theirs.dropna())
            if pairs:
                both = (float(table["value_ns"].mean()) for table in (ours, theirs))
                found = statistics.difference(list(pairs.values()), statistics.mean)
                yield (flows, segment, *both, *found)


_SHIFTS = ("container overhead", "perturbation, container", "corrected - native control")


def _shift_rows(results: Results) -> Iterator[tuple[object, ...]]:
    values = results.values
    for flows in values.levels:
        for name in _SHIFTS:
            (first, _), (second, _) = CONTRASTS[name]
            pairs = statistics.pair_rounds(
                values.table(flows, first, results.tracer),
                values.table(flows, second, results.tracer),
            )
            for row in zip(*statistics.shift_function(list(pairs.values())), strict=True):
                yield (flows, name, *row)


def event_costs(pings: pd.DataFrame) -> pd.DataFrame:
    """Return EVENT_COSTS: the RTT's slope on the events on the path, and what it finds at zero.

    A run is a point: the median of its RTTs at the mean of its events. The line is drawn through
    the traced runs only; that it meets the untraced ones at zero is what supports it.
    """
    rows = []
    for (flows, place), part in pings.groupby(["flows", "place"], observed=True):
        runs = _runs_of(part)
        untraced = runs[runs["tracer"] == ""].set_index("round")["rtt_ns"]
        traced = runs[(runs["tracer"] != "") & runs["round"].isin(untraced.index)]
        if traced["tracer"].nunique() < 2 or untraced.empty:
            continue
        above = traced["rtt_ns"] - traced["round"].map(untraced)
        line = statistics.slope_within_rounds(
            traced["events"].to_numpy(), above.to_numpy(), traced["round"].to_numpy()
        )
        untraced_ns, off = float(untraced.mean()), line.at_zero
        allowed_ns = max(SUPPORT_NS, SUPPORT_SHARE * untraced_ns)
        supported = bool(line.slope.low_ns > 0 and off.margin_ns <= allowed_ns)
        found = (untraced_ns + off.estimate_ns, untraced_ns, *off[:3], supported)
        rows.append((flows, str(place), *line.slope[:3], *found))
    return EVENT_COSTS.from_rows(rows)


def _runs_of(pings: pd.DataFrame) -> pd.DataFrame:
    """Return of every run the median RTT [ns] and the mean number of events."""
    answered = pings[pings["rtt_ns"].notna() & (pings["status"] != "duplicate")]
    spread = spread_ties(
        answered["rtt_ns"].astype("float64"), answered["rtt_resolution_ns"], answered["started_ns"]
    )
    table = answered.assign(rtt_ns=spread, events=answered["events"].astype("float64"))
    grouped = table.groupby(["round", "tracer"], observed=True)
    runs = grouped.agg(rtt_ns=("rtt_ns", "median"), events=("events", "mean"))
    return runs.reset_index().astype({"tracer": str})


def add_untraced(pings: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Add `untraced_rtt_ns` [ns]: the corrected RTT without the cost of the events left in it."""
    outside = (pings["events"] - pings["events_inside"]).astype("Float64")
    cost_ns = pd.Series(np.nan, index=pings.index, dtype="float64")
    for row in costs[costs["supported"]].itertuples():
        cost_ns[(pings["flows"] == row.flows) & (pings["place"] == row.place)] = row.cost_ns
    reduced = pings["bare_metal_rtt_ns"].astype("Float64") - outside * cost_ns
    return pings.assign(untraced_rtt_ns=reduced.where(cost_ns.notna()).round().astype("Int64"))


def _rate_rows(results: Results) -> Iterator[tuple[object, ...]]:
    levels: dict[int, list[float]] = {}
    for block in results.blocks:
        reports = load_reports(results.directory / block.path / TRAFFIC_FILE)
        rate = sum((r.sent if r.sent is not None else math.nan) / r.seconds for r in reports)
        levels.setdefault(block.flows, []).append(rate)
    for flows in sorted(levels):
        yield (flows, len(levels[flows]), float(np.mean(levels[flows])))


def _doubts(results: Results) -> Iterator[tuple[str, str, str, str]]:
    planned = len(list(results.experiment.blocks()))
    if len(results.blocks) < planned:
        yield (
            "unfinished",
            "warning",
            f"{len(results.blocks)} of {planned} blocks are finished",
            "run the same command again: it goes on where it ended",
        )
    rounds = results.rounds
    if rounds < ROUNDS_TO_RESAMPLE:
        yield (
            "few rounds",
            "warning",
            f"{rounds} rounds prove little: the intervals come from the pings within a round",
            f"go on with --rounds {ROUNDS_TO_RESAMPLE} or more",
        )
    refused = results.comparisons[results.comparisons["refused"] != ""]
    for row in refused[refused["statistic"] == "median"].itertuples():
        tracer = f" of {row.tracer}" if row.tracer else ""
        yield (
            "drift",
            "problem",
            f"{row.comparison}{tracer} at {row.flows} flows is no evidence: {row.refused}",
            "repeat it on a quieter machine",
        )
    for row in results.events[results.events["lost"] > 0].drop_duplicates("tracer").itertuples():
        yield (
            "lost events",
            "warning",
            f"{row.tracer} lost events, {row.lost} at {row.flows} flows",
            "give a larger --buffer-kb",
        )
    yield from _too_few_corrected(results)
    yield from _precision(results)


def _too_few_corrected(results: Results) -> Iterator[tuple[str, str, str, str]]:
    series = results.series
    medians = series[(series["statistic"] == "median") & (series["tracer"] == results.tracer)]
    for row in medians[medians["series"] == "container corrected"].itertuples():
        if row.used < 0.99 * row.of:
            rows = results.values.rows(row.flows, row.series, row.tracer)
            reasons = rows.loc[rows["bare_metal_rtt_ns"].isna(), "reason"].value_counts()
            yield (
                "coverage",
                "warning",
                f"at {row.flows} flows only {row.used} of {row.of} answered pings could be "
                f"corrected; most often: {reasons.index[0]} ({reasons.iloc[0]})",
                "see the column `reason` of pings.parquet",
            )


def _precision(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """Say what it takes to know corrected - native to +-1 us."""
    values = results.values
    for flows in values.levels:
        pairs = statistics.pair_rounds(
            values.table(flows, "container corrected", results.tracer),
            values.table(flows, "native control"),
        )
        needed = statistics.precision_needed(list(pairs.values()), WANTED_NS)
        if needed is not None:
            yield (
                "precision",
                "note",
                f"at {flows} flows, corrected - native to +-{format_us(WANTED_NS)} us takes "
                f"{needed.rounds} rounds as long as these ({needed.pings} pings an arm); "
                f"{needed.within_share:.0%} of the variance comes from the pings within a round",
                "",
            )
