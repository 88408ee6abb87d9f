"""Make a capture of what a killed recording left, and remove its instance when that is safe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from maceproc.capture import Sidecar
from maceproc.capture_files import (
    Capture,
    belongs_to,
    echoes_path,
    identify,
    load_sidecar,
    recording_directory,
    save_sidecar,
    sidecar_path,
)
from maceproc.errors import CaptureError
from maceproc.recording import ring, written
from maceproc.recording.remains import forget, recorded_trace, stale_instances
from maceproc.recording.tracing import CLOCK, TRACEFS
from maceproc.recording.workplace import Workplace, lock_abandoned, move_out


def remove_stale_instances(tracefs: Path = TRACEFS) -> list[str]:
    """Remove the instances of recordings that were killed; return their names.

    The events in their ring buffers are first saved beside the pieces that were recorded. An
    instance stays if its events cannot be saved, or if somebody still uses it (its owner may run in
    another pid namespace).
    """
    removed = []
    for name in stale_instances(tracefs):
        instance = tracefs / "instances" / name
        trace = recorded_trace(name)
        with contextlib.suppress(OSError, CaptureError):
            if trace is not None and trace.parent.is_dir():
                with _abandoned(trace.parent):
                    _save_rings(instance, trace)
            instance.rmdir()
            forget(name)
            removed.append(name)
    return removed


def abandoned_recordings(directory: Path) -> list[Path]:
    """Return the traces below a directory, not deeper, whose recording was killed."""
    traces = []
    for path in sorted(directory.glob("*" + recording_directory("").name)):
        with contextlib.suppress(CaptureError), _abandoned(path):
            traces.append(path.with_name(path.name.removesuffix(recording_directory("").name)))
    return traces


def discard_without_events(trace: Path) -> bool:
    """Remove what a killed recording of `trace` left, if it holds no event; tell whether it did."""
    with contextlib.suppress(CaptureError), Workplace(trace):
        return True
    return False


def finish_killed(trace: Path, output: Path, tracefs: Path = TRACEFS) -> Capture:
    """Make a capture at `output` of what a killed recording of `trace` left.

    It holds the runs that had ended, and every event that was written or is still in the kernel's
    ring buffer. Raises CaptureError when the recording goes on, nothing was recorded, or the output
    exists; TracingError when its pieces cannot be joined.
    """
    directory = recording_directory(trace)
    inside, beside = directory / trace.name, sidecar_path(directory / trace.name)
    with _abandoned(directory):
        sidecar = load_sidecar(beside) if beside.exists() else None
        if sidecar and sidecar.trace and output.exists() and belongs_to(sidecar.trace, output):
            move_out(beside, sidecar_path(output))  # it was killed between the two moves
        else:
            _finish(inside, output, sidecar, tracefs)
        with contextlib.suppress(OSError):
            directory.rmdir()
    return Capture(output, sidecar)


def _finish(inside: Path, output: Path, sidecar: Sidecar | None, tracefs: Path) -> None:
    for path in (output, sidecar_path(output)):
        if os.path.lexists(path):
            raise CaptureError(f"{path}: exists", hint="give another name with -o")
    instance = tracefs / "instances" / sidecar.tracing.instance if sidecar else None
    kernel = {}
    if sidecar and instance and instance.name in stale_instances(tracefs):
        kernel = ring.counts(instance)
        _save_rings(instance, inside)
    if written.pieces_of(inside) or not inside.exists():
        written.restore_pieces(inside)
    if not written.holds_events(inside):
        raise CaptureError(
            f"{inside.parent}: nothing to salvage: no event was written",
            hint="record again: the next recording of that name removes it",
        )
    joined = written.join_remains(inside, CLOCK)
    if sidecar:
        if kernel:
            found = written.events_written(inside, sidecar.tracing.instance)
            missing = {cpu: count.recorded - found.get(cpu, 0) for cpu, count in kernel.items()}
            sidecar.tracing.events_missing = {str(c): n for c, n in missing.items() if n}
            sidecar.tracing.events_lost = {str(c): k.lost for c, k in kernel.items() if k.lost}
        elif joined.lost or joined.notes:
            sidecar.tracing.events_lost = dict(joined.lost)
            sidecar.tracing.problems += joined.notes
        sidecar.trace = identify(inside)
        save_sidecar(sidecar_path(inside), sidecar)
    written.drop_kept(inside)
    if echoes_path(inside).exists():
        move_out(echoes_path(inside), echoes_path(output))
    move_out(inside, output)
    if sidecar:
        move_out(sidecar_path(inside), sidecar_path(output))
    if instance and kernel:
        with contextlib.suppress(OSError):
            instance.rmdir()
            forget(instance.name)


def _save_rings(instance: Path, trace: Path) -> None:
    unread = [cpu for cpu, count in ring.counts(instance).items() if count.unread]
    written.drain_into(instance, unread, trace)


@contextlib.contextmanager
def _abandoned(directory: Path) -> Iterator[None]:
    """Hold the directory of a killed recording; CaptureError while somebody records in it."""
    lock = lock_abandoned(directory)
    if lock is None:
        raise CaptureError(
            f"{directory}: is being recorded in", hint="wait until the recording has ended"
        )
    try:
        yield
    finally:
        os.close(lock)
