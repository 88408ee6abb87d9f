"""What ip(8) and programs like it say of a network namespace, read as foreign text.

Whoever controls a namespace chooses the names of its devices, and the number of its routes and
rules.
The programs are this machine's own, and only the network namespace is entered.
"""

from __future__ import annotations

import json
import re
from typing import Any

from maceproc.errors import TargetError
from maceproc.recording.bounded import Finished, run_bounded
from maceproc.recording.sites import Netns

TIMEOUT_S = 30.0
LIMIT_BYTES = 16 << 20  # of what ip(8) and the like say of one namespace

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # as "surrogateescape" reads such a byte


def ip_json(netns: Netns, *arguments: str) -> list[dict[str, Any]]:
    """Run ``ip -json`` in a namespace; TargetError with its own words when it fails."""
    argv = netns.enter(["ip", "-json", *arguments])
    done = _run(argv)
    if done.ended:
        raise TargetError(f"{netns.name}: {' '.join(argv[3:])} {done.ended}")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TargetError(f"{netns.name}: {' '.join(argv[3:])}: {said}")
    return [entry for entry in _from_json(done.stdout or "[]") if entry]


def _from_json(text: str) -> list[dict[str, Any]]:
    """Return what a program prints as JSON, where names of devices may be any bytes.

    ip(8) prints control characters in a name as they are, and also bytes that are not UTF-8. Such
    bytes become escapes, as they do in the events.
    """
    plain = _NOT_UTF8.sub(lambda byte: f"\\\\x{ord(byte[0]) - 0xDC00:02x}", text)
    try:
        return list(json.loads(plain, strict=False))
    except (ValueError, RecursionError) as error:
        raise TargetError(f"ip: its answer is not understood: {error}") from error


def lines(argv: list[str]) -> list[str]:
    """Return the lines that a program prints, with what is not UTF-8 in them escaped."""
    printed = output(argv).encode("utf-8", "surrogateescape")
    return [line for line in printed.decode("utf-8", "backslashreplace").split("\n") if line]


def output(argv: list[str]) -> str:
    """Return what a program prints; an empty text when it fails.

    Where the program prints more than the limit, the last line says so.
    """
    done = _run(argv)
    if done.ended:
        return f"{done.stdout}\n... ({argv[-1]} {done.ended})"
    return done.stdout if done.returncode == 0 else ""


def printed_json(argv: list[str]) -> list[dict[str, Any]]:
    """Return the objects that a program prints as a list; none where it fails, or is not there."""
    try:
        entries = json.loads(output(argv) or "[]", strict=False)
    except (ValueError, RecursionError):
        return []
    found = entries if isinstance(entries, list) else []
    return [entry for entry in found if isinstance(entry, dict)]


def _run(argv: list[str]) -> Finished:
    try:
        return run_bounded(
            argv, timeout_s=TIMEOUT_S, limit_bytes=LIMIT_BYTES, errors="surrogateescape"
        )
    except FileNotFoundError as error:
        raise TargetError(
            f"{argv[0]}: not found", hint="install util-linux and iproute2"
        ) from error
