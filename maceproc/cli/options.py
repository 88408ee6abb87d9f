"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Verb = TypeVar("Verb", bound=Callable[..., Any])

TRACE = click.argument("file", type=click.Path(), metavar="TRACE")


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
