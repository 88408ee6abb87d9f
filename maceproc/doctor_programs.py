"""What the doctor says of programs that are not needed everywhere: ping, and those of a lab."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import NamedTuple

from maceproc.recording.command import is_iputils
from maceproc.recording.lab import absent_programs


class Check(NamedTuple):
    """One thing checked; `level` is ok, warning or problem."""

    check: str
    level: str
    message: str
    advice: str = ""


def ping() -> Iterator[Check]:
    """Check this machine's ping."""
    if not shutil.which("ping"):
        yield Check(
            "ping",
            "warning",
            "no ping on this machine: none to be run in a namespace, or with --host-ping",
            "install it (Debian: apt install iputils-ping)",
        )
    elif is_iputils(["ping"]):
        yield Check("ping", "ok", "that of iputils, which knows -D")
    else:
        yield Check(
            "ping",
            "warning",
            "not that of iputils: without -D a reply that was lost makes the others harder to tell",
            "install it (Debian: apt install iputils-ping)",
        )


def lab() -> Iterator[Check]:
    """Check what `--lab` and `maceproc selftest` are made with; nothing else needs it."""
    absent = absent_programs()
    advice = "apt install iproute2 iptables util-linux; without iptables: lab up --no-nat"
    if absent:
        yield Check("lab", "warning", f"{', '.join(absent)}: not found; --lab needs it", advice)
    else:
        yield Check("lab", "ok", "all programs that a lab is made with are here")
