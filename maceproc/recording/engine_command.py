"""A command line of a container engine, taken apart: ``docker run ...`` and ``docker exec ...``.

Docker, Podman and nerdctl share the form ``ENGINE run|exec [OPTIONS] PLACE [COMMAND...]``, where
the place is an image or a container. The options without a value are listed below; every other
option takes a value, so it is known where the options end. https://docs.docker.com/reference/cli/docker/container/run/,
https://docs.podman.io/en/latest/markdown/podman-run.1.html, and both for exec.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maceproc.errors import CommandError
from maceproc.recording.engines import ENGINES

_FLAGS = """
d detach disable-content-trust env-host help http-proxy i init interactive l latest no-healthcheck
no-hostname no-hosts oom-kill-disable P passwd privileged publish-all q quiet read-only
read-only-tmpfs replace rm rmi rootfs sig-proxy t tls-verify tty use-api-socket
"""
# A recording sets these itself, or they need somebody at a terminal.
_SET_BY_US = """
a attach cidfile detach-keys entrypoint i interactive name rm sig-proxy t tty
"""
# Options of a network that a container on the host's network cannot have.
_OF_A_NETWORK = """
ip ip6 link link-local-ip mac-address net net-alias network network-alias p P publish publish-all
"""
FLAGS = frozenset(_FLAGS.split())
SET_BY_US = frozenset(_SET_BY_US.split())
OF_A_NETWORK = frozenset(_OF_A_NETWORK.split())


@dataclass(frozen=True)
class Option:
    """One option: its name without dashes, its value ("" for a flag), and its own words."""

    name: str
    value: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class EngineCommand:
    """A ``run`` or an ``exec``.

    Attributes
    ----------
    place
        The image of a run, the container of an exec.
    argv
        What is executed there. For a run it may be empty, or be arguments only: then the image
        says the rest.
    """

    engine: str
    verb: Literal["run", "exec"]
    options: tuple[Option, ...]
    place: str
    argv: tuple[str, ...]

    def value(self, *names: str) -> str:
        """Return the value of the last option that has one of these names; empty without one."""
        return next((o.value for o in reversed(self.options) if o.name in names), "")

    def words(self, *, without: Collection[str] = SET_BY_US) -> list[str]:
        """Return the words of the options, except for those of these names."""
        return [word for o in self.options if o.name not in without for word in o.words]

    def words_on_host_network(self) -> list[str]:
        """Return the words of the options that a container on the host's network can have too."""
        kept = [o for o in self.options if o.name not in SET_BY_US | OF_A_NETWORK]
        kept = [o for o in kept if not (o.name == "sysctl" and o.value.startswith("net."))]
        return [word for o in kept for word in o.words]


def is_engine(argv: Sequence[str]) -> bool:
    """Tell whether a command line is that of a container engine, by its program's name."""
    return bool(argv) and Path(argv[0]).name in ENGINES


def parse_engine_command(argv: Sequence[str]) -> EngineCommand:
    """Take a ``run`` or ``exec`` apart; CommandError tells why a command line is neither."""
    engine, words = Path(argv[0]).name, list(argv[1:])
    if words[:1] == ["container"]:
        words = words[1:]
    if words[:1] == ["compose"]:
        raise CommandError(
            f"{engine} compose: only `{engine} run` and `{engine} exec` are known",
            hint="--compose [PROJECT/]SERVICE records in the service's container",
        )
    if words[:1] not in (["run"], ["exec"]):
        raise CommandError(
            f"{' '.join([engine, *words[:1]])}: only `{engine} run` and `{engine} exec` are known",
            hint="name the container: maceproc record --container NAME -- ping ...; what goes "
            "before the verb can be set in the environment (DOCKER_HOST, CONTAINERD_NAMESPACE)",
        )
    options, rest = _split_options(words[1:])
    if not rest or (words[0] == "exec" and len(rest) < 2):
        missing = "an image" if words[0] == "run" else "a container and a command"
        raise CommandError(f"{engine} {words[0]}: {missing} is missing")
    command = EngineCommand(engine, words[0], tuple(options), rest[0], tuple(rest[1:]))  # type: ignore[arg-type]
    _refuse(command)
    return command


def _refuse(command: EngineCommand) -> None:
    said = f"{command.engine} {command.verb}"
    names = {option.name for option in command.options if option.value != "false"}
    if names & {"d", "detach"}:
        raise CommandError(
            f"{said} --detach returns before anything is pinged",
            hint="leave --detach out, or record in the container that runs with --container",
        )
    if names & {"l", "latest"}:
        raise CommandError(f"{said} --latest: which container is not said", hint="name it")


def _split_options(words: list[str]) -> tuple[list[Option], list[str]]:
    """Split words into options and what follows them: the first word that is neither ends them."""
    options: list[Option] = []
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return options, words[at + 1 :]
        taken, used = _long(words, at) if words[at].startswith("--") else _cluster(words, at)
        options += taken
        at += used
    return options, words[at:]


def _long(words: list[str], at: int) -> tuple[list[Option], int]:
    """Return the option that is written ``--name``, ``--name=value`` or ``--name value``."""
    name, equals, value = words[at].removeprefix("--").partition("=")
    used = 1 if equals or name in FLAGS else 2
    if used == 2:
        value = "".join(words[at + 1 : at + 2])
    return [Option(name, value, tuple(words[at : at + used]))], used


def _cluster(words: list[str], at: int) -> tuple[list[Option], int]:
    """Return the options of a word of letters: ``-it``, ``-e A=1``, ``-eA=1``, ``-ite A=1``."""
    letters, options = words[at][1:], []
    for place, letter in enumerate(letters):
        if letter in FLAGS:
            options.append(Option(letter, "", (f"-{letter}",)))
            continue
        value = letters[place + 1 :].removeprefix("=")
        used = 1 if value else 2
        value = value or "".join(words[at + 1 : at + 2])
        return [*options, Option(letter, value, (f"-{letter}", value))], used
    return options, 1
