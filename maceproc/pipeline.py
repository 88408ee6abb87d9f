"""From a capture to corrected RTTs: the whole story as one short function."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from maceproc import checks, crossings, journeys, matching, perturbation, pings, rtt
from maceproc.capture import Capture, Sidecar, Target, open_capture
from maceproc.crossings import Path as CrossingPath
from maceproc.errors import AnalysisError
from maceproc.schema import Trace
from maceproc.tracedat import read_events

ETHERNET_MTU = 1500

# What the analysis uses of a trace; other events stay in the file.
EVENTS_USED = (*journeys.HOP_EVENTS, *matching.SEND_CALLS, *matching.RECEIVE_CALLS)


@dataclass(frozen=True)
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

    @property
    def journeys(self) -> pd.DataFrame:
        """The JOURNEYS table, a row per packet."""
        return journeys.journeys_table(self.hops)

    def as_dict(self) -> dict[str, Any]:
        """Return what `maceproc analyze --json` prints; see `maceproc.report.as_json`."""
        from maceproc.report import as_dict

        return as_dict(self)

    def __str__(self) -> str:
        from maceproc.report import as_text

        return as_text(self)


def analyze(
    path: str | os.PathLike[str], *, inner: str | None = None, outer: str | None = None
) -> Analysis:
    """Follow every packet of a capture and correct the RTT of every ping.

    `inner` and `outer` name the container's device and the outer device; they are needed only
    where there is no sidecar that says so, and override it where there is one.

    Raises CaptureError or TraceFormatError when the capture cannot be read, AnalysisError when
    its events do not allow the analysis.
    """
    capture = open_capture(Path(path))
    trace = read_events(capture.trace, events=EVENTS_USED)
    sidecar = capture.sidecar
    recorded = _recorded_events(capture, trace)
    way = _path(sidecar.target if sidecar else None, inner, outer)

    hops = journeys.follow_packets(trace.events, recorded, crossings.dead_ends(sidecar))
    passages = crossings.find_all(hops, way, recorded)
    hops = crossings.name_namespaces(hops, passages["container"], sidecar)

    runs = list(pings.parse_runs(sidecar.runs)) if sidecar else []
    printed = pings.pings_table(runs)
    sends = matching.sends_table(trace.events)
    deliveries = matching.deliveries_table(trace.events)
    rtts = rtt.rtts_table(printed, runs, sends, deliveries, passages, _mtu(sidecar))

    series = perturbation.summarize(rtts)
    comparisons = perturbation.compare(rtts)
    findings = checks.find_doubts(sidecar, trace, rtts, comparisons)
    steps = crossings.steps_of(hops, passages["container"], rtts)
    return Analysis(
        capture, trace, hops, passages["container"], printed, rtts, steps, series, comparisons,
        findings,
    )  # fmt: skip


def _recorded_events(capture: Capture, trace: Trace) -> list[str]:
    """Return the events that were enabled, without their system; those seen when nobody says."""
    if capture.sidecar is None:
        return list(trace.events)
    return [event.partition(":")[2] for event in capture.sidecar.tracing.events]


def _mtu(sidecar: Sidecar | None) -> int:
    """Return the MTU of the device the ping is sent on [bytes]; Ethernet's when not known."""
    first = sidecar.target.path[0] if sidecar and sidecar.target.path else None
    for namespace in sidecar.namespaces if sidecar else ():
        for link in namespace.links:
            if first and (namespace.name, link.name) == (first.netns, first.dev) and link.mtu:
                return link.mtu
    return ETHERNET_MTU


def _path(target: Target | None, inner: str | None, outer: str | None) -> CrossingPath:
    """Return the devices to measure between, as given or as the sidecar says."""
    known = CrossingPath.from_hops(target.path) if target and target.path else None
    if known and inner is None and outer is None:
        return known
    if known:
        inner, outer = inner or known.inner, outer or known.outer
    if inner is None or outer is None:
        raise AnalysisError(
            "the capture does not say which devices the ping passed",
            hint="name the container's device with --inner and the host's with --outer",
        )
    return CrossingPath(inner, outer)
