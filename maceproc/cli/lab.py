"""`maceproc lab`: a Docker-like network made of namespaces."""

from __future__ import annotations

from typing import Literal

import click

from maceproc.cli.options import REMOTE
from maceproc.cli.privileges import require_root
from maceproc.cli.terminal import working
from maceproc.foreign_text import clean


@click.group()
def lab() -> None:
    r"""Try maceproc without Docker: a network made of namespaces.

    \b
    maceproc lab up
    maceproc record --lab --rounds 5 -- ping -c 100 -i 0.05 192.0.2.2
    maceproc lab down
    """


LAB_NAME = click.option("--name", default="maceproc", show_default=True, help="The lab's name.")


@lab.command()
@LAB_NAME
@click.option("--containers", default=1, show_default=True, help="Containers on the bridge.")
@click.option("--no-nat", is_flag=True, help="Route to the containers; no netfilter rules.")
@REMOTE
def up(
    name: str, containers: int, no_nat: bool, remote: Literal["kernel", "program"] | None
) -> None:
    r"""Bring the lab up; it stays until `maceproc lab down`.

    \b
    maceproc lab up --containers 2
    ip netns exec maceproc-container ping 192.0.2.2
    """
    from maceproc.recording.lab import Lab, usual_remote

    require_root("a lab")
    made = Lab(name, containers, nat=not no_nat, remote=remote or usual_remote())
    with working():
        made.up()
    namespaces = ", ".join(made.netns(role) for role in made.roles)
    click.echo(clean(f"lab {name!r} is up: {namespaces}"))


@lab.command()
@LAB_NAME
def down(name: str) -> None:
    r"""Remove the lab, also one that was left half made.

    \b
    maceproc lab down
    """
    from maceproc.recording.lab import Lab

    require_root("a lab")
    with working():
        removed = Lab(name).down()
    click.echo(clean(f"lab {name!r} is down" if removed else f"lab {name!r} was not up"))


@lab.command()
def status() -> None:
    r"""Show the labs on this machine.

    \b
    maceproc lab status
    """
    from maceproc.recording.lab import is_complete, labs

    found = labs()
    for name, roles in found.items():
        state = "up" if is_complete(roles) else "incomplete"
        click.echo(clean(f"{name}: {state} ({', '.join(roles)})"))
    if not found:
        click.echo("no lab is up")
