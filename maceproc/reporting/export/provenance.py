"""Where numbers come from: what every exported file says about itself."""

from __future__ import annotations

import hashlib
import importlib
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from maceproc import __version__
from maceproc.errors import AnalysisError
from maceproc.following.losses import losses
from maceproc.schema import SCHEMA_VERSION
from maceproc.units import NS_PER_S

if TYPE_CHECKING:
    from maceproc.analysis import Analysis


def provenance(analysis: Analysis) -> dict[str, Any]:
    """Return which capture this is, how it was recorded, and what followed its packets."""
    lost = losses(analysis.trace, analysis.capture.sidecar)
    facts: dict[str, Any] = {
        "creator": f"maceproc {__version__}",
        "schema_version": SCHEMA_VERSION,
        "capture": analysis.capture.trace.name,
        "capture_sha256": sha256_of(analysis.capture.trace),
        "clock": analysis.trace.clock,
        "events_lost": lost.known,
        "events_missing": lost.missing,
    }
    sidecar = analysis.capture.sidecar
    if sidecar:
        facts |= {
            "recorded_by": f"maceproc {sidecar.maceproc}",
            "recorded_at": _utc(sidecar.runs[0].start_utc_ns) if sidecar.runs else "",
            **sidecar.facts(),
        }
    return facts


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def utc_offset(analysis: Analysis) -> Callable[[int], int | None]:
    """Return a function from a time on the trace clock to UTC minus trace clock then [ns].

    The offset is that of the run that began last before the time, or else of the first run; None
    if no run recorded it.
    """
    sidecar = analysis.capture.sidecar
    known = [run for run in sidecar.runs if run.start_utc_ns and run.start_ns] if sidecar else []
    runs = sorted(known, key=lambda run: run.start_ns)
    starts_ns = [run.start_ns for run in runs]

    def offset_ns(time_ns: int) -> int | None:
        if not runs:
            return None
        run = runs[max(bisect_right(starts_ns, time_ns) - 1, 0)]
        return run.start_utc_ns - run.start_ns

    return offset_ns


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
