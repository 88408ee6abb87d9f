"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Verb = TypeVar("Verb", bound=Callable[..., Any])

TRACE = click.argument("file", type=click.Path(), metavar="TRACE")


_RECORDED = (
    click.option(
        "--lab",
        "lab_name",
        is_flag=False,
        flag_value="",
        metavar="[NAME]",
        help="In a lab's container: the lab NAME, the one that is up, or one just for this.",
    ),
    click.option(
        "--container",
        metavar="NAME",
        help="In a container of Docker, Podman or containerd (nerdctl), by name or id.",
    ),
    click.option(
        "--native",
        type=click.Choice(["host", "image"]),
        help="What runs from the host in place of a container's program: this machine's, or the "
        "container's image, which then sees the host's network. [default: host, of a ping]",
    ),
    click.option(
        "--netns", metavar="NAME", help="In a network namespace, by ip-netns name or file."
    ),
    click.option(
        "--outer", default="", metavar="DEV", help="The outer device, if not the routes' choice."
    ),
    click.option(
        "--buffer-kb",
        type=click.IntRange(64),
        metavar="KB",
        help="Ring buffer per CPU [KiB]. [default: 8192, less where memory is short]",
    ),
    click.option(
        "--awake", is_flag=True, help="Keep the CPUs from going idle while anything runs."
    ),
)


REMOTE = click.option(
    "--remote",
    type=click.Choice(["kernel", "program"]),
    help="Of a lab that is made: what answers, this kernel's own stack, or a program behind a tap "
    "device, on a CPU of its own. [default: a program where there are two CPUs]",
)


def recorded(verb: Verb) -> Verb:
    """Add where something is recorded, and how."""
    for option in reversed(_RECORDED):
        verb = option(verb)
    return verb


def by_hand(verb: Verb) -> Verb:
    """Add what says of a trace recorded by hand what a sidecar says of a capture."""
    for name, metavar, text in (
        ("--peer", "DEV", "The other end of the container's veth pair, likewise."),
        ("--outer", "DEV", "The outer device, likewise."),
        ("--inner", "DEV", "The container's device, likewise."),
        ("--ping", "FILE", "What the ping printed, where no sidecar says so."),
    ):
        verb = click.option(name, default="", metavar=metavar, help=text)(verb)
    return verb
