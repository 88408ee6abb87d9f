"""Count and join what trace-cmd or perf wrote, in a separate process.

That process may load NumPy and pandas to read traces; the one that records stays small.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from maceproc.errors import TracingError

REST = ".rest"  # maceproc.tracedat.salvage: what was left in the ring buffer
PERF_PIECE = ".perf"  # and a number: what perf wrote of one traced run


def events_written(trace: Path, instance: str) -> dict[int, int]:
    """Count the events of one instance that a trace holds, by CPU.

    Raises TracingError when the file cannot be read.
    """
    counted = json.loads(_after_recording("count", str(trace)))
    return {int(cpu): count for cpu, count in counted.get(instance, {}).items()}


class Joined(NamedTuple):
    """What is known of a joined trace when its pieces are by perf; of trace-cmd's, nothing."""

    lost: Mapping[str, int] = MappingProxyType({})  # CPU -> events
    notes: Sequence[str] = ()  # what of the pieces could not be kept
    events: int = 0


def join_remains(trace: Path, clock: str) -> Joined:
    """Join `trace`, where it is readable, with the pieces and rests beside it.

    Then pieces and rests are removed. If they cannot be joined they stay, and TracingError is
    raised.
    """
    joined = trace.with_name(f"{trace.name}.joined")
    joined.unlink(missing_ok=True)
    pieces = pieces_of(trace)
    by_perf = [str(piece) for piece in pieces if is_perf_piece(piece)]
    found = Joined()
    try:
        if by_perf:
            said = json.loads(_after_recording(str(joined), *by_perf, package="perfdata"))
            found = Joined(said["lost"], said["notes"], said["samples"])
        else:
            _after_recording("join", str(trace), str(joined), clock)
    except BaseException:
        joined.unlink(missing_ok=True)
        raise
    joined.replace(trace)
    for piece in pieces:
        piece.unlink()
    return found


def pieces_of(trace: Path) -> list[Path]:
    """Return the pieces and rests that lie beside a trace, by name."""
    return sorted(
        path
        for path in trace.parent.iterdir()
        if path.name.startswith(trace.name) and (".cpu" in path.name or is_perf_piece(path))
    )


def is_perf_piece(path: Path) -> bool:
    """Tell whether a file is what perf wrote of one traced run, by its name."""
    return path.suffix.startswith(PERF_PIECE) and path.suffix[len(PERF_PIECE) :].isdigit()


def _after_recording(*words: str, package: str = "tracedat") -> str:
    # -P: do not import from the current directory, which may belong to anybody.
    argv = [sys.executable, "-P", "-m", f"maceproc.{package}.after_recording", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise TracingError(said[-1])
    return done.stdout
