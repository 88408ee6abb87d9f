"""The arms of a round: the ways of running the command, and the order they run in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from maceproc.capture import Place
from maceproc.recording.command import Command, resolve
from maceproc.recording.entrances import Entrance
from maceproc.recording.native import why_no_program, why_no_reply
from maceproc.recording.sites import Site
from maceproc.recording.survey import Survey


class Arm(NamedTuple):
    """One way of running the command."""

    place: Place
    traced: bool
    entrance: Entrance

    def __str__(self) -> str:
        return f"{self.place} {'traced' if self.traced else 'untraced'}"


def schedule(arms: list[Arm], rounds: int) -> Iterator[tuple[int, Arm]]:
    """Yield (round, arm) in the order they run.

    Every second round runs the one before it backwards. Over as many rounds as there are arms
    (twice as many of an odd number), every arm runs equally often in each position and after each
    other arm.
    """
    orders = balanced_orders(len(arms))
    for number in range(1, rounds + 1):
        for place in orders[(number - 1) % len(orders)]:
            yield number, arms[place]


def balanced_orders(arms: int, chance: random.Random | None = None) -> list[list[int]]:
    """Return balanced orders of so many arms, each followed by its reverse.

    These are the rows of a Williams design, in which every arm is in every position, and follows
    every other arm, equally often: E. J. Williams, "Experimental designs balanced for the
    estimation of residual effects of treatments", Aust. J. Sci. Res. A 2, 1949. The reverse of each
    row follows it, so that each pair of arms is balanced after two rounds. `chance` exchanges the
    arms and the rows.
    """
    zigzag = [(step + 1) // 2 if step % 2 else -(step // 2) for step in range(arms)]
    names = list(range(arms))
    shifts = list(range(arms if arms % 2 else arms // 2))
    if chance is not None:
        names = chance.sample(names, arms)
        chance.shuffle(shifts)
    rows = [[names[(place + shift) % arms] for place in zigzag] for shift in shifts]
    return [order for row in rows for order in (row, row[::-1])]


def arms_of_round(
    site: Site, surveyed: Survey, command: Command, baseline: bool, notes: list[str]
) -> Iterator[Arm]:
    """Yield the arms of a round; a note tells why an arm that was wanted is missing."""
    place: Place = "native" if site.is_native else "container"
    yield Arm(place, True, site.entrance)
    if not baseline:
        return
    yield Arm(place, False, site.entrance)
    if site.is_native:
        return
    reason = why_no_native(site, surveyed, command)
    if reason:
        notes.append(f"no native ping: {reason}")
    elif surveyed.host:
        outside = site.native_entrance(surveyed.host)
        yield Arm("native", False, outside)
        yield Arm("native", True, outside)


def why_no_native(site: Site, surveyed: Survey, command: Command) -> str:
    """Return why the command cannot be run from the host; empty when it can."""
    if surveyed.host is None:
        return "no outer device is known"
    address = surveyed.target.address
    if command.destination and resolve(command.destination, command.family) != address:
        return f"{surveyed.host.name} does not know {command.destination} as {address}"
    reason = why_no_program(site, command)
    if not reason and command.is_ping:
        reason = why_no_reply(site, surveyed.host, command, address)
    return reason
