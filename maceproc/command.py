"""The command that is recorded: any program; of ping, the options and the destination are known."""

from __future__ import annotations

import getopt
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from maceproc.errors import CommandError

PING_NAMES = frozenset({"ping", "ping4", "ping6"})
# Every option of iputils ping (s20221126 and 20240905, ping/ping.c) and, among them, busybox's.
_PING_OPTIONS = "?h46aABbc:C:dDe:fF:G:H3i:I:l:Lm:M:nN:Op:qQ:rRs:S:t:T:UvVw:W:"


@dataclass(frozen=True)
class Command:
    """A command to record.

    Attributes
    ----------
    argv
        What to execute.
    is_ping
        It is a ping by its name.
    destination
        The host name or address it sends to; empty when that is not known.
    options
        ping's options as (option, value) pairs; empty for other programs.
    """

    argv: tuple[str, ...]
    is_ping: bool = False
    destination: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def has(self, option: str) -> bool:
        """Tell whether ping was given this option (``-D``), alone or among others (``-nD``)."""
        return any(name == option for name, _ in self.options)

    @property
    def family(self) -> socket.AddressFamily:
        """The address family that the command asks for; AF_UNSPEC when it leaves that open."""
        name = Path(self.argv[0]).name
        if self.has("-6") or name == "ping6":
            return socket.AF_INET6
        return socket.AF_INET if self.has("-4") or name == "ping4" else socket.AF_UNSPEC

    def to(self, destination: str) -> Command:
        """Return this ping with a destination appended."""
        return parse_command([*self.argv, destination])

    def with_timestamps(self) -> Command:
        """Return this ping with -D (print the time of every reply), where its program knows -D."""
        if not self.is_ping or self.has("-D") or not is_iputils(self.argv[0]):
            return self
        return parse_command([self.argv[0], "-D", *self.argv[1:]])


def parse_command(argv: list[str]) -> Command:
    """Understand a command line; CommandError when it is empty."""
    if not argv:
        raise CommandError(
            "no command to record", hint="give one after --: maceproc record --lab -- ping -c 10"
        )
    if Path(argv[0]).name not in PING_NAMES:
        return Command(tuple(argv))
    try:
        options, rest = getopt.gnu_getopt(argv[1:], _PING_OPTIONS)
    except getopt.GetoptError:  # an option we do not know: ping itself judges it
        return Command(tuple(argv), is_ping=True)
    # iputils ping takes several words as intermediate hops; the last one is the destination.
    return Command(tuple(argv), True, rest[-1] if rest else "", tuple(options))


def is_iputils(program: str) -> bool:
    """Tell whether a ping program is that of iputils, as it says of itself."""
    try:
        said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "iputils" in said.stdout


def find_program(program: str) -> None:
    """Make sure that a program can be executed; CommandError when not."""
    if shutil.which(program) is None:
        package = " (Debian: apt install iputils-ping)" if program in PING_NAMES else ""
        raise CommandError(
            f"{program}: no such program on this machine", hint=f"install it{package}"
        )


def resolve(destination: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> str:
    """Return the address of a host name, as this machine resolves it; empty when it cannot."""
    try:
        found = socket.getaddrinfo(destination, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return ""
    return str(found[0][4][0])
