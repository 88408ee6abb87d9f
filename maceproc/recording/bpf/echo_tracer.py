"""The tracer in the kernel: which devices it watches, and the rows it has written."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Sequence
from importlib import resources
from types import TracebackType
from typing import NamedTuple

from maceproc.echo_rows import COUNTS
from maceproc.errors import TracingError
from maceproc.recording.bpf.libbpf import BpfObject
from maceproc.recording.bpf.memory import (
    CPUS,
    DEVICES,
    ENTERED,
    PENDING,
    PROBES,
    PROGRAMS,
    ROWS,
    SENT,
    Device,
    Memory,
    Pending,
    Row,
)

OBJECT = "echoes.bpf.o"
ROW_BYTES = ctypes.sizeof(Row)
SMALLEST_TABLE = 32  # of devices

_NUMBER = struct.Struct(f"=Q{ROW_BYTES - 8}x")  # of a row
_NUMBER_ONLY = struct.Struct("=Q")
_PENDING_BYTES = ctypes.sizeof(Pending)
_GENERATION_AT, _TAKEN_AT = Pending.generation.offset, Pending.taken.offset
_GENERATIONS = struct.Struct("=QQ")  # generation and taken are neighbours
_ROW_AT = Pending.row.offset
_QUEUED_AT = _ROW_AT + Row.queued_ns.offset


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

    def __init__(self) -> None:
        """Load the programs; none of them runs yet."""
        image = (resources.files(__package__) / OBJECT).read_bytes()
        self._object = BpfObject(image)
        self._roles = 0  # of all devices that are watched
        self._runs = False
        shared = self._object.memory(".bss")
        if not 0 <= len(shared) - ctypes.sizeof(Memory) < mmap.PAGESIZE:
            self._object.close()
            raise TracingError(
                f"{OBJECT}: {len(shared)} bytes of memory, expected {ctypes.sizeof(Memory)}",
                hint="make it anew from its source: make bpf",
            )
        self._shared = shared
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
        del self._memory, self._shared
        self._object.close()

    def start(self) -> None:
        """Begin to follow echoes: the programs run that the devices' roles need."""
        self._object.attach({name for name, served in PROGRAMS.items() if served & self._roles})
        self._runs = True

    def stop(self) -> None:
        """Follow no more; rows can still be read."""
        self._runs = False
        self._object.detach()

    def watch(self, devices: Iterable[Watched]) -> None:
        """Watch these devices and no others; may be called while the tracer runs.

        Raises TracingError when there are too many of them.
        """
        wanted = list(devices)
        table, mask = _table(wanted)
        seen = (ctypes.c_uint8 * 256)()
        self._roles = 0
        for device in wanted:
            seen[device.ifindex & 0xFF] = 1
            self._roles |= device.roles
        # A packet meanwhile may find a device missing: it is not followed, as before or after.
        ctypes.memmove(self._memory.devices, table, ctypes.sizeof(table))
        self._memory.device_mask = mask
        ctypes.memmove(self._memory.ifindexes, seen, ctypes.sizeof(seen))
        if self._runs:
            self.start()

    def read_rows(self) -> Rows:
        """Return the rows written since the last call.

        A row that was overwritten while it was copied is lost; one that is still being written is
        read the next time, and so are those after it.
        """
        written = int(self._memory.rows_written)
        lost = max(0, written - self._read - ROWS)
        first = self._read + lost
        data = self._copy_rows(first, written)
        numbers = [number for (number,) in _NUMBER.iter_unpack(data)]
        if numbers != list(range(first + 1, written + 1)):
            data, wrong, written = self._whole_rows(data, numbers, first)
            lost += wrong
        self._read = written
        return Rows(bytes(data), lost)

    def _copy_rows(self, first: int, end: int) -> bytearray:
        """Copy rows from the ring, from one number to before another."""
        data = bytearray()
        while first < end:
            place = first % ROWS
            taken = min(end - first, ROWS - place)
            start = Memory.rows.offset + place * ROW_BYTES
            data += self._shared[start : start + taken * ROW_BYTES]
            first += taken
        return data

    def _whole_rows(
        self, data: bytearray, numbers: list[int], first: int
    ) -> tuple[bytearray, int, int]:
        """Return the rows that are what they should be, how many are lost, and where to go on."""
        whole, lost = bytearray(), 0
        for place, number in enumerate(numbers):
            if number == first + place + 1:
                whole += data[place * ROW_BYTES : (place + 1) * ROW_BYTES]
            elif int(self._memory.rows_written) - (first + place) > ROWS:
                lost += 1
            else:
                return whole, lost, first + place
        return whole, lost, first + len(numbers)

    def unanswered(self, sent_before_ns: int) -> list[bytes]:
        """Return the rows of echoes that were sent before a time and wait for their reply still.

        Each is given once: a reply that comes later is counted, not followed.
        """
        states = bytes(self._shared[Memory.states.offset : Memory.states.offset + PENDING])
        due = []
        place = states.find(SENT)
        while place >= 0:
            start = Memory.pending.offset + place * _PENDING_BYTES
            generation, taken = _GENERATIONS.unpack_from(self._shared, start + _GENERATION_AT)
            queued_ns = _NUMBER_ONLY.unpack_from(self._shared, start + _QUEUED_AT)[0]
            if generation != taken and queued_ns < sent_before_ns:
                _NUMBER_ONLY.pack_into(self._shared, start + _TAKEN_AT, generation)
                due.append((place, generation, start))
            place = states.find(SENT, place + 1)
        # Only now: a reply that comes at this very moment was either followed to its end before,
        # and its row written, or finds the echo taken.
        return [self._waiting_row(start) for place, now, start in due if self._waits(place, now)]

    def _waits(self, place: int, generation: int) -> bool:
        waiting = self._memory.pending[place]
        return bool(self._memory.states[place] == SENT and waiting.generation == generation)

    def _waiting_row(self, start: int) -> bytes:
        return bytes(self._shared[start + _ROW_AT : start + _ROW_AT + ROW_BYTES])

    @property
    def entered(self) -> int:
        """How many requests were queued on the containers' devices."""
        return sum(int(self._memory.counts[cpu][ENTERED]) for cpu in range(CPUS))

    @property
    def waiting(self) -> int:
        """How many echoes have left and wait for their reply, those given as unanswered not."""
        states = bytes(self._shared[Memory.states.offset : Memory.states.offset + PENDING])
        places = (place for place, state in enumerate(states) if state == SENT)
        pending = self._memory.pending
        return sum(pending[place].generation != pending[place].taken for place in places)

    def counts(self) -> dict[str, dict[int, int]]:
        """Return what could not be followed, by reason and CPU."""
        found: dict[str, dict[int, int]] = {}
        for place, (name, _) in enumerate(COUNTS):
            by_cpu = {cpu: int(self._memory.counts[cpu][place]) for cpu in range(CPUS)}
            found[name] = {cpu: count for cpu, count in by_cpu.items() if count}
        return found


def _table(devices: Sequence[Watched]) -> tuple[ctypes.Array[Device], int]:
    """Return the table that the programs look into, as small as it can be, and its mask."""
    size = SMALLEST_TABLE
    while size <= DEVICES:
        table = (Device * DEVICES)()
        if all(_place(table, size, device) for device in devices):
            return table, size - 1
        size *= 2
    raise TracingError("too many devices to watch", hint="name fewer containers")


def _place(table: ctypes.Array[Device], size: int, device: Watched) -> bool:
    """Enter a device where the programs look for it; tell whether there is room."""
    start = device.ifindex * 31 + device.netns
    for probe in range(PROBES):
        entry = table[(start + probe) % size]
        if not entry.netns or (entry.netns, entry.ifindex) == (device.netns, device.ifindex):
            entry.netns, entry.ifindex = device.netns, device.ifindex
            entry.roles |= device.roles
            entry.container = entry.container or device.container
            return True
    return False
