"""Root is asked for before anything is made, by every verb that needs it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from maceproc.errors import PrivilegeError
from maceproc.recording.machine import CAP_PERFMON, has_capability, require_perf_rights


def require_root(what: str) -> None:
    """Raise PrivilegeError, with the line to type, unless this process is root's.

    To a process that has CAP_PERFMON it says why that, enough for perf, is not enough here.
    """
    if os.geteuid() != 0:
        perf = ": CAP_PERFMON is enough for perf, but a network is entered with CAP_SYS_ADMIN"
        enough = perf if has_capability(CAP_PERFMON) else ""
        raise PrivilegeError(f"{what} needs root{enough}", hint=f"run: {sudo_line(sys.argv)}")


def require_rights(what: str, tracer: str, *, own_network: bool) -> None:
    """Raise PrivilegeError unless this process is root's, or perf may record in our network."""
    if os.geteuid() and tracer == "perf" and own_network:
        require_perf_rights()
    else:
        require_root(what)


def sudo_line(argv: list[str]) -> str:
    """Return a command line as root types it, with the program's whole path.

    sudo looks for programs in directories of its own, where a virtual environment is not.
    """
    program = shutil.which(argv[0]) or argv[0]
    if argv[0].endswith("__main__.py") or not Path(program).is_file():
        # -P: as root, nothing is to be imported from the directory we happen to be in.
        return shlex.join(["sudo", sys.executable, "-P", "-m", "maceproc", *argv[1:]])
    return shlex.join(["sudo", str(Path(program).absolute()), *argv[1:]])
