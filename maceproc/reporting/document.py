"""What a script reads: the object that ``maceproc analyze --json`` prints."""

from __future__ import annotations

import json
from typing import Any

from maceproc import __version__
from maceproc.analysis import Analysis
from maceproc.following.coverage import coverage
from maceproc.following.losses import losses
from maceproc.schema import SCHEMA_VERSION, rows_of
from maceproc.series import NATIVE_PERTURBATION, PERTURBATION


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Return the object that ``maceproc analyze --json`` prints.

    Keys: ``schema_version``; ``capture`` (file, how it was recorded); ``summary`` (series,
    comparisons by name, coverage, steps); ``rtts`` (rows of RTTS); ``perturbation`` (the row of
    COMPARISONS, or null); ``observer`` (rows of EVENT_COSTS); ``findings`` (rows of
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
        "perturbation": by_name.get(PERTURBATION.name) or by_name.get(NATIVE_PERTURBATION.name),
        "observer": rows_of(analysis.event_costs),
        "findings": rows_of(analysis.findings),
    }


def as_json(analysis: Analysis) -> str:
    """Return `as_dict` as JSON text."""
    return json.dumps(as_dict(analysis), indent=1, allow_nan=False)


def capture_facts(analysis: Analysis) -> dict[str, Any]:
    """Return where the numbers come from: the file, what recorded it, and what ran where."""
    lost = losses(analysis.trace, analysis.capture.sidecar)
    facts: dict[str, Any] = {
        "file": str(analysis.capture.trace),
        "maceproc": __version__,
        "clock": analysis.trace.clock,
        "events": {name: len(table) for name, table in analysis.trace.events.items()},
        "events_lost": lost.known,
        "events_missing": lost.missing,
    }
    sidecar = analysis.capture.sidecar
    if sidecar:
        facts |= sidecar.facts()
    return facts
