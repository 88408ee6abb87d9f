"""Files that appear whole or not at all.

What is written goes to a new file beside the one that is wanted, and is renamed when it is
complete. When writing fails (disk full, Ctrl-C), the new file is removed and an old one stays.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from maceproc.errors import CaptureError


def check_free(path: Path, *, force: bool = False, hint: str = "") -> None:
    """Raise CaptureError when `path` is a directory, a file that may not be replaced, or in none.

    Devices and pipes (``/dev/stdout``) are written to, so they are always free.
    """
    if path.is_dir():
        raise CaptureError(f"{path}: is a directory", hint="give a file")
    if not path.parent.is_dir():
        raise CaptureError(
            f"{path}: there is no directory {path.parent}", hint="make it, or give another name"
        )
    exists = os.path.lexists(path)
    if exists and not force and not is_stream(path):
        raise CaptureError(
            f"{path}: exists", hint=hint or "give another name, or --force to replace it"
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the name of a new, empty file beside `path`, which becomes `path` at the end.

    Where the block raises, the new file is removed. Links are not followed: a link at `path` is
    replaced. A device or a pipe is given as it is. Raises OSError when it cannot be written.
    """
    if is_stream(path):
        yield path
        return
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(partial, flags, 0o666))
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that becomes `path` at the end; see `written_whole`."""
    with written_whole(path) as partial, partial.open("wb") as file:
        yield file
        file.flush()


def is_stream(path: Path) -> bool:
    """Tell whether a path is a device, a pipe or a socket: written to, and never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
