"""The command that is recorded: any program; of ping, the options and the destination are known."""

from __future__ import annotations

import contextlib
import getopt
import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maceproc.errors import CommandError
from maceproc.recording.engines import NOT_EXECUTABLE, EngineExec

Enter = Callable[[list[str]], list[str]]
"""Turns a command line into one that executes it somewhere else; `list` leaves it here."""

PING_NAMES = frozenset({"ping", "ping4", "ping6"})
# Exit status 1 is theirs for lost replies: a result, not a failure. ping(8), fping(8)
_LOSS_IS_STATUS_1 = PING_NAMES | {"fping"}
_HEADER_ADDRESS = re.compile(r"^PING .*?\(([0-9a-fA-F.:]+)[)%]", re.MULTILINE)
# Every option of iputils ping (s20221126 and 20240905, ping/ping.c) and, among them, busybox's.
_PING_OPTIONS = "?h46aABbc:C:dDe:fF:G:H3i:I:l:Lm:M:nN:Op:qQ:rRs:S:t:T:UvVw:W:"


@dataclass(frozen=True)
class Command:
    """A command to record.

    Attributes
    ----------
    argv
        What to execute.
    program
        The program's name, without its directory; of ``busybox ping``, ping.
    destination
        The host name or address it sends to; empty when that is not known.
    options
        ping's options as (option, value) pairs; empty for other programs.
    """

    argv: tuple[str, ...]
    program: str
    destination: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_ping(self) -> bool:
        """It is a ping, by its name."""
        return self.program in PING_NAMES

    def has(self, option: str) -> bool:
        """Tell whether ping was given this option (``-D``), alone or among others (``-nD``)."""
        return any(name == option for name, _ in self.options)

    @property
    def family(self) -> socket.AddressFamily:
        """The address family that the command asks for; AF_UNSPEC when it leaves that open."""
        if self.has("-6") or self.program == "ping6":
            return socket.AF_INET6
        if self.has("-4") or self.program == "ping4":
            return socket.AF_INET
        return socket.AF_UNSPEC

    @property
    def has_literal_destination(self) -> bool:
        """The destination is an address, not a name."""
        return bool(self.destination) and bool(_last_address([self.destination]))

    def to(self, destination: str) -> Command:
        """Return this ping with a destination appended."""
        return parse_command([*self.argv, destination])

    @property
    def words(self) -> list[str]:
        """The words that name the program: one, or two of ``busybox ping``."""
        return list(self.argv[: 1 + (Path(self.argv[0]).name == "busybox")])

    def with_timestamps(self, enter: Enter = list) -> Command:
        """Return this ping with -D (print the time of every reply), where its program knows -D.

        `enter` says where its program is.
        """
        if not self.is_ping or self.has("-D") or not is_iputils(self.words, enter):
            return self
        return parse_command([self.argv[0], "-D", *self.argv[1:]])

    def probe(self, destination: str, count: int = 1) -> list[str]:
        """Return the command line of a single ping, or `count`, by the same program."""
        family = [option for option in ("-4", "-6") if self.has(option)]
        return [*self.words, *family, "-c", str(count), "-W", "1", destination]

    def failed(self, exit_status: int | None) -> bool:
        """Tell whether an exit status means failure; a ping that loses packets has not failed."""
        return exit_status not in ((0, 1) if self.program in _LOSS_IS_STATUS_1 else (0,))


def parse_command(argv: list[str]) -> Command:
    """Understand a command line; CommandError when it is empty."""
    if not argv:
        raise CommandError(
            "no command to record", hint="give one after --: maceproc record --lab -- ping -c 10"
        )
    words = argv[1:] if Path(argv[0]).name == "busybox" and len(argv) > 1 else argv
    program = Path(words[0]).name
    if program not in PING_NAMES:
        return Command(tuple(argv), program, _last_address(argv))
    try:
        options, rest = getopt.gnu_getopt(words[1:], _PING_OPTIONS)
    except getopt.GetoptError:  # an option we do not know: ping itself judges it
        return Command(tuple(argv), program, _last_address(argv))
    # iputils ping takes several words as intermediate hops; the last one is the destination.
    return Command(tuple(argv), program, rest[-1] if rest else "", tuple(options))


def _last_address(argv: list[str]) -> str:
    """Return the last word that is an IP address: of a program we do not know, its destination."""
    for word in reversed(argv):
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(word))
    return ""


def is_iputils(words: list[str], enter: Enter = list) -> bool:
    """Tell whether a ping program is that of iputils, as it says of itself."""
    try:
        said = subprocess.run(enter([*words, "-V"]), capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "iputils" in said.stdout


def find_program(command: Command) -> None:
    """Make sure that a command can be executed; CommandError when not."""
    if shutil.which(command.argv[0]) is None:
        package = " (Debian: apt install iputils-ping)" if command.is_ping else ""
        raise CommandError(
            f"{command.argv[0]}: no such program on this machine", hint=f"install it{package}"
        )


def find_ping_in_container(command: Command, inside: EngineExec) -> None:
    """Make sure that a container has the ping that is asked for; CommandError when not."""
    asked = inside.enter([*command.words, "-V"])
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode in NOT_EXECUTABLE:
        raise CommandError(
            f"{command.words[0]}: no such program in container {inside.container.name!r}",
            hint="--host-ping runs this machine's ping in the container's network",
        )


def resolve_in_container(command: Command, inside: EngineExec) -> str:
    """Return the address of a ping's destination as a container resolves it, by one ping.

    An engine gives names to the containers of a network that nobody else knows. Empty when unknown.
    """
    asked = inside.enter(command.probe(command.destination))
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    found = _HEADER_ADDRESS.search(done.stdout)
    return found[1] if found else ""


def resolve(destination: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> str:
    """Return the address of a host name, as this machine resolves it; empty when it cannot."""
    try:
        found = socket.getaddrinfo(destination, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return ""
    return str(found[0][4][0])
