"""The kernel's ring buffers of one tracing instance: what they counted, and what is still in them.

Source: kernel/trace/trace.c, tracing_stats_read() and tracing_buffers_read(), v6.8.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_AT_MOST_BYTES = 1 << 20
_LOSSES = ("overrun", "commit overrun", "dropped events")


class Counts(NamedTuple):
    """What the kernel counted on one CPU [events]."""

    unread: int  # still in the ring buffer
    read: int  # taken out by a reader
    lost: int  # overwritten before they were read, or dropped

    @property
    def recorded(self) -> int:
        """The events that the kernel could hand over."""
        return self.unread + self.read


def counts(instance: Path) -> dict[int, Counts]:
    """Return what the kernel counted, by CPU; OSError when the instance is gone."""
    found = {}
    for directory in _cpu_directories(instance):
        lines = dict(_stat_lines((directory / "stats").read_text()))
        found[_number(directory)] = Counts(
            lines.get("entries", 0),
            lines.get("read events", 0),
            sum(lines.get(name, 0) for name in _LOSSES),
        )
    return found


def _stat_lines(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if value.isdigit():
            yield name, int(value)


@contextlib.contextmanager
def held(instance: Path) -> Iterator[None]:
    """Keep an instance from being removed by anybody as long as the block runs.

    rmdir() of an instance gives EBUSY while one of its files is open (kernel/trace/trace.c,
    __remove_instance(), v6.8). trace-cmd removes the instance it recorded, with what is in it.
    """
    first = _cpu_directories(instance)[0]
    file = os.open(first / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.close(file)


def drain(instance: Path, cpu: int, file: int) -> None:
    """Append what one CPU's ring buffer holds to an open file, sub-buffer by sub-buffer.

    Raises OSError when it cannot be read or written. A sub-buffer that was read but cannot be
    written is lost, and the counts then show it; the file ends with a complete sub-buffer.
    """
    source = os.open(
        instance / f"per_cpu/cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )
    whole = os.fstat(file).st_size
    try:
        # A read gives one sub-buffer; EAGAIN says that the ring buffer is empty.
        with contextlib.suppress(BlockingIOError):
            while page := os.read(source, _AT_MOST_BYTES):
                left = memoryview(page)
                while left:
                    left = left[os.write(file, left) :]
                whole += len(page)
    finally:
        os.close(source)
        os.ftruncate(file, whole)


def _cpu_directories(instance: Path) -> list[Path]:
    return sorted((instance / "per_cpu").glob("cpu[0-9]*"), key=_number)


def _number(directory: Path) -> int:
    return int(re.sub(r"\D", "", directory.name))
