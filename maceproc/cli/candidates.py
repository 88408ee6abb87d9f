"""What a shell may complete a name with: containers, namespaces, labs, devices, events.

A shell waits while this runs: nothing is read that can block for long, and whatever fails gives no
candidates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import click

LONGEST_WAIT_S = 1.0  # for an engine's answer
MOST = 2000  # candidates; a shell shows no more in a useful way
EVENT_SETS = ("minimal", "full")
DEVICES = Path("/sys/class/net")
EVENTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


def containers(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of running containers of every engine here."""
    from maceproc.recording.engines import ENGINES

    found: list[str] = []
    for engine in filter(shutil.which, ENGINES):
        argv = [engine, "ps", "--format", "{{.Names}}"]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=LONGEST_WAIT_S, check=False
            )
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            continue
        found += done.stdout.split()
    return _matching(found, begun)


def namespaces(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the named network namespaces, as `ip netns` lists them."""
    from maceproc.recording.lab import NETNS_DIR

    return _matching(_names_in(NETNS_DIR), begun)


def labs(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the labs that are up."""
    from maceproc.recording.lab import labs as labs_up

    return _matching(labs_up(), begun)


def devices(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the network devices of this machine."""
    return _matching(_names_in(DEVICES), begun)


def events(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the event sets and the kernel's events; of a list, candidates for its last part."""
    before, comma, last = begun.rpartition(",")
    known: list[str] = []
    for directory in EVENTS:
        try:
            known = (directory / "available_events").read_text().split()
            break
        except OSError:
            continue
    sets = [] if comma else EVENT_SETS
    return [f"{before}{comma}{name}" for name in _matching([*sets, *known], last)]


def _names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208  names alone are wanted
    except OSError:
        return []


def _matching(names: Iterable[str], begun: str) -> list[str]:
    return sorted({name for name in names if name.startswith(begun) and name.isprintable()})[:MOST]
