"""Pings corrected from a trace that is read in windows of time.

The rows are those that `follow.follow_pings` gives for the whole trace. Only packets that can
belong to a traced run of the capture are kept: packets on the container's devices and, during
native runs, packets on the outer device. So memory grows with the number of pings and of packets
that the container sent, and not with the trace.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Sidecar
from maceproc.capture_files import Capture
from maceproc.following.calls import (
    RECEIVE_CALLS,
    SEND_CALLS,
    deliveries_table,
    sends_table,
)
from maceproc.following.copies import copying_of
from maceproc.following.crossings import (
    INBOUND,
    any_by_netif_rx,
    count_receptions,
    find_crossings,
)
from maceproc.following.every_packet import IN_WINDOWS, InWindows
from maceproc.following.follow import Followed, Packets, correct_pings, recorded_events
from maceproc.following.losses import COUNTED
from maceproc.following.namespaces import name_namespaces
from maceproc.following.positions import Bools
from maceproc.following.streaming import (
    PacketFollower,
    SoftirqIsTold,
    journeys_with,
    packets_on,
)
from maceproc.following.topology import Way, links_of, mtu_of, way_of
from maceproc.pings import parse_runs, pings_table
from maceproc.schema import CROSSINGS, LOST, Trace
from maceproc.tracedat.windows import Window

LOG = logging.getLogger("maceproc")
Read = Callable[[Window], Trace]
CALLS = (*SEND_CALLS, *RECEIVE_CALLS)


def follow_in_windows(
    capture: Capture,
    windows: Sequence[Window],
    read: Read,
    *,
    inner: str = "",
    outer: str = "",
    peer: str = "",
) -> tuple[Trace, Followed] | None:
    """Return what `follow_pings` does, and the trace with what was kept of it.

    `read` gives the trace of a window. Returns None where packets can only be followed once all of
    them were seen, because the capture has no sidecar, does not name the peer of the container's
    device, or has packets that are copied on their way; and where other tracers recorded.
    """
    sidecar = capture.sidecar
    if sidecar is None or sidecar.tracing.tracer not in ("ftrace", "ftrace+bpf"):
        return None
    way = way_of(sidecar, inner, outer, peer)
    if (way.crosses and not way.peer) or copying_of(sidecar):
        return None
    try:
        kept = _follow(sidecar, way, windows, read, tells_softirq=None)
    except SoftirqIsTold:
        kept = _follow(sidecar, way, windows, read, tells_softirq=True)
    told, way = way, kept.votes.settled(way)
    trace, hops = kept.trace(), kept.follower.finish()
    learnt = InWindows(windows, way, kept.follower.tells_softirq)
    trace = replace(trace, info={**trace.info, IN_WINDOWS: learnt})
    recorded = recorded_events(sidecar, trace)
    crossed = find_crossings(hops, way, recorded) if way.crosses else CROSSINGS.frame()
    if not _is_certain(sidecar, told, way, crossed):
        return None
    packets = Packets(
        name_namespaces(hops, crossed, sidecar),
        crossed,
        sends_table(trace.events, crossed),
        deliveries_table(trace.events),
        way,
        links_of(sidecar),
        recorded,
    )
    runs = list(parse_runs(sidecar.runs))
    printed = pings_table(runs)
    rtts = correct_pings(printed, runs, packets, lost=trace.lost, mtu=mtu_of(sidecar))
    return trace, Followed(packets.hops, crossed, printed, rtts, runs)


def spans_of(sidecar: Sidecar) -> list[tuple[int, int]]:
    """Return when traced runs began and ended [ns]."""
    return [(run.start_ns, run.end_ns) for run in sidecar.runs if run.traced]


def read_ahead(windows: Sequence[Window], read: Read) -> Iterator[Trace]:
    """Yield the trace of every window; the next one is read meanwhile, on another core."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(read, windows[0])
        for window in [*windows[1:], None]:
            trace = coming.result()
            if window is not None:
                coming = pool.submit(read, window)
            yield trace
            del trace


def _follow(
    sidecar: Sidecar,
    way: Way,
    windows: Sequence[Window],
    read: Read,
    *,
    tells_softirq: bool | None,
) -> _Kept:
    spans = spans_of(sidecar)
    native = any(run.traced and run.place == "native" for run in sidecar.runs)
    devices = {way.peer} if way.crosses else set()
    devices |= {way.outer, *way.cards} if native else set()
    recorded = recorded_events(sidecar, None)
    votes = _Votes(way, recorded)

    def sift(hops: pd.DataFrame) -> Bools:
        votes.add(hops)
        times = hops["time_ns"].to_numpy()
        return journeys_with(hops, _within(times, spans))

    follower = PacketFollower(
        recorded, links_of(sidecar), packets_on(devices), sift, tells_softirq=tells_softirq
    )
    kept = _Kept(follower, votes, spans)
    for number, trace in enumerate(read_ahead(windows, read), 1):
        LOG.info("following the packets of window %d of %d", number, len(windows))
        follower.feed(trace.events)
        kept.add(trace)
    return kept


def _within(times: npt.NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> Bools:
    inside = np.zeros(len(times), np.bool_)
    for start_ns, end_ns in spans:
        inside |= (times >= start_ns) & (times <= end_ns)
    return inside


def _is_certain(sidecar: Sidecar, told: Way, way: Way, crossed: pd.DataFrame) -> bool:
    """Tell whether it is known how the outer device receives, where native runs need it.

    `told` is the way as the sidecar tells it, `way` has what the events showed.
    """
    native = any(run.traced and run.place == "native" for run in sidecar.runs)
    if told.outer_uses_netif_rx is not None or not native:
        return True
    came_in = (crossed["direction"] == INBOUND) & (crossed["status"] == "complete")
    return way.outer_uses_netif_rx is not None and bool(came_in.any())


@dataclass
class _Votes:
    """How devices receive, where no topology says so, counted over all windows."""

    way: Way
    recorded: Sequence[str]
    inner_by_netif_rx: bool = False
    counts: dict[bool, Counter[str]] = field(
        default_factory=lambda: {True: Counter(), False: Counter()}
    )

    def add(self, hops: pd.DataFrame) -> None:
        if not self.way.crosses or not len(hops):
            return
        if self.way.inner_uses_netif_rx is None:
            self.inner_by_netif_rx |= any_by_netif_rx(hops, self.way, self.recorded)
        if self.way.outer_uses_netif_rx is None:
            for inner, count in self.counts.items():
                by_rx, every = count_receptions(hops, self.way, self.recorded, inner)
                count.update(by_rx=by_rx, every=every)

    def settled(self, way: Way) -> Way:
        """Return the way with what the events showed."""
        if not way.crosses:
            return way
        if way.inner_uses_netif_rx is None:
            way = replace(way, inner_uses_netif_rx=self.inner_by_netif_rx)
        count = self.counts[bool(way.inner_uses_netif_rx)]
        if way.outer_uses_netif_rx is None and count["every"]:
            # As Walk.mostly_netif_rx().
            way = replace(way, outer_uses_netif_rx=count["by_rx"] / count["every"] >= 0.5)
        return way


@dataclass
class _Kept:
    """What is kept of the windows beside packets: calls during the runs, tasks, counts, losses."""

    follower: PacketFollower
    votes: _Votes
    spans: Sequence[tuple[int, int]]
    first: Trace | None = None
    tables: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[pd.DataFrame] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, trace: Trace) -> None:
        if self.first is None:
            self.first = replace(trace, events={})
        for name, table in trace.events.items():
            self.counts[name] += len(table)
            self.tables.setdefault(name, []).append(self._needed(name, table))
        self.lost.append(trace.lost)
        self.notes |= dict.fromkeys(trace.notes)

    def trace(self) -> Trace:
        """Return the trace with what was kept, and how many events there were in all."""
        assert self.first is not None
        events = {name: pd.concat(parts) for name, parts in self.tables.items()}
        lost = pd.concat(self.lost).drop_duplicates()
        lost = lost.sort_values(["before_ns", "cpu"], kind="stable")
        return replace(
            self.first,
            events=events,
            lost=LOST.frame(lost.to_dict("series")),
            notes=tuple(self.notes),
            info={**self.first.info, COUNTED: dict(self.counts)},
        )

    def _needed(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        table = table.assign(comm=table["comm"].astype("str"))
        if name not in CALLS:  # later only the task of the other events is needed
            return table.drop_duplicates(["pid", "comm"])
        wanted = _within(table["time_ns"].to_numpy(), self.spans)
        if "ret" in table:
            wanted &= (table["ret"] > 0).fillna(True).to_numpy(np.bool_)
        return table[wanted]
