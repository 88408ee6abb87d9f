"""One journey per life of an skb address.

An sk_buff keeps its address while it passes queues, veth pairs and bridges; when it is freed the
allocator hands the address out again, sometimes within a microsecond. So events of one address are
put in time order and cut into lives wherever the next event cannot follow the last one. What can
follow what is the grammar below: it is about what the kernel does with one sk_buff, not about any
particular topology.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following import hop_loops, side_by_side
from maceproc.following.hop_arrays import HOP_EVENTS, Bools, Hops, Kind
from maceproc.following.hop_order import ORDERED, ordered_hops
from maceproc.following.lengths import can_be_forwarded, differences_forwarded
from maceproc.schema import HOPS, JOURNEYS

# The grammar: which kind of event may follow which in one life, and on which device. In the last
# column is an event that comes between the two: if it is recorded but absent, the life has ended.
SAME, OTHER, ANY = "same device", "other device", "any device"
GRAMMAR: tuple[tuple[Kind, Kind, str, Kind | None], ...] = (
    (Kind.QUEUE, Kind.XMIT, SAME, None),
    (Kind.QUEUE, Kind.QUEUE, OTHER, Kind.XMIT),  # bridge, VLAN or bond to its port
    (Kind.QUEUE, Kind.RX, ANY, Kind.XMIT),  # veth: the other end, perhaps of the same name
    (Kind.QUEUE, Kind.RECEIVE, ANY, Kind.XMIT),
    (Kind.XMIT, Kind.QUEUE, OTHER, None),
    (Kind.XMIT, Kind.RX, ANY, None),
    (Kind.XMIT, Kind.RECEIVE, ANY, None),  # veth with NAPI: no netif_rx
    (Kind.RX, Kind.RECEIVE, SAME, None),
    (Kind.RX, Kind.RX, OTHER, Kind.RECEIVE),
    (Kind.RX, Kind.QUEUE, OTHER, Kind.RECEIVE),
    (Kind.RX, Kind.COPY, ANY, Kind.RECEIVE),
    (Kind.RECEIVE, Kind.RECEIVE, OTHER, None),  # port to its bridge or VLAN
    (Kind.RECEIVE, Kind.RX, OTHER, None),  # tunnels
    (Kind.RECEIVE, Kind.QUEUE, OTHER, None),  # forwarded, but not out where it came in
    (Kind.RECEIVE, Kind.COPY, ANY, None),
    (Kind.COPY, Kind.COPY, ANY, None),  # MSG_PEEK
    *((kind, Kind.FREE, ANY, None) for kind in Kind if kind is not Kind.FREE),
)


@dataclass(frozen=True)
class Links:
    """What is known of where a packet goes after a device has sent it.

    Attributes
    ----------
    pairs
        Sending and receiving end of every virtual link, both ways, by device name.
    ports
        Names of devices that send and receive only by their link: veth and physical ones, no
        bridges or tunnels.
    known
        Those of the ports that are linked to the ends in `pairs` only, or to another machine.
    dead_ends
        Those of the pairs that lead into a namespace that forwards nothing.
    added_bytes
        What a tunnel or VLAN on the way may add to the length of a packet, or take off.
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    ports: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    dead_ends: frozenset[tuple[str, str]] = frozenset()
    added_bytes: tuple[int, ...] = (0,)


def follow_packets(
    events: Mapping[str, pd.DataFrame],
    recorded: Collection[str] | None = None,
    links: Links = Links(),
) -> pd.DataFrame:
    """Return the HOPS of every packet, journey by journey, from the tables of a trace.

    `recorded` names the events that were enabled; by default those that occur. `links` tells what
    is known of the topology. The order of the input's rows, CPUs and tables does not matter.
    `netns` is left empty: see `namespaces.name_namespaces`.
    """
    hops = ordered_hops(events)
    kinds = kinds_of(events if recorded is None else recorded)
    journey, number = number_lives(hops, kinds, links)
    nowhere = np.full(len(journey), -1, dtype=np.int8)
    data = {
        **hops.columns,
        "journey": journey,
        "hop": number,
        "event": pd.Categorical.from_codes(hops["event"], hops.events),
        "dev": pd.Categorical.from_codes(hops["dev"], hops.devices),
        "netns": pd.Categorical.from_codes(nowhere, categories=[]),
    }
    return HOPS.frame(data)


def kinds_of(names: Collection[str]) -> set[Kind]:
    """Return the kinds of hops that events of these names are."""
    return {HOP_EVENTS[name] for name in names if name in HOP_EVENTS}


def journeys_table(hops: pd.DataFrame) -> pd.DataFrame:
    """Summarize HOPS into JOURNEYS, a row per journey."""
    first = np.flatnonzero(hops["hop"].to_numpy() == 0)
    last = np.append(first[1:], len(hops)) - 1 if len(first) else first
    return JOURNEYS.frame(
        {
            "journey": hops["journey"].to_numpy()[first],
            "skbaddr": hops["skbaddr"].to_numpy()[first],
            "hops": last - first + 1,
            "start_ns": hops["time_ns"].to_numpy()[first],
            "end_ns": hops["time_ns"].to_numpy()[last],
        }
    )


def number_lives(
    hops: Hops, recorded: Collection[Kind], links: Links
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return each hop's life, and its place in this life, both from 0.

    The hops are in order of address and time.
    """
    if hop_loops.loops is not None:
        return _compiled_lives(hop_loops.loops, hops, recorded, links)
    starts = life_starts(hops, recorded, links)
    life = np.cumsum(starts) - 1
    position = np.arange(len(starts), dtype=np.int32)
    return life, position - position[starts][life]


def _compiled_lives(
    loops: ModuleType, hops: Hops, recorded: Collection[Kind], links: Links
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return what `number_lives` does; every thread takes some of the addresses."""
    address = hops["skbaddr"]
    count = len(address)
    life, number = np.empty(count, np.int64), np.empty(count, np.int32)
    columns = tuple(hops[name] for name in ORDERED)
    rules = (
        _allowed(recorded),
        _ports(hops.devices, links),
        _possible(hops.devices, links),
        _between(hops.devices, links.dead_ends),
        differences_forwarded(links.added_bytes),
        _tells_softirq(hops),
    )
    parts = side_by_side.THREADS if count > side_by_side.FEW_ROWS else 1
    inner = [count * n // parts for n in range(1, parts)]
    edges = [0, *(int(np.searchsorted(address, address[row])) for row in inner), count]

    def look(part: int) -> int:
        lives: int = loops.number_lives(columns, rules, edges[part], edges[part + 1], life, number)
        return lives

    lives = side_by_side.side_by_side(look, range(parts), count)
    for part in range(1, parts):
        life[edges[part] : edges[part + 1]] += sum(lives[:part])
    return life, number


def life_starts(hops: Hops, recorded: Collection[Kind], links: Links) -> Bools:
    """Tell for each hop, in order of address and time, whether a new life begins with it.

    A hop's answer needs the three hops before it. So blocks of rows, whose columns stay in the
    CPU's cache, are looked at side by side.
    """
    count = len(hops["kind"])
    if count == 0:
        return np.empty(0, dtype=np.bool_)
    hops = replace(hops, tells_softirq=_tells_softirq(hops))
    starts = np.empty(count, dtype=np.bool_)
    starts[0] = True

    def look(first: int) -> None:
        before, last = max(0, first - HOPS_NEEDED), min(first + BLOCK_ROWS, count)
        follows = _follows(hops.between(before, last), recorded, links)
        starts[max(1, first) : last] = ~follows[max(1, first) - before - 1 :]

    side_by_side.side_by_side(look, range(0, count, BLOCK_ROWS), count)
    return starts


BLOCK_ROWS = 1 << 17
HOPS_NEEDED = 3  # before a hop, to tell whether it follows: see `_after_the_end`


def _follows(hops: Hops, recorded: Collection[Kind], links: Links) -> Bools:
    """Tell for each hop but the first whether it continues the life of the one before it."""
    kind, dev, address = hops["kind"], hops["dev"], hops["skbaddr"]
    same_device = dev[1:] == dev[:-1]
    follows: Bools = address[1:] == address[:-1]
    follows &= _allowed(recorded)[kind[:-1], kind[1:], same_device.astype(np.int8)]
    follows &= _keeps_length(hops)
    follows &= _forwarded_length(hops, links)
    follows &= _in_context(hops)
    follows &= _from_the_backlog(hops)
    follows &= _along_links(hops, links, same_device)
    return follows & ~_after_the_end(hops, follows, links)


def _keeps_length(hops: Hops) -> Bools:
    """Tell where the lengths are possible: from queue to driver nothing changes the length."""
    kind, length = hops["kind"], hops["len"]
    kept = np.isin(kind[:-1] * len(Kind) + kind[1:], [a * len(Kind) + b for a, b in _LENGTH_KEPT])
    return np.asarray(~kept | (length[1:] == length[:-1]))


_LENGTH_KEPT = ((Kind.QUEUE, Kind.XMIT), (Kind.RX, Kind.RECEIVE))


def _forwarded_length(hops: Hops, links: Links) -> Bools:
    """Tell where the next hop has a possible length, if it sends on what was received before.

    What is sent in softirq may be another packet that was made there and got the same address: an
    answer of the host's own, or one that waited for the neighbour's link-layer address.
    """
    kind, length = hops["kind"], hops["len"]
    forwarded = np.flatnonzero(_receives(kind[:-1]) & (kind[1:] == Kind.QUEUE))
    possible = np.ones(len(kind) - 1, dtype=np.bool_)
    possible[forwarded] = can_be_forwarded(
        length[forwarded], length[forwarded + 1], links.added_bytes
    )
    return possible


def _in_context(hops: Hops) -> Bools:
    """Tell where the next hop is possible in its task or softirq, if it queues the packet."""
    queued = hops["kind"][1:] == Kind.QUEUE
    softirq, before = hops["softirq"], hops["kind"][:-1]
    # A bridge, VLAN or bond has no queue: it gives its port the packet in the same call.
    columns = ("cpu", "pid", "softirq")
    same = np.logical_and.reduce([hops[name][1:] == hops[name][:-1] for name in columns])
    possible = ~_sends(before) | same
    # Forwarding is done in softirq: a packet that a task queues in its own system call is new.
    # There are two exceptions: in the same call, the stack receives and forwards what a task writes
    # to a tun or tap device (drivers/net/tun.c, tun_get_user(), v6.8), or what NAPI polls in a
    # thread.
    if _tells_softirq(hops):
        possible &= ~_receives(before) | softirq[1:] | ((before == Kind.RECEIVE) & same)
    return np.asarray(~queued | possible)


def _from_the_backlog(hops: Hops) -> Bools:
    """Tell where the next hop is possible: a packet leaves the backlog in softirq, not in a task.

    net/core/dev.c, process_backlog(), v6.8, is called in softirq.
    """
    waited = (hops["kind"][:-1] == Kind.RX) & (hops["kind"][1:] == Kind.RECEIVE)
    return np.asarray(~waited | hops["softirq"][1:] | (not _tells_softirq(hops)))


def _tells_softirq(hops: Hops) -> bool:
    """Tell whether the trace says what ran in softirq: text without latency columns does not."""
    if hops.tells_softirq is None:
        return bool(hops["softirq"].any())
    return hops.tells_softirq


def _along_links(hops: Hops, links: Links, same_device: Bools) -> Bools:
    """Tell where the packet can have come to the device of the next hop."""
    before, after, dev = hops["kind"][:-1], hops["kind"][1:], hops["dev"]
    port = _ports(hops.devices, links)[dev]
    possible = _possible(hops.devices, links)[dev[:-1], dev[1:]]
    # Down from a bridge to its port, or up from a port to its bridge, but not from port to port.
    down = _sends(before) & (after == Kind.QUEUE) & port[:-1]
    up = _receives(before) & _receives(after) & ~same_device & port[1:]
    return np.asarray(~(_sends(before) & _receives(after)) | possible) & ~down & ~up


def _after_the_end(hops: Hops, follows: Bools, links: Links) -> Bools:
    """Tell where a packet would be forwarded that arrived on a device that forwards nothing."""
    kind, dev = hops["kind"], hops["dev"]
    into = _between(hops.devices, links.dead_ends)[dev[:-1], dev[1:]]
    received = _receives(kind[1:])
    arrived = np.append(False, _sends(kind[:-1]) & received & into & follows)
    arrived[1:] |= arrived[:-1] & received & follows  # netif_rx, then netif_receive_skb
    return np.asarray(arrived[:-1] & (kind[1:] == Kind.QUEUE))


def _sends(kind: npt.NDArray[np.int8]) -> Bools:
    return (kind == Kind.QUEUE) | (kind == Kind.XMIT)


def _receives(kind: npt.NDArray[np.int8]) -> Bools:
    return (kind == Kind.RX) | (kind == Kind.RECEIVE)


def _ports(names: pd.Index, links: Links) -> Bools:
    """Tell which devices are ports; the last one is for no device."""
    return np.append(np.isin(names, list(links.ports)), False)


def _possible(names: pd.Index, links: Links) -> Bools:
    """Tell for sending and receiving device whether a packet can pass from one to the other.

    Shape [devices + 1, devices + 1]; the last one is for no device.
    """
    known = np.append(np.isin(names, list(links.known)), False)
    return ~(known[:, np.newaxis] & known) | _between(names, links.pairs)


def _between(names: pd.Index, pairs: Collection[tuple[str, str]]) -> Bools:
    """Spread pairs of device names into a table [sender, receiver], as `_possible`."""
    table = np.zeros((len(names) + 1, len(names) + 1), dtype=np.bool_)
    for sender, receiver in pairs:
        if sender in names and receiver in names:
            table[names.get_loc(sender), names.get_loc(receiver)] = True
    return table


def _allowed(recorded: Collection[Kind]) -> Bools:
    """Spread the grammar into a table [this kind, next kind, on the same device]."""
    table = np.zeros((len(Kind), len(Kind), 2), dtype=np.bool_)
    for this, after, where, via in GRAMMAR:
        if via is None or via not in recorded:
            table[this, after] |= [where != SAME, where != OTHER]
    return table
