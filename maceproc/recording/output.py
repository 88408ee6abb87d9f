"""What a recorded command prints: kept in memory, and no more of it than a limit.

A file in memory wakes no other process while the command runs, and a full disk does not matter. The
kernel enforces the limit: the file has its full size from the start, without using memory yet, and
is sealed against growth, so that a write behind its end fails (memfd_create(2), and F_SEAL_GROW in
fcntl(2)).
"""

from __future__ import annotations

import fcntl
import os

OUTPUT_LIMIT_BYTES = 64 << 20  # about a million pings


def make_output(name: str, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> int:
    """Return the descriptor of a file in memory that takes no more than `limit_bytes`."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, limit_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd


def printed_bytes(fd: int) -> int:
    """Return how many bytes were printed: the file position, which all writers share with us."""
    return os.lseek(fd, 0, os.SEEK_CUR)


def is_full(fd: int) -> bool:
    """Tell whether the limit was reached: something may have been cut."""
    return printed_bytes(fd) >= os.fstat(fd).st_size


def printed_text(fd: int) -> str:
    """Return what was printed so far."""
    return os.pread(fd, printed_bytes(fd), 0).decode(errors="replace")
