"""Where numbers come from: what every exported file says about itself."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from maceproc import __version__
from maceproc.errors import AnalysisError
from maceproc.schema import SCHEMA_VERSION
from maceproc.units import NS_PER_S

if TYPE_CHECKING:
    from maceproc.pipeline import Analysis


def provenance(analysis: Analysis) -> dict[str, Any]:
    """Return which capture this is, how it was recorded, and what followed its packets."""
    facts: dict[str, Any] = {
        "creator": f"maceproc {__version__}",
        "schema_version": SCHEMA_VERSION,
        "capture": analysis.capture.trace.name,
        "capture_sha256": sha256_of(analysis.capture.trace),
        "clock": analysis.trace.clock,
        "events_lost": int(analysis.trace.lost["count"].sum()),
    }
    sidecar = analysis.capture.sidecar
    if sidecar:
        facts |= {
            "recorded_by": f"maceproc {sidecar.maceproc}",
            "recorded_at": _utc(sidecar.runs[0].start_utc_ns) if sidecar.runs else "",
            "command": sidecar.command,
            "rounds": sidecar.rounds,
            "target": sidecar.target.name or sidecar.target.kind,
            "path": [str(hop) for hop in sidecar.target.path],
            "kernel": sidecar.machine.kernel,
            "cpu": sidecar.machine.cpu,
            "event_set": sidecar.tracing.event_set,
        }
    return facts


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def utc_offset_ns(analysis: Analysis, time_ns: int) -> int | None:
    """Return UTC minus trace clock [ns] in the run of that time; None when nobody says."""
    sidecar = analysis.capture.sidecar
    runs = [run for run in sidecar.runs if run.start_utc_ns and run.start_ns] if sidecar else []
    if not runs:
        return None
    begun = [run for run in runs if run.start_ns <= time_ns] or runs[:1]
    return begun[-1].start_utc_ns - begun[-1].start_ns


def required(module: str, package: str) -> ModuleType:
    """Import a library that only exports need; AnalysisError when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AnalysisError(
            f"this format needs {package}", hint="install it with: pip install 'maceproc[export]'"
        ) from error


def _utc(time_ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ns // NS_PER_S, UTC).isoformat()
