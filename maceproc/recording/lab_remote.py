"""A remote host that is a program: it answers pings at the other end of a tap device.

Where the lab's remote is a namespace, its stack is this kernel's: the reply is made in the sender's
own softirq, by code that the request has just warmed. Behind a tap device there is none of that, as
with another machine: the packet leaves the kernel, and a reply comes in from elsewhere, on another
CPU.

    python -m maceproc.recording.lab_remote DEVICE CPU SOCKET

makes the device in the namespace it is started in, and goes on in the background, where it answers
until the device is gone, wherever that was moved meanwhile.

Between recordings it sleeps until a packet comes. While a recorder is connected to its socket it
polls without sleeping, so that no request waits for a wake-up: another machine would not sleep
when this one does. The kernel closes the connection of a recorder that is killed, so the polling
ends with the recorder.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from maceproc.recording.lab import REMOTE_IPV4, REMOTE_IPV6, SECOND_IPV4, SECOND_IPV6

MAC = bytes.fromhex("025052454d01")  # locally administered
IPV4, IPV6 = IPv4Address(REMOTE_IPV4).packed, IPv6Address(REMOTE_IPV6).packed
ALL_IPV4 = (IPV4, IPv4Address(SECOND_IPV4).packed)
ALL_IPV6 = (IPV6, IPv6Address(SECOND_IPV6).packed)
LONGEST_FRAME = 65_550
SPINS = 1000  # looks at the device between two looks at the connections

# include/uapi/linux/if_tun.h, v6.8
TUN = "/dev/net/tun"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000

ARP, ETH_IPV4, ETH_IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
ICMP, ICMPV6 = 1, 58
ECHO, ECHO_V6, SOLICITATION = 8, 128, 135


def main(device: str, cpu: int, at: str) -> None:
    """Answer at a new tap device, on one CPU, until it is gone; spin while `at` is connected to."""
    try:
        tap = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    except OSError as error:
        sys.exit(f"{TUN}: {error.strerror}")
    listener = _listen(Path(at))
    if os.fork():
        return
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.sched_setaffinity(0, {cpu})
    _insist_on_cpu()
    try:
        _serve(tap, listener, cpu)
    except OSError:  # EBADFD: the device is gone
        Path(at).unlink(missing_ok=True)


def _insist_on_cpu() -> None:
    """Run before others on our CPU.

    Where sessions are scheduled as groups, a nice value counts within ours only, and the group has
    one of its own: sched(7), "The autogroup feature".
    """
    with contextlib.suppress(OSError):
        os.nice(-20)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    return listener


def _serve(tap: int, listener: socket.socket, cpu: int) -> None:
    """Answer for ever; OSError when the device is gone."""
    connected: list[socket.socket] = []
    gc.disable()  # nothing here makes cycles, and a collection would delay a reply
    while True:
        if connected:
            _spin(tap)
            connected = [one for one in connected if _is_open(one)]
        else:
            # Sleep here. POLLERR says that the device is gone; then the read fails.
            select.select([tap, listener.fileno()], [], [])
            _answer_one(tap)
        with contextlib.suppress(BlockingIOError):
            one, _ = listener.accept()
            one.setblocking(False)
            one.send(f"{cpu}\n".encode())
            connected.append(one)


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _spin(tap: int) -> None:
    for _ in range(SPINS):
        _answer_one(tap)


def _answer_one(tap: int) -> None:
    try:
        frame = os.read(tap, LONGEST_FRAME)
    except BlockingIOError:
        return
    reply = answer(frame)
    if reply:
        os.write(tap, reply)


@contextlib.contextmanager
def spinning(at: Path) -> Iterator[int | None]:
    """Keep the remote that listens there spinning; give its CPU, None when none listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(at))
            said = connection.recv(16)
        except OSError:
            said = b""
        yield int(said) if said else None


def answer(frame: bytes) -> bytes:
    """Return the reply to an Ethernet frame; empty when it is not for us, or asks nothing."""
    kind, sender = frame[12:14], frame[6:12]
    if kind == ARP:
        packet = _answer_arp(frame[14:])
    elif frame[:6] == MAC and kind == ETH_IPV4:
        packet = _answer_ipv4(frame[14:])
    elif kind == ETH_IPV6 and frame[20] == ICMPV6:
        packet = _answer_ipv6(frame[14:])
    else:
        packet = b""
    return sender + MAC + kind + packet if packet else b""


def _answer_arp(packet: bytes) -> bytes:
    """Answer who has our address, RFC 826."""
    head, sender, target = packet[:6], packet[8:18], packet[24:28]
    asked = packet[6:8] == b"\x00\x01" and target in ALL_IPV4
    return head + b"\x00\x02" + MAC + target + sender if asked else b""


def _answer_ipv4(packet: bytes) -> bytes:
    """Answer an echo request, or pass back a further fragment of one.

    Where addresses change places the header's checksum stays, RFC 1071.
    """
    header = (packet[0] & 0xF) * 4
    fragment = struct.unpack_from("!H", packet, 6)[0] & 0x1FFF
    if packet[9] != ICMP or packet[16:20] not in ALL_IPV4:
        return b""
    turned = packet[:12] + packet[16:20] + packet[12:16] + packet[20:header]
    if fragment:
        return turned + packet[header:]
    if packet[header] != ECHO:
        return b""
    return turned + _as_reply(packet[header:], 0)


def _answer_ipv6(packet: bytes) -> bytes:
    """Answer an echo request, or who has our address (RFC 4861)."""
    source, message = packet[8:24], packet[40:]
    if message[0] == ECHO_V6 and packet[24:40] in ALL_IPV6:
        return packet[:8] + packet[24:40] + source + _as_reply(message, ECHO_V6 + 1)
    asked = message[8:24]
    if message[0] != SOLICITATION or asked not in ALL_IPV6:
        return b""
    # Solicited, override; with the option that gives our link-layer address.
    advertisement = struct.pack("!BBHI", 136, 0, 0, 0x6000_0000) + asked + b"\x02\x01" + MAC
    pseudo = asked + source + struct.pack("!II", len(advertisement), ICMPV6)
    checksum = struct.pack("!H", ones_complement(pseudo + advertisement) ^ 0xFFFF)
    advertisement = advertisement[:2] + checksum + advertisement[4:]
    head = packet[:4] + struct.pack("!HBB", len(advertisement), ICMPV6, 255)
    return head + asked + source + advertisement


def _as_reply(message: bytes, kind: int) -> bytes:
    """Return an echo message with another type, its checksum adapted as in RFC 1624."""
    checksum = struct.unpack_from("!H", message, 2)[0]
    total = (checksum ^ 0xFFFF) + ((message[0] << 8) ^ 0xFFFF) + (kind << 8)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", kind, message[1], total ^ 0xFFFF) + message[4:]


def ones_complement(data: bytes) -> int:
    """Return the one's complement sum of 16-bit words, RFC 1071."""
    padded = data + b"\x00" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
