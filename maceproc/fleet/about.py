"""What every row of a dataset tells of the capture it is from."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maceproc import __version__
from maceproc.capture import Sidecar
from maceproc.capture_files import Capture
from maceproc.errors import MaceprocError
from maceproc.fleet.layout import Place
from maceproc.foreign_text import clean
from maceproc.perfdata.container import info_of, is_perf_data, open_perf
from maceproc.schema import SCHEMA_VERSION
from maceproc.tracedat.container import is_trace_dat, open_trace
from maceproc.tracedat.tracefile import UNAME
from maceproc.units import NS_PER_S

LONGEST_HOST = 253  # of a name in the DNS, RFC 1035, 2.3.4 [characters]
LONGEST_TEXT = 1000  # of what else is told with every row [characters]

# What an engine names anew for every container: the host's end of a veth pair, a network's bridge.
MADE_UP = re.compile(r"\b(veth|br-|cali|lxc|vnet|tap)(?=[0-9a-f_-]*[0-9])[0-9a-f_-]{2,}(@\w+)?\b")


def place_of_capture(capture: Capture, host: str = "") -> Place:
    """Return where a capture belongs in a dataset; OSError when it cannot be read.

    `host` is the machine's name, if it is to be another than the capture's own.
    """
    name = host or host_of(capture)
    return Place(sha256_of(capture.trace), _short(name, LONGEST_HOST), date_of(capture.sidecar))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the files of a directory, in hexadecimal."""
    if path.is_dir():  # perf record --threads
        digest = hashlib.sha256()
        for part in sorted(part for part in path.rglob("*") if part.is_file()):
            digest.update(f"{part.relative_to(path)}\n{sha256_of(part)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def host_of(capture: Capture) -> str:
    """Return the name of the machine that recorded: what the sidecar says, or the trace itself.

    Without a name, the sidecar's digest of what tells the machine from others; or nothing.
    """
    machine = capture.sidecar.machine if capture.sidecar else None
    if machine and machine.host:
        return machine.host
    if name := _host_in(capture.trace):
        return name
    return f"machine-{machine.identity}" if machine and machine.identity else ""


def _host_in(trace: Path) -> str:
    """Return the host name that a trace file holds: in uname(2)'s words it is the second one."""
    try:
        if is_trace_dat(trace):
            words = open_trace(trace).option_text(UNAME).split()
            return words[1] if len(words) > 1 else ""
        if is_perf_data(trace):
            return str(info_of(open_perf(trace)).get("hostname", ""))
    except MaceprocError:
        pass  # whoever reads the events says what is wrong
    return ""


def date_of(sidecar: Sidecar | None) -> str:
    """Return the UTC day on which the first run began; empty when that is not known."""
    begun = [run.start_utc_ns for run in sidecar.runs if run.start_utc_ns] if sidecar else []
    try:
        return datetime.fromtimestamp(min(begun) // NS_PER_S, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):  # none, or no time of a calendar
        return ""


def about(capture: Capture, place: Place, file: str) -> dict[str, Any]:
    """Return the values of `ABOUT` for the rows of a capture that was collected from `file`."""
    sidecar = capture.sidecar
    facts: dict[str, Any] = {
        "capture": place.capture,
        "file": _short(file, 4 * LONGEST_TEXT),
        "ran_in": sidecar.target.name or sidecar.target.kind if sidecar else "",
        "target": sidecar.target.address if sidecar else "",
        "path": without_made_up_names(sidecar.target.route) if sidecar else "",
        "kernel": sidecar.machine.kernel if sidecar else "",
        "event_set": sidecar.tracing.event_set if sidecar else "",
        "recorded_by": sidecar.maceproc if sidecar else "",
        "analyzed_by": __version__,
        "schema_version": SCHEMA_VERSION,
    }
    return {
        name: _short(value, 4 * LONGEST_TEXT) if isinstance(value, str) else value
        for name, value in facts.items()
    }


def without_made_up_names(route: str) -> str:
    """Return a route that is the same for every container of one kind: ``veth1a2b3c`` is ``veth*``.

    Without this, every container that Docker starts would have a path of its own.
    """
    return MADE_UP.sub(r"\1*", route)


def _short(text: str, longest: int) -> str:
    text = clean(text[:longest])
    return text if len(text) <= longest else text[:longest]
