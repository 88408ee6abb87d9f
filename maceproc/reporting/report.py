"""The report of an analysis, as a person reads it in a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maceproc.capture import Sidecar
from maceproc.following.coverage import coverage
from maceproc.following.event_costs import IMPOSSIBLE, UNTOLD
from maceproc.following.losses import losses
from maceproc.following.topology import stack_of
from maceproc.following.verdicts import NO_CROSSING
from maceproc.ledger import LEDGER
from maceproc.reporting.closure import closure_lines
from maceproc.reporting.console import CleanConsole, escape
from maceproc.reporting.text_table import report_table
from maceproc.series import (
    CORRECTED,
    DIFFERENCE_MEANING,
    MEANING,
    NATIVE_RTT,
    SHOWN,
)
from maceproc.units import NS_PER_S, format_us
from maceproc.uplinks import cards_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType

    from maceproc.analysis import Analysis

WIDTH = 100

LEVEL_STYLE = {"problem": "bold red", "warning": "yellow", "note": "cyan"}


def as_text(analysis: Analysis, *, color: bool = False, width: int = WIDTH) -> str:
    """Render the report; plain text unless `color`."""
    out = io.StringIO()
    console = CleanConsole(
        file=out,
        width=width,
        force_terminal=color,
        force_jupyter=False,
        color_system="standard" if color else None,
        highlight=False,
    )
    print_report(analysis, console)
    return out.getvalue()


def terminal() -> Console:
    """Return a console on standard output: colour on a terminal only, never narrower than 80."""
    console = CleanConsole()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def print_report(analysis: Analysis, console: Console) -> None:
    """Print the report of one analysis on a console."""
    for part in _parts(analysis):
        console.print(part)


def _parts(analysis: Analysis) -> Iterator[RenderableType]:
    yield from _heading(analysis)
    if len(analysis.series):
        yield ""
        yield _series_table(analysis)
        yield _coverage_line(analysis.rtts)
    elif analysis.pings.empty and len(analysis.crossings):
        from maceproc.reporting.crossings_table import crossings_without_pings

        yield ""
        yield from crossings_without_pings(analysis.crossings)
    if len(analysis.comparisons):
        yield ""
        yield _comparisons_table(analysis.comparisons)
    if len(analysis.native.closure):
        yield ""
        yield from closure_lines(analysis.native)
    if len(analysis.event_costs):
        yield ""
        yield from _event_cost_lines(analysis.event_costs)
    if len(analysis.steps):
        yield ""
        yield _steps_table(analysis.steps)
        yield _ledger_line(analysis.rtts)
    if len(analysis.findings):
        yield ""
        yield _findings_table(analysis.findings)


def _heading(analysis: Analysis) -> Iterator[str]:
    sidecar = analysis.capture.sidecar
    yield f"[bold]{escape(str(analysis.capture.trace))}[/bold]"
    if sidecar is None:
        yield "  recorded by hand: no sidecar says what ran, where, and in which rounds"
        if analysis.pings.empty:
            yield "  give what the ping printed with --ping, to have its RTTs corrected"
        return
    yield f"  ran     {escape(' '.join(sidecar.command))}"
    yield f"  where   {escape(_where(sidecar))}"
    yield from (f"  uplink  {escape(line)}" for line in _uplink(sidecar))
    traced_s = sum(run.end_ns - run.start_ns for run in sidecar.runs if run.traced) / NS_PER_S
    yield (f"  rounds  {sidecar.rounds} of {', '.join(dict.fromkeys(r.arm for r in sidecar.runs))}")
    yield f"  {_recorded(analysis, sidecar, traced_s)}"
    yield from (f"  stamps  {line}" for line in _stamps(sidecar))
    machine = sidecar.machine
    yield f"  machine {escape(machine.cpu)}, {machine.cpus} CPUs, {escape(machine.kernel)}"


def _recorded(analysis: Analysis, sidecar: Sidecar, traced_s: float) -> str:
    """Say how much was recorded."""
    tracing = sidecar.tracing
    if tracing.tracer == "bpf":
        echoes = analysis.trace.info["echoes"]
        lost = f"{tracing.points_lost} points lost" if tracing.points_lost else "none lost"
        return f"echoes  {echoes:,} in {traced_s:.1f} s traced (bpf), {lost}"
    events = sum(len(table) for table in analysis.trace.events.values())
    return (
        f"events  {events:,} in {traced_s:.1f} s traced ({escape(tracing.event_set)}), "
        f"{losses(analysis.trace, sidecar).sentence or 'none lost'}"
    )


def _stamps(sidecar: Sidecar) -> Iterator[str]:
    """Yield who takes the time stamps of the first traced run, where its flavour is known."""
    from maceproc.following.stamps import stamp_of
    from maceproc.pings import parse_runs

    for run, printed in parse_runs([run for run in sidecar.runs if run.traced][:1]):
        if printed.flavour != "unknown":
            who = "the kernel" if stamp_of(run, printed) == "kernel" else "ping itself"
            yield f"as {printed.flavour} ping takes them; replies are stamped by {who}"


def _where(sidecar: Sidecar) -> str:
    hops = [str(hop) for hop in sidecar.target.path]
    if sidecar.target.nat and len(hops) > 1:
        hops.insert(-1, "(NAT)")
    return " -> ".join(hops) or "where maceproc was called"


def _uplink(sidecar: Sidecar) -> Iterator[str]:
    """Say what the outer device is on, and which of these devices show which packets."""
    below = stack_of(sidecar)
    if below and sidecar.target.crossing and len(sidecar.target.path) > 1:
        outer = sidecar.target.path[-1]
        cards = " or ".join(map(str, cards_of(sidecar.namespaces, outer, below)))
        yield f"{outer} is on {', '.join(hop.dev for hop in below)}"
        yield f"outbound crossings end on {outer}, inbound ones begin on {cards}"


def _series_table(analysis: Analysis) -> RenderableType:
    table = report_table("RTT [us]", "|>n|>median|>mean|>sd|>5 %|>95 %|")
    order = [series.name for series in SHOWN]
    main = NATIVE_RTT if analysis.native.correction else CORRECTED
    for row in sorted(analysis.series.itertuples(), key=lambda row: order.index(row.series)):
        numbers = (row.median_ns, row.mean_ns, row.sd_ns, row.p5_ns, row.p95_ns)
        table.add_row(
            row.series,
            str(row.used),
            *(format_us(number) for number in numbers),
            MEANING[row.series],
            style="bold" if row.series == main.name else "",
        )
    return table


def _coverage_line(rtts: pd.DataFrame) -> str:
    if (rtts["status"] == "uncrossed").any():
        return f"nothing was corrected: {NO_CROSSING}"
    counts = coverage(rtts)
    line = f"corrected: {counts['corrected']} of {counts['answered']} answered pings"
    others = {
        name: count
        for name, count in counts["by_status"].items()
        if name not in {"corrected", "native"}
    }
    line += "".join(f"; {count} {name}" for name, count in others.items())
    if counts["corrected"] < counts["answered"] and counts["bounds"]:
        low, high = (counts["bounds"][f"median_{end}_ns"] for end in ("low", "high"))
        line += (
            f"\nwhatever the others were, the corrected median is between {format_us(low)} and "
            f"{format_us(high)} us"
        )
    return line


def _comparisons_table(comparisons: pd.DataFrame) -> RenderableType:
    table = report_table("Differences of medians [us]", "|>estimate|>95 % interval|>rounds|")
    for row in comparisons.itertuples():
        low, high = (format_us(end, signed=True) for end in (row.low_ns, row.high_ns))
        table.add_row(
            row.comparison,
            format_us(row.estimate_ns, signed=True),
            f"{low} to {high}",
            str(row.rounds),
            "[red]no evidence: the machine changed[/red]"
            if row.refused
            else DIFFERENCE_MEANING[row.comparison],
        )
    return table


def _event_cost_lines(costs: pd.DataFrame) -> Iterator[str]:
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
        told = f"{row.verdict}, {row.share:.0%} of the RTT, {row.cost_per_event_ns:.0f} ns an event"
        if row.events_inside:
            told += f"; about {left} us of it stay in the corrected RTT"
        untold = row.verdict in (UNTOLD, IMPOSSIBLE)
        yield f"{seen}; they cost {cost}: {row.verdict if untold else told}"


def _steps_table(steps: pd.DataFrame) -> RenderableType:
    table = report_table("Where the crossing's time goes [us]", "|from|to|>median|>95 %")
    for direction, rows in steps.groupby("direction", sort=False):
        for row in rows.itertuples():
            table.add_row(
                direction if row.step == 0 else "",
                escape(row.start),
                escape(row.end),
                format_us(row.median_ns),
                format_us(row.p95_ns),
            )
    return table


def _ledger_line(rtts: pd.DataFrame) -> str:
    corrected = rtts[(rtts["status"] == "corrected") & rtts["rtt_ns"].notna()]
    if corrected.empty:  # ping -q and ping -f print no RTT of a single ping
        return ""
    known = {segment.short: corrected[segment.column].dropna() for segment in LEDGER}
    means = {name: float(values.mean()) for name, values in known.items() if len(values)}
    total = float(corrected["rtt_ns"].mean())
    terms = " + ".join(f"{name} {format_us(mean)}" for name, mean in means.items() if mean)
    return f"mean ledger: {terms} = {format_us(total)} us"


def _findings_table(findings: pd.DataFrame) -> RenderableType:
    table = report_table("Findings", "||")
    table.show_header = False
    for row in findings.itertuples():
        style = LEVEL_STYLE[row.level]
        advice = f" [dim]{escape(row.advice)}[/dim]" if row.advice else ""
        table.add_row(f"[{style}]{row.level}[/{style}]", row.finding, escape(row.message) + advice)
    return table
