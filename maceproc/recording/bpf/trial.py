"""Try the tracer in the kernel, for `maceproc doctor`."""

from __future__ import annotations

import os

from maceproc.errors import TracingError
from maceproc.recording.bpf.echo_tracer import EchoTracer, Watched
from maceproc.recording.bpf.memory import ALL_ROLES


def try_tracer() -> tuple[str, str, str]:
    """Load and attach the tracer for a moment; return level, message and advice of a check.

    Nothing else needs it: without it there is a warning, no problem.
    """
    needed_for = "only `watch` and `record --tracer bpf` need it"
    if os.geteuid() != 0:
        return "warning", f"can only be tried by root; {needed_for}", "run it with sudo"
    try:
        with EchoTracer() as tracer:
            tracer.watch([Watched(netns=1, ifindex=0, roles=ALL_ROLES)])
            tracer.start()
    except TracingError as error:
        return "warning", f"{error.message}; {needed_for}", error.hint
    return "ok", "loaded and attached: `watch` and `record --tracer bpf` work", ""
