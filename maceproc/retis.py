"""Read retis' events: which packet, with which ICMP echo in it, was seen at which event and device.

retis (https://github.com/retis-org/retis) probes the kernel with eBPF and writes one JSON object a
line, or with ``retis sort -o`` one array a line. Of each object these sections are used, as
retis-events/src of its repository declares them (from v1.6 on; v1.7 changed none of them):

    common        timestamp of CLOCK_MONOTONIC [ns], and the task
    kernel        symbol, such as ``net:net_dev_queue``, and probe_type
    skb-tracking  skb, the address of the sk_buff
    dev           name of the device
    netns         inum of its namespace
    packet        data, the packet from its Ethernet header on, in base64

v1.5 has device, namespace and packet in the section ``skb``: ``dev.name``, ``ns.netns`` and
``packet.packet``. Other sections and fields are passed over.
"""

from __future__ import annotations

import binascii
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from maceproc.errors import CaptureError
from maceproc.foreign_text import clean
from maceproc.schema import Column, Table

LINE_BYTES = 1 << 24
"""An event is about 1 kB; a series of `retis sort` has all events of one packet."""
COLLECT = "retis collect -p 'tp:net:*' -f 'icmp or icmp6' -o events.json"

ETHERNET = 14
VLAN_TAGS = (0x8100, 0x88A8)
IPV4, IPV6 = 0x0800, 0x86DD
ICMP, ICMPV6, FRAGMENT_HEADER = 1, 58, 44
ECHOES = {(IPV4, 8): True, (IPV4, 0): False, (IPV6, 128): True, (IPV6, 129): False}
"""Whether it is a request, by protocol and type of ICMP: RFC 792 and RFC 4443."""


SIGHTINGS = Table(
    "sightings",
    "one event at which another tracer saw a packet with an ICMP echo",
    (
        Column("time_ns", "int64", "ns", "CLOCK_MONOTONIC"),
        Column("skbaddr", "uint64", "", "address of the packet's sk_buff"),
        Column("event", "category", "", "the kernel's name of the event"),
        Column("dev", "category", "", "device name"),
        Column("netns", "int64", "", "inode number of its namespace; 0 when not known"),
        Column("pid", "int64", "", "task that ran; in softirq, the task that was interrupted"),
        Column("tgid", "int64", "", "its thread group"),
        Column("request", "bool", "", "an echo request, not a reply"),
        Column("id", "int64", "", "ICMP identifier in the packet"),
        Column("seq", "int64", "", "ICMP sequence number in the packet"),
    ),
)


class Echo(NamedTuple):
    """What tells one ICMP echo from another."""

    request: bool
    id: int
    seq: int


class _Sighting(NamedTuple):
    time_ns: int
    skbaddr: int
    names: tuple[str, str]  # event and device
    numbers: tuple[int, ...]  # the rest of a row of SIGHTINGS


class _Task(msgspec.Struct):
    pid: int = 0
    tgid: int = 0


class _Common(msgspec.Struct):
    timestamp: int
    task: _Task | None = None


class _Kernel(msgspec.Struct):
    symbol: str = ""
    probe_type: str = ""


class _Tracking(msgspec.Struct):
    skb: int = 0


class _Device(msgspec.Struct):
    name: str = ""


class _Netns(msgspec.Struct):
    inum: int = 0
    netns: int = 0  # its name in older versions


class _Packet(msgspec.Struct):
    data: str = ""
    packet: str = ""  # its name in older versions


class _Skb(msgspec.Struct):
    dev: _Device | None = None
    ns: _Netns | None = None
    packet: _Packet | None = None


class _Event(msgspec.Struct, rename={"tracking": "skb-tracking"}):
    common: _Common
    kernel: _Kernel | None = None
    tracking: _Tracking | None = None
    dev: _Device | None = None
    netns: _Netns | None = None
    packet: _Packet | None = None
    skb: _Skb | None = None


@dataclass(frozen=True)
class RetisEvents:
    """The echoes in a file of retis' events.

    Attributes
    ----------
    sightings
        SIGHTINGS: a row for every event of a packet that carries an ICMP echo.
    events
        How many events the file has.
    cut
        Whether its last line has no end and was left out: retis was killed, or the file was copied.
    """

    sightings: pd.DataFrame
    events: int
    cut: bool


def read_retis(path: Path) -> RetisEvents:
    """Read the echoes of a file of retis' events; CaptureError when it is none, or has none."""
    # Arrays, of 8 bytes a value, not lists: a recording may have millions of events.
    columns = [array("Q" if name == "skbaddr" else "q") for name in SIGHTINGS.names]
    names: dict[str, dict[str, int]] = {"event": {}, "dev": {}}
    total, cut = 0, False
    try:
        with path.open("rb") as stream:
            for number, line, whole in _lines(stream, path):
                try:
                    events = _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    if not whole:
                        cut = True
                        break
                    raise CaptureError(
                        f"{path}: line {number}: not an event of retis: {clean(str(error))}",
                        hint=f"give the file that `{COLLECT}` wrote",
                    ) from error
                total += len(events)
                for sighting in filter(None, map(_sighting, events)):
                    event, dev = (
                        known.setdefault(name, len(known))
                        for known, name in zip(names.values(), sighting.names, strict=True)
                    )
                    row = (sighting.time_ns, sighting.skbaddr, event, dev, *sighting.numbers)
                    for column, value in zip(columns, row, strict=True):
                        column.append(value)
    except OSError as error:
        raise CaptureError(f"{path}: cannot read retis' events: {error.strerror}") from error
    if not columns[0]:
        raise CaptureError(
            f"{path}: none of its {total} events shows a packet with an ICMP echo",
            hint=f"record with `{COLLECT}`: address, device and content of the packet are needed",
        )
    table = dict(zip(SIGHTINGS.names, map(np.asarray, columns), strict=True))
    labels = {name: pd.Categorical.from_codes(table[name], list(names[name])) for name in names}
    return RetisEvents(SIGHTINGS.frame(pd.DataFrame({**table, **labels})), total, cut)


def _lines(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield every line that is not empty: its number, its text and whether it has an end."""
    number = 0
    while line := stream.readline(LINE_BYTES + 1):
        number += 1
        if len(line) > LINE_BYTES:
            raise CaptureError(
                f"{path}: line {number} is longer than {LINE_BYTES >> 20} MiB",
                hint="give the events as retis writes them, one a line",
            )
        if line.strip():
            yield number, line, line.endswith(b"\n")


_EVENT = msgspec.json.Decoder(_Event)
_SERIES = msgspec.json.Decoder(list[_Event])


def _decode(line: bytes) -> list[_Event]:
    """Return the event of a line, or the events of one series of `retis sort`."""
    return _SERIES.decode(line) if line.lstrip().startswith(b"[") else [_EVENT.decode(line)]


def _sighting(event: _Event) -> _Sighting | None:
    """Return what is needed of an event; None where no tracepoint saw an echo at a device."""
    kernel, tracking = event.kernel, event.tracking
    skb = event.skb or _Skb()
    dev, netns, packet = event.dev or skb.dev, event.netns or skb.ns, event.packet or skb.packet
    if kernel is None or tracking is None or dev is None or packet is None:
        return None
    if kernel.probe_type != "raw_tracepoint" or not 0 <= tracking.skb < 2**64:
        return None
    if not 0 <= event.common.timestamp < 2**63:
        return None
    try:
        echo = echo_of(binascii.a2b_base64(packet.data or packet.packet))
    except (binascii.Error, ValueError):
        return None
    if echo is None:
        return None
    task = event.common.task or _Task()
    name = kernel.symbol.rpartition(":")[2]
    inum = (netns.inum or netns.netns) if netns else 0
    tasks = [number if 0 <= number < 2**31 else 0 for number in (task.pid, task.tgid)]
    known = inum if 0 <= inum < 2**32 else 0
    numbers = (known, *tasks, *echo)
    return _Sighting(event.common.timestamp, tracking.skb, (name, dev.name), numbers)


def echo_of(packet: bytes) -> Echo | None:
    """Return the ICMP echo that a packet carries; None for any other, and for a later fragment.

    `packet` begins with its Ethernet header. It may be cut behind the header of ICMP.
    """
    try:
        (kind,) = struct.unpack_from("!H", packet, ETHERNET - 2)
        at = ETHERNET
        while kind in VLAN_TAGS:
            (kind,) = struct.unpack_from("!H", packet, at + 2)
            at += 4
        if kind == IPV4:
            head, fragment, protocol = struct.unpack_from("!B5xHxB", packet, at)
            if head >> 4 != 4 or protocol != ICMP or fragment & 0x1FFF:
                return None
            at += (head & 15) * 4
        elif kind == IPV6:
            protocol = packet[at + 6]
            at += 40
            if protocol == FRAGMENT_HEADER:
                protocol, fragment = struct.unpack_from("!BxH", packet, at)
                if fragment & 0xFFF8:
                    return None
                at += 8
            if protocol != ICMPV6:
                return None
        type_, id_, seq = struct.unpack_from("!B3xHH", packet, at)
    except (struct.error, IndexError):
        return None
    request = ECHOES.get((kind, type_))
    return None if request is None else Echo(request, id_, seq)
