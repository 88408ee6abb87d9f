"""From a capture to corrected RTTs: the whole story as one short function."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from maceproc.capture import Capture, open_capture
from maceproc.following import causes, checks, journeys, perturbation
from maceproc.following import event_costs as observer
from maceproc.following.follow import EVENTS_USED, follow_pings
from maceproc.following.steps import steps_of
from maceproc.schema import Trace
from maceproc.tracedat import read_events
from maceproc.tracetext import read_text

if TYPE_CHECKING:
    from maceproc.reporting.plots import Plots
    from maceproc.reporting.views import Views

LOG = logging.getLogger("maceproc")

TRACE_DAT_MAGIC = b"\x17\x08\x44tracing"  # trace-cmd.dat.v7(5)


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
    LOG.info("following the packets of %d events", sum(map(len, trace.events.values())))
    hops, crossed, printed, rtts = follow_pings(
        capture, trace, ping=ping, inner=inner, outer=outer, peer=peer
    )
    LOG.info("summarizing %d pings and %d hops of packets", len(rtts), len(hops))
    rtts["causes"] = causes.label_causes(rtts, hops, crossed, trace.events)
    series = perturbation.summarize(rtts)
    runs = capture.sidecar.runs if capture.sidecar else ()
    comparisons = perturbation.compare(rtts, runs)
    findings = checks.find_doubts(capture.sidecar, trace, rtts, comparisons)
    steps = steps_of(hops, crossed, rtts)
    times = observer.times_by_cpu(_all_events(capture.trace, trace))
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


def _read(path: Path) -> Trace:
    """Read the events of a trace.dat, or of ftrace text."""
    return (read_events if _is_binary(path) else read_text)(path, events=EVENTS_USED)


def _all_events(path: Path, used: Trace) -> Mapping[str, pd.DataFrame]:
    """Return every event with its time and CPU; of text only those used, it is slow to read."""
    return read_events(path, fields=()).events if _is_binary(path) else used.events


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(TRACE_DAT_MAGIC)) == TRACE_DAT_MAGIC
