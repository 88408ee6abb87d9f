"""The tracer in the kernel: which devices it watches, and the rows it has written."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Iterator
from importlib import resources
from types import TracebackType
from typing import NamedTuple

from maceproc.echo_rows import COUNTS
from maceproc.errors import TracingError
from maceproc.recording.bpf.libbpf import BpfObject
from maceproc.recording.bpf.memory import (
    CPUS,
    DEVICES,
    PENDING,
    PROBES,
    PROGRAMS,
    ROWS,
    SENT,
    Device,
    Memory,
    Row,
)

OBJECT = "echoes.bpf.o"
ROW_BYTES = ctypes.sizeof(Row)


class Watched(NamedTuple):
    """A device to watch: where it is, its roles (`maceproc.recording.bpf.memory`), whose it is."""

    netns: int  # inode number of its network namespace
    ifindex: int
    roles: int
    container: int = 0


class Rows(NamedTuple):
    """Rows as bytes, one after the other, and how many were overwritten before they were read."""

    data: bytes
    lost: int


class EchoTracer:
    """Follow the ICMP echoes of devices, in the kernel, as long as the block runs.

    Use it as a context manager. The kernel frees everything with the process, whatever ends it.
    Raises TracingError where BPF cannot be used.
    """

    def __init__(self, roles: int) -> None:
        """Load the programs that serve these roles."""
        programs = {name for name, served in PROGRAMS.items() if served & roles}
        image = (resources.files(__package__) / OBJECT).read_bytes()
        self._object = BpfObject(image, programs)
        shared = self._object.memory(".bss")
        if not 0 <= len(shared) - ctypes.sizeof(Memory) < mmap.PAGESIZE:
            self._object.close()
            raise TracingError(
                f"{OBJECT}: {len(shared)} bytes of memory, expected {ctypes.sizeof(Memory)}",
                hint="make it anew from its source: make bpf",
            )
        self._memory = Memory.from_buffer(shared)
        self._read = 0  # rows

    def __enter__(self) -> EchoTracer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self._memory
        self._object.close()

    def start(self) -> None:
        """Begin to follow echoes."""
        self._object.attach()

    def stop(self) -> None:
        """Follow no more; rows can still be read."""
        self._object.detach()

    def watch(self, devices: Iterable[Watched]) -> None:
        """Watch these devices and no others; may be called while the tracer runs.

        Raises TracingError when there are too many of them.
        """
        table = (Device * DEVICES)()
        seen = (ctypes.c_uint8 * 256)()
        for device in devices:
            _place(table, device)
            seen[device.ifindex & 0xFF] = 1
        # A packet meanwhile may find a device missing: it is not followed, as before or after.
        ctypes.memmove(self._memory.devices, table, ctypes.sizeof(table))
        ctypes.memmove(self._memory.ifindexes, seen, ctypes.sizeof(seen))

    def read_rows(self) -> Rows:
        """Return the rows written since the last call."""
        written = int(self._memory.rows_written)
        lost = max(0, written - self._read - ROWS)
        first = self._read + lost
        data = bytearray()
        for number in range(first, written):
            row = self._memory.rows[number % ROWS]
            before = row.number
            if not before:  # it is being written: next time
                written = number
                break
            copy = ctypes.string_at(ctypes.addressof(row), ROW_BYTES)
            if before == number + 1 == row.number:
                data += copy
            else:
                lost += 1
        self._read = written
        return Rows(bytes(data), lost)

    def unanswered(self, sent_before_ns: int) -> Iterator[bytes]:
        """Yield the rows of echoes that were sent before a time and wait for their reply still.

        Each is given once: a reply that comes later is not followed.
        """
        for place in range(PENDING):
            waiting = self._memory.pending[place]
            if waiting.state == SENT and waiting.row.queued_ns < sent_before_ns:
                generation = waiting.generation
                copy = ctypes.string_at(ctypes.addressof(waiting.row), ROW_BYTES)
                if waiting.state == SENT and waiting.generation == generation:
                    waiting.state = 0
                    yield copy

    def counts(self) -> dict[str, dict[int, int]]:
        """Return what could not be followed, by reason and CPU."""
        found: dict[str, dict[int, int]] = {}
        for place, (name, _) in enumerate(COUNTS):
            by_cpu = {cpu: int(self._memory.counts[cpu][place]) for cpu in range(CPUS)}
            found[name] = {cpu: count for cpu, count in by_cpu.items() if count}
        return found


def _place(table: ctypes.Array[Device], device: Watched) -> None:
    """Enter a device where the programs look for it."""
    start = device.ifindex * 31 + device.netns
    for probe in range(PROBES):
        entry = table[(start + probe) % DEVICES]
        if not entry.netns or (entry.netns, entry.ifindex) == (device.netns, device.ifindex):
            entry.netns, entry.ifindex = device.netns, device.ifindex
            entry.roles |= device.roles
            entry.container = entry.container or device.container
            return
    raise TracingError("too many devices to watch", hint="name fewer containers")
