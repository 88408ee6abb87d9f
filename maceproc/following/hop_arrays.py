"""The columns of hops as arrays: stacked from the tables of events, and put in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following.side_by_side import side_by_side

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


class HopTables(NamedTuple):
    """The tables of the events that are hops, in the order of their kinds."""

    names: list[str]
    tables: list[pd.DataFrame]
    named: list[pd.Categorical]  # every row's device
    devices: pd.Index  # all of them

    def places(self, number: int) -> npt.NDArray[np.int16]:
        """Return the place in `devices` of every category of a table's devices; -1 at the end."""
        places = self.devices.get_indexer(self.named[number].categories)
        return np.append(places, -1).astype(np.int16)


def hop_tables(events: Mapping[str, pd.DataFrame]) -> HopTables:
    """Choose the tables of the events that are hops."""
    names = [name for name in HOP_EVENTS if name in events and "skbaddr" in events[name]]
    tables = [_with_address(events[name]) for name in names]
    named = [_device_names(table) for table in tables]
    devices = pd.Index(sorted({dev for column in named for dev in column.categories}), dtype="str")
    return HopTables(names, tables, named, devices)


def stack_hops(hops: HopTables) -> Hops:
    """Stack the rows of all tables."""
    tables = hops.tables
    rows = sum(map(len, tables))
    parts = side_by_side(
        lambda n: _hop_columns(
            tables[n], HOP_EVENTS[hops.names[n]], hops.places(n)[hops.named[n].codes]
        ),
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
    return Hops(dict(zip(HOP_DTYPES, stacked, strict=True)), hops.names, hops.devices)


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
