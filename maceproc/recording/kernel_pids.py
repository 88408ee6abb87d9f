"""The pid that the kernel's events have of a process, seen from another PID namespace.

Events hold pids of the first PID namespace. A container without ``--pid=host`` has others, and
/proc tells those of its own namespace only. But whoever writes to a trace_marker file makes an
event, and that event has the writer's pid as all events have it (kernel/trace/trace.c,
tracing_mark_write(), v6.18). So the process that becomes the command writes one line there before,
into a ring buffer of its own: the recording holds nothing of it, whatever records.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from maceproc.errors import TracingError
from maceproc.recording.owners import owner_name
from maceproc.recording.remains import INSTANCE_PREFIX, remove_instance
from maceproc.recording.tracing import mounted_tracefs

_LINE = "maceproc starts a command"
# Where the file cannot be written, the command runs all the same.
_SCRIPT = f'{{ echo "{_LINE}" >"$0"; }} 2>/dev/null; exec "$@"'
# As a new instance prints it: "<...>-4711    [000] ...1. 39164.597768: tracing_mark_write: ..."
_WRITTEN = re.compile(rf"-([0-9]+) .*: tracing_mark_write: {_LINE}$", re.MULTILINE)


class MarkedStart:
    """Starts a command so that its first event tells its pid."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance

    def command(self, argv: list[str]) -> list[str]:
        """Return the command line that marks the process, which then becomes `argv`."""
        return ["sh", "-c", _SCRIPT, str(self._instance / "trace_marker"), *argv]

    def pid(self) -> int | None:
        """Return the pid of the process that was marked; None when it could not write."""
        with contextlib.suppress(OSError):
            written = _WRITTEN.findall((self._instance / "trace").read_text(errors="replace"))
            return int(written[0]) if len(written) == 1 else None
        return None


@contextlib.contextmanager
def marked_start() -> Iterator[MarkedStart | None]:
    """Give a way to start one command and learn its pid; None where no instance can be made."""
    with contextlib.ExitStack() as stack:
        try:
            instances = stack.enter_context(mounted_tracefs()) / "instances"
            instance = instances / f"{INSTANCE_PREFIX}{owner_name()}-pid"
            instance.mkdir()
        except (OSError, TracingError):
            yield None
            return
        stack.callback(remove_instance, instance)
        yield MarkedStart(instance)
