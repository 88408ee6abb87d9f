"""Reasons to doubt a result, and what to do about each.

Levels of a finding: a `problem` means that a number may be wrong or is missing; a `warning` means
that a number says less than it seems to; a `note` tells how a number was obtained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from maceproc.capture import NativeProgram, Run, Sidecar
from maceproc.following.echo_doubts import doubts_of_echoes
from maceproc.following.losses import losses
from maceproc.pings import PingOutput
from maceproc.schema import FINDINGS, Trace
from maceproc.statistics import ROUNDS_TO_RESAMPLE
from maceproc.units import NS_PER_US, format_share, format_us


class Finding(NamedTuple):
    """One finding; the columns of FINDINGS."""

    finding: str
    level: str
    message: str
    advice: str


RESIDUAL_BAND_NS = 3 * NS_PER_US
GOOD_COVERAGE = 0.99
ROUNDS_MAY_DIFFER = 0.2  # range of a baseline arm's medians by their median; above: drift
LARGE_LEFT = 0.2  # share of the container's overhead above which the rest is large
GLOBAL_CLOCKS = ("mono", "mono_raw", "boot", "tai", "global", "perf", "x86-tsc", "tsc2nsec")


def find_doubts(
    sidecar: Sidecar | None,
    trace: Trace,
    rtts: pd.DataFrame,
    comparisons: pd.DataFrame,
    outputs: Sequence[tuple[Run, PingOutput]] = (),
    others: Iterable[Finding] = (),
) -> pd.DataFrame:
    """Return FINDINGS about one analyzed capture, the gravest first.

    `outputs` is what every run of the ping printed; `others` are findings from elsewhere.
    """
    findings: list[Finding] = [
        *_from_the_trace(trace, sidecar),
        *(_from_the_sidecar(sidecar) if sidecar else ()),
        *_from_the_text([output for _, output in outputs]),
        *_from_the_numbers(outputs, rtts),
        *_from_coverage(rtts),
        *_from_residuals(rtts[rtts["matched_by"] != "identity"]),
        *_from_comparisons(comparisons, rtts),
        *_from_drift(rtts),
        *others,
    ]
    gravity = ["problem", "warning", "note"]
    findings.sort(key=lambda finding: gravity.index(finding.level))
    return FINDINGS.from_rows(findings)


def _from_the_trace(trace: Trace, sidecar: Sidecar | None) -> Iterator[Finding]:
    for note in trace.notes:
        yield Finding("trace file", "problem", note, "record again, or use what is whole")
    lost = losses(trace, sidecar).sentence
    if lost:
        yield Finding(
            "lost events",
            "warning",
            f"{lost}: the ring buffer was full",
            "record with a larger --buffer-kb, or fewer --events",
        )
    if trace.clock and trace.clock not in GLOBAL_CLOCKS:
        yield Finding(
            "clock",
            "problem",
            f"the trace clock {trace.clock!r} is not synchronized between CPUs: a packet that "
            "changed CPU may seem to go back in time",
            "record with the clock `mono` (trace-cmd record -C mono)",
        )


def _from_the_sidecar(sidecar: Sidecar) -> Iterator[Finding]:
    if sidecar.interrupted:
        yield Finding(
            "interrupted",
            "warning",
            f"the recording ended early: {sidecar.interrupted}",
            "rounds may be incomplete; record again for a balanced comparison",
        )
    for problem in sidecar.tracing.problems:
        yield Finding("incomplete trace", "problem", problem, "record again, or use what is whole")
    missing = sum(sidecar.tracing.events_missing.values())
    if missing and not sidecar.tracing.problems:
        yield Finding(
            "incomplete trace",
            "problem",
            f"the kernel recorded {missing} events that the trace does not hold",
            "record again, or use what is whole",
        )
    yield from (Finding(*doubt) for doubt in doubts_of_echoes(sidecar.tracing))
    for note in (*sidecar.target.notes, *sidecar.notes):
        yield Finding("recording", "note", note, "")
    yield from _from_the_native_program(sidecar.native)
    cut = sum(run.cut for run in sidecar.runs)
    if cut:
        yield Finding(
            "output cut",
            "problem",
            f"{cut} of {len(sidecar.runs)} runs printed more than is kept: pings are missing",
            "send fewer pings in a run, or more rounds of fewer",
        )
    failed = [run for run in sidecar.runs if run.exit_status not in (0, 1, None)]
    for run in failed[:1]:
        yield Finding(
            "failed runs",
            "problem",
            f"{len(failed)} of {len(sidecar.runs)} runs of the command failed, first: "
            f"{' '.join(run.argv)}: {run.errors.strip() or run.exit_status}",
            "run the command by hand in the same place",
        )
    if not any(run.traced for run in sidecar.runs):
        yield Finding("nothing traced", "problem", "no run was traced", "record again")


def _from_the_text(outputs: Sequence[PingOutput]) -> Iterator[Finding]:
    """Doubt how the output of the pings was read."""
    advice = "`maceproc pings` with the same file shows how its runs were read"
    misread = [output for output in outputs if output.not_understood]
    if misread:
        lines = sum(output.not_understood for output in misread)
        lines_were = "1 line was" if lines == 1 else f"{lines} lines were"
        first = misread[0].refused or repr(misread[0].not_understood_first[0])
        yield Finding(
            "ping's output",
            "warning",
            f"{lines_were} not understood, in {len(misread)} of {len(outputs)} outputs, "
            f"first: {first}",
            advice,
        )
    remarks = dict.fromkeys(remark for output in outputs for remark in output.remarks)
    for remark in [remark for remark in remarks if not remark.startswith("it said: ")][:5]:
        yield Finding("ping's output", "note", remark, advice)


def _from_the_numbers(
    outputs: Sequence[tuple[Run, PingOutput]], rtts: pd.DataFrame
) -> Iterator[Finding]:
    """Name the runs of which neither text nor packets tell the number of the first ping."""
    unknown = rtts[rtts["rule"] == "first-number-unknown"]
    runs = set(zip(unknown["round"], unknown["arm"], unknown["target"], strict=True))
    if not runs:
        return
    why = [o.flavour_why for run, o in outputs if (run.round, run.arm, o.target) in runs]
    yield Finding(
        "numbering",
        "problem",
        f"whether ping counted from 0 or 1 is not known in {len(runs)} of {len(outputs)} "
        f"outputs: {why[0] if why else 'neither text nor packets tell'}",
        "`maceproc pings` with the same file shows how its runs were read; record with the whole "
        "output of the ping",
    )


def _from_the_native_program(native: NativeProgram | None) -> Iterator[Finding]:
    """Tell which program ran natively; warn if it is of another kind than the container's."""
    if native is None:
        return
    ours, theirs = native.kind, native.container_kind
    another = native.by == "host" and not native.same_file and ours != theirs
    yield Finding(
        "native program",
        "warning" if another else "note",
        f"the native runs are of {native.sentence}",
        "record with --native image to compare with the container's own program: its image then "
        "sees the host's network"
        if another
        else "",
    )


def _from_coverage(rtts: pd.DataFrame) -> Iterator[Finding]:
    """Name the traced arms of which answered pings could not be followed.

    Results are of the container's pings, or of the native ones where there are no others. Native
    pings beside the container's only calibrate: those that are missing are no problem.
    """
    arms = [arm for arm in ("container traced", "native traced") if (rtts["arm"] == arm).any()]
    rows = rtts[rtts["rtt_ns"].notna() & (rtts["status"] != "duplicate")]
    if (rows.loc[rows["arm"].isin(arms), "status"] == "uncrossed").any():
        yield Finding(
            "no crossing",
            "note",
            "the path has no crossing that can be seen: nothing was corrected, RTTs are those that "
            "ping printed",
            "",
        )
        return
    for arm in arms:
        answered = rows[rows["arm"] == arm]
        matched = answered["status"].isin(["corrected", "native"])
        if answered.empty or matched.mean() >= GOOD_COVERAGE:
            continue
        reasons = answered.loc[~matched, "reason"].value_counts()
        yield Finding(
            "coverage",
            "problem" if arm == arms[0] and matched.mean() <= 0.9 else "warning",
            f"only {matched.sum()} of {len(answered)} answered {arm} pings could be "
            f"{'corrected' if arm == 'container traced' else 'followed'}; most often: "
            f"{reasons.index[0]} ({reasons.iloc[0]})",
            "see the column `reason` of the table `rtts`",
        )


def _from_residuals(rtts: pd.DataFrame) -> Iterator[Finding]:
    """Doubt the residuals; those of pings by identity hold the send call and delivery too."""
    residual_ns = rtts["residual_ns"].dropna().astype("float64")
    step_ns = rtts.loc[residual_ns.index, "rtt_resolution_ns"].astype("float64")
    if residual_ns.empty:
        return
    near = (residual_ns - residual_ns.median()).abs() <= RESIDUAL_BAND_NS + step_ns / 2
    if near.mean() < GOOD_COVERAGE:
        yield Finding(
            "residual",
            "warning",
            f"printed RTT and kernel events agree within {format_us(RESIDUAL_BAND_NS)} us in only "
            f"{format_share(near.mean(), 1)} of the pings",
            "ping was held up between its time stamp and its send call: is the machine busy?",
        )
    if step_ns.median() > NS_PER_US:
        yield Finding(
            "print resolution",
            "note",
            f"ping printed RTTs in steps of {format_us(step_ns.median())} us: "
            f"{(rtts['rtt_basis'] == 'kernel').sum()} of {rtts['rtt_basis'].notna().sum()} "
            "corrected RTTs are based on the kernel's RTT, which has nanoseconds, instead",
            "see the columns `rtt_basis` and `kernel_rtt_ns` of the table `rtts`",
        )


def _from_comparisons(comparisons: pd.DataFrame, rtts: pd.DataFrame) -> Iterator[Finding]:
    untraced = rtts["arm"].astype(str).str.endswith("untraced").any()
    if comparisons.empty:
        yield Finding(
            "no baseline",
            "note",
            "what tracing cost is not known: "
            + ("no untraced run printed RTTs" if untraced else "only traced runs"),
            "" if untraced else "record without --no-baseline",
        )
    elif comparisons["rounds"].max() < ROUNDS_TO_RESAMPLE:
        yield Finding(
            "few rounds",
            "warning",
            f"{comparisons['rounds'].max()} rounds prove little: the intervals come from the "
            "pings within a round and do not know about drift between rounds",
            f"record with --rounds {ROUNDS_TO_RESAMPLE} or more",
        )
    for row in comparisons[comparisons["refused"] != ""].itertuples():
        yield Finding(
            "drift",
            "problem",
            f"{row.comparison} is no evidence: {row.refused}",
            "record on a quieter machine, or more and shorter rounds",
        )
    yield from _from_what_is_left(comparisons)
    if "native untraced" not in set(rtts["arm"]) and "container traced" in set(rtts["arm"]):
        yield Finding(
            "no native ping",
            "note",
            "the same ping was not run from the host: nothing to hold the corrected RTT against",
            "",
        )


def _from_what_is_left(comparisons: pd.DataFrame) -> Iterator[Finding]:
    by_name = comparisons.set_index("comparison")
    if "corrected - native" not in by_name.index:
        return
    row = by_name.loc["corrected - native"]
    told = row["low_ns"] > 0 or row["high_ns"] < 0
    if not told:
        return
    share = math.nan
    if "container overhead" in by_name.index and by_name.loc["container overhead", "low_ns"] > 0:
        share = abs(row["estimate_ns"]) / by_name.loc["container overhead", "estimate_ns"]
    yield Finding(
        "corrected is not native",
        "warning" if share > LARGE_LEFT else "note",
        f"the median bare-metal RTT is {format_us(row['estimate_ns'], signed=True)} us from the "
        f"native one, 95 % interval {format_us(row['low_ns'], signed=True)} to "
        f"{format_us(row['high_ns'], signed=True)}"
        + ("" if math.isnan(share) else f": {format_share(share)} of the container's overhead"),
        "bare_metal_rtt_ns is that of a machine without this host's own rules, while traced; "
        "native_rtt_ns is what this host's own ping would have printed",
    )


def _from_drift(rtts: pd.DataFrame) -> Iterator[Finding]:
    untraced = rtts[rtts["arm"].isin(["container untraced", "native untraced"])]
    for arm, rows in untraced.groupby("arm", observed=True):
        medians_ns = rows.dropna(subset=["rtt_ns"]).groupby("round")["rtt_ns"].median()
        spread = np.ptp(medians_ns) / medians_ns.median() if len(medians_ns) > 1 else 0.0
        if spread > ROUNDS_MAY_DIFFER:
            yield Finding(
                "drift",
                "warning",
                f"the medians of {arm} differ by {format_share(spread)} between rounds: the "
                "machine was not the same throughout",
                "record on a quieter machine, or more and shorter rounds",
            )
