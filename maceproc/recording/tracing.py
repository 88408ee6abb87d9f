"""What the kernel's tracing system and trace-cmd offer and allow on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from maceproc.errors import TracingError

TRACEFS = Path("/sys/kernel/tracing")  # Documentation/trace/ftrace.rst, since v4.1
CLOCK = "mono"  # comparable between CPUs, and equal to CLOCK_MONOTONIC
BUFFER_KB = 8192  # per CPU

# trace-cmd resets these before it records, and gives up when it may not (trace-cmd 3.1.6,
# tracecmd/trace-record.c: reset_function_filters, set_ftrace_enabled).
FUNCTION_TRACER_FILES = (
    "set_ftrace_filter",
    "set_ftrace_notrace",
    "set_ftrace_pid",
    "set_ftrace_notrace_pid",
)
FTRACE_ENABLED = Path("/proc/sys/kernel/ftrace_enabled")
_MEMINFO = Path("/proc/meminfo")


@contextlib.contextmanager
def mounted_tracefs() -> Iterator[Path]:
    """Give the directory of tracefs; where it is not mounted, mount it for the time being.

    Raises TracingError when the kernel has none or it may not be mounted.
    """
    if (TRACEFS / "trace_clock").exists():
        yield TRACEFS
        return
    mount = ["mount", "-t", "tracefs", "nodev", str(TRACEFS)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise TracingError(
            f"{TRACEFS}: tracefs is not mounted and cannot be: {said[0]}",
            hint="maceproc needs a kernel with CONFIG_TRACING, and the right to mount",
        )
    try:
        yield TRACEFS
    finally:
        subprocess.run(["umount", str(TRACEFS)], capture_output=True, check=False)


def available_events(tracefs: Path = TRACEFS) -> list[str]:
    """Return every event of the running kernel as ``system:event``.

    Raises TracingError when it may not be read.
    """
    path = tracefs / "available_events"
    try:
        return path.read_text().split()
    except OSError as error:
        raise TracingError(f"{path}: {error.strerror}") from error


def instances_with_events(tracefs: Path = TRACEFS, apart_from: Path | None = None) -> list[str]:
    """Return the names of the tracing instances that have events on ("" is the top one)."""
    busy = []
    for path in (tracefs, *(tracefs / "instances").iterdir()):
        with contextlib.suppress(OSError):  # it may have been removed meanwhile
            if path != apart_from and (path / "set_event").read_text().strip():
                busy.append("" if path == tracefs else path.name)
    return busy


def function_tracer_denied(tracefs: Path = TRACEFS) -> bool:
    """Tell whether this host denies the function tracer's control files, even to root."""
    try:
        for name in FUNCTION_TRACER_FILES:
            if (tracefs / name).exists():
                os.close(os.open(tracefs / name, os.O_RDONLY))
        if FTRACE_ENABLED.exists():
            # Writing its present content changes nothing.
            FTRACE_ENABLED.write_text(FTRACE_ENABLED.read_text())
    except OSError:  # EPERM, or EROFS where /proc/sys is read-only
        return True
    return False


def tracecmd_version() -> str:
    """Return trace-cmd's version; empty when it does not say."""
    said = subprocess.run(["trace-cmd", "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", said.stdout + said.stderr)
    return found[1] if found else ""


def default_buffer_kb() -> int:
    """Return the ring buffer's size per CPU [KiB]: 8 MiB, or a 16th of what is available."""
    meminfo = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    available_kb = int(meminfo["MemAvailable"].split()[0])
    return max(64, min(BUFFER_KB, available_kb // 16 // (os.cpu_count() or 1)))
