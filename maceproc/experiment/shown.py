"""What the report of an experiment shows, from its tables: facts, and sections of bars and tables.

Times are in microseconds, each with its 95 % interval. Markdown and page are made from these.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence

import pandas as pd

from maceproc.experiment.results import Results
from maceproc.experiment.series import DIFFERENCES, MEANING, SOURCES
from maceproc.reporting.page.sheet import Bar, Section, Table
from maceproc.statistics import Estimate
from maceproc.units import NS_PER_S, format_share, format_us

HOW_TO_READ = (
    "Every number is the mean over rounds of a statistic of one round, in us, with the 95 % "
    "interval from resampling rounds."
)
DOT = "A dot is an estimate, the line its 95 % interval."


def facts(results: Results) -> list[tuple[str, str]]:
    """Return how it was measured: pairs of a name and a text, code in backticks."""
    experiment, machine = results.experiment, results.experiment.machine
    plan = experiment.plan
    begun = datetime.datetime.fromtimestamp(experiment.sessions[0] / NS_PER_S, datetime.UTC)
    arms = len(experiment.places) * (1 + len(plan.tracers))
    command = f"`{' '.join(plan.command)}`"
    virtual = f" of a virtual machine ({machine.virtualization})" if machine.virtualization else ""
    awake = "kept awake" if machine.awake else "may sleep"
    cpus = f"{machine.cpus} CPUs{virtual} that {'are ' * machine.awake}{awake}"
    tracers = f"{', '.join(plan.tracers)}; the corrected series are of {results.tracer}"
    return [
        ("ran", f"{command}, {results.rounds} rounds of {arms} arms at each level"),
        ("where", f"{experiment.target.route} ({experiment.target.kind})"),
        ("traffic", _traffic(results)),
        ("tracers", tracers),
        ("machine", f"{machine.cpu}, {cpus}, Linux {machine.kernel}"),
        ("when", f"{begun:%Y-%m-%d}, maceproc {experiment.maceproc}"),
    ]


def _traffic(results: Results) -> str:
    plan = results.experiment.plan
    pinned = ", ".join(map(str, results.experiment.pinned))
    told = f"flows of `{plan.traffic}`, pinned to the CPUs {pinned} in turn"
    rates = results.rates.dropna()
    rates = rates[rates["flows"] > 0]
    if len(rates):
        each = (f"{row.packets_per_s:,.0f}/s with {row.flows}" for row in rates.itertuples())
        told += f"; requests: {', '.join(each)}"
    return told


def sections(results: Results) -> list[Section]:
    """Return the sections of the report: series, differences, and what tracing costs."""
    return [
        Section("Series", f"Medians. {DOT}", _series_bars(results), list(_series(results))),
        Section("Differences", DOT, _difference_bars(results), list(_differences(results))),
        Section("What tracing costs", DOT, _cost_bars(results), list(_costs(results))),
    ]


def _series(results: Results) -> Iterator[Table]:
    table = results.series
    for flows in results.values.levels:
        here = table[(table["flows"] == flows) & table["tracer"].isin(["", results.tracer])]
        rows = []
        for name in SOURCES:
            mine = here[here["series"] == name].set_index("statistic")
            if mine.empty:
                continue
            first = mine.iloc[0]
            cells = [_estimate_of(mine.loc[statistic]) for statistic in ("median", "mean", "sd")]
            counts = [f"{first['used']}", f"{format_share(first['used'] / first['of'], 1)}"]
            rows.append([name, *counts, f"{first['effective']:.0f}", *cells, MEANING[name]])
        header = ["series", "n", "of answered", "effective n", "median", "mean", "sd", "meaning"]
        yield Table(f"{flows} flows", header, rows, frozenset({1, 2, 3, 4}))


def _differences(results: Results) -> Iterator[Table]:
    table = results.comparisons
    rows = []
    for flows in results.values.levels:
        for name in DIFFERENCES:
            if name.startswith("perturbation"):
                continue
            here = table[
                (table["flows"] == flows)
                & (table["comparison"] == name)
                & table["tracer"].isin(["", results.tracer])
            ].set_index("statistic")
            if len(here):
                median, mean = here.loc["median"], here.loc["mean"]
                evidence = "no evidence: the machine changed" if median["refused"] else ""
                margin = format_us(median["margin_ns"])
                cells = [_estimate_of(median), margin, _estimate_of(mean), evidence]
                rows.append([str(flows), name, *cells])
    header = ["flows", "difference", "of medians", "equivalent within", "of means", "evidence"]
    yield Table("", header, rows, frozenset({0}))
    if not results.segments.empty:
        yield _segments(results.segments)


def _segments(segments: pd.DataFrame) -> Table:
    """Show in which segments corrected and native RTTs differ; their means add up."""
    rows = []
    for row in segments.itertuples():
        means = (format_us(row.container_ns), format_us(row.native_ns))
        found = interval_text(row.estimate_ns, row.low_ns, row.high_ns, signed=True)
        rows.append([str(row.flows), row.segment, *means, found])
    about = (
        "Where corrected and native RTTs differ, both traced: means of the segments that both "
        "have; they add up to the difference of the mean RTTs."
    )
    header = ["flows", "segment", "container", "native", "difference"]
    return Table("", header, rows, frozenset({0, 2, 3}), about)


def _costs(results: Results) -> Iterator[Table]:
    rows = []
    for flows in results.values.levels:
        for tracer in results.experiment.plan.tracers:
            native, container, inside = (
                results.comparison(flows, f"perturbation{where}", tracer)
                for where in (", native", ", container", " inside the crossings")
            )
            seen = results.events
            seen = seen[(seen["flows"] == flows) & (seen["tracer"] == tracer)].set_index("place")
            counts = [
                "-" if place not in seen.index or math.isnan(count) else f"{count:.1f}"
                for place in ("native", "container")
                for count in [seen["events"].get(place, math.nan)]
            ]
            recorded = f"{seen['recorded'].get('container', math.nan):.1f}"
            cells = [us(estimate) for estimate in (native, container, inside)]
            rows.append([str(flows), tracer, *cells, *counts, recorded])
    about = (
        "What a tracer adds to the median RTT. Inside the crossings is what it adds to the "
        "container's more than to the native one: that goes with the correction, the rest stays."
    )
    header = ["flows", "tracer", "native", "container", "inside the crossings"]
    counted = ["events on a native ping's path", "on a container's", "recorded per ping"]
    yield Table("", [*header, *counted], rows, frozenset({0, 5, 6, 7}), about)
    if len(results.event_costs):
        yield _event_costs(results.event_costs)


def _event_costs(costs: pd.DataFrame) -> Table:
    rows = []
    for row in costs.itertuples():
        cost = "-" if math.isnan(row.cost_ns) else f"{row.cost_ns:.0f}"
        if not math.isnan(row.low_ns):
            cost += f" ({row.low_ns:.0f} to {row.high_ns:.0f})"
        off = interval_text(row.off_ns, row.off_low_ns, row.off_high_ns, signed=True)
        said = "yes: `untraced_rtt_ns`" if row.supported else "no"
        untraced = format_us(row.untraced_ns)
        cells = [format_us(row.zero_ns), untraced, off, said]
        rows.append([str(row.flows), row.place, cost, *cells])
    header = [
        "flows",
        "place",
        "ns an event",
        "RTT at no events",
        "untraced",
        "off by",
        "supported",
    ]
    about = (
        "The RTT's slope on the events on the path, over the tracers; and the RTT it finds "
        "for no events, which must be the untraced one for the slope to mean anything."
    )
    return Table("", header, rows, frozenset({0}), about)


def _series_bars(results: Results) -> list[Bar]:
    table = results.series
    table = table[table["tracer"].isin(["", results.tracer]) & (table["statistic"] == "median")]
    bars = []
    for flows in results.values.levels:
        here = table[table["flows"] == flows].set_index("series")
        names = [name for name in SOURCES if name in here.index]
        headings = _headings(f"{flows} flows", names)
        bars += [
            _bar(name, here.loc[name], heading, SOURCES[name].name)
            for name, heading in zip(names, headings, strict=True)
        ]
    return bars


def _difference_bars(results: Results) -> list[Bar]:
    table = results.comparisons
    table = table[table["tracer"].isin(["", results.tracer]) & (table["statistic"] == "median")]
    bars = []
    for flows in results.values.levels:
        here = table[table["flows"] == flows].set_index("comparison")
        names = [n for n in DIFFERENCES if n in here.index and not n.startswith("perturbation")]
        headings = _headings(f"{flows} flows", names)
        bars += [_bar(n, here.loc[n], h) for n, h in zip(names, headings, strict=True)]
    return bars


def _cost_bars(results: Results) -> list[Bar]:
    table = results.comparisons[results.comparisons["statistic"] == "median"]
    bars = []
    for flows in results.values.levels:
        here = table[(table["flows"] == flows)].set_index(["comparison", "tracer"])
        names = [
            (f"perturbation, {place}", tracer)
            for place in ("native", "container")
            for tracer in results.experiment.plan.tracers
        ]
        names = [name for name in names if name in here.index]
        headings = _headings(f"{flows} flows", names)
        for (name, tracer), heading in zip(names, headings, strict=True):
            label = f"{tracer}, {name.removeprefix('perturbation, ')}"
            bars.append(_bar(label, here.loc[(name, tracer)], heading))
    return bars


def _headings(heading: str, names: Sequence[object]) -> list[str]:
    """Return a heading for the first of the names, and none for the others."""
    return [heading, *[""] * len(names)][: len(names)]


def _bar(label: str, row: pd.Series, heading: str, series: str = "") -> Bar:
    ends = (row["estimate_ns"], row["low_ns"], row["high_ns"])
    value = f"{interval_text(*ends, signed=not series)} us"  # a series or a difference
    return Bar(label, *ends, value, heading, series)


def _estimate_of(row: pd.Series) -> str:
    signed = "comparison" in row.index
    return interval_text(row["estimate_ns"], row["low_ns"], row["high_ns"], signed=signed)


def us(estimate: Estimate) -> str:
    """Write a difference with its interval in microseconds."""
    return interval_text(*estimate[:3], signed=True)


def interval_text(estimate_ns: float, low_ns: float, high_ns: float, *, signed: bool) -> str:
    """Write an estimate [ns] with its interval in microseconds: ``+1.0 (+0.2 to +1.8)``."""
    if math.isnan(estimate_ns):
        return "-"
    middle = format_us(estimate_ns, signed=signed)
    if math.isnan(low_ns):
        return middle
    return f"{middle} ({format_us(low_ns, signed=signed)} to {format_us(high_ns, signed=signed)})"
