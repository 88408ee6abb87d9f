"""Count and join what trace-cmd wrote, in a separate process.

That process may load NumPy and pandas to read traces; the one that records stays small.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from maceproc.errors import TracingError

REST = ".rest"  # maceproc.tracedat.salvage: what was left in the ring buffer


def events_written(trace: Path, instance: str) -> dict[int, int]:
    """Count the events of one instance that a trace holds, by CPU.

    Raises TracingError when the file cannot be read.
    """
    counted = json.loads(_after_recording("count", str(trace)))
    return {int(cpu): count for cpu, count in counted.get(instance, {}).items()}


def join_remains(trace: Path, clock: str) -> None:
    """Join `trace`, where it is readable, with the pieces and rests beside it.

    Then pieces and rests are removed. If they cannot be joined they stay, and TracingError is
    raised.
    """
    joined = trace.with_name(f"{trace.name}.joined")
    joined.unlink(missing_ok=True)
    _after_recording("join", str(trace), str(joined), clock)
    joined.replace(trace)
    for piece in pieces_of(trace):
        piece.unlink()


def pieces_of(trace: Path) -> list[Path]:
    """Return the pieces and rests that lie beside a trace, by name."""
    return sorted(path for path in trace.parent.glob("*.cpu*") if path.name.startswith(trace.name))


def _after_recording(*words: str) -> str:
    # -P: do not import from the current directory, which may belong to anybody.
    argv = [sys.executable, "-P", "-m", "maceproc.tracedat.after_recording", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise TracingError(said[-1])
    return done.stdout
