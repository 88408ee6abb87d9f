"""Pings that never happened: event tables whose truth is known, as a hypothesis strategy.

A container behind a veth pair, a bridge and NAT, as the lab and Docker make it; the remote end is
either in the same kernel, or its events are not seen. What is drawn: how many pings are on their
way at once, which are lost or answered twice, how soon addresses are used again, who else uses the
same devices, and on which CPUs the packets' hops happen. The host answers what containers send to
it, in softirq, and may ping the remote end itself, in a run after the container's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from maceproc.capture import Link, Machine, Namespace, PathDevice, Run, Sidecar, Target, Tracing
from maceproc.capture_files import Capture
from maceproc.schema import EVENTS, LOST, Trace

Place = Literal["container", "native"]
US = 1000
START_NS = 1_000_000_000
UTC_NS = 1_700_000_000_000_000_000
SOFTIRQ = 0x10
PING, RIVAL, NEIGHBOUR, NATIVE, INSIDE = 4001, 4002, 4003, 4004, 4005
IDLE = 0
FIRST_ADDRESS = 0xFFFF_8881_0000_0000
MINIMAL = ("sys_enter_sendto", "net_dev_queue", "netif_rx", "sys_exit_recvmsg")

SYSTEMS = {"net_dev_queue": "net", "netif_rx": "net"}
FIELDS: dict[str, dict[str, str]] = {
    "net_dev_queue": {"skbaddr": "uint64", "len": "uint32", "name": "category"},
    "netif_rx": {"skbaddr": "uint64", "len": "uint32", "name": "category"},
    "sys_enter_sendto": {"fd": "uint64", "len": "uint64"},
    "sys_exit_recvmsg": {"ret": "int64"},
}


@dataclass(frozen=True)
class World:
    """What happens, but for chance, which `seed` decides."""

    seed: int
    pings: int = 20
    interval_us: int = 200  # of one ping's requests
    wire_us: int = 20  # typical time on the wire and at the remote end
    step_us: int = 5  # typical time of a hop
    lost: float = 0.0  # share of requests or replies that the wire loses
    doubled: float = 0.0  # share of replies that come twice
    rivals: int = 0  # pings of the same length beside it in the container
    neighbours: int = 0  # pings of the same length in another container
    asking: int = 0  # programs in each container that the host answers, by echo replies or resets
    native: bool = False  # the host pings afterwards, as often
    waits: bool = False  # the first request waits for the neighbour's address, and softirq sends it
    addresses: int = 3  # that are free at once; the one freed last is used first
    own_lists: bool = False  # every CPU has a list of free addresses of its own
    cpus: int = 2
    remote_seen: bool = True
    first_on_delivery: bool = False  # the first reply is stamped when it is received
    resolution_us: int = 1
    outer: str = "eth0"


worlds = st.builds(
    World,
    seed=st.integers(0, 2**32 - 1),
    pings=st.integers(1, 40),
    interval_us=st.sampled_from([20, 60, 200, 1000, 20_000]),
    wire_us=st.sampled_from([5, 20, 200, 3000]),
    step_us=st.sampled_from([1, 5, 40]),
    lost=st.sampled_from([0, 0, 0.1, 0.5]),
    doubled=st.sampled_from([0, 0, 0.2]),
    rivals=st.integers(0, 2),
    neighbours=st.integers(0, 2),
    asking=st.integers(0, 2),
    native=st.booleans(),
    waits=st.booleans(),
    addresses=st.integers(1, 4),
    own_lists=st.booleans(),
    cpus=st.integers(1, 3),
    remote_seen=st.booleans(),
    first_on_delivery=st.booleans(),
    resolution_us=st.sampled_from([1, 1, 10]),
    outer=st.sampled_from(["eth0", "eno1"]),
)


@dataclass
class Happened:
    """What came of it: the capture, its events, and the truth about them."""

    capture: Capture
    trace: Trace
    truth: pd.DataFrame  # by icmp_seq: outbound_ns, inbound_ns, wire_rtt_ns; answered pings only
    native: pd.DataFrame  # the same of the native run
    packets: dict[tuple[int, int], int]  # (time, skbaddr) -> number of the packet


@dataclass
class _Simulation:
    world: World
    rng: np.random.Generator
    rows: list[dict[str, Any]] = field(default_factory=list)
    busy_until: dict[int, int] = field(default_factory=dict)  # by pid [ns]
    lives: list[_Life] = field(default_factory=list)

    def gap(self, typical_us: float) -> int:
        """Draw a time that is at least half of the typical one, and sometimes much longer."""
        stretch = 0.5 + self.rng.exponential(0.5) + 20 * (self.rng.random() < 0.02)
        return max(1, int(typical_us * US * stretch))


@dataclass
class _Life:
    """One life of one packet: its events, until it is freed."""

    hops: list[dict[str, Any]]
    freed_ns: int


def simulate(world: World) -> Happened:
    """Let it happen."""
    sim = _Simulation(world, np.random.default_rng(world.seed))
    runs = [_run(sim, "container", START_NS)]
    if world.native:
        runs.append(_run(sim, "native", runs[0][0].end_ns + 50_000 * US))
    packets = _give_addresses(sim)
    trace = Trace(dict(_tables(sim.rows)), LOST.frame(), "mono")
    sidecar = _sidecar(world, [run for run, _ in runs])
    truths = [truth for _, truth in runs] + [runs[0][1][:0]]
    return Happened(Capture(Path("synthetic.dat"), sidecar), trace, truths[0], truths[1], packets)


def _run(sim: _Simulation, place: Place, start_ns: int) -> tuple[Run, pd.DataFrame]:
    """Let one run of the ping happen, and what others do meanwhile; returns it, and the truth."""
    world = sim.world
    lines: list[tuple[int, str]] = []
    truth = []
    for seq, send_ns in enumerate(_send_times(sim, start_ns, 0), start=1):
        if place == "container":
            line, told = _exchange(sim, PING, send_ns, "eth0", "veth1", seq=seq)
        else:
            line, told = _native_exchange(sim, send_ns, seq)
        lines += line
        if told:
            truth.append({"seq": seq} | told)
    for number in range(world.rivals):
        for send_ns in _send_times(sim, start_ns, number + 1):
            _exchange(sim, RIVAL + 10 * number, send_ns, "eth0", "veth1")
    for number in range(world.neighbours):
        for send_ns in _send_times(sim, start_ns, number + 1):
            _exchange(sim, NEIGHBOUR + 10 * number, send_ns, "eth0", "veth2")
    for number in range(2 * world.asking):
        for send_ns in _send_times(sim, start_ns, number + 1):
            _ask_the_host(sim, INSIDE + 10 * number, send_ns, ("veth1", "veth2")[number % 2])
    columns = ["seq", "outbound_ns", "inbound_ns", "wire_rtt_ns"]
    told_of = pd.DataFrame(truth, columns=columns).set_index("seq")
    hops = [hop for life in sim.lives for hop in life.hops]
    ends = [row["time_ns"] for row in (*sim.rows, *hops)] + [at for at, _ in lines]
    return _printed(world, place, lines, start_ns - 1000 * US, max(ends) + 1000 * US), told_of


def _send_times(sim: _Simulation, start_ns: int, who: int) -> list[int]:
    interval = sim.world.interval_us * US
    jitter = sim.rng.integers(0, max(1, interval // 2), sim.world.pings)
    offset = start_ns + who * int(sim.rng.integers(1, 50 * US))
    return [offset + n * interval + int(j) for n, j in enumerate(jitter)]


def _exchange(
    sim: _Simulation, pid: int, send_ns: int, inner: str, peer: str, seq: int | None = None
) -> tuple[list[tuple[int, str]], dict[str, int] | None]:
    """One request and what comes back; returns printed lines, and the truth if it was answered."""
    world, rng = sim.world, sim.rng
    task_cpu, wire_cpu = (int(cpu) for cpu in rng.integers(0, world.cpus, 2))
    # A task sends one packet after the other.
    send_ns = max(send_ns, sim.busy_until.get(pid, 0) + sim.gap(1))
    sim.rows.append(_call("sys_enter_sendto", send_ns, task_cpu, pid, fd=3, len=64))
    queued = send_ns + sim.gap(world.step_us)
    received = queued + sim.gap(world.step_us / 2)
    sim.busy_until[pid] = received
    out = received + sim.gap(2 * world.step_us)
    waited = world.waits and seq == 1  # another task may be running when the address arrives
    asked = {"pid": IDLE if waited else pid, "softirq": waited}
    request = [
        _hop("net_dev_queue", queued, task_cpu, dev=inner, length=98, **asked),
        _hop("netif_rx", received, task_cpu, dev=peer, length=84, **asked),
        _hop("net_dev_queue", out, task_cpu, pid, world.outer, 98, softirq=True),
    ]
    fate = rng.random()
    there = out + sim.gap(world.wire_us / 4)
    if world.remote_seen and fate >= world.lost / 2:
        request.append(_hop("netif_rx", there, task_cpu, pid, "wire0", 84, softirq=True))
    answered_ns = there + sim.gap(world.wire_us / 2)
    sim.lives.append(_Life(request, answered_ns if world.remote_seen else out + sim.gap(1)))
    if fate < world.lost:
        return [], None
    # The interrupt finds the task that happens to run.
    interrupted = pid if rng.random() < 0.5 else IDLE
    truth, printed = None, []
    for copy in range(2 if rng.random() < world.doubled else 1):
        back = answered_ns + sim.gap(world.wire_us / 4) + copy * sim.gap(world.wire_us)
        bridged = back + sim.gap(world.step_us)
        ported = bridged + sim.gap(world.step_us / 2)
        home = ported + sim.gap(world.step_us / 2)
        told = home + sim.gap(world.step_us)
        reply = [
            _hop("netif_rx", back, wire_cpu, interrupted, world.outer, 84, softirq=True),
            _hop("net_dev_queue", bridged, wire_cpu, interrupted, "br0", 98, softirq=True),
            _hop("net_dev_queue", ported, wire_cpu, interrupted, peer, 98, softirq=True),
            _hop("netif_rx", home, wire_cpu, interrupted, inner, 84, softirq=True),
        ]
        if world.remote_seen:
            start = max(answered_ns, back - US)
            sent = _hop("net_dev_queue", start, wire_cpu, interrupted, "wire0", 98, softirq=True)
            reply.insert(0, sent)
        sim.lives.append(_Life(reply, told + sim.gap(1)))
        sim.rows.append(_call("sys_exit_recvmsg", told, task_cpu, pid, ret=84))
        on_delivery = world.first_on_delivery and seq == 1 and not copy
        stamp = told - int(rng.integers(1, 3 * US)) if on_delivery else home
        rtt_ns = stamp - send_ns + int(rng.integers(300, 2300))
        printed.append(_line(seq, told + 2 * US, rtt_ns, world.resolution_us, doubled=bool(copy)))
        if not copy:
            truth = {
                "outbound_ns": out - queued,
                "inbound_ns": home - back,
                "wire_rtt_ns": back - out,
            }
    return printed, truth


def _native_exchange(
    sim: _Simulation, send_ns: int, seq: int
) -> tuple[list[tuple[int, str]], dict[str, int] | None]:
    """One request of the host's own ping, and its reply; returns as `_exchange` does."""
    world, rng = sim.world, sim.rng
    task_cpu, wire_cpu = (int(cpu) for cpu in rng.integers(0, world.cpus, 2))
    send_ns = max(send_ns, sim.busy_until.get(NATIVE, 0) + sim.gap(1))
    sim.rows.append(_call("sys_enter_sendto", send_ns, task_cpu, NATIVE, fd=3, len=64))
    out = send_ns + sim.gap(world.step_us)
    there = out + sim.gap(world.wire_us / 4)
    sim.busy_until[NATIVE] = there
    request = [_hop("net_dev_queue", out, task_cpu, NATIVE, world.outer, 98)]
    if world.remote_seen:
        request.append(_hop("netif_rx", there, task_cpu, NATIVE, "wire0", 84))
    answered = there + sim.gap(world.wire_us / 2)
    sim.lives.append(_Life(request, answered))
    if rng.random() < world.lost:
        return [], None
    interrupted = NATIVE if rng.random() < 0.5 else IDLE
    back = answered + sim.gap(world.wire_us / 4)
    told = back + sim.gap(world.step_us)
    reply = [_hop("netif_rx", back, wire_cpu, interrupted, world.outer, 84, softirq=True)]
    if world.remote_seen:
        start = max(answered, back - US)
        reply.insert(
            0, _hop("net_dev_queue", start, wire_cpu, interrupted, "wire0", 98, softirq=True)
        )
    # A raw socket gets a clone: the packet itself may be freed before the program has it.
    sim.lives.append(_Life(reply, back + sim.gap(world.step_us / 2)))
    sim.rows.append(_call("sys_exit_recvmsg", told, task_cpu, NATIVE, ret=84))
    rtt_ns = back - send_ns + int(rng.integers(300, 2300))
    line = _line(seq, told + 2 * US, rtt_ns, world.resolution_us, doubled=False)
    return [line], {"wire_rtt_ns": back - out}


def _ask_the_host(sim: _Simulation, pid: int, send_ns: int, peer: str) -> None:
    """A container's packet to the host, which answers it in softirq: an echo, or a reset."""
    world, rng = sim.world, sim.rng
    cpu = int(rng.integers(0, world.cpus))
    length = int(rng.choice([98, 74]))
    queued = max(send_ns, sim.busy_until.get(pid, 0) + sim.gap(1))
    received = queued + sim.gap(world.step_us / 2)
    sim.busy_until[pid] = received
    question = [
        _hop("net_dev_queue", queued, cpu, pid, "eth0", length),
        _hop("netif_rx", received, cpu, pid, peer, length - 14),
    ]
    bridged = received + sim.gap(world.step_us)
    ported = bridged + sim.gap(world.step_us / 4)
    home = ported + sim.gap(world.step_us / 4)
    length = 98 if length == 98 else 54
    answer = [
        _hop("net_dev_queue", bridged, cpu, pid, "br0", length, softirq=True),
        _hop("net_dev_queue", ported, cpu, pid, peer, length, softirq=True),
        _hop("netif_rx", home, cpu, pid, "eth0", length - 14, softirq=True),
    ]
    sim.lives.append(_Life(question, home + sim.gap(1)))  # freed when the answer was sent
    sim.lives.append(_Life(answer, home + sim.gap(world.step_us)))


def _line(
    seq: int | None, at_ns: int, rtt_ns: int, resolution_us: int, *, doubled: bool
) -> tuple[int, str]:
    """What iputils ping -D prints, and when."""
    stamp_us = (at_ns + UTC_NS) // US
    decimals = 3 if resolution_us == 1 else 2
    text = (
        f"[{stamp_us // 10**6}.{stamp_us % 10**6:06}] 64 bytes from 192.0.2.2: "
        f"icmp_seq={seq} ttl=63 time={rtt_ns / 1e6:.{decimals}f} ms{' (DUP!)' * doubled}"
    )
    return at_ns, text


def _hop(
    event: str, time_ns: int, cpu: int, pid: int, dev: str, length: int, *, softirq: bool = False
) -> dict[str, Any]:
    row = {"event": event, "time_ns": time_ns, "cpu": cpu, "pid": pid, "name": dev, "len": length}
    return row | {"flags": SOFTIRQ if softirq else 0, "comm": "ping" if pid else "<idle>"}


def _call(event: str, time_ns: int, cpu: int, pid: int, **fields: int) -> dict[str, Any]:
    identity = {"event": event, "time_ns": time_ns, "cpu": cpu, "pid": pid}
    return identity | {"flags": 0, "comm": "ping"} | fields


def _give_addresses(sim: _Simulation) -> dict[tuple[int, int], int]:
    """Give every packet an address, the one freed last first, as the kernel's slabs do."""
    lists = sim.world.cpus if sim.world.own_lists else 1
    most = sim.world.addresses
    free = [[FIRST_ADDRESS + 0x100 * n for n in range(cpu, most, lists)] for cpu in range(lists)]
    packets: dict[tuple[int, int], int] = {}
    held: list[tuple[int, int, int]] = []  # freed at, address, by which CPU
    for number, life in enumerate(sorted(sim.lives, key=lambda life: life.hops[0]["time_ns"])):
        start_ns, cpu = life.hops[0]["time_ns"], life.hops[0]["cpu"]
        for entry in sorted(entry for entry in held if entry[0] < start_ns):
            held.remove(entry)
            free[entry[2] % lists].append(entry[1])
        own = free[cpu % lists]
        if not own:
            most += 1
            own.append(FIRST_ADDRESS + 0x100 * most)
        address = own.pop()
        last = life.hops[-1]
        held.append((max(life.freed_ns, last["time_ns"] + 1), address, last["cpu"]))
        for hop in life.hops:
            sim.rows.append(hop | {"skbaddr": address})
            packets[hop["time_ns"], address] = number
    return packets


def _tables(rows: list[dict[str, Any]]) -> Iterator[tuple[str, pd.DataFrame]]:
    in_order = sorted(rows, key=lambda row: (row["time_ns"], row["cpu"]))
    for event in MINIMAL:
        dtypes = {column.name: column.dtype for column in EVENTS.columns} | FIELDS[event]
        own = {n: row for n, row in enumerate(in_order) if row["event"] == event}
        columns = {
            name: pd.Series([row[name] for row in own.values()], index=list(own), dtype=dtype)
            for name, dtype in dtypes.items()
        }
        yield event, pd.DataFrame(columns)


def _printed(
    world: World, place: Place, lines: list[tuple[int, str]], start_ns: int, end_ns: int
) -> Run:
    """Return a run and what it printed."""
    lines.sort()
    received = sum("DUP!" not in text for _, text in lines)
    output = [
        "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data.",
        *(text for _, text in lines),
        "",
        "--- 192.0.2.2 ping statistics ---",
        f"{world.pings} packets transmitted, {received} received, 0% packet loss, time 1ms",
    ]
    times = {"start_ns": start_ns, "end_ns": end_ns}
    times |= {"start_utc_ns": start_ns + UTC_NS, "end_utc_ns": end_ns + UTC_NS}
    pid = PING if place == "container" else NATIVE
    return Run(
        round=1, place=place, traced=True, argv=["ping", "-D", "192.0.2.2"], pid=pid,
        exit_status=0, output="\n".join(output), **times,
    )  # fmt: skip


def _sidecar(world: World, runs: list[Run]) -> Sidecar:
    path = [("container", "eth0"), ("host", "veth1"), ("host", "br0"), ("host", world.outer)]
    return Sidecar(
        maceproc="0",
        command=["ping", "192.0.2.2"],
        rounds=1,
        target=Target(kind="lab", path=[PathDevice(netns=n, dev=d) for n, d in path], nat=True),
        runs=runs,
        namespaces=_namespaces(world),
        tracing=Tracing(
            events=[f"{SYSTEMS.get(event, 'syscalls')}:{event}" for event in MINIMAL],
            event_set="minimal", clock="mono", instance="", buffer_size_kb=1,
        ),
        machine=Machine(kernel="6", cpu="", cpus=world.cpus),
    )  # fmt: skip


def _namespaces(world: World) -> list[Namespace]:
    inside = Link(ifindex=2, name="eth0", kind="veth", peer_netns="host", mtu=1500)
    one, two = Link(**_with(inside, peer_ifindex=2)), Link(**_with(inside, peer_ifindex=3))
    port = {"kind": "veth", "peer_ifindex": 2, "master": "br0", "mtu": 1500}
    host = [
        Link(ifindex=2, name="veth1", peer_netns="container", **port),
        Link(ifindex=3, name="veth2", peer_netns="container2", **port),
        Link(ifindex=4, name=world.outer, mtu=1500),
        Link(ifindex=5, name="br0", kind="bridge", mtu=1500),
    ]
    found = [
        Namespace(name="container", inode=1, links=[one]),
        Namespace(name="container2", inode=2, links=[two]),
        Namespace(name="host", inode=3, links=host),
    ]
    if world.remote_seen:
        veth = {"kind": "veth", "mtu": 1500}
        far = {"peer_netns": "remote", "peer_ifindex": 2}
        host[2] = Link(**_with(host[2], **veth, **far))
        wire = Link(ifindex=2, name="wire0", peer_netns="host", peer_ifindex=4, **veth)
        found.append(Namespace(name="remote", inode=4, links=[wire]))
    return found


def _with(link: Link, **changes: Any) -> dict[str, Any]:
    return {name: getattr(link, name) for name in link.__struct_fields__} | changes
