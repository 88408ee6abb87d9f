"""The object that ``maceproc analyze --json`` prints, for scripts."""

from __future__ import annotations

import json
import math
from typing import Any

from maceproc import __version__
from maceproc.analysis import Analysis
from maceproc.following.coverage import coverage
from maceproc.following.losses import event_counts, losses
from maceproc.reporting.answer import answer
from maceproc.reporting.headline import plain
from maceproc.schema import SCHEMA_VERSION, rows_of
from maceproc.series import NATIVE_PERTURBATION, PERTURBATION


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Return the object that ``maceproc analyze --json`` prints.

    Keys: ``schema_version``; ``capture`` (file, how it was recorded); ``summary`` (series,
    comparisons by name, coverage, steps); ``answer`` (the sentence, the verdict and why, and the
    facts that the report begins with); ``rtts`` (rows of RTTS); ``perturbation`` (the row of
    COMPARISONS, or null); ``native`` (how ``native_rtt_ns`` was made, its median with its interval,
    and rows of CLOSURE); ``observer`` (rows of EVENT_COSTS); ``findings`` (rows of FINDINGS).
    Unknown values are null, times in ns.
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
        "answer": _answer(analysis),
        "rtts": rows_of(analysis.rtts),
        "perturbation": by_name.get(PERTURBATION.name) or by_name.get(NATIVE_PERTURBATION.name),
        "native": _native(analysis),
        "observer": rows_of(analysis.event_costs),
        "findings": rows_of(analysis.findings),
    }


def _answer(analysis: Analysis) -> dict[str, Any]:
    """Return what the report begins with, as plain texts."""
    found = answer(analysis)
    return {
        "sentence": plain(found.sentence),
        "verdict": found.soundness.verdict,
        "why": found.soundness.why,
        "facts": {name: plain(text) for name, text in found.facts},
    }


def _native(analysis: Analysis) -> dict[str, Any]:
    """Return how the native RTT was made, and what is between it and the corrected one."""
    native = analysis.native
    known = native.correction is not None
    return {
        "source": native.source or None,
        "missing": native.missing or None,
        "median_ns": native.median.estimate_ns if known else None,
        "low_ns": _or_none(native.median.low_ns),
        "high_ns": _or_none(native.median.high_ns),
        "closure": rows_of(native.closure),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


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
        "events": dict(event_counts(analysis.trace)),
        "events_lost": lost.known,
        "events_missing": lost.missing,
    }
    sidecar = analysis.capture.sidecar
    if sidecar:
        facts |= sidecar.facts()
    return facts
