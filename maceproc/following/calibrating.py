"""Choose what makes `native_rtt_ns` of a capture, and judge what it leaves.

If a calibration was given and is valid, it is used. Otherwise the native arms of the capture itself
are used. Native pings never judge a correction that they made: where a capture corrects itself, one
half of its rounds makes the correction and the other half judges it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from maceproc import __version__
from maceproc.calibration import Calibration, Measured
from maceproc.capture import Sidecar
from maceproc.capture_files import Capture
from maceproc.errors import AnalysisError
from maceproc.following import native_rtt
from maceproc.following.conditions import Difference, conditions_of, differences
from maceproc.following.native_rounds import (
    SIGNS,
    TERMS,
    Rounds,
    container_path,
    corrected_by_round,
    rounds_of,
)
from maceproc.following.native_rtt import Correction
from maceproc.schema import CLOSURE
from maceproc.statistics import NOTHING, Estimate

ITSELF, CALIBRATION = "its own natives", "a calibration"
RECORD_NATIVES = (
    "record with the native arms (without --no-baseline, from where the host can ping the target), "
    "or make a calibration with `maceproc calibrate` and give it: analyze --calibration FILE"
)

CORRECTED_LEAVES, REST, ADDED = "corrected - native", "rest", "added"
LEFT = "native RTT - native"
LARGE_SHARE = 0.2  # of the overhead; when more than this is left over, a finding warns
MEANING = {
    CORRECTED_LEAVES: "what taking the crossings out leaves: the sum of the next four",
    "host's part": "a native ping pays the host's rules and routing before its first event",
    "tracing outside": "the events outside the crossings cost time that stays in",
    "wire": "container - native: longer or shorter beside a native ping",
    REST: "medians of parts do not add up to that of the whole",
    ADDED: "to every corrected RTT, to make it this host's own ping's",
    LEFT: "what that leaves",
}


@dataclass(frozen=True)
class Native:
    """How `native_rtt_ns` came about.

    Attributes
    ----------
    source
        `ITSELF`, `CALIBRATION`, or empty where there is no native RTT: then `missing` says why.
    missing
        Why there is no native RTT, in words; empty where there is.
    correction
        The correction that was added to the RTTs; None where there is none.
    median
        The native RTT's median, with the joint uncertainty of rounds and correction.
    left
        Native RTT - native, judged by natives that did not make it; `NOTHING` where none could.
    rounds
        What this capture's own natives say.
    own
        What they say, as a measurement for a calibration; None where there are too few rounds.
    closure
        The `CLOSURE` table.
    doubts
        The conditions in which the capture differs from what the calibration was made for.
    calibration
        The one that was given; None when none was.
    container_path_ns
        How warm the machine was: `maceproc.following.native_rounds.container_path`.
    """

    source: str
    missing: str
    correction: Correction | None
    median: Estimate
    left: Estimate
    rounds: Rounds
    own: Measured | None
    closure: pd.DataFrame
    doubts: tuple[Difference, ...]
    calibration: Calibration | None
    container_path_ns: float

    @property
    def held(self) -> bool:
        """Whether natives that did not make it found little of the overhead left in it."""
        if self.correction is None:
            return False
        shares = self.closure.loc[self.closure["term"] == LEFT, "share"]
        return bool((shares.abs() <= LARGE_SHARE).any())


def find_native(
    capture: Capture, rtts: pd.DataFrame, on_path: pd.DataFrame, given: Calibration | None
) -> Native:
    """Choose a correction for RTTS, and judge it; `on_path` is its EVENTS_ON_PATH."""
    sidecar = capture.sidecar
    given = given or (sidecar.calibration if sidecar else None)
    rounds = rounds_of(rtts)
    own = _own(capture, rounds, on_path)
    doubts = tuple(_doubts(given, sidecar, rtts)) if given else ()
    corrected = corrected_by_round(rtts)
    path_ns = container_path(rtts)
    left, median, correction, source = NOTHING, NOTHING, None, ""
    if not len(corrected):
        missing = "no ping was corrected"
    elif given and not any(doubt.refuses for doubt in doubts):
        source, missing = CALIBRATION, ""
        correction = native_rtt.estimate(given.measured, container_path_ns=path_ns)
        median = native_rtt.median_by_another(corrected, correction)
        if own:
            left = native_rtt.left_by_another(rounds, correction)
    elif own:
        source, missing = ITSELF, ""
        correction = native_rtt.estimate([own], elsewhere=False)
        median = native_rtt.median_of_self(rounds, own)
        left = native_rtt.left_across_rounds(rounds, own)
    else:
        missing = "the same ping was not run from the host, traced and untraced" + (
            ", and the calibration is not valid here" if given else ", and no calibration was given"
        )
    if correction:
        median = _around(median, native_rtt.add_native_rtt(rtts, correction))
    table = closure(rounds, correction, left)
    return Native(
        source, missing, correction, median, left, rounds, own, table, doubts, given, path_ns
    )


def _around(estimate: Estimate, rtts: pd.DataFrame) -> Estimate:
    """Return the interval of a mean of rounds' medians, around the median of all pings."""
    moved_ns = float(rtts["native_rtt_ns"].median()) - estimate.estimate_ns
    names = ("estimate_ns", "low_ns", "high_ns")
    return estimate._replace(**{name: getattr(estimate, name) + moved_ns for name in names})


def _own(capture: Capture, rounds: Rounds, on_path: pd.DataFrame) -> Measured | None:
    """Return what the capture's natives measured; None where there are too few."""
    natives = on_path[on_path["arm"] == "native traced"]
    events = natives["events_outside"] + natives["events_wire"]
    if len(rounds.terms) < 3 or events.empty or math.isnan(rounds.own_path_ns):
        return None
    sidecar = capture.sidecar
    began = sidecar.runs[0].start_utc_ns if sidecar and sidecar.runs else 0
    outer = sidecar.link(sidecar.target.path[-1]) if sidecar and sidecar.target.path else None
    return native_rtt.measure(
        rounds,
        float(events.mean()),
        # A pair of veth devices has both of its ends in one kernel.
        wire_within=outer is not None and outer.kind == "veth",
        made_utc_ns=began,
        capture=capture.trace.name,
        address=sidecar.target.address if sidecar else "",
    )


def _doubts(given: Calibration, sidecar: Sidecar | None, rtts: pd.DataFrame) -> list[Difference]:
    if sidecar is None:
        where = "a trace recorded by hand does not say where it was made"
        return [Difference("the capture", False, where)]
    return differences(given.conditions, conditions_of(sidecar, rtts))


def closure(rounds: Rounds, correction: Correction | None, left: Estimate) -> pd.DataFrame:
    """Return CLOSURE: the terms that make up corrected minus native, and what is left over."""
    rows = []
    overhead_ns = _overhead(rounds)
    if len(rounds.terms) > 1:
        parts = -SIGNS * rounds.terms
        by_round = {
            CORRECTED_LEAVES: rounds.left,
            **dict(zip(TERMS, parts.T, strict=True)),
            REST: rounds.left - parts.sum(axis=1),
        }
        rows += [(name, native_rtt.mean_of(values, rounds)) for name, values in by_round.items()]
    if correction:
        deviation_ns = math.sqrt(correction.variance_ns2)
        reach_ns = 1.96 * deviation_ns
        ends = (correction.shift_ns - reach_ns, correction.shift_ns + reach_ns)
        rows.append((ADDED, Estimate(correction.shift_ns, *ends, correction.rounds, "", math.nan)))
    if left.rounds:
        rows.append((LEFT, left))
    return CLOSURE.from_rows(
        [
            (
                name,
                e.estimate_ns,
                e.low_ns,
                e.high_ns,
                e.rounds,
                e.estimate_ns / overhead_ns,
                MEANING[name],
            )
            for name, e in rows
        ]
    )


def _overhead(rounds: Rounds) -> float:
    """Return the container's overhead [ns]; nan where it is not told from nothing."""
    if np.count_nonzero(~np.isnan(rounds.overhead)) < 2:
        return math.nan
    found = native_rtt.mean_of(rounds.overhead, rounds)
    return found.estimate_ns if found.low_ns > 0 else math.nan


def make_calibration(captures: list[tuple[Capture, pd.DataFrame, Native]]) -> Calibration:
    """Make a calibration of captures with native arms: each with its RTTS and `Native`.

    Raises AnalysisError when one has no natives, or was made under other conditions than the first.
    """
    made_for = None
    measured = []
    for capture, rtts, native in captures:
        if capture.sidecar is None or native.own is None:
            raise AnalysisError(
                f"{capture.trace}: the same ping was not run from the host, traced and untraced",
                hint="calibrate with a capture that has the native arms (`maceproc calibrate`)",
            )
        found = conditions_of(capture.sidecar, rtts)
        made_for = made_for or found
        unlike = [one for one in differences(made_for, found) if one.refuses]
        if unlike:
            raise AnalysisError(
                f"{capture.trace}: not under the conditions of {captures[0][0].trace}: "
                f"{unlike[0].message}",
                hint="make a calibration of each",
            )
        measured.append(native.own)
    first = captures[0][0].sidecar
    assert first is not None
    assert made_for is not None
    return Calibration(
        maceproc=__version__,
        command=first.command,
        place=f"{first.target.kind} {first.target.name}".strip(),
        conditions=made_for,
        measured=measured,
    )
