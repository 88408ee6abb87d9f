"""The report of an experiment: Markdown with plots for people, JSON and Parquet for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from maceproc import __version__
from maceproc.errors import CaptureError
from maceproc.experiment.results import Results
from maceproc.experiment.shown import HOW_TO_READ, facts, sections, us
from maceproc.following.soundness import judge
from maceproc.reporting.page.sheet import Sheet, Table
from maceproc.schema import SCHEMA_VERSION, rows_of
from maceproc.statistics import Estimate
from maceproc.units import format_share, format_us
from maceproc.whole_file import written_whole

REPORT_FILE, JSON_FILE, PARQUET_FILE = "report.md", "results.json", "pings.parquet"
PAGE_FILE = "report.html"
TITLE = "What tracing and the container cost, and what the correction leaves"

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
            (PAGE_FILE, as_html(results)),
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
    of = f"{format_share(share)} of the container's overhead, {us(overhead)} us"
    if not told:
        of = f"the container's overhead, {us(overhead)} us, is not told from nothing"
    said = _CORRECTION[name].format(us(left))
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
            "text": f"{flows} flows: {_added(row.tracer, mine)}, {row.other} {us(other)} us: "
            + (
                f"{format_share(row.ratio)} ({format_share(row.low)} to {format_share(row.high)}) "
                "of it"
                if told
                else "the latter is not told from nothing"
            ),
        }


def _added(tracer: str, cost: Estimate) -> str:
    """Say what a tracer adds; a negative estimate is scatter, since tracing speeds no ping up."""
    if cost.estimate_ns < 0:
        return f"what {tracer} adds to the container's median RTT is not told ({us(cost)} us)"
    return f"{tracer} adds {us(cost)} us to the container's median RTT"


def as_html(results: Results) -> str:
    """Return the report as a page for a browser, one HTML document."""
    findings = results.findings[["level", "message", "advice"]].itertuples(index=False, name=None)
    return Sheet(
        brand="experiment",
        title=TITLE,
        answer=[claim["text"] for claim in claims(results)],
        verdict=judge(results.findings),
        facts=[(name, text.replace("`", "")) for name, text in facts(results)],
        sections=sections(results),
        findings=list(findings),
        end=HOW_TO_READ,
    ).as_html()


def as_markdown(results: Results, *, pictures: bool = False) -> str:
    """Return the report as Markdown; with `pictures`, it shows the plots beside it."""
    return "\n".join(_lines(results, pictures)) + "\n"


def _lines(results: Results, pictures: bool) -> Iterator[str]:
    yield f"# {TITLE}\n"
    yield f"**{judge(results.findings).sentence}**\n"
    yield from (f"* {claim['text']}" for claim in claims(results))
    yield "\n## How it was measured\n"
    yield from (f"* **{name}**: {text}" for name, text in facts(results))
    yield f"\n{HOW_TO_READ}"
    for section in sections(results):
        yield f"\n## {section.title}"
        for table in section.tables:
            yield from _markdown_table(table)
        if pictures:
            yield ""
            yield from (f"![{name}]({name}.png)" for name in _PICTURES[section.title])
    if len(results.findings):
        yield "\n## Findings\n"
        for row in results.findings.itertuples():
            advice = f" → {row.advice}" if row.advice else ""
            yield f"* **{row.level}, {row.finding}**: {row.message}.{advice}"


def _markdown_table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"\n### {table.title}"
    if table.about:
        yield f"\n{table.about}"
    yield ""
    yield from table_lines(table.header, table.rows, table.right)


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int]
) -> Iterator[str]:
    """Yield the lines of a Markdown table; `right` has the numbers of right-aligned columns."""
    yield f"| {' | '.join(header)} |"
    rules = ("--:" if n in right else "---" for n in range(len(header)))
    yield f"|{'|'.join(rules)}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
