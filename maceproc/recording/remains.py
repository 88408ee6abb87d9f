"""What killed recordings leave behind: tracing instances and temporary directories.

Their names hold their owner. /run/maceproc says where the recording of an instance is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from maceproc.recording.owners import OWNER, has_ended, owner_name
from maceproc.recording.tracing import TRACEFS

INSTANCE_PREFIX = "maceproc-"
REMOVE_TIMEOUT_S = 5
REGISTRY = Path("/run/maceproc")  # links named after instances, to the traces they are recorded to

_TEMPORARY = re.compile(rf"maceproc-({OWNER})-\w+")


def remove_instance(directory: Path) -> None:
    """Remove a tracing instance if it is still there.

    It is busy until its last reader is gone: another process may look which instances trace.
    """
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while directory.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            directory.rmdir()
            return
        time.sleep(0.01)


def remember(instance: str, trace: Path) -> None:
    """Note the trace that an instance is recorded to; it is read if we are killed."""
    # If the note cannot be written, only the events in the ring buffer are lost after a kill.
    with contextlib.suppress(OSError):
        REGISTRY.mkdir(mode=0o700, exist_ok=True)  # it stays when empty: others may need it
        (REGISTRY / instance).unlink(missing_ok=True)
        (REGISTRY / instance).symlink_to(trace.absolute())


def forget(instance: str) -> None:
    """Remove the note of an instance."""
    with contextlib.suppress(OSError):
        (REGISTRY / instance).unlink(missing_ok=True)


def recorded_trace(instance: str) -> Path | None:
    """Return the trace that an instance was recorded to; None when nobody noted it."""
    with contextlib.suppress(OSError):
        return (REGISTRY / instance).readlink()
    return None


def stale_notes(tracefs: Path = TRACEFS) -> list[Path]:
    """Return the notes of instances that are gone, whose recordings were killed."""
    try:
        there = {path.name for path in (tracefs / "instances").iterdir()}
        noted = sorted(REGISTRY.iterdir())
    except OSError:  # nobody has noted anything, or we may not look
        return []
    return [note for note in noted if note.name not in there and has_ended(_owner(note.name))]


def remove_stale_notes(tracefs: Path = TRACEFS) -> list[Path]:
    """Remove the notes of instances that are gone; return them."""
    stale = stale_notes(tracefs)
    for note in stale:
        forget(note.name)
    return stale


def stale_instances(tracefs: Path = TRACEFS) -> list[str]:
    """Return the names of the instances whose recordings were killed."""
    names = (path.name for path in (tracefs / "instances").glob(f"{INSTANCE_PREFIX}[0-9]*"))
    return sorted(name for name in names if has_ended(_owner(name)))


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """Give a new directory with our owner's name in its own, and remove it."""
    with tempfile.TemporaryDirectory(prefix=f"maceproc-{owner_name()}-") as directory:
        yield Path(directory)


def stale_temporary_directories() -> list[Path]:
    """Return our temporary directories whose processes were killed."""
    return [
        path
        for path in sorted(Path(tempfile.gettempdir()).glob("maceproc-*"))
        if (owner := _TEMPORARY.fullmatch(path.name))
        and has_ended(owner[1])
        and _is_our_directory(path)
    ]


def _is_our_directory(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def remove_stale_temporary_directories() -> list[Path]:
    """Remove our temporary directories whose processes were killed; return them."""
    stale = stale_temporary_directories()
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return stale


def _owner(instance: str) -> str:
    """Return the owner in an instance's name."""
    return instance.removeprefix(INSTANCE_PREFIX).partition("-")[0]
