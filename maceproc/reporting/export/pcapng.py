"""The pings as packets, for Wireshark and tshark: with kernel time stamps and our results.

No packet was captured: tracepoints record time, device and length, but no bytes. So the packets are
made from what is known: they are ICMP echoes with the right addresses, sequence number and length.
Their payload is zero, and their ICMP id is the number of the round. The interfaces are:

* ``ping: ARM``, one for each arm: the ping program. It has the request and the reply of every ping,
  traced or not; the packet comments hold the ping's results;
* ``NAMESPACE:DEVICE``, for the devices on the way: requests and replies where tracepoints saw
  them, with the event in the comment.

Timestamps are UTC in nanoseconds: the time on the trace clock plus the offset of the run. Without a
sidecar the offset is not known, and timestamps are those of the trace clock.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.following.hop_arrays import HOP_EVENTS, Kind
from maceproc.reporting.export.pcapng_blocks import (
    enhanced_packet,
    interface_description,
    section_header,
)
from maceproc.reporting.export.provenance import provenance, utc_offset

if TYPE_CHECKING:
    from maceproc.analysis import Analysis
    from maceproc.capture import Sidecar

LINKTYPE_RAW = (
    101  # IPv4 or IPv6 without a link-layer header, https://www.tcpdump.org/linktypes.html
)
NANOSECONDS = 9  # if_tsresol, draft-ietf-opsawg-pcapng, 4.2
INBOUND, OUTBOUND = 1, 2  # epb_flags, bits 0 and 1, 4.3.1
ICMP, ICMPV6 = 1, 58  # protocol numbers, RFC 792 and RFC 4443
ECHO = {ICMP: (8, 0), ICMPV6: (128, 129)}  # request and reply
HEADER_BYTES = 8  # of an ICMP echo
DEFAULT_SIZE_BYTES = 64  # ping's own default: 56 of payload
RESULTS = (
    "rtt_ns",
    "kernel_rtt_ns",
    "outbound_ns",
    "inbound_ns",
    "bare_metal_rtt_ns",
    "rtt_basis",
    "wire_rtt_ns",
    "residual_ns",
)
UNKNOWN_IPV4, UNKNOWN_IPV6 = ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Packet:
    """One packet on one interface."""

    time_ns: int  # UTC
    interface: str
    is_reply: bool
    outbound: bool  # direction at this interface: it leaves the machine
    round: int
    seq: int
    size_bytes: int
    comment: str
    translated: bool = False  # after NAT, with the address of the outer device


def write(analysis: Analysis, file: IO[bytes]) -> None:
    """Write the pings of an analysis as a pcapng file, in the order of time."""
    packets = sorted(packets_of(analysis), key=lambda packet: packet.time_ns)
    if packets and not 0 <= packets[0].time_ns <= packets[-1].time_ns < 1 << 64:
        raise AnalysisError(
            f"{analysis.capture.trace}: its sidecar puts packets at times that pcapng cannot hold",
            hint="the start_utc_ns of a run is wrong",
        )
    facts = provenance(analysis)
    about = {
        "shb_userappl": facts["creator"],
        "shb_os": f"Linux {facts['kernel']}" if "kernel" in facts else "Linux",
        "opt_comment": _about(analysis, packets, facts),
    }
    file.write(section_header(about))
    names = list(dict.fromkeys(packet.interface for packet in packets))
    interfaces = {}
    for number, name in enumerate(sorted(names, key=lambda name: _rank(analysis, name))):
        options = {"if_name": name, "if_tsresol": NANOSECONDS}
        file.write(interface_description(LINKTYPE_RAW, options))
        interfaces[name] = number
    addresses = _Addresses.of(analysis.capture.sidecar)
    for packet in packets:
        file.write(
            enhanced_packet(
                interfaces[packet.interface],
                packet.time_ns,
                echo(packet, *addresses.ends(packet)),
                {"opt_comment": packet.comment, "epb_flags": _flags(packet)},
            )
        )


def _about(analysis: Analysis, packets: list[Packet], facts: dict[str, Any]) -> str:
    shown = {(p.interface, p.round, p.seq) for p in packets if p.interface.startswith("ping: ")}
    hidden = len(analysis.rtts) - len(shown)
    return (
        "made from tracepoints: time stamps, devices and lengths were recorded, bytes were not; "
        f"the ICMP id is the round; {hidden} of {len(analysis.rtts)} pings have no known time and "
        f"are left out; {json.dumps(facts)}"
    )


def _rank(analysis: Analysis, interface: str) -> tuple[int, str]:
    """Return the place of an interface: pings first, then the way from the container."""
    sidecar = analysis.capture.sidecar
    path = [str(hop) for hop in sidecar.target.path] if sidecar else []
    if interface.startswith("ping: "):
        return -1, interface
    return (path.index(interface) if interface in path else len(path)), interface


def packets_of(analysis: Analysis) -> Iterator[Packet]:
    """Give every packet to be written, in no particular order."""
    size_bytes = analysis.pings["size_bytes"].to_numpy(float, na_value=DEFAULT_SIZE_BYTES)
    received_at_ns = analysis.pings["received_at_ns"]
    to_utc = _to_utc(analysis)
    passages = _passages(analysis, to_utc)
    for place, ping in enumerate(analysis.rtts.itertuples(index=False)):
        common: dict[str, Any] = {
            "round": int(ping.round),
            "seq": int(ping.seq),
            "size_bytes": int(size_bytes[place]),
        }
        yield from _at_the_program(to_utc, ping, received_at_ns.iloc[place], common)
        for journey, is_reply in ((ping.outbound_journey, False), (ping.inbound_journey, True)):
            if pd.notna(journey):
                for passage in passages.get(int(journey), ()):
                    yield Packet(**passage, is_reply=is_reply, **common)


def _to_utc(analysis: Analysis) -> Callable[[Any], int]:
    """Return a function from the trace clock to UTC; it changes nothing if no offset is known."""
    offset_ns = utc_offset(analysis)
    return lambda time_ns: int(time_ns) + (offset_ns(int(time_ns)) or 0)


def _at_the_program(
    to_utc: Callable[[Any], int], ping: Any, received_at_ns: Any, common: dict[str, Any]
) -> Iterator[Packet]:
    """Give request and reply at the ping program; times are the kernel's, or those of ping -D."""
    sent_ns, back_ns, source = None, None, "kernel"
    if pd.notna(ping.sent_ns):
        sent_ns = to_utc(ping.sent_ns)
        back_ns = to_utc(ping.received_ns) if pd.notna(ping.received_ns) else None
    elif pd.notna(received_at_ns) and pd.notna(ping.rtt_ns):
        source = "ping -D"
        sent_ns, back_ns = int(received_at_ns - ping.rtt_ns), int(received_at_ns)
    results = {"status": ping.status, "time_stamp": source}
    results |= {n: getattr(ping, n) for n in RESULTS if pd.notna(getattr(ping, n))}
    results |= {n: getattr(ping, n) for n in ("reason", "causes") if getattr(ping, n)}
    comment = " ".join(
        f"{key}={json.dumps(v) if ' ' in str(v) else v}" for key, v in results.items()
    )
    made = {"interface": f"ping: {ping.arm}", "comment": comment, **common}
    if sent_ns is not None and ping.status != "duplicate":
        yield Packet(time_ns=sent_ns, is_reply=False, outbound=True, **made)
    if back_ns is not None:
        yield Packet(time_ns=back_ns, is_reply=True, outbound=False, **made)


def _passages(analysis: Analysis, to_utc: Callable[[Any], int]) -> dict[int, list[dict[str, Any]]]:
    """Return, for every journey of a ping, when it passed each device, and in which direction.

    A packet appears on a device once per direction, where a packet socket would see it: outbound
    when it is handed to the driver (or queued, if only that was recorded), inbound when it is first
    received.
    """
    rtts, hops = analysis.rtts, analysis.hops
    wanted = pd.concat([rtts["outbound_journey"], rtts["inbound_journey"]]).dropna().unique()
    hops = hops[hops["journey"].isin(wanted) & hops["dev"].notna() & hops["netns"].notna()]
    sidecar = analysis.capture.sidecar
    path = sidecar.target.path if sidecar else []
    before_nat = {str(hop) for hop in path[:-1]} if sidecar and sidecar.target.nat else set()
    found: dict[int, dict[tuple[str, bool], dict[str, Any]]] = {}
    for hop in hops.itertuples():
        interface, outbound = f"{hop.netns}:{hop.dev}", HOP_EVENTS[hop.event] < Kind.RX
        passed = found.setdefault(int(hop.journey), {})
        if (interface, outbound) in passed and not outbound:
            continue
        passed[interface, outbound] = {
            "time_ns": to_utc(hop.time_ns),
            "interface": interface,
            "outbound": outbound,
            "comment": f"event={hop.event} cpu={hop.cpu} journey={hop.journey} len={hop.len}",
            "translated": bool(before_nat) and interface not in before_nat,
        }
    return {journey: list(passed.values()) for journey, passed in found.items()}


def _flags(packet: Packet) -> int:
    return OUTBOUND if packet.outbound else INBOUND


@dataclass(frozen=True)
class _Addresses:
    """The addresses of the packets' ends, as far as the sidecar knows them."""

    container: Address
    host: Address  # of the outer device
    remote: Address

    @classmethod
    def of(cls, sidecar: Sidecar | None) -> _Addresses:
        unknown = cls(UNKNOWN_IPV4, UNKNOWN_IPV4, UNKNOWN_IPV4)
        if sidecar is None or not sidecar.target.address:
            return unknown
        try:
            remote = ipaddress.ip_address(sidecar.target.address)
        except ValueError:
            return unknown
        path = sidecar.target.path
        if not path:
            return cls(unknown.container, unknown.host, remote)
        first, last = (
            _address_of(sidecar, str(hop), remote.version) for hop in (path[0], path[-1])
        )
        return cls(first, last, remote)

    def ends(self, packet: Packet) -> tuple[Address, Address]:
        """Return source and destination of a packet; the path's first device is a native ping's."""
        native = packet.interface.startswith("ping: native")
        near = self.host if packet.translated or native else self.container
        if near.version != self.remote.version:
            near = UNKNOWN_IPV6 if self.remote.version == 6 else UNKNOWN_IPV4
        return (self.remote, near) if packet.is_reply else (near, self.remote)


def _address_of(sidecar: Sidecar, place: str, version: int) -> Address:
    for namespace in sidecar.namespaces:
        for dev, addresses in namespace.addresses.items():
            if f"{namespace.name}:{dev}" != place:
                continue
            for text in addresses:
                try:
                    address = ipaddress.ip_interface(text).ip
                except ValueError:  # a sidecar may say anything
                    continue
                if address.version == version and not address.is_link_local:
                    return address
    return UNKNOWN_IPV6 if version == 6 else UNKNOWN_IPV4


def echo(packet: Packet, source: Address, destination: Address) -> bytes:
    """Return an ICMP echo as bytes, from the IP header on, with right checksums."""
    is_ipv6 = destination.version == 6
    protocol = ICMPV6 if is_ipv6 else ICMP
    payload = bytes(max(packet.size_bytes - HEADER_BYTES, 0))
    header = struct.pack(
        "!BBHHH", ECHO[protocol][packet.is_reply], 0, 0, packet.round & 0xFFFF, packet.seq & 0xFFFF
    )
    pseudo = (
        struct.pack("!16s16sIxxxB", source.packed, destination.packed, 8 + len(payload), ICMPV6)
        if is_ipv6
        else b""
    )
    checksum = internet_checksum(pseudo + header + payload)
    icmp = header[:2] + struct.pack("!H", checksum) + header[4:] + payload
    if is_ipv6:
        fixed = struct.pack("!IHBB", 6 << 28, min(len(icmp), 0xFFFF), ICMPV6, 64)
        return fixed + source.packed + destination.packed + icmp
    length = min(20 + len(icmp), 0xFFFF)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, ICMP, 0)
    ip += source.packed + destination.packed
    return ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:] + icmp


def internet_checksum(data: bytes) -> int:
    """Return the one's complement of the one's complement sum of 16-bit words, RFC 1071."""
    words: Iterable[tuple[int]] = struct.iter_unpack("!H", data + b"\0" * (len(data) % 2))
    total = sum(word for (word,) in words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
