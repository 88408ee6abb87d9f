"""Try perf as recorder, for `maceproc doctor`."""

from __future__ import annotations

import os
import socket

from maceproc.errors import MaceprocError
from maceproc.recording.machine import require_perf_rights
from maceproc.recording.perf_recorder import PerfRecorder, perf_version, require_perf
from maceproc.recording.remains import temporary_directory
from maceproc.recording.tracing import mounted_tracefs

EVENT = "syscalls:sys_enter_sendto"
SMALL_KB = 64


def try_perf() -> tuple[str, str, str]:
    """Record a send call of our own by perf; return level, message and advice of a check.

    Only ``--tracer perf`` needs perf. So a missing perf is a warning and no problem.
    """
    needed_for = "only `record --tracer perf` needs it"
    try:
        require_perf()
        if os.geteuid():
            require_perf_rights()
        with mounted_tracefs() as tracefs, temporary_directory() as directory:
            recorder = PerfRecorder(directory / "trial.dat", [EVENT], SMALL_KB, tracefs)
            with recorder:
                recorder.switch_on()
                here, there = socket.socketpair()
                with here, there:
                    here.send(b"maceproc")
                recorder.switch_off()
    except MaceprocError as error:
        return "warning", f"{error.message}; {needed_for}", error.hint or "it needs CAP_PERFMON"
    if not recorder.samples:
        return "warning", f"a trial recording holds no {EVENT}; {needed_for}", ""
    version = perf_version() or "unknown"
    return "ok", f"version {version}: a trial recorded the call that was made", ""
