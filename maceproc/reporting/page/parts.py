"""The parts of the page that are HTML: rows with places and widths in percent of their bar."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc import __version__
from maceproc.following.coverage import coverage
from maceproc.following.losses import event_counts, losses
from maceproc.following.verdicts import STATUSES
from maceproc.ledger import COLUMNS
from maceproc.reporting.explain import explain
from maceproc.reporting.headline import duration, interval
from maceproc.reporting.views import Views
from maceproc.series import SHOWN
from maceproc.units import NS_PER_S

if TYPE_CHECKING:
    from maceproc.analysis import Analysis
    from maceproc.capture import Sidecar

Row = dict[str, Any]


def medians(analysis: Analysis) -> list[Row]:
    """Return the median of every series, as a tile each."""
    series = analysis.series.set_index("series")
    return [
        {
            "name": one.name,
            "value": duration(series.at[one.name, "median_ns"]),
            "detail": one.meaning,
            "series": one.name,
        }
        for one in SHOWN
        if one.name in series.index
    ]


def differences(analysis: Analysis) -> list[Row]:
    """Return the differences with their intervals, and the coverage, as a tile each."""
    made = []
    for row in analysis.comparisons.itertuples():
        ends = f"95 %: {interval(row.low_ns, row.high_ns)}"
        value = duration(row.estimate_ns, signed=True)
        made.append({"name": row.comparison, "value": value, "detail": ends})
    counts = coverage(analysis.rtts)
    if counts["answered"]:
        share = f"{100 * counts['corrected'] / counts['answered']:.1f}\u00a0%"
        detail = f"{counts['corrected']} of {counts['answered']} answered traced pings"
        made.append({"name": "coverage", "value": share, "detail": detail})
    return made


def path_rows(analysis: Analysis) -> list[Row]:
    """Return the steps of a median ping's path; each bar begins where the one before it ends."""
    path = Views(analysis).path()
    begins_ns = path["median_ns"].cumsum() - path["median_ns"]
    whole_ns = float((begins_ns + path[["median_ns", "p95_ns"]].max(axis=1)).max())
    return [
        {
            "segment": row.segment,
            "start": _place_and_event(row.start),
            "end": _place_and_event(row.end),
            "median_ns": row.median_ns,
            "p95_ns": row.p95_ns,
            "left": _percent(begin_ns, whole_ns),
            "width": _percent(row.median_ns, whole_ns),
            "late": _percent(row.p95_ns - row.median_ns, whole_ns),
        }
        for row, begin_ns in zip(path.itertuples(), begins_ns, strict=True)
    ]


def crossing_rows(analysis: Analysis) -> list[Row]:
    """Return median and 95th percentile of the crossings by direction."""
    latency_ns = Views(analysis).crossings().groupby("direction", sort=False)["latency_ns"]
    return [
        {"direction": direction, "median_ns": part.median(), "p95_ns": part.quantile(0.95)}
        for direction, part in latency_ns
    ]


def ledger_rows(analysis: Analysis) -> list[Row]:
    """Return the segments of the mean corrected RTT and their share of it."""
    ledger = Views(analysis).ledger()
    whole_ns = float(ledger["mean_ns"].clip(lower=0).sum())
    return [
        row | {"width": _percent(max(row["mean_ns"], 0), whole_ns)}
        for row in ledger.to_dict("records")
    ]


def costs(analysis: Analysis) -> dict[str, Any]:
    """Return the comparisons on one scale: estimate, interval, and a dot for every round."""
    comparisons, rounds = analysis.comparisons, Views(analysis).perturbation()
    ends_ns = [*comparisons[["low_ns", "high_ns"]].to_numpy().ravel(), *rounds["difference_ns"], 0]
    low_ns, high_ns = np.nanmin(ends_ns), np.nanmax(ends_ns)
    margin_ns = 0.04 * (high_ns - low_ns)
    low_ns, width_ns = low_ns - margin_ns, high_ns - low_ns + 2 * margin_ns

    def at(time_ns: float) -> float:
        return _percent(time_ns - low_ns, width_ns)

    rows = []
    for row in comparisons.itertuples():
        own = rounds.loc[rounds["comparison"] == row.comparison, "difference_ns"]
        place = {"estimate": at(row.estimate_ns), "low": at(row.low_ns), "high": at(row.high_ns)}
        rows.append(row._asdict() | place | {"dots": [at(value) for value in own]})
    ends = {"low": duration(low_ns, signed=True), "high": duration(low_ns + width_ns, signed=True)}
    return {"rows": rows, "zero": at(0), **ends}


def pings_shown(analysis: Analysis) -> list[Row]:
    """Return the pings worth a look, each event by event."""
    shown = []
    for example in Views(analysis).examples().itertuples():
        seq, number = int(example.seq), int(example.round)
        explained = explain(analysis, seq, number)
        ping = explained.ping
        rtt = "no RTT" if pd.isna(example.rtt_ns) else duration(example.rtt_ns)
        shown.append(
            {
                "id": f"ping-{number}-{seq}",
                "label": f"{example.why}: {rtt} (round {number}, icmp_seq {seq})",
                "title": f"icmp_seq {seq}, round {number}",
                "status": ping["status"],
                "reason": ping["reason"] or STATUSES[ping["status"]],
                "causes": ping["causes"],
                "facts": _facts_of(ping),
                "events": _event_rows(Views(analysis).waterfall(seq, number)),
                "candidates": _candidate_rows(explained.candidates),
            }
        )
    return shown


def lost_rows(analysis: Analysis) -> Row:
    """Return the gaps in the events, and their places on the time axis of the RTTs."""
    told = losses(analysis.trace, analysis.capture.sidecar)
    lost = Views(analysis).lost()
    times_ns = pd.concat([Views(analysis).rtt()["after_ns"], lost["after_ns"], lost["until_ns"]])
    end_ns = times_ns.max()
    placed = lost[["after_ns", "until_ns"]].notna().any(axis=None)
    rows = []
    for row in lost.itertuples():
        start = 0 if pd.isna(row.after_ns) else row.after_ns
        stop = end_ns if pd.isna(row.until_ns) else row.until_ns
        place = (
            {"left": _percent(max(start, 0), end_ns), "width": _percent(stop - start, end_ns)}
            if placed
            else {}
        )
        known = {key: None if pd.isna(value) else value for key, value in row._asdict().items()}
        rows.append(known | place)
    return {
        "rows": rows,
        "cpus": sorted({row["cpu"] for row in rows}),
        "placed": bool(placed),
        "seconds": 0.0 if pd.isna(end_ns) else float(end_ns) / NS_PER_S,
        "sentence": told.sentence,
        "missing": told.missing,
    }


def when(analysis: Analysis) -> str:
    """Say when and on what machine it was recorded; empty where no sidecar tells."""
    sidecar = analysis.capture.sidecar
    if sidecar is None:
        return ""
    machine = f"{sidecar.machine.cpu}, {sidecar.machine.cpus} CPUs, Linux {sidecar.machine.kernel}"
    if not (sidecar.runs and sidecar.runs[0].start_utc_ns):
        return machine
    begin = datetime.fromtimestamp(sidecar.runs[0].start_utc_ns // NS_PER_S, UTC)
    return f"{begin:%Y-%m-%d %H:%M} UTC, {machine}"


def recorded(analysis: Analysis) -> list[tuple[str, str]]:
    """Return how the capture was recorded, as terms and their descriptions."""
    sidecar = analysis.capture.sidecar
    facts = list(_recorded_by_us(sidecar)) if sidecar else [("Recorded", "by hand: no sidecar")]
    counts = event_counts(analysis.trace)
    facts.append(("Events used", ", ".join(f"{name} {n:,}" for name, n in counts.items() if n)))
    facts.append(("Trace clock", analysis.trace.clock or "not known"))
    facts.append(("File", str(analysis.capture.trace)))
    facts.append(("Analyzed with", f"maceproc {__version__}"))
    return facts


def _recorded_by_us(sidecar: Sidecar) -> Iterator[tuple[str, str]]:
    tracing, machine = sidecar.tracing, sidecar.machine
    yield "Command", " ".join(sidecar.command)
    yield "Where", f"{sidecar.target.kind} {sidecar.target.name}".strip()
    yield "Way", sidecar.target.route
    if sidecar.target.address:
        yield "Pinged", sidecar.target.address
    arms = ", ".join(dict.fromkeys(run.arm for run in sidecar.runs))
    yield "Rounds", f"{sidecar.rounds} of {arms}"
    if sidecar.runs and sidecar.runs[0].start_utc_ns:
        begin = datetime.fromtimestamp(sidecar.runs[0].start_utc_ns // NS_PER_S, UTC)
        yield "Recorded at", f"{begin:%Y-%m-%d %H:%M:%S} UTC, with maceproc {sidecar.maceproc}"
    traced_s = sum(run.end_ns - run.start_ns for run in sidecar.runs if run.traced) / NS_PER_S
    yield "Traced", f"{traced_s:.1f} s, with {tracing.buffer_size_kb:,} KiB of buffer per CPU"
    yield "Events recorded", f"{tracing.event_set}: {', '.join(tracing.events)}"
    if tracing.tracecmd_version:
        yield "Tracer", f"trace-cmd {tracing.tracecmd_version}"
    if tracing.perf_version:
        yield "Tracer", f"perf {tracing.perf_version}"
    yield "Machine", f"{machine.cpu}, {machine.cpus} CPUs"
    yield "Kernel", machine.kernel
    yield "Frequency governor", machine.governor or "none to see"
    yield "Virtualization", machine.virtualization or "not known"
    yield "Load average", f"{machine.load_average:.2f} when the recording began"
    awake = "kept awake" if machine.awake else "free to sleep between the pings"
    yield "CPUs", awake


def _facts_of(ping: pd.Series) -> list[tuple[str, str]]:
    """Return the ping's numbers: as printed, corrected, and its ledger."""
    facts = [("RTT as printed", "rtt_ns"), ("corrected", "bare_metal_rtt_ns")]
    facts += [(name, column) for name, column in COLUMNS.items()]
    return [(name, duration(ping[column])) for name, column in facts if pd.notna(ping[column])]


def _event_rows(events: pd.DataFrame) -> list[Row]:
    """Return the events of a ping, each with the bar of the time that led to it."""
    whole_ns = float(events["after_ns"].max()) if len(events) else 0.0
    before_ns = events["after_ns"].shift(fill_value=0)
    return [
        {
            "after_ns": row.after_ns,
            "step_ns": row.after_ns - begin_ns,
            "event": row.event,
            "place": row.device,
            "context": _context(row),
            "segment": row.segment,
            "left": _percent(begin_ns, whole_ns),
            "width": _percent(row.after_ns - begin_ns, whole_ns),
        }
        for row, begin_ns in zip(events.itertuples(), before_ns, strict=True)
    ]


def _candidate_rows(candidates: pd.DataFrame) -> list[Row]:
    return [
        {"after_ns": row.after_ns, "residual_ns": row.residual_ns, "taken": bool(row.taken)}
        for row in candidates.itertuples()
    ]


def _context(event: Any) -> str:
    if pd.isna(event.cpu):
        return ""
    return f"CPU {event.cpu}, {'softirq' if event.softirq else 'task'}"


def _place_and_event(text: str) -> tuple[str, str]:
    """Split ``container:eth0 net_dev_queue``; other text is not split."""
    place, _, event = text.rpartition(" ")
    return (place, event) if ":" in place else (text, "")


def _percent(part: float, whole: float) -> float:
    return round(100 * float(part) / whole, 3) if whole else 0.0
