"""Options that several verbs share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar

import click

from maceproc.cli import candidates

Verb = TypeVar("Verb", bound=Callable[..., Any])


def _memory(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Return how many bytes an amount of memory is; MaceprocError says what is wrong with it."""
    from maceproc.memory import parse_size

    return None if value is None else parse_size(value)


MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    callback=_memory,
    help="Take about so much memory, such as 1G: a larger trace is read in windows of time.  "
    "[default: half of what is free]",
)

# Whether it can be read is told by what reads it, with what to do.
TRACE = click.argument("file", type=click.Path(readable=False), metavar="TRACE")

COMMAND = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")


def rounds_option(least: int = 1, default: int = 5) -> Callable[[Verb], Verb]:
    """Return the option that says how many rounds a verb records."""
    return click.option(
        "--rounds",
        type=click.IntRange(least),
        default=default,
        show_default=True,
        help="Runs per arm.",
    )


_RECORDED = (
    click.option(
        "--outer",
        default="",
        metavar="DEV",
        shell_complete=candidates.devices,
        help="The outer device, if not the routes' choice.",
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


class RecordsCommand(click.Command):
    """A verb that records the command after ``--``, and says where to put one that is missing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; UsageError tells the command line that was perhaps meant."""
        given = list(args)
        meant = with_separator(given)
        if meant and meant[meant.index("--") - 1] == "--lab":  # else: in the lab named ping
            raise click.UsageError(_put_separator(ctx, meant), ctx)
        try:
            return super().parse_args(ctx, args)
        except (click.NoSuchOption, click.BadOptionUsage, click.BadParameter) as error:
            if meant is None or ctx.resilient_parsing:
                raise
            message = f"{error.format_message()} {_put_separator(ctx, meant)}"
            raise click.UsageError(message, ctx) from error


PROGRAMS = ("ping", "ping4", "ping6", "fping", "busybox", "docker", "podman", "nerdctl")


def with_separator(words: list[str]) -> list[str] | None:
    """Return a command line with ``--`` before the program it names; None where it needs none.

    An option's value that is the name of a program is told by what is before it: ``--container``.
    """
    if "--" in words:
        return None
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        takes_it = before.startswith("--") and before not in ("--lab", *_FLAGS)
        if PurePath(word).name in PROGRAMS and not takes_it and before != "-o":
            return [*words[:place], "--", *words[place:]]
    return None


_FLAGS = ("--awake", "--force", "--host", "--host-ping", "--no-baseline", "--no-page")


def _put_separator(ctx: click.Context, meant: list[str]) -> str:
    line = shlex.join(meant)
    return f"Put -- before the command: {ctx.command_path} {line}"


def recorded(verb: Verb) -> Verb:
    """Add how something is recorded."""
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
