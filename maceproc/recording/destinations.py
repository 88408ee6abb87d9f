"""Notes about a command that may send to more than one address, made before it is recorded."""

from __future__ import annotations

from maceproc.foreign_text import clean
from maceproc.recording.command import Command, addresses, resolve
from maceproc.recording.sites import Netns, Site
from maceproc.recording.survey import Survey, survey

MOST_LOOKED_AT = 8  # targets of one command: each lookup runs several programs


def resolve_from(command: Command, destination: str, site: Site) -> str:
    """Return the address of a host name as a program takes it at a site; empty when there is none.

    No program of a container is executed: for a container, this machine resolves the name.
    """
    entrance = site.first_entrance
    return resolve(
        destination, command.family, entrance.enter if isinstance(entrance, Netns) else None
    )


def destination_notes(command: Command, site: Site, surveyed: Survey, outer: str) -> list[str]:
    """Return a sentence for each reason why not every packet takes the path that was surveyed."""
    notes = []
    address = surveyed.target.address
    known = addresses(command.destination, command.family)
    if len(known) > 1 and not site.own_programs:
        notes.append(
            f"{clean(command.destination)} has {len(known)} addresses, and the path is that to "
            f"{address}: where a name server changes their order, runs go to different ones"
        )
    for further in command.further[:MOST_LOOKED_AT]:
        other = resolve_from(command, further, site)
        there = survey(site, other, outer).target if other else None
        if there is not None and there.path != surveyed.target.path:
            notes.append(
                f"{clean(further)} is not reached by the path to {address} ({clean(there.route)}): "
                "its pings are not corrected"
            )
    if len(command.further) > MOST_LOOKED_AT:
        notes.append(
            f"the path is that to {address}; of {len(command.further)} further targets, "
            f"{MOST_LOOKED_AT} were looked at"
        )
    return notes
