"""What trace-cmd or perf wrote: a file, and the pieces that it is made of.

Files are counted and joined in a separate process, which may load NumPy and pandas to read traces;
the one that records stays small.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from maceproc.capture_files import echoes_path
from maceproc.echo_rows import MAGIC
from maceproc.errors import TracingError
from maceproc.recording import ring
from maceproc.recording.tracing import CLOCK

REST = ".rest"  # maceproc.tracedat.salvage: what was left in the ring buffer
PERF_PIECE = ".perf"  # and a number: what perf wrote of one traced run
KEPT = ".kept"  # ends the second name of a piece


def complete(trace: Path, instance: Path, kernel: Mapping[int, ring.Counts]) -> dict[int, int]:
    """Make a trace hold every event that trace-cmd took or left; return the events in it by CPU.

    trace-cmd has ended. `instance` is the directory of its instance, `kernel` what the kernel
    counted. Where the file lacks events that trace-cmd took, it is made again of the pieces.
    Raises OSError or TracingError when the file cannot be made or read.
    """
    unread = [cpu for cpu, count in kernel.items() if count.unread]
    taken = {cpu: count.read for cpu, count in kernel.items() if count.read}
    if not pieces_of(trace) and trace.exists():
        found = _counted(trace, instance.name)
        if found == taken and not unread:
            drop_kept(trace)
            return found
        if found != taken and kept_of(trace):
            trace.unlink()
    if not trace.exists() or pieces_of(trace):
        restore_pieces(trace)
    drain_into(instance, unread, trace)
    join_remains(trace, CLOCK)
    drop_kept(trace)
    return events_written(trace, instance.name)


def _counted(trace: Path, instance: str) -> dict[int, int]:
    """Count like `events_written`, without CPUs that have none; -1 is an unreadable file's CPU."""
    with contextlib.suppress(TracingError):
        return {cpu: count for cpu, count in events_written(trace, instance).items() if count}
    return {-1: 0}


def holds_events(trace: Path) -> bool:
    """Tell whether a recording has any event on disk: in its pieces, or in its file.

    A file that is not understood may have some.
    """
    if any(path.stat().st_size for path in _beside(trace)):
        return True
    if _echoes_in(echoes_path(trace)):
        return True
    if not trace.exists():
        return False
    echoes = _echoes_in(trace)
    if echoes is not None:
        return echoes
    try:
        counted = json.loads(_after_recording("count", str(trace)))
    except TracingError:
        return True
    return any(sum(cpus.values()) for cpus in counted.values())


def _echoes_in(path: Path) -> bool | None:
    """Tell whether a file of the BPF tracer holds anything; None when it is no such file."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            return bool(file.readline() and file.read(1))  # the points follow the line of JSON
    return None


def keep_pieces(trace: Path) -> None:
    """Give every piece a second name, so that it is still there when trace-cmd has removed it.

    A file system without hard links keeps none.
    """
    for piece in pieces_of(trace):
        with contextlib.suppress(OSError):
            os.link(piece, piece.with_name(piece.name + KEPT), follow_symlinks=False)


def restore_pieces(trace: Path) -> None:
    """Give the pieces that were kept their first names back, and no other."""
    for kept in kept_of(trace):
        piece = kept.with_name(kept.name.removesuffix(KEPT))
        if piece.exists():
            kept.unlink()
        else:
            kept.rename(piece)


def drop_kept(trace: Path) -> None:
    """Remove the second names of the pieces."""
    for kept in kept_of(trace):
        kept.unlink()


def kept_of(trace: Path) -> list[Path]:
    """Return the second names of the pieces of a trace."""
    return [path for path in _beside(trace) if path.name.endswith(KEPT)]


def drain_into(instance: Path, cpus: list[int], trace: Path) -> None:
    """Move what the ring buffers of these CPUs hold to files beside the trace, for salvage.

    Raises OSError when that cannot be done.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    for cpu in cpus:
        name = f"{trace.name}.{instance.name}.cpu{cpu}{REST}"
        file = os.open(trace.with_name(name), flags, 0o600)
        try:
            ring.drain(instance, cpu, file)
        finally:
            os.close(file)


def events_written(trace: Path, instance: str) -> dict[int, int]:
    """Count the events of one instance that a trace holds, by CPU.

    Raises TracingError when the file cannot be read.
    """
    counted = json.loads(_after_recording("count", str(trace)))
    return {int(cpu): count for cpu, count in counted.get(instance, {}).items()}


class Joined(NamedTuple):
    """What is known of a trace joined from perf's pieces; empty for pieces of trace-cmd."""

    lost: Mapping[str, int] = MappingProxyType({})  # CPU -> events
    notes: Sequence[str] = ()  # which parts of the pieces could not be kept
    events: int = 0


def join_remains(trace: Path, clock: str) -> Joined:
    """Join `trace`, where it is readable, with the pieces and rests beside it.

    Then pieces and rests are removed. If they cannot be joined they stay, and TracingError is
    raised. Where nothing lies beside a trace, it is left as it is.
    """
    if trace.exists() and not pieces_of(trace):
        return Joined()
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
    return [path for path in _beside(trace) if not path.name.endswith(KEPT)]


def _beside(trace: Path) -> list[Path]:
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
