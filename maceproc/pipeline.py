"""From a capture to corrected RTTs: the whole story as one short function."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from maceproc import pings
from maceproc.capture import Capture, Run, Sidecar, open_capture
from maceproc.errors import AnalysisError, CaptureError
from maceproc.following import causes, checks, crossings, journeys, matching, perturbation
from maceproc.following import event_costs as observer
from maceproc.following import rtts as rtt
from maceproc.following.crossings import Path as CrossingPath
from maceproc.following.event_fields import require_fields
from maceproc.schema import CROSSINGS, RTTS, Trace
from maceproc.tracedat import read_events
from maceproc.tracetext import read_text

if TYPE_CHECKING:
    from maceproc.reporting.plots import Plots
    from maceproc.reporting.views import Views

LOG = logging.getLogger("maceproc")

ETHERNET_MTU = 1500
TRACE_DAT_MAGIC = b"\x17\x08\x44tracing"  # trace-cmd.dat.v7(5)

# What the analysis uses of a trace; other events stay in the file.
EVENTS_USED = (*journeys.HOP_EVENTS, *matching.SEND_CALLS, *matching.RECEIVE_CALLS)


@dataclass(frozen=True, repr=False)
class Analysis:
    """An analyzed capture: every table of the way from events to corrected RTTs.

    The tables are described in `maceproc.schema`; all times are int64 ns.
    """

    capture: Capture
    trace: Trace
    hops: pd.DataFrame
    crossings: pd.DataFrame
    pings: pd.DataFrame
    rtts: pd.DataFrame
    steps: pd.DataFrame
    series: pd.DataFrame
    comparisons: pd.DataFrame
    findings: pd.DataFrame
    observed: pd.DataFrame
    observer: pd.DataFrame

    @property
    def journeys(self) -> pd.DataFrame:
        """The JOURNEYS table, a row per packet."""
        return journeys.journeys_table(self.hops)

    @property
    def view(self) -> Views:
        """The tables behind the pictures: ``view.rtt()``; see `maceproc.reporting.views`."""
        from maceproc.reporting.views import Views

        return Views(self)

    @property
    def plot(self) -> Plots:
        """The pictures, such as ``plot.rtt()``; see `maceproc.reporting.plots`."""
        from maceproc.reporting.plots import Plots

        return Plots(self)

    def as_dict(self) -> dict[str, Any]:
        """Return what `maceproc analyze --json` prints; see `maceproc.reporting.report.as_json`."""
        from maceproc.reporting.report import as_dict

        return as_dict(self)

    def as_html(self) -> str:
        """Return the page that `maceproc analyze --html` writes; see `maceproc.reporting.page`."""
        from maceproc.reporting.page import as_html

        return as_html(self)

    def __repr__(self) -> str:
        return f"<Analysis of {self.capture.trace}: {len(self.rtts)} pings>"

    def __str__(self) -> str:
        from maceproc.reporting.report import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from maceproc.reporting.notebook import analysis_html

        return analysis_html(self)


def analyze(
    path: str | os.PathLike[str],
    *,
    ping: str | os.PathLike[str] | None = None,
    inner: str = "",
    outer: str = "",
    peer: str = "",
) -> Analysis:
    """Follow every packet of a capture and correct the RTT of every ping.

    Raises CaptureError or TraceFormatError when the capture cannot be read, AnalysisError when
    its events do not allow the analysis.

    Parameters
    ----------
    path
        A trace.dat, with its sidecar where `maceproc record` wrote one; or ftrace text.
    ping
        What the ping printed, where no sidecar says so; several runs may follow one another.
    inner, outer, peer
        The container's device, the outer device, and the other end of the container's veth pair,
        where no sidecar says so. Without `peer` it is learnt from the events.
    """
    capture = open_capture(Path(path))
    LOG.info("reading %s", capture.trace)
    trace = _read(capture.trace)
    require_fields(capture.trace, trace)
    # The file is read again for this now, while no other table takes memory.
    times = observer.times_by_cpu(_all_events(capture, trace))
    LOG.info("following the packets of %d events", sum(map(len, trace.events.values())))
    hops, crossed, printed, rtts, outputs = follow_pings(
        capture, trace, ping=ping, inner=inner, outer=outer, peer=peer
    )
    LOG.info("summarizing %d pings and %d hops of packets", len(rtts), len(hops))
    rtts["causes"] = causes.label_causes(rtts, hops, crossed, trace.events)
    series = perturbation.summarize(rtts)
    runs = capture.sidecar.runs if capture.sidecar else ()
    comparisons = perturbation.compare(rtts, runs)
    findings = checks.find_doubts(capture.sidecar, trace, rtts, comparisons, outputs)
    steps = crossings.steps_of(hops, crossed, rtts)
    observed = observer.count_events(rtts, hops, times)
    return Analysis(
        capture,
        trace,
        hops,
        crossed,
        printed,
        rtts,
        steps,
        series,
        comparisons,
        findings,
        observed,
        observer.summarize(observed, series, comparisons),
    )


class Followed(NamedTuple):
    """Every packet followed, and every ping that could be given its packets."""

    hops: pd.DataFrame
    crossings: pd.DataFrame
    pings: pd.DataFrame
    rtts: pd.DataFrame
    outputs: list[tuple[Run, pings.PingOutput]]


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

    The parameters are those of `analyze`; `trace` holds the events of `capture`, or some of them.
    """
    sidecar = capture.sidecar
    recorded = _recorded_events(capture, trace)
    way = _path(sidecar, inner, outer, peer)
    links = crossings.links_of(sidecar)
    if way.crosses and not way.peer:
        unbounded = journeys.follow_packets(trace.events, recorded)
        found = crossings.find_crossings(unbounded, way, recorded)
        if sidecar and sidecar.target.transient:
            own = _peers_of_runs(found, sidecar)
            links = _with_pairs(links, way.inner, own)
        else:
            way = replace(way, peer=crossings.learn_peer(found, way.inner))
            links = journeys.Links(dead_ends=frozenset({(way.peer, way.inner)}))

    hops = journeys.follow_packets(trace.events, recorded, links)
    crossed = crossings.find_crossings(hops, way, recorded) if way.crosses else CROSSINGS.frame()
    if way.crosses and not way.peer:
        crossed = crossed[crossed["peer"].isin(own)].reset_index(drop=True)
    hops = crossings.name_namespaces(hops, crossed, sidecar)

    sends = matching.sends_table(trace.events, crossed)
    deliveries = matching.deliveries_table(trace.events)
    if ping is not None:
        runs = matching.runs_by_hand(pings.parse_ping(_text_of(Path(ping))), sends)
    else:
        runs = list(pings.parse_runs(sidecar.runs)) if sidecar else []
    passages = {"container": crossed}
    if any(run.traced and run.place == "native" for run, _ in runs):
        passages["native"] = crossings.find_passages(hops, way, crossed, links, recorded)
    printed = pings.pings_table(runs)
    rtts = rtt.rtts_table(
        printed, runs, sends, deliveries, passages, lost=trace.lost, mtu=_mtu(sidecar)
    )
    if not way.crosses:
        rtts = _left_alone(rtts)
    return Followed(hops, crossed, printed, rtts, runs)


def _left_alone(rtts: pd.DataFrame) -> pd.DataFrame:
    """Say of the pings of a container that there was nothing to correct."""
    alone = (rtts["arm"] == "container traced") & rtts["status"].isin(["incomplete", "ambiguous"])
    status = rtts["status"].astype("str").where(~alone, "uncrossed")
    reason = rtts["reason"].where(~alone, rtt.NO_CROSSING)
    return RTTS.frame(rtts.assign(status=status, reason=reason))


def _peers_of_runs(crossed: pd.DataFrame, sidecar: Sidecar) -> list[str]:
    """Return the veths of containers that were made for runs: those that no survey has seen."""
    whole = (crossed["direction"] == crossings.OUTBOUND) & (crossed["status"] == "complete")
    seen = {link.name for netns in sidecar.namespaces for link in netns.links}
    seen -= {sidecar.target.path[1].dev}  # that of a first container, or one that is shared
    return sorted(set(crossed["peer"][whole & ~crossed["softirq"]].astype(str)) - seen)


def _with_pairs(links: journeys.Links, inner: str, peers: list[str]) -> journeys.Links:
    """Return links with further pairs of the container's device."""
    return replace(
        links,
        pairs=links.pairs | {(inner, peer) for peer in peers} | {(peer, inner) for peer in peers},
        ports=links.ports | set(peers),
        known=links.known | set(peers),
        dead_ends=links.dead_ends | {(peer, inner) for peer in peers},
    )


def _read(path: Path) -> Trace:
    """Read the events of a trace.dat, or of ftrace text."""
    return (read_events if _is_binary(path) else read_text)(path, events=EVENTS_USED)


def _all_events(capture: Capture, used: Trace) -> Mapping[str, pd.DataFrame]:
    """Return every event with its time and CPU; of text only those used, it is slow to read.

    Where the sidecar says what was recorded, only what the analysis did not read yet is read.
    """
    if not _is_binary(capture.trace):
        return used.events
    if capture.sidecar is None:
        return read_events(capture.trace, fields=()).events
    recorded = capture.sidecar.tracing.events
    others = [name for name in recorded if name.rpartition(":")[2] not in EVENTS_USED]
    return {
        **used.events,
        **(read_events(capture.trace, others, fields=()).events if others else {}),
    }


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(TRACE_DAT_MAGIC)) == TRACE_DAT_MAGIC


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}", hint="give ping's output") from error


def _recorded_events(capture: Capture, trace: Trace) -> list[str]:
    """Return the events that were enabled, without their system; those seen when nobody says."""
    if capture.sidecar is None:
        return [name for name, table in trace.events.items() if len(table)]
    return [event.partition(":")[2] for event in capture.sidecar.tracing.events]


def _mtu(sidecar: Sidecar | None) -> int:
    """Return the MTU of the device the ping is sent on [bytes]; Ethernet's when not known."""
    link = sidecar.link(sidecar.target.path[0]) if sidecar and sidecar.target.path else None
    return (link and link.mtu) or ETHERNET_MTU


def _path(sidecar: Sidecar | None, inner: str, outer: str, peer: str) -> CrossingPath:
    """Return the devices to measure between, as given or as the sidecar says."""
    if sidecar and sidecar.target.path:
        known = CrossingPath.from_hops(sidecar.target.path)
        ends = [sidecar.link(hop) for hop in (sidecar.target.path[0], sidecar.target.path[-1])]
        inner_rx, outer_rx = (link.uses_netif_rx if link else None for link in ends)
        return replace(
            known,
            crosses=known.crosses and sidecar.target.crossing,
            inner=inner or known.inner,
            outer=outer or known.outer,
            # Where every run has a veth pair of its own, a run's task tells which one is its own.
            peer=peer or ("" if sidecar.target.transient else known.peer),
            inner_uses_netif_rx=inner_rx,
            outer_uses_netif_rx=outer_rx,
        )
    if not inner or not outer:
        raise AnalysisError(
            "the capture does not say which devices the ping passed",
            hint="name the container's device with --inner and the host's with --outer",
        )
    return CrossingPath(inner, outer, peer)
