"""Findings about a native RTT: what to doubt, and what to know."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pandas as pd

from maceproc.capture import Sidecar
from maceproc.following.calibrating import CALIBRATION, LARGE_SHARE, LEFT, RECORD_NATIVES, Native
from maceproc.following.checks import Finding
from maceproc.following.native_rounds import TERMS
from maceproc.following.native_rtt import warmth
from maceproc.units import NS_PER_S, format_duration, format_share, format_us

OLD_S = 24 * 3600
SAME_WARMTH, OTHER_WARMTH = 1.25, 2.0


def native_doubts(sidecar: Sidecar | None, native: Native) -> Iterator[Finding]:
    """Yield the findings about one capture's native RTT."""
    yield from _about_the_calibration(sidecar, native)
    if native.missing:
        yield Finding(
            "no native RTT",
            "note",
            f"what this host's own ping would have printed is not known: {native.missing}",
            RECORD_NATIVES,
        )
        return
    rows = native.closure.set_index("term")
    yield from _about_the_wire(sidecar, rows)
    yield from _about_what_is_left(sidecar, native, rows)


def _about_the_calibration(sidecar: Sidecar | None, native: Native) -> Iterator[Finding]:
    if native.calibration is None:
        return
    for doubt in native.doubts:
        yield Finding(
            "calibration",
            "problem" if doubt.refuses else "warning",
            f"the calibration is {'refused' if doubt.refuses else 'doubtful'}: {doubt.message}",
            "calibrate again under these conditions",
        )
    if native.source != CALIBRATION:
        return
    runs = sidecar.runs if sidecar else []
    now_ns = runs[0].start_utc_ns if runs else time.time_ns()
    age_ns = now_ns - max(one.made_utc_ns for one in native.calibration.measured)
    apart = f"{format_duration(abs(age_ns))} {'before' if age_ns >= 0 else 'after'} this capture"
    yield Finding(
        "calibration",
        "warning" if abs(age_ns) > OLD_S * NS_PER_S else "note",
        f"calibrated by {_sources(native)}, made {apart}",
        "`maceproc calibrate --check FILE` tells whether it still holds",
    )
    yield from _about_warmth(native)
    yield from _about_drift(native)


def _about_warmth(native: Native) -> Iterator[Finding]:
    """Tell where the machine was warmer or colder than when the calibration was made."""
    assert native.calibration is not None
    last = native.calibration.measured[-1]
    times = warmth(last, native.container_path_ns)
    if max(times, 1 / times) > SAME_WARMTH and last.container_path_ns:
        here, there = (format_us(v) for v in (native.container_path_ns, last.container_path_ns))
        yield Finding(
            "calibration",
            "warning" if max(times, 1 / times) > OTHER_WARMTH else "note",
            f"the machine was {'colder' if times > 1 else 'warmer'} than when it was calibrated: "
            f"the container's own code took {here} us here, {there} us there; what was measured "
            f"there was scaled by {times:.2f}",
            "calibrate under the same load",
        )


def _sources(native: Native) -> str:
    assert native.calibration is not None
    names = [one.capture or "a capture" for one in native.calibration.measured]
    targets = sorted({one.address for one in native.calibration.measured} - {""})
    return ", ".join(names) + (f" (pings to {', '.join(targets)})" if targets else "")


def _about_drift(native: Native) -> Iterator[Finding]:
    """Compare the terms of a calibration with those of the capture's own native pings."""
    if native.own is None or native.correction is None:
        return
    for i, name in enumerate(TERMS):
        change_ns = native.own.terms_ns[i] - native.correction.terms_ns[i]
        variance = native.own.covariance_ns2[i][i] + native.correction.covariance_ns2[i, i]
        if abs(change_ns) > 3 * variance**0.5:
            yield Finding(
                "calibration drift",
                "warning",
                f"{name} is {format_us(change_ns, signed=True)} us from the calibration's "
                f"{format_us(native.correction.terms_ns[i])} us, by this capture's own natives",
                "calibrate again",
            )


def _about_the_wire(sidecar: Sidecar | None, rows: pd.DataFrame) -> Iterator[Finding]:
    if TERMS[2] not in rows.index:
        return
    wire = rows.loc[TERMS[2]]
    if not (wire["low_ns"] > 0 or wire["high_ns"] < 0):
        return
    here = sidecar is not None and any(n.name == "remote" for n in sidecar.namespaces)
    shared = here and sidecar is not None and sidecar.target.kind == "lab"
    way = "more" if wire["estimate_ns"] > 0 else "less"
    yield Finding(
        "wire",
        "warning" if abs(wire["share"]) > LARGE_SHARE else "note",
        f"the container's pings spend {format_us(abs(wire['estimate_ns']))} us {way} on the wire "
        f"than the native ones ({_interval(wire)}): "
        + (
            "the remote shares this machine, and its caches"
            if shared
            else "the remote shares this machine, or the path differs"
        ),
        "what the rounds agree on of it is taken out of the native RTT; pings to another machine "
        "tell whether it is this machine's or the path's",
    )


def _about_what_is_left(
    sidecar: Sidecar | None, native: Native, rows: pd.DataFrame
) -> Iterator[Finding]:
    if LEFT not in rows.index:
        why = (
            "its natives made it, and with fewer than four rounds nothing is left to judge it"
            if native.own
            else "the same ping was not run from the host beside it"
        )
        yield Finding("native RTT", "note", f"the native RTT is not judged: {why}", "")
        return
    left = rows.loc[LEFT]
    told = left["low_ns"] > 0 or left["high_ns"] < 0
    truth = ""
    if sidecar is not None and sidecar.target.kind == "lab":
        truth = "; this is a lab: the native pings of the same rounds are the truth"
    judged = (
        "by half of the rounds, made by the other half"
        if native.source != CALIBRATION
        else ("by the natives of this capture, which did not make it")
    )
    share = format_share(abs(left["share"]))
    share = f", {share} of the overhead" if share else ""
    # It has no share where the overhead is not told from nothing: then it is small by none.
    large = abs(left["share"]) > LARGE_SHARE or (told and pd.isna(left["share"]))
    yield Finding(
        "native RTT",
        "warning" if large else "note",
        f"native RTT - native is {format_us(left['estimate_ns'], signed=True)} us "
        f"({_interval(left)}){share}{'' if told else ', not told from 0'}; judged {judged}{truth}",
        "more rounds, or a quieter machine, tell the terms better" if large else "",
    )


def _interval(row: pd.Series) -> str:
    low, high = (format_us(row[end], signed=True) for end in ("low_ns", "high_ns"))
    return f"{low} to {high}"
