"""From a capture to corrected RTTs: `analyze` calls the stages in their order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maceproc.analysis import Analysis as AnalysisTables
from maceproc.calibration import Calibration, load_calibration
from maceproc.capture_files import Capture, echoes_path, open_capture
from maceproc.echoes import is_echo_file, read_echo_file
from maceproc.errors import AnalysisError
from maceproc.following import causes, checks, event_costs, perturbation
from maceproc.following.by_identity import follow_echoes
from maceproc.following.calibrating import find_native
from maceproc.following.copies import copy_findings
from maceproc.following.event_fields import device_names, require_devices, require_fields
from maceproc.following.follow import EVENTS_USED, Followed, follow_pings
from maceproc.following.lost_pings import loss_doubts
from maceproc.following.native_doubts import native_doubts
from maceproc.following.native_rtt import add_native_rtt
from maceproc.following.settling import settle
from maceproc.following.sightings import check_by_sightings
from maceproc.following.steps import steps_of
from maceproc.following.windowed import follow_in_windows, read_ahead, spans_of
from maceproc.retis import RetisEvents, read_retis
from maceproc.schema import EVENTS_ON_PATH, RTTS, Trace
from maceproc.traces import read_other_times, read_trace, require_cpus, windows_for

if TYPE_CHECKING:
    import pandas as pd

    from maceproc.reporting.plots import Plots
    from maceproc.reporting.views import Views
    from maceproc.tracedat.windows import Window

LOG = logging.getLogger("maceproc")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Analysis(AnalysisTables):
    """An analyzed capture: its tables, and ways to show them.

    The tables are those of `maceproc.analysis.Analysis`; `maceproc.schema` describes their columns.
    All times are int64 ns.
    """

    @property
    def view(self) -> Views:
        """The tables behind the pictures: ``view.rtt()``; see `maceproc.reporting.views`."""
        from maceproc.reporting.views import Views

        return Views(self)

    @property
    def plot(self) -> Plots:
        """The pictures, such as ``plot.rtt()``; see `maceproc.reporting.plots`.

        >>> a = analyze("trace.dat")                                          # doctest: +SKIP
        >>> a.plot.rtt().figure.savefig("rtt.png")                            # doctest: +SKIP
        """
        from maceproc.reporting.plots import Plots

        return Plots(self)

    def utc(self) -> pd.DataFrame:
        """Return when every ping was sent and received, in UTC; see `maceproc.reporting.utc`.

        >>> a = analyze("trace.dat")                              # doctest: +SKIP
        >>> a.utc().set_index("sent_at")["bare_metal_rtt_ns"]     # doctest: +SKIP
        """
        from maceproc.reporting.utc import utc_times

        return utc_times(self)

    def ping_steps(self) -> pd.DataFrame:
        """Return every step of every followed ping; see `maceproc.reporting.ping_steps`.

        >>> a = analyze("trace.dat")                                       # doctest: +SKIP
        >>> a.ping_steps().groupby("segment")["took_ns"].describe()        # doctest: +SKIP
        """
        from maceproc.reporting.ping_steps import ping_steps

        return ping_steps(self)

    def as_dict(self) -> dict[str, Any]:
        """Return what `maceproc analyze --json` prints; see `maceproc.reporting.document`."""
        from maceproc.reporting.document import as_dict

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
    calibration: str | os.PathLike[str] | Calibration | None = None,
    memory: int | None = None,
    witness: str | os.PathLike[str] | None = None,
) -> Analysis:
    """Follow every packet of a capture and correct the RTT of every ping.

    Raises CaptureError or TraceFormatError when the capture cannot be read, AnalysisError when
    its events do not allow the analysis.

    >>> analyze("trace.dat").rtts[["seq", "bare_metal_rtt_ns", "status"]]     # doctest: +SKIP

    Parameters
    ----------
    path
        A trace.dat, with its sidecar where `maceproc record` wrote one; or ftrace text.
    ping
        What the ping printed, where no sidecar says so; several runs may follow one another.
    inner, outer, peer
        The container's device, the outer device, and the other end of the container's veth pair,
        where no sidecar says so. Without `peer` it is learnt from the events.
    calibration
        A calibration, or its file, that gives `native_rtt_ns` instead of the capture's own natives;
        by default the one that the sidecar holds.
    memory
        How much to take [bytes], by default half of what is free: a trace that needs more is read
        in windows of time, and hops and crossings hold the packets of the pings alone.
    witness
        Events of retis from the same time (`maceproc.retis`): every match is checked by what they
        saw in the packets; refuted ones are `ambiguous`. The trace is read whole then.
    """
    seen = None if witness is None else read_retis(Path(witness))
    capture = open_capture(Path(path))
    LOG.info("reading %s", capture.trace)
    windows = windows_for(capture.trace, memory) if ping is None and seen is None else []
    devices = {"inner": inner, "outer": outer, "peer": peer}
    if is_echo_file(capture.trace):
        return _analyze_echoes(capture, seen, _given(calibration), **devices)
    if found := _analyze_in_windows(capture, windows, _given(calibration), **devices):
        return found
    return _analyze_whole(capture, ping, seen, _given(calibration), **devices)


def _analyze_whole(
    capture: Capture,
    ping: str | os.PathLike[str] | None,
    seen: RetisEvents | None,
    calibration: Calibration | None,
    **devices: str,
) -> Analysis:
    """Analyze a capture of events that fits into memory."""
    # The file is read for this alone first, while no other table takes memory.
    recorded = capture.sidecar.tracing.events if capture.sidecar else None
    others = read_other_times(capture.trace, EVENTS_USED, recorded)
    trace = read_trace(capture.trace, EVENTS_USED)
    require_cpus(capture.trace, trace)
    require_fields(capture.trace, trace)
    require_devices(capture.trace, _unknown(capture, devices), device_names(trace))
    times = event_costs.times_by_cpu({**trace.events, **others})
    del others
    LOG.info("following the packets of %d events", sum(map(len, trace.events.values())))
    followed = follow_pings(capture, trace, ping=ping, **devices)
    LOG.info("summarizing %d pings and %d hops of packets", len(followed.rtts), len(followed.hops))
    followed, settled = _identify(capture, trace, followed, seen)
    on_path = _count_events(capture, followed, [times])
    return _summarize(capture, trace, on_path, followed, calibration, settled)


def _analyze_echoes(
    capture: Capture,
    seen: RetisEvents | None,
    calibration: Calibration | None,
    **devices: str,
) -> Analysis:
    """Analyze a capture by the tracer in the kernel."""
    if given := [f"--{role}" for role, name in devices.items() if name]:
        raise AnalysisError(
            f"{capture.trace}: its tracer watched the devices of the path alone",
            hint=f"analyze it without {' and '.join(given)}",
        )
    if seen is not None:
        raise AnalysisError(
            f"{capture.trace}: its tracer wrote itself which packets are whose",
            hint="analyze it without --witness",
        )
    trace, followed = follow_echoes(capture)
    on_path = _count_events(capture, followed, [])
    return _summarize(capture, trace, on_path, followed, calibration)


def _analyze_in_windows(
    capture: Capture,
    windows: Sequence[Window],
    calibration: Calibration | None,
    **devices: str,
) -> Analysis | None:
    """Analyze a capture window by window; None without any, or if it cannot give the same."""
    path = capture.trace
    if not windows:
        return None
    named, told = _unknown(capture, devices), set[str]()

    def read(window: Window) -> Trace:
        trace = read_trace(path, EVENTS_USED, *window)
        require_fields(path, trace)
        if named:
            told.update(device_names(trace))
        return trace

    found = follow_in_windows(capture, windows, read, **devices)
    if found is None or capture.sidecar is None:
        return None
    require_devices(path, named, told)
    trace, followed = found
    spans = spans_of(capture.sidecar)
    during = [w for w in windows if any(_meets(w, span) for span in spans)]
    recorded = [event.rpartition(":")[2] for event in capture.sidecar.tracing.events]
    each = (
        event_costs.times_by_cpu(part.events)
        for part in read_ahead(during, lambda w: read_trace(path, recorded, *w, fields=()))
    )
    followed, settled = _identify(capture, trace, followed, None)
    on_path = _count_events(capture, followed, each)
    return _summarize(capture, trace, on_path, followed, calibration, settled)


def _unknown(capture: Capture, devices: Mapping[str, str]) -> list[str]:
    """Return the devices given by hand that are not on the path of the capture."""
    path = capture.sidecar.target.path if capture.sidecar else []
    return [name for name in devices.values() if name and name not in [hop.dev for hop in path]]


def _identify(
    capture: Capture, trace: Trace, followed: Followed, seen: RetisEvents | None
) -> tuple[Followed, list[tuple[str, str, str, str]]]:
    """Settle and check matches by what the packets carry, where another tracer wrote that."""
    told: list[tuple[str, str, str, str]] = []
    if capture.sidecar and capture.sidecar.tracing.tracer == "ftrace+bpf":
        rows = read_echo_file(echoes_path(capture.trace)).rows
        rtts, told = settle(followed, capture.sidecar, rows)
        followed = followed._replace(rtts=rtts)
    if seen is not None:
        followed, witnessed = check_by_sightings(followed, trace, seen)
        told = [*told, *witnessed]
    return followed, told


def _meets(window: Window, span: tuple[int, int]) -> bool:
    start_ns, end_ns = span
    begins = window.end_ns is None or start_ns < window.end_ns
    return begins and (window.start_ns is None or end_ns >= window.start_ns)


def _count_events(
    capture: Capture, followed: Followed, times: Iterable[Mapping[int, event_costs.Times]]
) -> pd.DataFrame:
    """Count the events on the path of every ping, given the times of all, in one or more parts."""
    # Programs in the kernel record no events that could be counted; untraced runs tell their cost.
    if capture.sidecar is not None and capture.sidecar.tracing.tracer == "bpf":
        return EVENTS_ON_PATH.frame()
    total = event_costs.count_events(followed.rtts, followed.hops, {})
    counts = [name for name in EVENTS_ON_PATH.names if name.startswith("events")]
    for part in times:
        total[counts] += event_costs.count_events(followed.rtts, followed.hops, part)[counts]
    return total


def _given(calibration: str | os.PathLike[str] | Calibration | None) -> Calibration | None:
    if calibration is None or isinstance(calibration, Calibration):
        return calibration
    return load_calibration(Path(calibration))


def _summarize(
    capture: Capture,
    trace: Trace,
    on_path: pd.DataFrame,
    followed: Followed,
    calibration: Calibration | None,
    settled: Iterable[tuple[str, str, str, str]] = (),
) -> Analysis:
    """Describe the corrected pings: what they show, what it cost, and what to doubt."""
    hops, crossed, printed, rtts, outputs = followed
    rtts["causes"] = causes.label_causes(rtts, hops, crossed, trace.events)
    runs = capture.sidecar.runs if capture.sidecar else ()
    by_bpf = capture.sidecar is not None and capture.sidecar.tracing.tracer == "bpf"
    points = event_costs.points_on_path(rtts, hops) if by_bpf else on_path
    native = find_native(capture, rtts, points, calibration)
    rtts = RTTS.frame(add_native_rtt(rtts, native.correction))
    series = perturbation.summarize(rtts)
    comparisons = perturbation.compare(rtts, runs)
    others = [
        *starmap(checks.Finding, (*settled, *copy_findings(hops, rtts))),
        *loss_doubts(printed, rtts, hops),
        *native_doubts(capture.sidecar, native),
    ]
    findings = checks.find_doubts(capture.sidecar, trace, rtts, comparisons, outputs, others)
    return Analysis(
        capture=capture,
        trace=trace,
        hops=hops,
        crossings=crossed,
        pings=printed,
        rtts=rtts,
        steps=steps_of(hops, crossed, rtts),
        series=series,
        comparisons=comparisons,
        findings=findings,
        events_on_path=on_path,
        event_costs=event_costs.summarize(on_path, series, comparisons),
        native=native,
    )
