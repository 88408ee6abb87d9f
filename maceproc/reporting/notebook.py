"""Results as plain HTML for notebooks; web pages that host code can render it, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maceproc.following.verdicts import STATUSES
from maceproc.reporting.answer import answer
from maceproc.reporting.headline import duration, interval
from maceproc.series import DIFFERENCE_MEANING, MEANING

if TYPE_CHECKING:
    from maceproc.analysis import Analysis, Comparison


LOCATION = ["median_ns", "mean_ns", "sd_ns", "p5_ns", "p95_ns"]


def analysis_html(analysis: Analysis) -> str:
    """Render the answer, the series, the comparisons and the findings of an analysis."""
    found = answer(analysis)
    series = analysis.series.set_index("series").reindex(list(MEANING))
    medians = [
        (name, f"{row['used']:.0f}", *map(duration, row[LOCATION]), MEANING[str(name)])
        for name, row in series.dropna(subset="used").iterrows()
    ]
    differences = [
        (
            row.comparison,
            duration(row.estimate_ns, signed=True),
            interval(row.low_ns, row.high_ns),
            str(row.rounds),
            DIFFERENCE_MEANING[row.comparison],
        )
        for row in analysis.comparisons.itertuples()
    ]
    findings = [
        (row.level, row.finding, row.message, row.advice) for row in analysis.findings.itertuples()
    ]
    closure = [
        (
            row.term,
            duration(row.estimate_ns, signed=True),
            interval(row.low_ns, row.high_ns),
            row.meaning,
        )
        for row in analysis.native.closure.itertuples()
    ]
    return "".join(
        [
            f"<h4>{escape(analysis.capture.trace.name)}</h4>",
            f"<p>{escape(found.sentence)}</p>",
            _table(("verdict", found.soundness.sentence), found.facts),
            _table(("RTT", "n", "median", "mean", "sd", "p5", "p95", ""), medians),
            _table(("difference", "estimate", "95 % interval", "rounds", ""), differences),
            _table(("between corrected and native", "estimate", "95 % interval", ""), closure),
            _table(("finding", "", "", "advice"), findings),
        ]
    )


def comparison_html(comparison: Comparison) -> str:
    """Render the captures, their medians, their differences and the notes of a comparison."""
    captures = [
        (row.capture, row.command, str(row.rounds), f"{row.corrected} of {row.answered}")
        for row in comparison.captures.itertuples()
    ]
    names = list(comparison.analyses)
    medians = comparison.quantities.set_index(["quantity", "capture"])["median_ns"]
    quantities = [
        (quantity, *(duration(float(medians.get((quantity, name), np.nan))) for name in names))
        for quantity in dict.fromkeys(comparison.quantities["quantity"])
    ]
    contrasts = [
        (
            row.capture,
            row.quantity,
            duration(row.estimate_ns, signed=True),
            interval(row.low_ns, row.high_ns),
            "" if pd.isna(row.delta) else f"{row.delta:+.2f}",
            f"{row.p_adjusted:.3g}",
        )
        for row in comparison.contrasts.itertuples()
    ]
    differences = ("against " + names[0], "", "estimate", "95 % interval", "delta", "p (Holm)")
    return "".join(
        [
            _table(("capture", "ran", "rounds", "corrected"), captures),
            _table(("median", *names), quantities),
            _table(differences, contrasts),
            *(f"<p>{escape(note)}</p>" for note in comparison.notes),
        ]
    )


def explanation_html(
    ping: pd.Series, events: pd.DataFrame, ledger: pd.Series, candidates: pd.DataFrame
) -> str:
    """Render the events of one ping, its ledger, and the packets that could have been its reply.

    The tables are those of `maceproc.reporting.explain.Explanation`.
    """
    about = ping["reason"] or STATUSES[ping["status"]]
    if ping["causes"]:
        about += f"; shown by its events: {ping['causes']}"
    event_rows = [
        (
            duration(row.after_ns),
            "" if pd.isna(row.step_ns) else duration(row.step_ns, signed=True),
            row.event,
            ":".join(str(part) for part in (row.netns, row.dev) if pd.notna(part)),
            "" if pd.isna(row.cpu) else f"{row.cpu:.0f}",
            "" if pd.isna(row.softirq) else ("softirq" if row.softirq else "task"),
        )
        for row in events.itertuples()
    ]
    segments = [(name, duration(time_ns)) for name, time_ns in ledger.items()]
    segments.append(("RTT as printed", duration(ping["rtt_ns"])))
    segments.append(("corrected", duration(ping["bare_metal_rtt_ns"])))
    candidate_rows = [
        (duration(row.after_ns), duration(row.residual_ns), "taken" if row.taken else "not taken")
        for row in candidates.itertuples()
    ]
    title = f"icmp_seq {ping['seq']}, round {ping['round']}, {ping['arm']}: {ping['status']}"
    return "".join(
        [
            f"<h4>{escape(title)}</h4><p>{escape(about)}</p>",
            _table(("after", "step", "event", "where", "CPU", "context"), event_rows),
            _table(("ledger", "time"), segments),
            _table(("packet came in after", "would leave a residual of", ""), candidate_rows),
        ]
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a table as HTML; a table without rows gives an empty text."""
    rows = list(rows)
    if not rows:
        return ""
    head, body = _cells("th", header), "".join(_cells("td", row) for row in rows)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _cells(kind: str, texts: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(str(text))}</{kind}>" for text in texts) + "</tr>"
