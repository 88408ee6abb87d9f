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
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following.side_by_side import side_by_side
from maceproc.schema import HOPS, JOURNEYS

SOFTIRQ_FLAG = 0x10  # TRACE_FLAG_SOFTIRQ, include/linux/trace_events.h, v6.8

Bools = npt.NDArray[np.bool_]


class Kind(IntEnum):
    """What an event says of a packet, in the order of simultaneous events on one device."""

    QUEUE = 0  # handed to the device's queue
    XMIT = 1  # handed to the driver
    RX = 2  # received in the backlog of a virtual device
    RECEIVE = 3  # taken up by the network stack
    COPY = 4  # copied to a user's buffer
    FREE = 5  # freed


# Events in include/trace/events/net.h and skb.h, v6.8. net_dev_xmit is not among them: it fires
# after the driver returned, on veth after the packet was received by the peer.
HOP_EVENTS: Mapping[str, Kind] = {
    "net_dev_queue": Kind.QUEUE,
    "net_dev_start_xmit": Kind.XMIT,
    "netif_rx": Kind.RX,
    "netif_receive_skb": Kind.RECEIVE,
    "skb_copy_datagram_iovec": Kind.COPY,
    "consume_skb": Kind.FREE,
    "kfree_skb": Kind.FREE,
}

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
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    ports: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    dead_ends: frozenset[tuple[str, str]] = frozenset()


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
    hops = stack_hops(events)
    hops = hops.take(in_order(hops))
    starts = life_starts(hops, kinds_of(events if recorded is None else recorded), links)
    journey = np.cumsum(starts) - 1
    position = np.arange(len(starts), dtype=np.int32)
    nowhere = np.full(len(starts), -1, dtype=np.int8)
    data = {
        **hops.columns,
        "journey": journey,
        "hop": position - position[starts][journey],
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


def hop_kinds(hops: pd.DataFrame) -> npt.NDArray[np.int8]:
    """Return the `Kind` of every hop, shape (len(hops),)."""
    kinds = np.array([HOP_EVENTS[name] for name in hops["event"].cat.categories], dtype=np.int8)
    return np.asarray(kinds[hops["event"].cat.codes.to_numpy()])


@dataclass(frozen=True)
class Hops:
    """Columns of HOPS as arrays, with events and devices as codes, and the kind of each event.

    `rank` is the place among all events of the trace. `tells_softirq` says whether the trace tells
    what ran in softirq; None: if any of these hops does.
    """

    columns: dict[str, npt.NDArray[Any]]
    events: list[str]
    devices: pd.Index
    tells_softirq: bool | None = None

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def take(self, order: npt.NDArray[np.intp]) -> Hops:
        """Return the rows in another order."""
        names = [name for name in self.columns if name != "rank"]
        taken = side_by_side(lambda name: self.columns[name][order], names, len(order))
        return replace(self, columns=dict(zip(names, taken, strict=True)))

    def between(self, first: int, last: int) -> Hops:
        """Return the rows from `first` to before `last`, not copied."""
        columns = {name: values[first:last] for name, values in self.columns.items()}
        return replace(self, columns=columns)


def stack_hops(events: Mapping[str, pd.DataFrame]) -> Hops:
    """Stack the tables of the events that are hops, in the order of their kinds."""
    names = [name for name in HOP_EVENTS if name in events and "skbaddr" in events[name]]
    tables = [_with_address(events[name]) for name in names]
    named = [_device_names(table) for table in tables]
    devices = pd.Index(sorted({dev for column in named for dev in column.categories}), dtype="str")
    rows = sum(map(len, tables))
    parts = side_by_side(
        lambda n: _hop_columns(tables[n], HOP_EVENTS[names[n]], _recoded(named[n], devices)),
        range(len(tables)),
        rows,
    )
    for code, part in enumerate(parts):
        part["event"] = np.full(len(part["rank"]), code, dtype=np.int8)
    parts.append({column: np.empty(0, dtype) for column, dtype in HOP_DTYPES.items()})
    stacked = side_by_side(
        lambda name: np.concatenate([part[name] for part in parts]),
        HOP_DTYPES,
        rows,
    )
    return Hops(dict(zip(HOP_DTYPES, stacked, strict=True)), names, devices)


HOP_DTYPES: Mapping[str, Any] = {
    "rank": np.int64,
    "skbaddr": np.uint64,
    "time_ns": np.int64,
    "cpu": np.int32,
    "pid": np.int32,
    "softirq": np.bool_,
    "len": np.int64,
    "dev": np.int16,
    "kind": np.int8,
    "event": np.int8,
}


def _with_address(table: pd.DataFrame) -> pd.DataFrame:
    """Remove rows without an address: they come from text lines that were cut."""
    return table[table["skbaddr"].notna()] if table["skbaddr"].hasnans else table


def _device_names(table: pd.DataFrame) -> pd.Categorical:
    """Return every row's device: the field `name`, printed as dev=; some events have none."""
    for name in ("name", "dev"):
        if name in table:
            return table[name].array
    return pd.Categorical.from_codes(np.full(len(table), -1), categories=pd.Index([], dtype="str"))


def _recoded(dev: pd.Categorical, devices: pd.Index) -> npt.NDArray[np.int16]:
    """Return the place of every row's device in `devices`; -1 where it has none."""
    places = np.append(devices.get_indexer(dev.categories), -1).astype(np.int16)
    return np.asarray(places[dev.codes])


def _hop_columns(
    table: pd.DataFrame, kind: Kind, dev: npt.NDArray[np.int16]
) -> dict[str, npt.NDArray[Any]]:
    length = table["len"].to_numpy(np.int64) if kind < Kind.COPY else np.zeros(len(table), np.int64)
    return {
        "rank": table.index.to_numpy(),
        "softirq": (table["flags"].to_numpy() & SOFTIRQ_FLAG) != 0,
        "len": length,
        "dev": dev,
        "kind": np.full(len(table), kind, dtype=np.int8),
        **{
            name: table[name].to_numpy(HOP_DTYPES[name])
            for name in ("skbaddr", "time_ns", "cpu", "pid")
        },
    }


def in_order(hops: Hops) -> npt.NDArray[np.intp]:
    """Return the order of address, then time; at equal times that of the reader, then of kinds."""
    by_time, by_address = side_by_side(
        lambda sort: sort(hops), (_in_time, _address_codes), len(hops["rank"])
    )
    return np.asarray(by_time[np.argsort(by_address[by_time], kind="stable")])


def _in_time(hops: Hops) -> npt.NDArray[np.intp]:
    # Tables of a trace are sorted already, and merging sorted runs costs little.
    in_time = np.argsort(hops["rank"], kind="stable")
    times = hops["time_ns"][in_time]
    if np.any(times[1:] < times[:-1]):
        in_time = in_time[np.argsort(times, kind="stable")]
    return in_time


def _address_codes(hops: Hops) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the place of every hop's address among all addresses."""
    code, addresses = pd.factorize(hops["skbaddr"], sort=True)
    # 16 bits are sorted by radix.
    return code.astype(np.uint16 if len(addresses) <= 1 << 16 else np.uint32)


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

    side_by_side(look, range(0, count, BLOCK_ROWS), count)
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
    port = np.append(np.isin(hops.devices, list(links.ports)), False)[dev]
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
