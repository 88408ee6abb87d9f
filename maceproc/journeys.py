"""One journey per life of an skb address.

An sk_buff keeps its address while it passes queues, veth pairs and bridges; when it is freed the
allocator hands the address out again, sometimes within a microsecond. So events of one address are
put in time order and cut into lives wherever the next event cannot follow the last one. What can
follow what is the grammar below: it is about what the kernel does with one sk_buff, not about any
particular topology.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.schema import HOPS, JOURNEYS

SOFTIRQ_FLAG = 0x10  # TRACE_FLAG_SOFTIRQ, include/linux/trace_events.h, v6.8

Bools = npt.NDArray[np.bool_]


class Kind(IntEnum):
    """What an event says of a packet; the order is that of simultaneous events on one device."""

    QUEUE = 0  # handed to the device's queue
    XMIT = 1  # handed to the driver
    RX = 2  # received in the backlog of a virtual device
    RECEIVE = 3  # taken up by the network stack
    COPY = 4  # copied to a user's buffer
    FREE = 5  # given back


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

# The grammar: (this, next): on which device the next event may be. "via" names the event that
# would come between if it was recorded: where it was, its absence means that the life ended.
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
    """What is known of where a packet goes that a device sends.

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
    `netns` is left empty: see `crossings.name_namespaces`.
    """
    kinds = {HOP_EVENTS[e] for e in (events if recorded is None else recorded) if e in HOP_EVENTS}
    hops = _collect(events)
    hops = hops.take(_in_order(hops))
    starts = _life_starts(hops, kinds, links)
    journey = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    data = {
        **{name: hops[name].array for name in hops.columns if name in HOPS.names},
        "journey": journey,
        "hop": np.arange(len(hops)) - first[journey],
        "netns": pd.Categorical.from_codes(np.full(len(hops), -1), categories=[]),
    }
    return HOPS.frame(data)


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


def _collect(events: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack the tables of the events that are hops, with the columns of HOPS and their kind."""
    names = [name for name in HOP_EVENTS if name in events and "skbaddr" in events[name]]
    tables = [_hop_columns(_with_address(events[name]), name) for name in names]
    if not tables:
        return HOPS.frame().assign(kind=np.empty(0, dtype=np.int8))
    hops = pd.concat([table.drop(columns=["dev"]) for table in tables])
    hops["dev"] = pd.api.types.union_categoricals(
        [table["dev"] for table in tables], sort_categories=True
    )
    sizes = [len(table) for table in tables]
    hops["event"] = pd.Categorical.from_codes(np.repeat(np.arange(len(names)), sizes), names)
    kinds = [HOP_EVENTS[name] for name in names]
    hops["kind"] = np.repeat(np.array(kinds, dtype=np.int8), sizes)
    return hops


def _in_order(hops: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return the order of address, then time; at equal times the reader's order, its index."""
    in_time = np.lexsort((hops["kind"], hops.index, hops["time_ns"]))
    code, addresses = pd.factorize(hops["skbaddr"].to_numpy(), sort=True)
    small = np.uint16 if len(addresses) <= 1 << 16 else np.uint32  # 16 bits are sorted by radix
    return in_time[np.argsort(code.astype(small)[in_time], kind="stable")]


def _with_address(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the rows whose address is missing: text lines that were cut."""
    return table[table["skbaddr"].notna()] if table["skbaddr"].hasnans else table


def _hop_columns(table: pd.DataFrame, event: str) -> pd.DataFrame:
    has_device = HOP_EVENTS[event] < Kind.COPY
    device = "name" if "name" in table else "dev"  # the field, or as it is printed
    no_device = pd.Categorical.from_codes(
        np.full(len(table), -1), categories=pd.Index([], dtype="str")
    )
    return pd.DataFrame(
        {
            "skbaddr": table["skbaddr"].to_numpy(np.uint64),
            "time_ns": table["time_ns"].to_numpy(np.int64),
            "cpu": table["cpu"].to_numpy(np.int32),
            "pid": table["pid"].to_numpy(np.int32),
            "softirq": (table["flags"].to_numpy() & SOFTIRQ_FLAG) != 0,
            "len": table["len"].to_numpy(np.int64) if has_device else 0,
            "dev": table[device].array if has_device else no_device,
        },
        index=table.index,
    )


def _life_starts(hops: pd.DataFrame, recorded: Collection[Kind], links: Links) -> Bools:
    """Tell of each hop, in order of address and time, whether a new life begins with it."""
    starts = np.ones(len(hops), dtype=np.bool_)
    if len(hops) < 2:
        return starts
    address, kind = hops["skbaddr"].to_numpy(), hops["kind"].to_numpy()
    dev, length = hops["dev"].cat.codes.to_numpy(), hops["len"].to_numpy()
    same_device = dev[1:] == dev[:-1]
    follows = _allowed(recorded)[kind[:-1], kind[1:], same_device.astype(np.int8)]
    # Between queue, driver and backlog of one device nothing changes the length.
    keeps_length = np.isin(kind[:-1] * 8 + kind[1:], _LENGTH_KEPT)
    follows &= ~keeps_length | (length[1:] == length[:-1])
    # Forwarding is done in softirq: what a task queues in its own system call has just been born.
    received = (kind[:-1] == Kind.RX) | (kind[:-1] == Kind.RECEIVE)
    softirq = hops["softirq"].to_numpy()
    if softirq.any():  # text without latency columns does not say
        follows &= ~received | (kind[1:] != Kind.QUEUE) | softirq[1:]
    follows &= address[1:] == address[:-1]
    sent = (kind[:-1] == Kind.QUEUE) | (kind[:-1] == Kind.XMIT)
    # A bridge, VLAN or bond has no queue: it gives its port the packet in the same call.
    follows &= ~(sent & (kind[1:] == Kind.QUEUE)) | _same_context(hops)
    receives = (kind[1:] == Kind.RX) | (kind[1:] == Kind.RECEIVE)
    passed = sent & receives
    names = hops["dev"].cat.categories
    # Down from a bridge to its port, or up from a port to its bridge, but not from port to port.
    port = np.append(np.isin(names, list(links.ports)), False)[dev]
    follows &= ~(sent & (kind[1:] == Kind.QUEUE) & port[:-1])
    follows &= ~(received & receives & ~same_device & port[1:])
    follows &= ~passed | _possible(names, links)[dev[:-1], dev[1:]]
    into_dead_end = passed & _between(names, links.dead_ends)[dev[:-1], dev[1:]]
    follows &= ~_arrived(kind, follows, into_dead_end)
    starts[1:] = ~follows
    return starts


def _same_context(hops: pd.DataFrame) -> Bools:
    """Tell of each hop but the first whether CPU, task and softirq are those of the one before."""
    same = np.ones(max(len(hops) - 1, 0), dtype=np.bool_)
    for name in ("cpu", "pid", "softirq"):
        values = hops[name].to_numpy()
        same &= values[1:] == values[:-1]
    return same


def _arrived(kind: npt.NDArray[np.int8], follows: Bools, into_dead_end: Bools) -> Bools:
    """Tell of each hop but the first whether it sends what arrived where nothing is forwarded."""
    received = (kind == Kind.RX) | (kind == Kind.RECEIVE)
    arrived = np.append(False, into_dead_end & follows)
    arrived[1:] |= arrived[:-1] & received[1:] & follows  # netif_rx, then netif_receive_skb
    return arrived[:-1] & (kind[1:] == Kind.QUEUE)


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


_LENGTH_KEPT = (Kind.QUEUE * 8 + Kind.XMIT, Kind.RX * 8 + Kind.RECEIVE)


def _allowed(recorded: Collection[Kind]) -> Bools:
    """Spread the grammar into a table [this kind, next kind, on the same device]."""
    table = np.zeros((len(Kind), len(Kind), 2), dtype=np.bool_)
    for this, after, where, via in GRAMMAR:
        if via is None or via not in recorded:
            table[this, after] |= [where != SAME, where != OTHER]
    return table
