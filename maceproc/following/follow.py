"""From the events of a capture to every ping's packets: each step in turn."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from maceproc.capture import Run, Sidecar
from maceproc.capture_files import Capture
from maceproc.errors import AnalysisError, CaptureError
from maceproc.following.by_hand import runs_by_hand
from maceproc.following.calls import RECEIVE_CALLS, SEND_CALLS, deliveries_table, sends_table
from maceproc.following.copies import copying_of, join_copies, with_reasons
from maceproc.following.crossings import OUTBOUND, find_crossings, find_passages
from maceproc.following.hop_arrays import HOP_EVENTS
from maceproc.following.journeys import Links, follow_packets
from maceproc.following.losses import event_counts
from maceproc.following.namespaces import name_namespaces
from maceproc.following.rtts import rtts_table
from maceproc.following.run_packets import with_earliest_stamps
from maceproc.following.topology import Way, links_of, mtu_of, way_of, with_pairs
from maceproc.following.verdicts import NO_CROSSING
from maceproc.pings import PingOutput, parse_ping, parse_runs, pings_table
from maceproc.schema import CROSSINGS, RTTS, Trace

EVENTS_USED = (*HOP_EVENTS, *SEND_CALLS, *RECEIVE_CALLS)
"""What the analysis uses of a trace; other events stay in the file."""

NEEDED = (("net_dev_queue",), ("netif_rx", "netif_receive_skb"))
"""Of each of these groups at least one event must be recorded."""

Runs = Sequence[tuple[Run, PingOutput]]


class Followed(NamedTuple):
    """Every packet followed, and every ping that could be given its packets."""

    hops: pd.DataFrame
    crossings: pd.DataFrame
    pings: pd.DataFrame
    rtts: pd.DataFrame
    outputs: Runs  # what every run of the ping printed, as it was read


class Packets(NamedTuple):
    """Every packet followed, and what is needed to give pings theirs."""

    hops: pd.DataFrame  # HOPS
    crossings: pd.DataFrame  # CROSSINGS of the way
    sends: pd.DataFrame  # SENDS
    deliveries: pd.DataFrame  # DELIVERIES
    way: Way
    links: Links
    recorded: Collection[str]  # names of the events that were enabled


def follow_pings(
    capture: Capture,
    trace: Trace,
    *,
    ping: str | os.PathLike[str] | None = None,
    inner: str = "",
    outer: str = "",
    peer: str = "",
) -> Followed:
    """Follow every packet of a trace and correct the RTT of every ping: HOPS to RTTS.

    The parameters are those of `maceproc.analyze`; `trace` holds the events of `capture`, or some
    of them. Raises AnalysisError when the devices or the peer are not known.
    """
    sidecar = capture.sidecar
    outputs = None if ping is None else parse_ping(_text_of(Path(ping)))
    packets = follow_way(trace, sidecar, way_of(sidecar, inner, outer, peer), outputs)
    if outputs is not None:
        runs = runs_by_hand(outputs, packets.sends, packets.deliveries, packets.crossings)
    else:
        runs = list(parse_runs(sidecar.runs)) if sidecar else []
    printed = pings_table(runs)
    rtts = correct_pings(printed, runs, packets, lost=trace.lost, mtu=mtu_of(sidecar))
    return Followed(packets.hops, packets.crossings, printed, rtts, runs)


def follow_way(
    trace: Trace,
    sidecar: Sidecar | None,
    way: Way,
    outputs: Sequence[PingOutput] | None = None,
) -> Packets:
    """Follow all packets of a trace, and find their crossings where the way has one.

    Where the peer of the container's device is not known, packets are followed twice: first
    without it, to learn it from the events, then with it. `outputs` is what a ping printed, given
    by hand: its tasks tell its peer from those of other containers.
    """
    recorded = recorded_events(sidecar, trace)
    if sidecar is None:  # otherwise there are other runs to report of
        _check_events(recorded)
    links = links_of(sidecar)
    deliveries = deliveries_table(trace.events)
    peers = {way.peer}
    if way.crosses and not way.peer:
        unbounded = _followed(trace, sidecar, recorded, Links())
        unbounded = find_crossings(unbounded, way, recorded)
        if sidecar and sidecar.target.transient:
            peers = peers_of_runs(unbounded, sidecar)
            links = with_pairs(links, way.inner, peers)
        else:
            sends = sends_table(trace.events, unbounded)
            runs = runs_by_hand(outputs or (), sends, deliveries, unbounded)
            peers = learn_peers(unbounded, way.inner, [run.pid for run, _ in runs])
            links = Links(dead_ends=frozenset((peer, way.inner) for peer in peers))
            way = replace(way, peer=next(iter(peers)) if len(peers) == 1 else "")
    hops = _followed(trace, sidecar, recorded, links)
    crossed = find_crossings(hops, way, recorded) if way.crosses else CROSSINGS.frame()
    if way.crosses and not way.peer:
        crossed = crossed[crossed["peer"].isin(peers)].reset_index(drop=True)
    if copying := copying_of(sidecar):
        crossed = with_reasons(crossed, copying, recorded)
    hops = name_namespaces(hops, crossed, sidecar)
    sends = sends_table(trace.events, crossed)
    return Packets(hops, crossed, sends, deliveries, way, links, recorded)


def _followed(
    trace: Trace, sidecar: Sidecar | None, recorded: Collection[str], links: Links
) -> pd.DataFrame:
    """Return the HOPS of a trace, those of copied packets joined to their originals' journeys."""
    hops = follow_packets(trace.events, recorded, links)
    copying = copying_of(sidecar)
    return join_copies(hops, copying, trace.lost) if copying else hops


def correct_pings(
    pings: pd.DataFrame, runs: Runs, packets: Packets, *, lost: pd.DataFrame, mtu: int = 1500
) -> pd.DataFrame:
    """Return RTTS of the PINGS of these runs; `lost` is LOST, `mtu` the first device's [bytes]."""
    way, crossed = packets.way, packets.crossings
    passages = {"container": crossed}
    if any(run.traced and run.place == "native" for run, _ in runs):
        passages["native"] = find_passages(
            packets.hops, way, crossed, packets.links, packets.recorded
        )
    passages = {p: with_earliest_stamps(t, packets.hops) for p, t in passages.items()}
    rtts = rtts_table(pings, runs, packets.sends, packets.deliveries, passages, lost=lost, mtu=mtu)
    return rtts if way.crosses else _uncrossed(rtts)


def learn_peers(
    crossings: pd.DataFrame, inner: str, tasks: Collection[int | None] = ()
) -> set[str]:
    """Return the devices that receive what a ping sends out through the container's device.

    For captures that do not say; `crossings` were found without them. `tasks` are the pids of the
    ping's runs; where none is known, it may be any task. Raises AnalysisError when there is no such
    device, or when any of several can be the ping's: several containers have a device of that name.
    """
    sent = _senders(crossings)
    known = sent["pid"].isin([pid for pid in tasks if pid is not None])
    peers = set(sent["peer"][known].astype(str)) or set(sent["peer"].astype(str))
    if len(peers) == 1 or (peers and known.any()):
        return peers
    raise AnalysisError(
        f"what is sent out on {inner} is received by "
        f"{', '.join(sorted(peers)) or 'no other device'}",
        hint="name the other end of the container's veth pair with --peer",
    )


def peers_of_runs(crossings: pd.DataFrame, sidecar: Sidecar) -> set[str]:
    """Return the veths of the containers that were made for the runs, where they have sent.

    `crossings` were found without them: a journey may continue with the packet that got its address
    next, so a ping outside of containers can seem to have crossed, now and then. So only packets
    count that were sent during the runs of containers, by the run's own task where any is known to
    have sent, and only veths through which most packets of one task crossed. A veth that was there
    before, other than that of the first container, belongs to a neighbour.
    """
    seen = {link.name for netns in sidecar.namespaces for link in netns.links}
    seen -= {sidecar.target.path[1].dev}
    sent = crossings[_is_sent_by_task(crossings)]
    crossed = sent["status"] == "complete"
    peers: set[str] = set()
    for run in sidecar.runs:
        if run.place == "container" and run.traced:
            within = sent["entered_ns"].between(run.start_ns, run.end_ns)
            own = within & (sent["pid"] == run.pid)
            chosen = own if (own & crossed).any() else within
            share = crossed[chosen].groupby([sent["pid"], sent["peer"]], observed=True).mean()
            peers |= {str(peer) for _, peer in share.index[share >= 0.5]}
    return peers - seen


def _senders(crossings: pd.DataFrame) -> pd.DataFrame:
    """Return the complete outbound CROSSINGS of what tasks sent."""
    return crossings[_is_sent_by_task(crossings) & (crossings["status"] == "complete")]


def _is_sent_by_task(crossings: pd.DataFrame) -> pd.Series:
    return (crossings["direction"] == OUTBOUND) & ~crossings["softirq"]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}", hint="give ping's output") from error


def _check_events(recorded: Collection[str]) -> None:
    """Raise AnalysisError if events are missing without which no packet can be followed."""
    missing = [names for names in NEEDED if not set(names) & set(recorded)]
    if not missing:
        return
    needed = ", and ".join(" or ".join(names) for names in missing)
    raise AnalysisError(
        f"no packet can be followed: the trace has no events {needed}",
        hint="record the events " + ", ".join(f"net:{name}" for names in NEEDED for name in names),
    )


def recorded_events(sidecar: Sidecar | None, trace: Trace | None) -> list[str]:
    """Return the events that were enabled, without their system; those seen when nobody says."""
    if sidecar is None:
        return [name for name, count in (event_counts(trace) if trace else {}).items() if count]
    return [event.partition(":")[2] for event in sidecar.tracing.events]


def _uncrossed(rtts: pd.DataFrame) -> pd.DataFrame:
    """Mark the pings of a container without a crossing: there was nothing to correct."""
    alone = (rtts["arm"] == "container traced") & rtts["status"].isin(["incomplete", "ambiguous"])
    decided = {"status": "uncrossed", "reason": NO_CROSSING, "rule": "no-crossing"}
    columns = {
        name: rtts[name].astype("str").where(~alone, value) for name, value in decided.items()
    }
    return RTTS.frame(rtts.assign(**columns))
