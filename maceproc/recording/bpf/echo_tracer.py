"""The tracer in the kernel: which devices it watches, and the points it has written."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from types import TracebackType
from typing import Any, NamedTuple

from maceproc.echo_rows import UNREAD
from maceproc.errors import TracingError
from maceproc.recording.bpf.libbpf import BpfObject
from maceproc.recording.bpf.memory import (
    CHAIN,
    CHAINS,
    DEVICES,
    POINTS,
    PROGRAMS,
    RINGS,
    Device,
    Memory,
)
from maceproc.recording.bpf.rings import POINT_BYTES, RingReader

OBJECT = "echoes.bpf.o"
FILLED = 1 / 8  # of a ring, between two reads: a read takes what was there at the read before
SHORTEST_PAUSE_S = 0.002


class Watched(NamedTuple):
    """A device to watch: where it is, its roles (`maceproc.recording.bpf.memory`), whose it is."""

    netns: int  # inode number of its network namespace
    ifindex: int
    roles: int
    container: int = 0


class Points(NamedTuple):
    """Points that were read.

    Attributes
    ----------
    data
        The points, one after the other.
    lost
        How many were overwritten before they were read.
    until_ns
        Every point up to this time was read, now or before.
    """

    data: bytes
    lost: int
    until_ns: int


class EchoTracer:
    """Write down where the ICMP echoes of devices are, in the kernel, as long as the block runs.

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
        # As many rings as there are CPUs, rounded up to a power of two, at most `RINGS`.
        self._rings = min(RINGS, 1 << ((os.cpu_count() or 1) - 1).bit_length())
        self._memory.ring_mask = self._rings - 1
        self._memory.point_mask = POINTS // self._rings - 1
        room = POINTS // self._rings
        self._readers = [
            RingReader(
                shared,
                self._memory.rings[number],
                Memory.points.offset + number * room * POINT_BYTES,
                room,
            )
            for number in range(self._rings)
        ]
        self._looked_ns = 0
        self._fills_in_s = float("inf")  # the ring that fills fastest

    def __enter__(self) -> EchoTracer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self._memory, self._shared, self._readers
        self._object.close()

    def start(self) -> None:
        """Begin to follow echoes: the programs run that the devices' roles need."""
        self._object.attach({name for name, served in PROGRAMS.items() if served & self._roles})
        self._runs = True

    def stop(self) -> None:
        """Follow no more; points can still be read."""
        self._runs = False
        self._object.detach()

    def watch(self, devices: Iterable[Watched]) -> None:
        """Watch these devices and no others; may be called while the tracer runs.

        Raises TracingError when there are too many of them.
        """
        table, chains = _table(devices)
        self._roles = 0
        for entry in table:
            self._roles |= entry.roles
        # A packet meanwhile may find a device missing: it is not followed, as before or after.
        ctypes.memmove(self._memory.devices, table, ctypes.sizeof(table))
        ctypes.memmove(self._memory.chains, chains, ctypes.sizeof(chains))
        if self._runs:
            self.start()

    def read_points(self) -> Points:
        """Return the points written since the last call, ring after ring.

        Of each ring what was there at the last call: whoever took a place then has written to it
        by now, and what it wrote is seen on every CPU. After `stop` everything is there.
        """
        until_ns, self._looked_ns = self._looked_ns, time.monotonic_ns()
        taken_s = (self._looked_ns - until_ns) / 1e9
        if not self._runs:
            until_ns = self._looked_ns
        looked = [reader.look(at_end=not self._runs) for reader in self._readers]
        came = max(look.came for look in looked)
        self._fills_in_s = taken_s * POINTS / self._rings / came if came else float("inf")
        data = b"".join(look.data for look in looked)
        return Points(data, sum(look.lost for look in looked), until_ns)

    def pause_s(self, longest_s: float) -> float:
        """Return how long to wait before the next read [s], at most `longest_s`.

        No ring fills meanwhile if points keep coming as they came between the last two reads.
        """
        return min(longest_s, max(SHORTEST_PAUSE_S, FILLED * self._fills_in_s))

    def counts(self) -> dict[str, int]:
        """Return what could not be read, by reason."""
        rings = [self._memory.rings[number] for number in range(self._rings)]
        return {name: sum(int(getattr(ring, name)) for ring in rings) for name in UNREAD}


def _table(watched: Iterable[Watched]) -> tuple[ctypes.Array[Device], ctypes.Array[Any]]:
    """Return the devices from 1 on, and where the chain of each low byte of an ifindex begins.

    The roles of a device that is named more than once are joined. Raises TracingError when there
    are too many devices.
    """
    joined: dict[tuple[int, int], Watched] = {}
    for device in watched:
        known = joined.setdefault((device.netns, device.ifindex), device)
        joined[device.netns, device.ifindex] = known._replace(
            roles=known.roles | device.roles, container=known.container or device.container
        )
    table, chains = (Device * DEVICES)(), (ctypes.c_uint16 * CHAINS)()
    lengths = Counter(device.ifindex % CHAINS for device in joined.values())
    if len(joined) >= DEVICES or max(lengths.values(), default=0) > CHAIN:
        raise TracingError("too many devices to watch", hint="name fewer containers")
    for place, device in enumerate(joined.values(), 1):
        chain = device.ifindex % CHAINS
        table[place] = Device(
            device.netns, device.ifindex, device.container, device.roles, chains[chain]
        )
        chains[chain] = place
    return table, chains
