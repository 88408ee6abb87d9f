"""What every block of an experiment needs: the ping, the path, and the ways into its places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maceproc.capture import NativeProgram, Place
from maceproc.errors import CommandError, TargetError
from maceproc.experiment.plan import Plan
from maceproc.experiment.traffic import usable_cpus
from maceproc.recording.arms import why_no_native
from maceproc.recording.command import Command, parse_command
from maceproc.recording.entrances import Entrance
from maceproc.recording.native import describe_native
from maceproc.recording.processes import Interruption
from maceproc.recording.record import (
    command_inside,
    destination_address,
    require_command,
    with_destination,
)
from maceproc.recording.sites import Netns, Site, remote_spinning
from maceproc.recording.survey import Survey, survey
from maceproc.recording.tracing import available_events, default_buffer_kb


@dataclass(frozen=True)
class Stage:
    """What every block needs."""

    plan: Plan
    command: Command
    site: Site
    surveyed: Survey
    entrances: dict[Place, Entrance]
    native: NativeProgram | None
    tracefs: Path
    available: list[str]
    buffer_kb: int
    interruption: Interruption

    @property
    def sources(self) -> list[Netns]:
        """Where flows come from: a lab's other containers, or the host."""
        others = [n for n in self.site.around if n.name.startswith("container")]
        return others or [self.surveyed.host or self.site.inside]

    @property
    def server(self) -> Netns | None:
        """Where a lab's remote is."""
        return next((n for n in self.site.around if n.name == "remote"), None)

    @property
    def cpus(self) -> list[int]:
        """The CPUs that flows are pinned to: not the one on which a lab's remote spins."""
        with remote_spinning(self.site) as taken:
            return usable_cpus(taken)


def prepare(
    plan: Plan,
    command: Command,
    site: Site,
    outer: str,
    buffer_kb: int | None,
    tracefs: Path,
    interruption: Interruption,
) -> Stage:
    """Survey the path, and collect what every block needs."""
    surveyed = survey(site, destination_address(command, site), outer)
    stamped = command.with_timestamps(command_inside(site))
    return Stage(
        plan,
        stamped,
        site,
        surveyed,
        _entrances(site, surveyed, stamped),
        None if site.is_native else describe_native(site, stamped),
        tracefs,
        available_events(tracefs),
        buffer_kb or default_buffer_kb(),
        interruption,
    )


def ping_of(plan: Plan, site: Site) -> Command:
    """Return the plan's ping, with a destination; CommandError when it cannot be executed."""
    command = with_destination(parse_command(plan.command), site)
    if not command.is_ping:
        raise CommandError(
            f"{command.argv[0]}: not a ping", hint="give one after --: -- ping -i 0.02 -c 100"
        )
    require_command(command, site)
    return command


def _entrances(site: Site, surveyed: Survey, command: Command) -> dict[Place, Entrance]:
    """Return how to enter the container and the host; a native site has only the host."""
    if site.is_native:
        return {"native": site.entrance}
    reason = why_no_native(site, surveyed, command)
    if reason or surveyed.host is None:
        raise TargetError(
            f"nothing to compare the container with: {reason or 'no crossing is seen'}",
            hint="`maceproc record` can do without the native ping",
        )
    return {"native": site.native_entrance(surveyed.host), "container": site.entrance}
