"""The report of an experiment: Markdown with plots for people, JSON and Parquet for scripts."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maceproc import __version__
from maceproc.errors import AnalysisError, CaptureError
from maceproc.experiment.results import Results
from maceproc.experiment.series import DIFFERENCES, MEANING, SOURCES
from maceproc.following.soundness import judge
from maceproc.schema import SCHEMA_VERSION, rows_of
from maceproc.statistics import Estimate
from maceproc.units import NS_PER_S, format_us
from maceproc.whole_file import written_whole

REPORT_FILE, JSON_FILE, PARQUET_FILE = "report.md", "results.json", "pings.parquet"

_TABLES = (
    "series",
    "comparisons",
    "cost_ratios",
    "shifts",
    "segments",
    "event_costs",
    "events",
    "rates",
    "findings",
)
_PICTURES = {
    "Series": ("medians", "means", "deviations", "distributions"),
    "Differences": ("differences", "shifts"),
    "What tracing costs": ("perturbation", "event-costs"),
}


def save_report(results: Results, directory: Path) -> list[Path]:
    """Write report, plots, JSON and, where pyarrow is installed, Parquet; return what was written.

    Raises CaptureError when the directory cannot be written to.
    """
    from maceproc.experiment.plots import save_plots

    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = save_plots(results, directory)
        for name, text in (
            (REPORT_FILE, as_markdown(results, pictures=True)),
            (JSON_FILE, as_json(results)),
        ):
            written.append(directory / name)
            with written_whole(written[-1]) as partial:
                partial.write_text(text)
        if save_parquet(results, directory / PARQUET_FILE):
            written.append(directory / PARQUET_FILE)
    except OSError as error:
        raise CaptureError(f"{directory}: cannot be written to: {error.strerror}") from error
    return written


def save_parquet(results: Results, path: Path) -> bool:
    """Write every ping as Parquet; tell whether it could be: that needs pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    with written_whole(path) as partial:
        results.pings.to_parquet(partial, index=False)
    return True


def as_dict(results: Results) -> dict[str, Any]:
    """Return the results as one object; its rows are those of the tables of the same name."""
    experiment = results.experiment
    return {
        "schema_version": SCHEMA_VERSION,
        "maceproc": __version__,
        "plan": {
            name: getattr(experiment.plan, name) for name in experiment.plan.__struct_fields__
        },
        "machine": {
            name: getattr(experiment.machine, name) for name in experiment.machine.__struct_fields__
        },
        "blocks": len(results.blocks),
        **{name: rows_of(getattr(results, name)) for name in _TABLES},
        "claims": list(claims(results)),
    }


def as_json(results: Results) -> str:
    """Return `as_dict` as JSON text."""
    return json.dumps(as_dict(results), indent=1, allow_nan=False) + "\n"


_CORRECTION = {
    "corrected - native untraced": "corrected is {} us from the untraced native ping",
    "corrected - native corrected": "from the native ping traced likewise it is {} us",
    "the same, off the wire": "without the time on the wire that is {} us",
}


def claims(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the answers that the experiment is made for: a sentence each, with its numbers."""
    for flows in results.values.levels:
        overhead = results.comparison(flows, "container overhead")
        for name in _CORRECTION:
            left = results.comparison(flows, name, results.tracer)
            if left.rounds and overhead.rounds:
                yield _claim_of_correction(flows, name, left, overhead)
    for flows in results.values.levels:
        yield from _claims_of_cost(results, flows)


def _claim_of_correction(
    flows: int, name: str, left: Estimate, overhead: Estimate
) -> dict[str, Any]:
    told = overhead.low_ns > 0
    share = abs(left.estimate_ns) / overhead.estimate_ns if told else math.nan
    of = f"{share:.0%} of the container's overhead, {_us(overhead)} us"
    if not told:
        of = f"the container's overhead, {_us(overhead)} us, is not told from nothing"
    said = _CORRECTION[name].format(_us(left))
    return {
        "claim": name,
        "flows": flows,
        "estimate_ns": left.estimate_ns,
        "margin_ns": left.margin_ns,
        "overhead_ns": overhead.estimate_ns,
        "share": share if told else None,
        "text": (
            f"{flows} flows: {said}, equivalent within {format_us(left.margin_ns)} us (95 %): {of}"
        ),
    }


def _claims_of_cost(results: Results, flows: int) -> Iterator[dict[str, Any]]:
    ratios = results.cost_ratios
    for row in ratios[ratios["flows"] == flows].itertuples():
        mine, other = (
            results.comparison(flows, "perturbation, container", tracer)
            for tracer in (row.tracer, row.other)
        )
        if not mine.rounds or not other.rounds:
            continue
        told = not math.isnan(row.ratio)
        yield {
            "claim": f"{row.tracer} against {row.other}",
            "flows": flows,
            "estimate_ns": mine.estimate_ns,
            "other_ns": other.estimate_ns,
            "ratio": row.ratio if told else None,
            "text": f"{flows} flows: {row.tracer} adds {_us(mine)} us to the container's median "
            f"RTT, {row.other} {_us(other)} us: "
            + (
                f"{row.ratio:.0%} ({row.low:.0%} to {row.high:.0%}) of it"
                if told
                else "the latter is not told from nothing"
            ),
        }


def as_markdown(results: Results, *, pictures: bool = False) -> str:
    """Return the report as Markdown; with `pictures`, it shows the plots beside it."""
    return "\n".join(_lines(results, pictures)) + "\n"


def _lines(results: Results, pictures: bool) -> Iterator[str]:
    yield "# What tracing and the container cost, and what the correction leaves\n"
    yield f"**{judge(results.findings).sentence}**\n"
    yield from (f"* {claim['text']}" for claim in claims(results))
    yield "\n## How it was measured\n"
    yield from _heading(results)
    sections = (
        ("Series", _series_section),
        ("Differences", _differences_section),
        ("What tracing costs", _cost_section),
    )
    for title, section in sections:
        yield f"\n## {title}\n"
        yield from section(results)
        if pictures:
            yield ""
            yield from (f"![{name}]({name}.png)" for name in _PICTURES[title])
    if len(results.findings):
        yield "\n## Findings\n"
        for row in results.findings.itertuples():
            advice = f" → {row.advice}" if row.advice else ""
            yield f"* **{row.level}, {row.finding}**: {row.message}.{advice}"


def _heading(results: Results) -> Iterator[str]:
    experiment, machine = results.experiment, results.experiment.machine
    plan = experiment.plan
    begun = datetime.datetime.fromtimestamp(experiment.sessions[0] / NS_PER_S, datetime.UTC)
    arms = len(experiment.places) * (1 + len(plan.tracers))
    command = f"`{' '.join(plan.command)}`"
    yield f"* **ran**: {command}, {results.rounds} rounds of {arms} arms at each level"
    yield f"* **where**: {experiment.target.route} ({experiment.target.kind})"
    yield f"* **traffic**: {_traffic(results)}"
    yield f"* **tracers**: {', '.join(plan.tracers)}; the corrected series are of {results.tracer}"
    virtual = f" of a virtual machine ({machine.virtualization})" if machine.virtualization else ""
    awake = "kept awake" if machine.awake else "may sleep"
    cpus = f"{machine.cpus} CPUs{virtual} that {'are ' * machine.awake}{awake}"
    yield f"* **machine**: {machine.cpu}, {cpus}, Linux {machine.kernel}"
    yield f"* **when**: {begun:%Y-%m-%d}, maceproc {experiment.maceproc}"
    yield (
        "\nEvery number is the mean over rounds of a statistic of one round, in us, with the 95 % "
        "interval from resampling rounds."
    )


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


def _series_section(results: Results) -> Iterator[str]:
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
            counts = [f"{first['used']}", f"{first['used'] / first['of']:.1%}"]
            rows.append([name, *counts, f"{first['effective']:.0f}", *cells, MEANING[name]])
        header = ["series", "n", "of answered", "effective n", "median", "mean", "sd", ""]
        yield f"\n### {flows} flows\n"
        yield from table_lines(header, rows, ">1234")


def _differences_section(results: Results) -> Iterator[str]:
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
    header = ["flows", "difference", "of medians", "equivalent within", "of means", ""]
    yield from table_lines(header, rows, "0")
    yield from _segments_part(results.segments)


def _segments_part(segments: pd.DataFrame) -> Iterator[str]:
    """Yield in which segments corrected and native RTTs differ; their means add up."""
    if segments.empty:
        return
    yield (
        "\nWhere corrected and native RTTs differ, both traced: means of the segments that both "
        "have; they add up to the difference of the mean RTTs.\n"
    )
    rows = []
    for row in segments.itertuples():
        means = (format_us(row.container_ns), format_us(row.native_ns))
        found = interval_text(row.estimate_ns, row.low_ns, row.high_ns, signed=True)
        rows.append([str(row.flows), row.segment, *means, found])
    yield from table_lines(["flows", "segment", "container", "native", "difference"], rows, "023")


def _cost_section(results: Results) -> Iterator[str]:
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
            cells = [_us(estimate) for estimate in (native, container, inside)]
            rows.append([str(flows), tracer, *cells, *counts, recorded])
    yield (
        "What a tracer adds to the median RTT. Inside the crossings is what it adds to the "
        "container's more than to the native one: that goes with the correction, the rest stays.\n"
    )
    header = ["flows", "tracer", "native", "container", "inside the crossings"]
    counted = ["events on a native ping's path", "on a container's", "recorded per ping"]
    yield from table_lines([*header, *counted], rows, "0567")
    if len(results.event_costs):
        yield (
            "\nThe RTT's slope on the events on the path, over the tracers; and the RTT it finds "
            "for no events, which must be the untraced one for the slope to mean anything.\n"
        )
        yield from table_lines(*_event_cost_rows(results.event_costs), "0")


def _event_cost_rows(costs: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
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
    return header, rows


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], right: str) -> Iterator[str]:
    """Yield the lines of a Markdown table; `right` has the numbers of right-aligned columns."""
    yield f"| {' | '.join(header)} |"
    rules = ("--:" if str(n) in right else "---" for n in range(len(header)))
    yield f"|{'|'.join(rules)}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _estimate_of(row: pd.Series) -> str:
    signed = "comparison" in row.index
    return interval_text(row["estimate_ns"], row["low_ns"], row["high_ns"], signed=signed)


def _us(estimate: Estimate) -> str:
    return interval_text(*estimate[:3], signed=True)


def interval_text(estimate_ns: float, low_ns: float, high_ns: float, *, signed: bool) -> str:
    """Write an estimate [ns] with its interval in microseconds: ``+1.0 (+0.2 to +1.8)``."""
    if math.isnan(estimate_ns):
        return "-"
    middle = format_us(estimate_ns, signed=signed)
    if math.isnan(low_ns):
        return middle
    return f"{middle} ({format_us(low_ns, signed=signed)} to {format_us(high_ns, signed=signed)})"


def require_plots() -> None:
    """Raise AnalysisError when matplotlib is not installed: before an hour of measuring."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise AnalysisError(
            "the report's plots need matplotlib", hint="pip install 'maceproc[plot]'"
        )
