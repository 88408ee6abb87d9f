"""Every packet of a trace that is larger than memory: HOPS and CROSSINGS in pieces.

The trace is read in windows of time once more, with what an analysis in windows has learnt. The
hops of packets that have ended are put aside (`Shelf`), window by window, and taken from there in
the order of HOPS: of address, then time. So what grows with the trace is not in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Sidecar
from maceproc.following.crossings import find_crossings
from maceproc.following.follow import recorded_events
from maceproc.following.namespaces import name_namespaces
from maceproc.following.streaming import PacketFollower, all_packets
from maceproc.following.topology import Way, links_of
from maceproc.schema import CROSSINGS, Trace
from maceproc.tracedat.windows import Window

IN_WINDOWS = "in_windows"
"""In `Trace.info` of a trace that was read in windows: an `InWindows`."""

Columns = dict[str, npt.NDArray[Any]]
Rows = tuple[int, int]  # the first one, and the one behind the last


class InWindows(NamedTuple):
    """What an analysis in windows of time has learnt of the whole trace."""

    windows: Sequence[Window]
    way: Way  # with how its devices receive
    tells_softirq: bool | None


class Part(NamedTuple):
    """The rows that were put on a shelf at once: in order of address."""

    addresses: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]  # the first row of each address; and the one behind the last


class Shelf(Protocol):
    """Where hops are put aside, and taken from again."""

    parts: list[Part]

    def append(self, columns: Columns) -> None:
        """Put rows aside, in order of address."""

    def rows(self, first: int, last: int) -> Columns:
        """Return the rows from `first` to before `last`, counted over all parts."""


def every_packet(
    sidecar: Sidecar, known: InWindows, traces: Iterable[Trace], shelf: Shelf, most: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield HOPS and CROSSINGS in pieces of some `most` rows, as one pass gives them as a whole.

    `traces` are those of the windows, in order. A piece holds whole journeys; positions in HOPS
    count from the first piece on.
    """
    way, recorded = known.way, recorded_events(sidecar, None)
    follower = PacketFollower(
        recorded, links_of(sidecar), all_packets, tells_softirq=known.tells_softirq, shelf=shelf
    )
    for trace in traces:
        follower.feed(trace.events)
    addresses, before = follower.end()
    row = 0
    for ranges in in_pieces(shelf.parts, addresses, most):
        taken = [shelf.rows(*rows) for rows in ranges]
        columns = {name: np.concatenate([part[name] for part in taken]) for name in taken[0]}
        # The parts are in order of time, and each is in order of address.
        order = np.argsort(columns["skbaddr"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
        journey = before[np.searchsorted(addresses, columns["skbaddr"])] + columns["nth"]
        hops = follower.frame(columns, journey)
        crossed = find_crossings(hops, way, recorded) if way.crosses else CROSSINGS.frame()
        hops = name_namespaces(hops, crossed, sidecar)
        yield (
            hops,
            crossed.assign(
                first_hop=crossed["first_hop"] + row, last_hop=crossed["last_hop"] + row
            ),
        )
        row += len(hops)


def in_pieces(
    parts: Sequence[Part], addresses: npt.NDArray[np.uint64], most: int
) -> Iterator[list[Rows]]:
    """Yield which rows of the parts make up each piece of HOPS.

    A piece has all rows of some addresses, or rows of one address that has more than `most`: those
    of one part, or of several that follow each other.
    """
    count = np.zeros(len(addresses), np.int64)
    for part in parts:
        count[np.searchsorted(addresses, part.addresses)] += np.diff(part.starts)
    total = np.cumsum(count)
    first = 0
    while first < len(addresses):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + most, side="right")), first + 1)
        ranges = [_rows_of(part, addresses[first], addresses[last - 1]) for part in parts]
        ranges = [rows for rows in ranges if rows[0] < rows[1]]
        yield from _limited(ranges, most) if last == first + 1 else [ranges] if ranges else []
        first = last


def _rows_of(part: Part, first: np.uint64, last: np.uint64) -> Rows:
    """Return the rows of a part from one address to another."""
    begin = np.searchsorted(part.addresses, first)
    end = np.searchsorted(part.addresses, last, side="right")
    return int(part.starts[begin]), int(part.starts[end])


def _limited(ranges: Iterable[Rows], most: int) -> Iterator[list[Rows]]:
    """Put ranges together until they have some `most` rows."""
    together: list[Rows] = []
    for rows in ranges:
        if together and sum(last - first for first, last in [*together, rows]) > most:
            yield together
            together = []
        together.append(rows)
    if together:
        yield together
