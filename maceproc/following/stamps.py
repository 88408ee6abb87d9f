"""Who takes a ping's receive time stamp."""

from __future__ import annotations

from typing import Literal

from maceproc.capture import Run
from maceproc.pings import PingOutput

Stamp = Literal["kernel", "program"]
"""Who takes the receive stamp: the kernel on the device, or the program once it has the packet."""


def stamp_of(run: Run, printed: PingOutput) -> Stamp:
    """Return who should take the receive stamp: the program in busybox ping and `ping -U`."""
    if printed.stamped_by is not None:
        return printed.stamped_by
    short = [word for word in run.argv[1:] if word.startswith("-") and not word.startswith("--")]
    asked = printed.flavour == "iputils" and any("U" in word for word in short)
    return "program" if asked or printed.flavour == "busybox" else "kernel"
