"""What a run's command line tells of its output: the program, and options that decide something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from maceproc.pings.flavours import Flavour

PROGRAMS: dict[str, Flavour] = {
    "busybox": "busybox",
    "toybox": "toybox",
    "fping": "fping",
    "fping6": "fping",
    "oping": "oping",
    "noping": "oping",
    "hping3": "hping",
    "inetutils-ping": "inetutils",
    "inetutils-ping6": "inetutils",
}
"""Programs whose name tells the flavour; ``ping`` can be any of several."""

# Options of iputils ping that take a value, s20221126 and 20240905; busybox's are among them.
_PING_TAKES = "cCeFGIilmMNpQsStTwW"
_FPING_TAKES = "bBcCfgHiIkOpQrStTxX"


@dataclass(frozen=True)
class Invocation:
    """What is known of how a ping was run; nothing, where nobody says."""

    program: Flavour | None = None
    letters: frozenset[str] = frozenset()  # single-letter options that were given
    payload_bytes: int | None = None
    count: int | None = None

    @property
    def quiet(self) -> bool:
        """It was told to print no line for a reply."""
        return "q" in self.letters or (self.program != "fping" and "f" in self.letters)


def read_argv(argv: Sequence[str]) -> Invocation:
    """Read a command line; a program that starts another (``sudo``, ``sh``) tells nothing."""
    words = list(argv)
    if not words:
        return Invocation()
    name = PurePath(words[0]).name
    program = PROGRAMS.get(name)
    if name in ("busybox", "toybox"):
        words = words[1:]
        name = PurePath(words[0]).name if words else ""
    if program is None and name not in ("ping", "ping4", "ping6"):
        return Invocation()
    takes = _FPING_TAKES if program == "fping" else _PING_TAKES
    options = dict(_options(words[1:], takes))
    size = options.get("b" if program == "fping" else "s", "")
    count = options.get("c", options.get("C", "") if program == "fping" else "")
    return Invocation(program, frozenset(options), _natural(size), _natural(count))


def _options(words: list[str], takes: str) -> list[tuple[str, str]]:
    """Return single-letter options with their values; long ones tell nothing that is needed."""
    found, rest = [], iter(words)
    for word in rest:
        if word == "--":
            break
        if not word.startswith("-") or word.startswith("--"):
            continue
        for place, letter in enumerate(word[1:], start=1):
            if letter in takes:
                found.append((letter, word[place + 1 :] or next(rest, "")))
                break
            found.append((letter, ""))
    return found


def _natural(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
