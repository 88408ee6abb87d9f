"""How much memory there is, and how much is wanted."""

from __future__ import annotations

import re
from pathlib import Path

from maceproc.errors import MaceprocError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
LEAST = 256 << 20  # an analysis of nothing takes about as much [bytes]


def parse_size(text: str) -> int:
    """Return a size such as ``1G``, ``1.5GiB``, ``800M`` in bytes; K, M, G, T are powers of 1024.

    Raises MaceprocError when it is none, or less than what the program itself takes.
    """
    found = SIZE.fullmatch(text.strip())
    if not found:
        raise MaceprocError(f"{text!r} is no amount of memory", hint="give one such as 1G or 800M")
    size = int(float(found[1]) * UNITS[found[2].upper()])
    if size < LEAST:
        raise MaceprocError(
            f"{text} of memory is too little: the program itself takes {LEAST >> 20}M",
            hint="give 300M or more",
        )
    return size


def free_memory() -> int | None:
    """Return how much memory this process may still take [bytes]; None when nobody says.

    That is what the kernel calls available, or less where a control group (version 2) has a limit.
    """
    amounts = []
    text = _read("/proc/meminfo")
    if found := re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE):
        amounts.append(int(found[1]) * 1024)
    group = re.search(r"^0::(/.*)$", _read("/proc/self/cgroup"), re.MULTILINE)
    if group:
        directory = Path("/sys/fs/cgroup") / group[1].lstrip("/")
        limit, used = (_read(directory / f"memory.{name}") for name in ("max", "current"))
        if limit.isdigit() and used.isdigit():
            amounts.append(max(int(limit) - int(used), 0))
    return min(amounts, default=None)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
