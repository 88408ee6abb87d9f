"""The tables behind the pictures: one for each picture.

Matplotlib (`maceproc.reporting.plots`) and the report page (`maceproc.reporting.page`) draw these
and nothing else, so that every picture can be had as numbers: ``analysis.plot.ecdf()`` shows
``analysis.view.ecdf()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.following.coverage import traced_pings
from maceproc.following.perturbation import values_of
from maceproc.ledger import CROSSINGS as CROSSING_SEGMENTS
from maceproc.ledger import LEDGER, OUTER_QUEUE, RESIDUAL
from maceproc.reporting.explain import explain
from maceproc.schema import RTTS, Column, Table
from maceproc.series import ALL_SERIES, CORRECTED, DIFFERENCES, INBOUND, OUTBOUND

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

_SERIES = Column("series", "str", "", "raw, corrected, native, ...: the names of SERIES")
_AFTER = Column(
    "after_ns", "Int64", "ns", "printed so long after the first one; unknown without -D"
)
_RTT = Column("rtt_ns", "int64", "ns", "the RTT")
_STATUS = Column("status", "str", "", "status of the ping in RTTS")
_P95 = Column("p95_ns", "float64", "ns", "95th percentile")

RTT = Table(
    "rtt",
    "one RTT of one series",
    (
        _SERIES,
        RTTS["round"],
        RTTS["seq"],
        _AFTER,
        _RTT,
        _STATUS,
    ),
)

ECDF = Table(
    "ecdf",
    "one value of one series",
    (
        _SERIES,
        _RTT,
        Column("fraction", "float64", "", "part of the series that is not above it, 0 to 1"),
    ),
)

CROSSINGS = Table(
    "crossings",
    "one crossing of one corrected ping",
    (
        Column("direction", "str", "", "outbound or inbound, seen from the container"),
        RTTS["round"],
        RTTS["seq"],
        _AFTER,
        Column("latency_ns", "int64", "ns", "time between container and outer device"),
    ),
)

PATH = Table(
    "path",
    "one step of the usual ping, from the send call to the receive stamp",
    (
        Column("segment", "str", "", "segment of the ledger it is part of"),
        Column("start", "str", "", "where it begins"),
        Column("end", "str", "", "where it ends"),
        Column("used", "int64", "", "pings that took it"),
        Column("median_ns", "float64", "ns", "median"),
        _P95,
    ),
)

WATERFALL = Table(
    "waterfall",
    "one event of one ping",
    (
        Column("after_ns", "int64", "ns", "since the send call, or the first event seen"),
        Column("device", "str", "", "namespace:device"),
        Column("event", "str", "", "the kernel's name of the event"),
        Column("cpu", "Int64", "", "CPU it was recorded on"),
        Column("softirq", "boolean", "", "in softirq, not in the task's own system call"),
        Column("len", "Int64", "byte", "skb->len"),
        Column("segment", "str", "", "segment of the ledger that led here; empty outside the RTT"),
    ),
)

EXAMPLES = Table(
    "examples",
    "one ping worth a look",
    (
        Column("why", "str", "", "what it is an example of: median, slowest, ambiguous, ..."),
        RTTS["round"],
        RTTS["seq"],
        Column("rtt_ns", "Int64", "ns", "its RTT: as printed, or the kernel's when none was"),
        _STATUS,
    ),
)

LOST = Table(
    "lost",
    "one gap in the events of one CPU",
    (
        Column("cpu", "int32", "", "CPU whose events were lost"),
        Column("after_ns", "Int64", "ns", "begin, on the time axis of `RTT`; unknown at the start"),
        Column("until_ns", "Int64", "ns", "end, likewise; unknown at the end"),
        Column("count", "Int64", "", "number of events lost; unknown when the kernel did not say"),
    ),
)

PERTURBATION = Table(
    "perturbation",
    "one comparison in one round",
    (
        Column("comparison", "str", "", "perturbation, overhead or residual error"),
        RTTS["round"],
        Column("difference_ns", "float64", "ns", "difference of the round's medians"),
    ),
)

LEDGER_MEANS = Table(
    "ledger",
    "one segment of the mean corrected RTT",
    (
        Column("segment", "str", "", "name of the segment, in the order of the way"),
        Column("mean_ns", "float64", "ns", "mean over the corrected pings; they add up to the RTT"),
        _P95,
    ),
)

VIEWS = (RTT, ECDF, CROSSINGS, PATH, WATERFALL, EXAMPLES, LOST, PERTURBATION, LEDGER_MEANS)

EACH = 3  # examples of one kind


@dataclass(frozen=True)
class Views:
    """The tables behind the pictures of one analysis: ``analysis.view``."""

    analysis: Analysis

    def rtt(self) -> pd.DataFrame:
        """Return every RTT of every series in the order of time: `RTT`."""
        rtts = self.analysis.rtts
        after_ns = _after_ns(self.analysis)
        parts = []
        for series in ALL_SERIES:
            rows = rtts[(rtts["arm"] == series.arm) & rtts[series.column].notna()]
            columns = rows[["round", "seq", "status"]]
            times = {"after_ns": after_ns[rows.index], "rtt_ns": rows[series.column]}
            parts.append(columns.assign(series=series.name, **times))
        return RTT.frame(pd.concat(parts))

    def ecdf(self) -> pd.DataFrame:
        """Return the distribution of every series: `ECDF`."""
        rows = self.rtt().sort_values(["series", "rtt_ns"], kind="stable")
        group = rows.groupby("series", sort=False)["rtt_ns"]
        fraction = (group.cumcount() + 1) / group.transform("size")
        return ECDF.frame(rows.assign(fraction=fraction))

    def crossings(self) -> pd.DataFrame:
        """Return the crossings of all corrected pings: `CROSSINGS`."""
        rtts, after_ns = self.analysis.rtts, _after_ns(self.analysis)
        parts = []
        for segment in CROSSING_SEGMENTS:
            rows = rtts[rtts[segment.column].notna() & (rtts["status"] == "corrected")]
            times = {"after_ns": after_ns[rows.index], "latency_ns": rows[segment.column]}
            parts.append(rows[["round", "seq"]].assign(direction=segment.direction, **times))
        return CROSSINGS.frame(pd.concat(parts))

    def path(self) -> pd.DataFrame:
        """Return how long the usual corrected ping takes for each step of its way: `PATH`."""
        rtts, steps = traced_pings(self.analysis.rtts), self.analysis.steps
        corrected = rtts[rtts["status"].isin(["corrected", "native"])]
        rows: list[tuple[object, ...]] = []
        for segment in LEDGER:
            if segment.part == "inside":
                for step in steps[steps["segment"] == segment.name].itertuples():
                    times = (step.used, step.median_ns, step.p95_ns)
                    rows.append((segment.name, step.start, step.end, *times))
                continue
            values_ns = corrected[segment.column].dropna().astype("float64")
            if segment.start and len(values_ns):
                used, (median, p95) = len(values_ns), np.percentile(values_ns, [50, 95])
                if p95:  # a step takes 0 where its events were not recorded
                    rows.append((segment.name, segment.start, segment.end, used, median, p95))
        return PATH.from_rows(rows)

    def waterfall(self, seq: int | None = None, round: int | None = None) -> pd.DataFrame:  # noqa: A002
        """Return the events of one ping: `WATERFALL`; by default of the one nearest the median.

        Raises AnalysisError when there is no such ping.
        """
        if seq is None:
            seq, round = usual_ping(self.analysis)  # noqa: A001
        explained = explain(self.analysis, seq, round)
        events = explained.events
        segment = segments_at(explained.ping, events["after_ns"])
        return WATERFALL.frame(events.assign(device=_devices_of(events), segment=segment))

    def examples(self) -> pd.DataFrame:
        """Return pings worth a look: the usual, the extremes, those not corrected: `EXAMPLES`."""
        rtts = traced_pings(self.analysis.rtts)
        rtts = rtts.assign(rtt_ns=rtts["rtt_ns"].fillna(rtts["kernel_rtt_ns"]))
        settled = rtts[rtts["status"].isin(["corrected", "native"])]
        parts = []
        if len(settled):
            seq, number = usual_ping(self.analysis)
            usual = settled[(settled["seq"] == seq) & (settled["round"] == number)]
            by_rtt = settled.sort_values("rtt_ns", kind="stable")
            parts.append(usual.assign(why="median"))
            parts.append(by_rtt.iloc[: -EACH - 1 : -1].assign(why="slowest"))
            parts.append(by_rtt.iloc[:1].assign(why="fastest"))
        for column, why in LARGEST.items():
            values = settled[column].dropna().astype("int64")
            if values.any():
                parts.append(settled.loc[[values.idxmax()]].assign(why=why))
        for status in NOT_CORRECTED:
            parts.append(rtts[rtts["status"] == status].head(EACH).assign(why=status))
        if not parts:
            return EXAMPLES.frame()
        rows = pd.concat(parts)
        same = rows.groupby(["round", "seq"], sort=False)["why"]
        rows["why"] = same.transform(lambda reasons: ", ".join(dict.fromkeys(reasons)))
        return EXAMPLES.frame(rows.drop_duplicates(["round", "seq"]))

    def lost(self) -> pd.DataFrame:
        """Return where events were lost, on the time axis of `RTT`: `LOST`.

        Both ends of a gap are unknown where the offset between the trace clock and ping's clock is.
        """
        lost = self.analysis.trace.lost
        offset_ns = _axis_minus_trace_ns(self.analysis)
        ends = {"after_ns": lost["after_ns"] + offset_ns, "until_ns": lost["before_ns"] + offset_ns}
        return LOST.frame(lost[["cpu", "count"]].assign(**ends))

    def perturbation(self) -> pd.DataFrame:
        """Return the difference of medians round by round: `PERTURBATION`.

        Their mean and its interval are in ``analysis.comparisons``.
        """
        rows = []
        for name, series, against, _ in DIFFERENCES:
            mine, other = (
                values_of(self.analysis.rtts, part).groupby("round")["value_ns"].median()
                for part in (series, against)
            )
            both = (mine - other).dropna()
            rows += [(name, number, value) for number, value in both.items()]
        return PERTURBATION.from_rows(rows)

    def ledger(self) -> pd.DataFrame:
        """Return the segments of the mean corrected RTT: `LEDGER_MEANS`."""
        rtts = self.analysis.rtts
        corrected = rtts[rtts["status"] == "corrected"]
        if corrected.empty:
            return LEDGER_MEANS.frame()
        values = {part.name: corrected[part.column].astype("float64") for part in LEDGER}
        return LEDGER_MEANS.from_rows(
            [(name, value.mean(), value.quantile(0.95)) for name, value in values.items()]
        )


LARGEST = {
    OUTBOUND.column: "longest outbound crossing",
    INBOUND.column: "longest inbound crossing",
    OUTER_QUEUE.column: "longest in the outer queue",
    RESIDUAL.column: "largest residual",
}
NOT_CORRECTED = ("ambiguous", "incomplete", "unanswered", "unprinted", "error")


def segments_at(ping: pd.Series, after_ns: pd.Series) -> list[str]:
    """Return the segment of the ledger that contains each time after the send call [ns].

    A segment includes its end. The name is empty at the send call, after the receive stamp, and
    after a segment that is not known.
    """
    names, ends_ns, end_ns = [], [], 0
    for segment in LEDGER:
        nothing_to_cross = ping["status"] == "native" and segment.part == "inside"
        if segment.part == "unseen" or pd.isna(ping["sent_ns"]):
            break
        if pd.isna(ping[segment.column]) and not nothing_to_cross:
            break
        end_ns += 0 if nothing_to_cross else int(ping[segment.column])
        names.append(segment.name)
        ends_ns.append(end_ns)
    within = np.searchsorted(ends_ns, after_ns.to_numpy("int64"), side="left")
    ongoing = after_ns.to_numpy("int64") > 0
    names.append("")
    return [names[i] if late else "" for i, late in zip(within, ongoing, strict=True)]


def usual_ping(analysis: Analysis) -> tuple[int, int]:
    """Return icmp_seq and round of the corrected ping whose RTT is nearest the median.

    Raises AnalysisError when no ping was corrected.
    """
    rtts = traced_pings(analysis.rtts)
    corrected = rtts[rtts["status"].isin(["corrected", "native"])]
    if corrected.empty:
        raise AnalysisError("no ping could be corrected", hint="see the column `reason` of `rtts`")
    rtt_ns = corrected["rtt_ns"].fillna(corrected["kernel_rtt_ns"]).astype("float64")
    nearest = corrected.loc[(rtt_ns - rtt_ns.median()).abs().idxmin()]
    return int(nearest["seq"]), int(nearest["round"])


def has_series(analysis: Analysis, name: str = CORRECTED.name) -> bool:
    """Tell whether the analysis has a series of that name."""
    return bool((analysis.series["series"] == name).any())


def _after_ns(analysis: Analysis) -> pd.Series:
    """Return when each row of RTTS was printed, since the first one [ns]."""
    printed_ns = analysis.pings["received_at_ns"]
    return printed_ns - printed_ns.min()


def _axis_minus_trace_ns(analysis: Analysis) -> int | Any:
    """Return the offset from the trace clock to the time axis [ns]; NA when it is not known.

    The sidecar has the time of both clocks at the beginning of every run. Without a sidecar the
    offset is the median of printed time (`ping -D`) minus receive time stamp.
    """
    pings, rtts = analysis.pings, analysis.rtts
    start_ns = pings["received_at_ns"].min()
    if pd.isna(start_ns):
        return pd.NA
    runs = analysis.capture.sidecar.runs if analysis.capture.sidecar else []
    if runs:
        return runs[0].start_utc_ns - runs[0].start_ns - start_ns
    apart_ns = (pings["received_at_ns"] - rtts["received_ns"]).dropna()
    return int(apart_ns.median()) - start_ns if len(apart_ns) else pd.NA


def _devices_of(events: pd.DataFrame) -> list[str]:
    """Return namespace:device for every event.

    An event without a namespace, but with the device that its packet passed last, is still at that
    device. An event without a device, such as the freeing of a packet, is where its packet was
    last. A system call belongs to no packet: it gets the device of the event next to it.
    """
    last: dict[Any, str] = {}  # of each journey
    devices: list[str | None] = []
    for journey, netns, dev in events[["journey", "netns", "dev"]].itertuples(index=False):
        before = last.get(journey)
        if pd.isna(dev):
            device = before
        elif pd.notna(netns):
            device = f"{netns}:{dev}"
        else:
            device = before if before and before.endswith(f":{dev}") else str(dev)
        if device and pd.notna(journey):
            last[journey] = device
        devices.append(device)
    filled = pd.Series(devices, dtype=object).bfill().ffill()
    return [str(device) for device in filled.fillna("")]
