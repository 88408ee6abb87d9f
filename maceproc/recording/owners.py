"""Whose the things are that a recording makes: their names hold the process that made them.

Tracing instances, network namespaces and directories are seen from several PID namespaces, and a
container has other pids than its host. A name made outside of the first PID namespace therefore
says which namespace its pid belongs to, and only a process of the same one judges whether that
process still runs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the first PID namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h, v6.8)."""

OWNER = r"[0-9]{1,10}(?:n[0-9]{1,10})?"
"""Regular expression of an owner in a name."""


def owner_name(pid: int | None = None) -> str:
    """Return how names speak of a process of this PID namespace; without a pid, of this process."""
    pid, here = os.getpid() if pid is None else pid, pid_namespace()
    return str(pid) if here == FIRST_PID_NAMESPACE else f"{pid}n{here}"


def has_ended(owner: str) -> bool:
    """Tell whether an owner is known to have ended; False where that cannot be seen from here."""
    pid, _, namespace = owner.partition("n")
    here = pid_namespace()
    if not here or not re.fullmatch(OWNER, owner) or int(namespace or FIRST_PID_NAMESPACE) != here:
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it runs, and is somebody else's
        pass
    return False


def pid_namespace() -> int:
    """Return the inode of our PID namespace; 0 where /proc does not tell it."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
