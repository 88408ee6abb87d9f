"""The report of an analysis, as a person reads it in a terminal: the answer first."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maceproc.capture import Sidecar
from maceproc.following.coverage import coverage
from maceproc.following.losses import event_counts, losses
from maceproc.following.topology import stack_of
from maceproc.following.verdicts import NO_CROSSING
from maceproc.reporting.answer import answer
from maceproc.reporting.closure import closure_lines
from maceproc.reporting.console import CleanConsole, escape, print_parts
from maceproc.reporting.headline import plain
from maceproc.reporting.report_tables import (
    comparisons_table,
    event_cost_lines,
    findings_list,
    ledger_line,
    series_table,
    steps_table,
    verdict_style,
)
from maceproc.reporting.text_table import WIDTH, pairs
from maceproc.units import NS_PER_S, format_us
from maceproc.uplinks import cards_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType

    from maceproc.analysis import Analysis


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


def print_report(analysis: Analysis, console: Console) -> None:
    """Print the report of one analysis on a console."""
    print_parts(_parts(analysis), console)


def _parts(analysis: Analysis) -> Iterator[RenderableType]:
    yield from _answer(analysis)
    yield ""
    yield from _recording(analysis)
    if len(analysis.series):
        yield ""
        yield from series_table(analysis)
        yield _coverage_line(analysis.rtts)
    elif analysis.pings.empty and len(analysis.crossings):
        from maceproc.reporting.crossings_table import crossings_without_pings

        yield ""
        yield from crossings_without_pings(analysis.crossings)
    if len(analysis.comparisons):
        yield ""
        yield from comparisons_table(analysis.comparisons)
    if len(analysis.native.closure):
        yield ""
        yield from closure_lines(analysis.native)
    if len(analysis.event_costs):
        yield ""
        yield from event_cost_lines(analysis.event_costs)
    if len(analysis.steps):
        yield ""
        yield from steps_table(analysis.steps)
        yield from ledger_line(analysis.rtts)
    if len(analysis.findings):
        yield ""
        yield from findings_list(analysis.findings)


def _answer(analysis: Analysis) -> Iterator[RenderableType]:
    """Yield the sentence, the verdict, and the numbers that matter."""
    found = answer(analysis)
    yield escape(plain(found.sentence))
    yield ""
    style = verdict_style(found.soundness)
    verdict = f"[{style}]{found.soundness.verdict}[/{style}]"
    rows = {"verdict": verdict + escape(found.soundness.reason)}
    yield pairs(rows | {name: escape(plain(text)) for name, text in found.facts})


def _recording(analysis: Analysis) -> Iterator[RenderableType]:
    """Yield what was recorded, how and where."""
    sidecar = analysis.capture.sidecar
    yield f"[bold]{escape(str(analysis.capture.trace))}[/bold]"
    if sidecar is None:
        yield "  recorded by hand: no sidecar says what ran, where, and in which rounds"
        if analysis.pings.empty:
            yield "  give what the ping printed with --ping, to have its RTTs corrected"
        return
    traced_s = sum(run.end_ns - run.start_ns for run in sidecar.runs if run.traced) / NS_PER_S
    machine = sidecar.machine
    arms = ", ".join(dict.fromkeys(run.arm for run in sidecar.runs))
    rows = {
        "ran": escape(" ".join(sidecar.command)),
        "where": escape(_where(sidecar)),
        "uplink": escape("; ".join(_uplink(sidecar))),
        "rounds": f"{sidecar.rounds} of {arms}",
        **_recorded(analysis, sidecar, traced_s),
        "stamps": _stamps(sidecar),
        "machine": f"{escape(machine.cpu)}, {machine.cpus} CPUs, {escape(machine.kernel)}",
    }
    yield pairs({name: text for name, text in rows.items() if text})


def _recorded(analysis: Analysis, sidecar: Sidecar, traced_s: float) -> dict[str, str]:
    """Say how much was recorded."""
    tracing = sidecar.tracing
    if tracing.tracer == "bpf":
        echoes = analysis.trace.info["echoes"]
        lost = f"{tracing.points_lost} points lost" if tracing.points_lost else "none lost"
        return {"echoes": f"{echoes:,} in {traced_s:.1f} s traced (bpf), {lost}"}
    events = sum(event_counts(analysis.trace).values())
    lost = losses(analysis.trace, sidecar).sentence or "none lost"
    recorded = f"{events:,} in {traced_s:.1f} s traced ({escape(tracing.event_set)}), {lost}"
    return {"events": recorded}


def _stamps(sidecar: Sidecar) -> str:
    """Say who takes the time stamps of the first traced run, where its flavour is known."""
    from maceproc.following.stamps import stamp_of
    from maceproc.pings import parse_runs

    for run, printed in parse_runs([run for run in sidecar.runs if run.traced][:1]):
        if printed.flavour != "unknown":
            who = "the kernel" if stamp_of(run, printed) == "kernel" else "ping itself"
            return f"as {printed.flavour} ping takes them; replies are stamped by {who}"
    return ""


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
