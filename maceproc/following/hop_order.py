"""Hops put in order of address and time, by compiled loops where they can do it.

The tables of a trace are in order of time already, and the kernel uses few addresses again and
again. So the hops of every address are counted first; then all tables are gone through side by
side, and every hop is written to its place at once. Each thread does so for a span of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.following import hop_loops, side_by_side
from maceproc.following.hop_arrays import (
    HOP_DTYPES,
    HOP_EVENTS,
    Hops,
    HopTables,
    Kind,
    hop_tables,
    in_order,
    stack_hops,
)

ORDERED = tuple(name for name in HOP_DTYPES if name != "rank")
"""The columns of hops in order, as _hops.c takes them."""

Source = tuple[Any, ...]  # a table, as _hops.c takes it, without its first row and its end


def ordered_hops(events: Mapping[str, pd.DataFrame]) -> Hops:
    """Return the hops of a trace's tables in order of address, then time.

    At equal times they are in the order of the reader, then of the kinds.
    """
    tables = hop_tables(events)
    hops = None if hop_loops.loops is None else _ordered(hop_loops.loops, tables)
    if hops is None:
        stacked = stack_hops(tables)
        hops = stacked.take(in_order(stacked))
    return hops


def _ordered(loops: ModuleType, tables: HopTables) -> Hops | None:
    """Return the ordered hops; None where a table is not in order of time.

    Also None for addresses that were made to belong in the same place of a hash table.
    """
    sources = [_source(tables, number) for number in range(len(tables.names))]
    rows = sum(map(len, tables.tables))
    spans = _spans([source[0][0] for source in sources], rows)
    parts = [
        [(*source, first, end) for source, first, end in zip(sources, firsts, ends, strict=True)]
        for firsts, ends in pairwise(spans)
    ]
    counted = side_by_side.side_by_side(loops.count_addresses, parts, rows)
    if any(found is None for found in counted):
        return None
    found = [(np.frombuffer(a, np.uint64), np.frombuffer(n, np.int64)) for a, n in counted]
    columns = {name: np.empty(rows, HOP_DTYPES[name]) for name in ORDERED}
    ordered = tuple(columns.values())

    def place(number: int) -> bool:
        return bool(loops.place_hops(parts[number], addresses, starts[number], ordered))

    addresses, starts = _places(found)
    if not all(side_by_side.side_by_side(place, range(len(parts)), rows)):
        return None
    return Hops(columns, tables.names, tables.devices)


def _source(tables: HopTables, number: int) -> Source:
    """Return a table as the loops take it: nothing is copied that has the trace.dat's types."""
    table, dev = tables.tables[number], tables.named[number]
    name = tables.names[number]
    ranks, lengths = table.index.to_numpy(), None
    if ranks.dtype != np.int32:
        ranks = ranks.astype(np.int64)
    if HOP_EVENTS[name] < Kind.COPY:
        is_short = table["len"].dtype == np.uint32
        lengths = np.ascontiguousarray(table["len"].to_numpy(np.uint32 if is_short else np.int64))
    codes = np.ascontiguousarray(dev.codes)
    if codes.dtype.itemsize > 4:
        codes = codes.astype(np.int32)
    dtypes = {"cpu": np.int32, "pid": np.int32, "flags": np.uint8, "skbaddr": np.uint64}
    columns = (
        np.ascontiguousarray(table["time_ns"].to_numpy(np.int64)),
        np.ascontiguousarray(ranks),
        *(np.ascontiguousarray(table[name].to_numpy(dtype)) for name, dtype in dtypes.items()),
        codes,
        tables.places(number),
        lengths,
    )
    length_size = 8 if lengths is None else lengths.itemsize
    sizes = (ranks.itemsize, codes.itemsize, length_size)
    return (columns, *sizes, int(HOP_EVENTS[name]), number)


def _spans(times: Sequence[npt.NDArray[np.int64]], rows: int) -> list[list[int]]:
    """Return the rows of every table at which each span of time begins, and where the last ends.

    Events of one time are in one span.
    """
    number = side_by_side.THREADS if rows > side_by_side.FEW_ROWS else 1
    largest = max(times, key=len, default=np.empty(0, np.int64))
    inner = [largest[len(largest) * n // number] for n in range(1, number)]
    starts = [[int(np.searchsorted(own, at)) for own in times] for at in inner]
    return [[0] * len(times), *starts, [len(own) for own in times]]


def _places(
    found: Sequence[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]],
) -> tuple[npt.NDArray[np.uint64], list[npt.NDArray[np.int64]]]:
    """Return all addresses, and where the first hop of each goes in every span of time.

    `found` has the addresses of every span and how many hops each has.
    """
    addresses = np.unique(np.concatenate([own for own, _ in found]))
    counts = np.zeros((len(found), len(addresses)), np.int64)
    for span, (own, number) in enumerate(found):
        counts[span, np.searchsorted(addresses, own)] = number
    total = counts.sum(axis=0)
    starts = np.cumsum(total) - total
    return addresses, list(starts + np.cumsum(counts, axis=0) - counts)
