"""The arms of a round: the ways of running the command, and the order they run in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from maceproc.capture import Place
from maceproc.recording.command import Command, resolve
from maceproc.recording.targets import Entrance, Site, Survey


class Arm(NamedTuple):
    """One way of running the command."""

    place: Place
    traced: bool
    entrance: Entrance

    def __str__(self) -> str:
        return f"{self.place} {'traced' if self.traced else 'untraced'}"


def schedule(arms: list[Arm], rounds: int) -> Iterator[tuple[int, Arm]]:
    """Yield (round, arm) in the order they run: every second round the other way round."""
    for number in range(1, rounds + 1):
        for arm in arms if number % 2 else reversed(arms):
            yield number, arm


def arms_of_round(
    site: Site, surveyed: Survey, command: Command, baseline: bool, notes: list[str]
) -> Iterator[Arm]:
    """Yield the arms of a round; a note tells why one that was wanted is missing."""
    place: Place = "native" if site.is_native else "container"
    yield Arm(place, True, site.entrance)
    if not baseline:
        return
    yield Arm(place, False, site.entrance)
    if site.is_native:
        return
    reason = no_native_control(site, surveyed, command)
    if reason:
        notes.append(f"no native control: {reason}")
    elif surveyed.host:
        yield Arm("native", False, site.native_entrance(surveyed.host))


def no_native_control(site: Site, surveyed: Survey, command: Command) -> str:
    """Return why the command cannot be run from the host; empty when it can."""
    if surveyed.host is None:
        return "no outer device is known"
    address = surveyed.target.address
    if command.destination and resolve(command.destination, command.family) != address:
        return f"{surveyed.host.name} does not know {command.destination} as {address}"
    if command.is_ping:
        probe = site.native_entrance(surveyed.host).enter(command.probe(address))
        return _why_no_reply(probe, surveyed.host.name)
    return ""


def _why_no_reply(probe: list[str], host: str) -> str:
    """Return why one ping from the host gets no reply; empty when it gets one."""
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    said = done.stderr.strip().splitlines()
    return f"{host} gets no reply from the target" + (f" ({said[0]})" if said else "")
