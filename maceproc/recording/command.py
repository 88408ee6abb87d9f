"""The command that is recorded: any program; of ping, the options and the destination are known."""

from __future__ import annotations

import contextlib
import getopt
import ipaddress
import math
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maceproc.capture import PING_KINDS
from maceproc.errors import CommandError
from maceproc.recording.bounded import Finished, run_bounded
from maceproc.recording.entrances import NOT_EXECUTABLE, EngineExec
from maceproc.recording.wrapped import prefix_length

PING_NAMES = frozenset({"ping", "ping4", "ping6"})
# These exit with status 1 when replies were lost: a result, not a failure. ping(8), fping(8)
_LOSS_IS_STATUS_1 = PING_NAMES | {"fping"}
# Anybody may have chosen the name before the bracket: only the first bracket of a line counts.
_HEADER_ADDRESS = re.compile(r"^PING [^(\n]{0,300}\(([0-9a-fA-F.:]{2,45})[)%]", re.MULTILINE)
# Every option of iputils ping (s20221126 and 20240905, ping/ping.c); it includes those of busybox.
_PING_OPTIONS = "?h46aABbc:C:dDe:fF:G:H3i:I:l:Lm:M:nN:Op:qQ:rRs:S:t:T:UvVw:W:"
# Every option of fping 5.1 (src/fping.c) and 5.2; -g and -f say the targets in another way.
_FPING_OPTIONS = "46ab:AB:c:C:dDeEf:ghH:i:I:Jk:lmMnNoO:p:qQ:r:RsS:t:T:uvX:x:"
_FPING_LONG = tuple(
    """
    addr all alive backoff= count= dontfrag elapsed file= fwmark= generate help iface= interval=
    ipv4 ipv6 json loop name netdata outage period= quiet random rdns reachable= retry= size=
    squiet= src= stats timeout= timestamp tos= ttl= unreach vcount= version
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Command:
    """A command to record.

    Attributes
    ----------
    argv
        What to execute.
    program
        The program's name, without its directory; for ``busybox ping`` it is ping.
    destination
        The host name or address it sends to; empty when that is not known.
    options
        ping's options as (option, value) pairs; empty for other programs.
    prefix
        How many words at the start of `argv` only prepare the program: ``nice -n 5``.
    further
        The other hosts that fping sends to.
    """

    argv: tuple[str, ...]
    program: str
    destination: str = ""
    options: tuple[tuple[str, str], ...] = ()
    prefix: int = 0
    further: tuple[str, ...] = ()

    @property
    def is_ping(self) -> bool:
        """Whether its name is that of a ping."""
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
        own = self.argv[self.prefix :]
        return list(own[: 1 + (Path(own[0]).name == "busybox")])

    def with_timestamps(self, inside: EngineExec | None = None) -> Command:
        """Return this ping with -D (print the time of every reply), where its program knows -D.

        `inside` is the container that it runs in; None: it is this machine's.
        """
        if not self.is_ping or self.has("-D") or not is_iputils(self.words, inside):
            return self
        name = self.prefix + 1
        return parse_command([*self.argv[:name], "-D", *self.argv[name:]])

    def trial(self) -> list[str]:
        """Return this ping with -c 1 -W 1 added: of an option given twice, the last counts."""
        words = list(self.argv)
        end = words.index("--") if "--" in words else len(words)
        return [*words[:end], "-c", "1", "-W", "1", *words[end:]]

    @property
    def longest_s(self) -> float | None:
        """Upper bound of the time that this ping takes by its options [s]; None when it has no end.

        It is at least one second per packet: an adaptive ping waits that long for a lost reply.
        """
        given = dict(self.options)
        try:
            deadline_s = float(given["-w"]) if "-w" in given else math.inf
            count = float(given["-c"]) if "-c" in given else math.inf
            per_packet_s = max(1.0, float(given.get("-i", 1)), float(given.get("-W", 10)))
        except ValueError:
            return None
        longest_s = min(deadline_s, (count + 1) * per_packet_s)
        return 2 * longest_s + 60 if math.isfinite(longest_s) else None

    def probe(self, destination: str, count: int = 1) -> list[str]:
        """Return the command line of a single ping, or `count`, by the same program."""
        family = [option for option in ("-4", "-6") if self.has(option)]
        return [*self.words, *family, "-c", str(count), "-W", "1", destination]

    def failed(self, exit_status: int | None) -> bool:
        """Tell whether an exit status means failure; a ping that loses packets has not failed."""
        return exit_status not in ((0, 1) if self.program in _LOSS_IS_STATUS_1 else (0,))


def parse_command(argv: list[str]) -> Command:
    """Understand a command line.

    Raises CommandError when it is empty, or is that of a program which runs another one elsewhere.
    """
    if not argv:
        raise CommandError(
            "no command to record", hint="give one after --: maceproc record --lab -- ping -c 10"
        )
    prefix = prefix_length(argv)
    words = argv[prefix:]
    words = words[1:] if Path(words[0]).name == "busybox" and len(words) > 1 else words
    program = Path(words[0]).name
    if program == "fping":
        targets = _fping_targets(words[1:])
        first = targets[0] if targets else _last_address(argv)
        return Command(tuple(argv), program, first, prefix=prefix, further=tuple(targets[1:]))
    if program not in PING_NAMES:
        return Command(tuple(argv), program, _last_address(argv), prefix=prefix)
    try:
        options, rest = getopt.gnu_getopt(words[1:], _PING_OPTIONS)
    except getopt.GetoptError:  # an option we do not know: ping itself judges it
        return Command(tuple(argv), program, _last_address(argv), prefix=prefix)
    # iputils ping takes several words as intermediate hops; the last one is the destination.
    return Command(tuple(argv), program, rest[-1] if rest else "", tuple(options), prefix)


def _fping_targets(words: list[str]) -> list[str]:
    """Return the targets that fping's words name; none where a file or a range gives them."""
    try:
        options, targets = getopt.gnu_getopt(words, _FPING_OPTIONS, _FPING_LONG)
    except getopt.GetoptError:  # an option we do not know: fping itself judges it
        return []
    generated = {"-g", "--generate", "-f", "--file"} & {name for name, _ in options}
    return [] if generated else targets


def _last_address(argv: list[str]) -> str:
    """Return the last word that is an IP address: the destination of a program we do not know."""
    for word in reversed(argv):
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(word))
    return ""


def version_text(words: list[str], inside: EngineExec | None = None) -> str:
    """Return what a ping program says of itself with -V, as one line; empty when it says nothing.

    `inside` is the container that it is in, whose engine runs it; None: it is this machine's.
    Raises CommandError when the program does not end, or prints more than the limit.
    """
    done = _probe([*words, "-V"], inside)
    lines = (done.stdout + done.stderr).strip().splitlines() if done else []
    # BusyBox does not know -V: it prints an error, and then its name and version.
    named = [line for line in lines if any(kind in line for kind in PING_KINDS)]
    line = (named or lines or [""])[0][:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def is_iputils(words: list[str], inside: EngineExec | None = None) -> bool:
    """Tell whether a ping program is that of iputils, as it says of itself."""
    return "iputils" in version_text(words, inside)


def find_program(command: Command) -> None:
    """Make sure that a command can be executed; CommandError when not."""
    for name in {command.argv[0], command.words[0]}:
        if shutil.which(name) is None:
            package = " (Debian: apt install iputils-ping)" if command.is_ping else ""
            raise CommandError(
                f"{name}: no such program on this machine", hint=f"install it{package}"
            )


def find_ping_in_container(command: Command, inside: EngineExec) -> None:
    """Make sure that a container has the ping that is asked for; CommandError when not."""
    done = _probe([*command.words, "-V"], inside)
    if done and done.returncode in NOT_EXECUTABLE:
        raise CommandError(
            f"{command.words[0]}: no such program in container {inside.container.name!r}",
            hint="--host-ping runs this machine's ping in the container's network",
        )


def resolve_in_container(command: Command, inside: EngineExec) -> str:
    """Return the address of a ping's destination as a container resolves it, by one ping.

    An engine gives names to the containers of a network, which only those containers can resolve.
    Empty when unknown.
    """
    done = _probe(command.probe(command.destination), inside)
    return address_in(done.stdout) if done else ""


def address_in(printed: str) -> str:
    """Return the address in the first line that a ping prints; empty when there is none."""
    found = _HEADER_ADDRESS.search(printed)
    return _last_address([found[1]]) if found else ""


def _probe(argv: list[str], inside: EngineExec | None) -> Finished | None:
    """Run a probe here or in a container; None when it cannot be started."""
    try:
        done = inside.probe(argv) if inside else run_bounded(argv)
    except OSError:
        return None
    if done.ended:
        where = f" in container {inside.container.name!r}" if inside else ""
        raise CommandError(
            f"`{' '.join(argv)}`{where} {done.ended}",
            hint="this is no ping that can be recorded"
            + (": --host-ping runs this machine's" if inside else ""),
        )
    return done


def addresses(destination: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[str]:
    """Return the addresses of a host name, as this machine resolves it; none when it cannot."""
    try:
        found = socket.getaddrinfo(destination, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def resolve(
    destination: str,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    enter: Callable[[list[str]], list[str]] | None = None,
) -> str:
    """Return the address of a host name that a program takes somewhere; empty when there is none.

    Where a name has several addresses, the C library puts those first that the namespace has a
    route to (RFC 6724). So the name is resolved in the namespace: `enter` gives the command line
    for that; None resolves it here.
    """
    found = addresses(destination, family)
    if len(found) < 2 or enter is None:
        return found[0] if found else ""
    database = {socket.AF_INET: "ahostsv4", socket.AF_INET6: "ahostsv6"}.get(family, "ahosts")
    try:
        done = run_bounded(enter(["getent", database, "--", destination]))
    except OSError:
        return found[0]
    first = done.stdout.split(maxsplit=1)[:1]
    return _last_address(first) or found[0]
