"""The tables of the report: at most 80 columns wide, and what they mean in a legend below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from maceproc.following.event_costs import IMPOSSIBLE, UNTOLD
from maceproc.following.lost_pings import lost_by_arm
from maceproc.following.soundness import DO_NOT_USE, WITH_CARE, Soundness
from maceproc.ledger import LEDGER
from maceproc.reporting.console import escape
from maceproc.reporting.text_table import pairs, report_table, titled
from maceproc.series import CORRECTED, DIFFERENCE_MEANING, MEANING, NATIVE_RTT, SHOWN
from maceproc.units import format_share, format_us

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from maceproc.analysis import Analysis

LEVEL_STYLE = {"problem": "bold red", "warning": "yellow", "note": "cyan"}
VERDICT_STYLE = {DO_NOT_USE: "bold red", WITH_CARE: "bold yellow"}


def verdict_style(soundness: Soundness) -> str:
    """Return the style in which a verdict is printed."""
    return VERDICT_STYLE.get(soundness.verdict, "bold green")


def series_table(analysis: Analysis) -> Iterator[RenderableType]:
    """Yield the RTTs of every series; with a column of lost pings where any got no reply."""
    lost = lost_by_arm(analysis.pings)["lost"]
    columns = "|>n|>lost" if lost.any() else "|>n"
    table = report_table(f"{columns}|>median|>mean|>sd|>p5|>p95")
    order = [series.name for series in SHOWN]
    main = NATIVE_RTT if analysis.native.correction else CORRECTED
    rows = sorted(analysis.series.itertuples(), key=lambda row: order.index(row.series))
    for row in rows:
        numbers = (row.median_ns, row.mean_ns, row.sd_ns, row.p5_ns, row.p95_ns)
        counts = [str(row.used)]
        if lost.any():
            counts.append(str(lost.get(row.arm, 0)) if row.column == "rtt_ns" else "")
        style = "bold" if row.series == main.name else ""
        table.add_row(row.series, *counts, *map(format_us, numbers), style=style)
    yield from titled("RTT [us]", table, {row.series: MEANING[row.series] for row in rows})


def comparisons_table(comparisons: pd.DataFrame) -> Iterator[RenderableType]:
    """Yield the differences between series, with their intervals."""
    table = report_table("|>estimate|>95 % interval|>rounds|")
    for row in comparisons.itertuples():
        low, high = (format_us(end, signed=True) for end in (row.low_ns, row.high_ns))
        estimate = format_us(row.estimate_ns, signed=True)
        refused = "[red]no evidence[/red]" if row.refused else ""
        table.add_row(row.comparison, estimate, f"{low} to {high}", str(row.rounds), refused)
    legend = {name: DIFFERENCE_MEANING[name] for name in comparisons["comparison"]}
    if (comparisons["refused"] != "").any():
        legend["no evidence"] = "the machine changed by about as much"
    yield from titled("Differences of medians [us]", table, legend)


def event_cost_lines(costs: pd.DataFrame) -> Iterator[str]:
    """Yield what the events of each traced arm cost its pings."""
    yield "[bold]What the events cost[/bold]"
    for row in costs.itertuples():
        low, high, left = (
            format_us(value, signed=True) for value in (row.low_ns, row.high_ns, row.left_ns)
        )
        seen = f"  {row.arm}: {row.events:.1f} events on a ping's path"
        if row.events_inside:
            seen += f", {row.events_inside:.1f} of them in the crossings"
        if row.basis == "measured":
            cost = f"{format_us(row.cost_ns, signed=True)} us ({low} to {high})"
        else:
            cost = f"{low} to {high} us by experience, not measured here"
        share = format_share(row.share)
        told = f"{row.verdict}, {share} of the RTT, {row.cost_per_event_ns:.0f} ns an event"
        if row.events_inside:
            told += f"; about {left} us of it stay in the corrected RTT"
        if row.verdict in (UNTOLD, IMPOSSIBLE):  # a negative cost would be no finding
            yield f"{seen}; traced - untraced is {cost}: {row.verdict}"
        else:
            yield f"{seen}; they cost {cost}: {told}"


def steps_table(steps: pd.DataFrame) -> Iterator[RenderableType]:
    """Yield the points of the usual path, each with the time from the point before it."""
    table = report_table("||>median|>p95")
    segment, direction = "", ""
    for row in steps.itertuples():
        name = row.segment if row.segment != segment else ""
        if row.direction != direction:
            table.add_row(name, escape(row.start), "", "")
            name = ""
        times = (format_us(row.median_ns), format_us(row.p95_ns))
        table.add_row(name, f"-> {escape(row.end)}", *times)
        segment, direction = row.segment, row.direction
    yield from titled("Where the time goes, step by step [us]", table)


def ledger_line(rtts: pd.DataFrame) -> Iterator[str]:
    """Yield the mean of every segment, which add up to the mean RTT; nothing without RTTs."""
    corrected = rtts[(rtts["status"] == "corrected") & rtts["rtt_ns"].notna()]
    if corrected.empty:  # ping -q and ping -f print no RTT of a single ping
        return
    known = {segment.short: corrected[segment.column].dropna() for segment in LEDGER}
    means = {name: float(values.mean()) for name, values in known.items() if len(values)}
    total = float(corrected["rtt_ns"].mean())
    terms = " + ".join(f"{name} {format_us(mean)}" for name, mean in means.items() if mean)
    yield f"mean ledger: {terms} = {format_us(total)} us"


def findings_list(findings: pd.DataFrame) -> Iterator[RenderableType]:
    """Yield every finding as a sentence, with its advice in a line of its own."""
    yield "[bold]Findings[/bold]"
    for row in findings.itertuples():
        style = LEVEL_STYLE[row.level]
        yield pairs({f"[{style}]{row.level:<7}[/{style}]": finding_text(row)})


def finding_text(row: object) -> str:
    """Return a row of FINDINGS as markup: name, sentence, and the advice in a line of its own."""
    name, message, advice = (str(getattr(row, key)) for key in ("finding", "message", "advice"))
    end = "" if message.endswith((".", "?", "!")) else "."
    text = f"[bold]{escape(name)}[/bold]: {escape(message)}{end}"
    return text + (f"\n[dim]->[/dim] {escape(advice)}" if advice else "")
