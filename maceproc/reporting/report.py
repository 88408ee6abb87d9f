"""What a person reads in a terminal, and what a script reads as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from maceproc import __version__
from maceproc.capture import Sidecar
from maceproc.following.event_costs import UNTOLD
from maceproc.following.perturbation import corrected_bounds
from maceproc.following.rtts import NO_CROSSING
from maceproc.reporting.console import CleanConsole, escape
from maceproc.schema import SCHEMA_VERSION, rows_of
from maceproc.units import NS_PER_S, format_us

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType
    from rich.table import Table

    from maceproc.pipeline import Analysis

WIDTH = 100

LEVEL_STYLE = {"problem": "bold red", "warning": "yellow", "note": "cyan"}

# What the series are, in the order of the report.
SERIES_MEANING = {
    "container, untraced": "as ping reports it",
    "container, traced": "while events were recorded",
    "container, corrected": "RTT - outbound - inbound crossing",
    "native, untraced": "the same ping from the host",
    "native, traced": "from the host, while events were recorded",
    "wire": "outer device: sent to first received",
    "wire, native": "outer device: sent to first received",
}

COMPARISON_MEANING = {
    "perturbation": "what tracing added to the container's RTT",
    "perturbation, native": "what tracing added to the native RTT",
    "container overhead": "container - native, both untraced",
    "corrected - native": "what the correction leaves",
}


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


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Return the object that ``maceproc analyze --json`` prints.

    Keys: ``schema_version``; ``capture`` (file, how it was recorded); ``summary`` (series,
    comparisons by name, coverage, steps); ``rtts`` (rows of RTTS); ``perturbation`` (the row of
    COMPARISONS, or null); ``observer`` (rows of OBSERVER); ``findings`` (rows of
    FINDINGS). Unknown values are null, times in ns.
    """
    comparisons = rows_of(analysis.comparisons)
    by_name = {row["comparison"]: row for row in comparisons}
    return {
        "schema_version": SCHEMA_VERSION,
        "capture": capture_facts(analysis),
        "summary": {
            "coverage": coverage(analysis.rtts),
            "series": rows_of(analysis.series),
            "comparisons": comparisons,
            "steps": rows_of(analysis.steps),
        },
        "rtts": rows_of(analysis.rtts),
        "perturbation": by_name.get("perturbation") or by_name.get("perturbation, native"),
        "observer": rows_of(analysis.observer),
        "findings": rows_of(analysis.findings),
    }


def as_json(analysis: Analysis) -> str:
    """Return `as_dict` as JSON text."""
    return json.dumps(as_dict(analysis), indent=1, allow_nan=False)


def coverage(rtts: pd.DataFrame) -> dict[str, Any]:
    """Count the traced pings: corrected, of how many answered, by status, direction and round.

    ``bounds`` says where the corrected median and mean would lie whatever the others were.
    """
    traced = rtts[rtts["arm"].isin(["container traced", "native traced"])]
    settled = traced["status"].isin(["corrected", "native"])
    answered = traced["rtt_ns"].notna() | settled
    answered &= traced["status"] != "duplicate"
    statuses = traced["status"].value_counts()
    by_round = settled[answered].groupby(traced["round"]).agg(["sum", "size"])
    return {
        "corrected": int((settled & answered).sum()),
        "answered": int(answered.sum()),
        "by_status": {str(name): int(count) for name, count in statuses.items() if count},
        "outbound": int((traced["outbound_ns"].notna() & answered).sum()),
        "inbound": int((traced["inbound_ns"].notna() & answered).sum()),
        "by_round": [
            {"round": int(number), "corrected": int(row["sum"]), "answered": int(row["size"])}
            for number, row in by_round.iterrows()
        ],
        "bounds": corrected_bounds(rtts),
    }


def capture_facts(analysis: Analysis) -> dict[str, Any]:
    """Return where the numbers come from: the file, what recorded it, and what ran where."""
    facts: dict[str, Any] = {
        "file": str(analysis.capture.trace),
        "maceproc": __version__,
        "clock": analysis.trace.clock,
        "events": {name: len(table) for name, table in analysis.trace.events.items()},
        "events_lost": int(analysis.trace.lost["count"].sum()),
    }
    sidecar = analysis.capture.sidecar
    if sidecar:
        facts |= sidecar.facts()
    return facts


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
    if len(analysis.observer):
        yield ""
        yield from _observer_lines(analysis.observer)
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
    traced_s = sum(run.end_ns - run.start_ns for run in sidecar.runs if run.traced) / NS_PER_S
    events = sum(len(table) for table in analysis.trace.events.values())
    yield (f"  rounds  {sidecar.rounds} of {', '.join(dict.fromkeys(r.arm for r in sidecar.runs))}")
    yield (
        f"  events  {events:,} in {traced_s:.1f} s traced ({escape(sidecar.tracing.event_set)}), "
        f"{len(analysis.trace.lost)} gaps"
    )
    yield from (f"  stamps  {line}" for line in _stamps(sidecar))
    machine = sidecar.machine
    yield f"  machine {escape(machine.cpu)}, {machine.cpus} CPUs, {escape(machine.kernel)}"


def _stamps(sidecar: Sidecar) -> Iterator[str]:
    """Say who was assumed to take the time stamps of the first traced run, if it is a ping's."""
    from maceproc.following.matching import stamp_of
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


def report_table(title: str, columns: str) -> Table:
    """Make a table with these columns, separated by ``|``; ``>`` marks numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in columns.split("|"):
        numeric = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if numeric else "left", no_wrap=numeric)
    return table


def _series_table(analysis: Analysis) -> RenderableType:
    table = report_table("RTT [us]", "|>n|>median|>mean|>sd|>5 %|>95 %|")
    for row in sorted(
        analysis.series.itertuples(), key=lambda row: list(SERIES_MEANING).index(row.series)
    ):
        numbers = (row.median_ns, row.mean_ns, row.sd_ns, row.p5_ns, row.p95_ns)
        table.add_row(
            row.series,
            str(row.used),
            *(format_us(number) for number in numbers),
            SERIES_MEANING[row.series],
            style="bold" if row.series == "container, corrected" else "",
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
            else COMPARISON_MEANING[row.comparison],
        )
    return table


def _observer_lines(observer: pd.DataFrame) -> Iterator[str]:
    yield "[bold]What the events cost[/bold]"
    for row in observer.itertuples():
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
        yield f"{seen}; they cost {cost}: {told if row.verdict != UNTOLD else UNTOLD}"


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
    parts = {
        "tx stack": "tx_stack_ns",
        "outbound": "outbound_ns",
        "queue": "outer_queue_ns",
        "wire": "wire_rtt_ns",
        "inbound": "inbound_ns",
        "delivery": "delivery_ns",
        "residual": "residual_ns",
    }
    known = {name: corrected[column].dropna() for name, column in parts.items()}
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
