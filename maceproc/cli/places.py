"""Options that say where a command is recorded, and the place that they name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from maceproc.cli import candidates

if TYPE_CHECKING:
    from maceproc.recording import sites

Verb = TypeVar("Verb", bound=Callable[..., Any])
Remote = Literal["kernel", "program"]

_NAMED = (
    click.option(
        "--container",
        metavar="NAME",
        shell_complete=candidates.containers,
        help="In a container of Docker, Podman or containerd (nerdctl), by name or id.",
    ),
    click.option(
        "--compose",
        metavar="[PROJECT/]SERVICE",
        help="In the container of a Compose service, of any engine.",
    ),
    click.option(
        "--pod",
        metavar="[NAMESPACE/]NAME",
        help="In the network of a Kubernetes pod on this node, by crictl: this machine's ping.",
    ),
    click.option(
        "--lxc",
        metavar="NAME",
        help="In the network of a container of LXC, Incus or LXD: this machine's ping.",
    ),
    click.option(
        "--machine",
        metavar="NAME",
        help="In the network of a container of systemd-nspawn, by machinectl: this machine's ping.",
    ),
    click.option(
        "--unit",
        metavar="NAME",
        help="In the network of its own that a systemd unit has: this machine's ping.",
    ),
    click.option(
        "--netns",
        metavar="NAME",
        shell_complete=candidates.namespaces,
        help="In a network namespace, by ip-netns name or file.",
    ),
)
NAMED = ("container", "compose", "pod", "lxc", "machine", "unit", "netns")

_PLACES = (
    click.option(
        "--lab",
        is_flag=False,
        flag_value="",
        metavar="[NAME]",
        shell_complete=candidates.labs,
        help="In a lab's container: the lab NAME, the one that is up, or one just for this.",
    ),
    *_NAMED,
    click.option("--pid", type=int, help="In the network namespace of a process."),
    click.option(
        "--native",
        type=click.Choice(["host", "image"]),
        help="What runs from the host in place of a container's program: this machine's, or the "
        "container's image, which then sees the host's network. [default: host, of a ping]",
    ),
)


@dataclass(frozen=True)
class Chosen:
    """The place that the options of a verb name.

    Attributes
    ----------
    kind
        The option without its dashes; ``here`` when no option names a place.
    value
        What was given with it; empty of ``host`` and ``here``.
    """

    kind: str
    value: str | int = ""
    host_ping: bool = False
    native: sites.NativeChoice = ""


def place_options(verb: Verb) -> Verb:
    """Add the options that name a place."""
    for option in reversed(_PLACES):
        verb = option(verb)
    return verb


def placed(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a place; the verb gets what they name as `where`.

    The verb may have ``--host`` and ``--host-ping`` besides. UsageError is raised when the options
    name more than one place.
    """

    @functools.wraps(verb)
    def with_place(*words: Any, **options: Any) -> Any:
        return verb(*words, where=_chosen(options), **options)

    return place_options(with_place)


def _chosen(options: dict[str, Any]) -> Chosen:
    """Take the options of a place out of a verb's options, and return what they name."""
    kinds = ("lab", *NAMED, "pid")
    given = {kind: options.pop(kind, None) for kind in kinds}
    given["host"] = options.pop("host", False) or None
    named = {kind: value for kind, value in given.items() if value is not None}
    host_ping, native = options.pop("host_ping", False), options.pop("native", None)
    if len(named) > 1:
        names = [f"--{kind}" for kind in named]
        raise click.UsageError(f"choose one of {', '.join(names[:-1])} and {names[-1]}")
    kind, value = next(iter(named.items()), ("here", ""))
    if host_ping and kind not in ("container", "compose"):
        raise click.UsageError("--host-ping goes with --container or --compose")
    return Chosen(kind, "" if kind == "host" else value, host_ping, native or "")


@contextmanager
def chosen_site(
    where: Chosen, *, containers: int = 1, remote: Remote | None = None
) -> Iterator[sites.Site]:
    """Give the site of a place; a lab that is not up yet exists only in the context.

    Such a lab has `containers` containers and a `remote` (None: the usual one). What a container's
    command is compared with also holds for the command line of an engine, which names its container
    itself.
    """
    from maceproc.recording import sites
    from maceproc.recording.by_name import some_lab

    if where.kind == "lab":
        with some_lab(str(where.value), containers=containers, remote=remote) as lab:
            yield sites.lab_site(lab)
    elif where.kind == "pid":
        yield sites.pid_site(int(where.value))
    elif where.kind in NAMED:
        kind = cast("sites.NamedKind", where.kind)
        yield sites.named_site(
            kind, str(where.value), host_ping=where.host_ping, native=where.native
        )
    else:
        yield sites.here_site("host" if where.kind == "host" else "here", native=where.native)
