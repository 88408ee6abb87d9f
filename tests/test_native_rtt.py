"""What this host's own ping would have printed: estimated, applied, judged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maceproc.calibration import Calibration, Conditions
from maceproc.capture_files import Capture
from maceproc.following.calibrating import (
    CALIBRATION,
    CORRECTED_LEAVES,
    ITSELF,
    LEFT,
    REST,
    Native,
    find_native,
)
from maceproc.following.native_doubts import native_doubts
from maceproc.following.native_rounds import SIGNS, TERMS, rounds_of
from maceproc.following.native_rtt import (
    MOST_WARMTH,
    add_native_rtt,
    estimate,
    measure,
    prior_of,
)
from maceproc.schema import EVENTS_ON_PATH
from tests.native_rounds import OWN_NS, made_rtts

CAPTURE = Capture(Path("made.dat"), None)
US = 1_000


def observed(rtts: pd.DataFrame, events: int = 3) -> pd.DataFrame:
    rows = rtts[rtts["arm"].isin(["container traced", "native traced"])]
    counts = dict.fromkeys(("events", "events_outside", "events_anywhere"), events)
    return EVENTS_ON_PATH.frame(rows.assign(**counts, events_inside=0, events_wire=0))


def native_of(rtts: pd.DataFrame, given_: Calibration | None = None) -> Native:
    return find_native(CAPTURE, rtts, observed(rtts), given_)


def calibration_of(rtts: pd.DataFrame, **conditions: object) -> Calibration:
    measured = measure(rounds_of(rtts), 3.0)
    made = Conditions(**conditions)  # type: ignore[arg-type]
    return Calibration(
        maceproc="0", command=["ping"], place="lab", conditions=made, measured=[measured]
    )


# The terms


@given(
    host=st.integers(0, 10_000),
    tracing=st.integers(0, 5_000),
    wire=st.integers(-8_000, 8_000),
    rounds=st.integers(1, 12),
)
@settings(max_examples=25, deadline=None)
def test_terms_of_rounds_are_those_they_were_made_of(
    host: int, tracing: int, wire: int, rounds: int
) -> None:
    made = made_rtts(rounds, host_ns=host, tracing_ns=tracing, wire_ns=wire, noise_ns=0)
    terms = rounds_of(made).terms
    assert np.allclose(terms, [host, tracing, wire], atol=2)


def test_the_table_closes() -> None:
    rows = native_of(made_rtts(host_ns=5 * US, wire_ns=2 * US)).closure.set_index("term")
    parts = rows.loc[[*TERMS, REST], "estimate_ns"].sum()
    assert parts == pytest.approx(rows.loc[CORRECTED_LEAVES, "estimate_ns"], abs=1)
    assert rows.loc["host's part", "estimate_ns"] == pytest.approx(-5 * US, abs=200)
    assert rows.loc["tracing outside", "estimate_ns"] == pytest.approx(1.5 * US, abs=400)
    assert rows.loc["wire", "estimate_ns"] == pytest.approx(-2 * US, abs=400)
    assert (rows["low_ns"] <= rows["high_ns"]).all()


# The estimate


def test_what_is_measured_well_is_taken_as_it_is() -> None:
    measured = measure(rounds_of(made_rtts(40, tracing_ns=4 * US, noise_ns=50)), 3.0)
    found = estimate([measured], elsewhere=False)
    assert found.terms_ns == pytest.approx(measured.terms_ns, abs=30)


def test_what_is_measured_badly_is_drawn_to_what_is_known() -> None:
    rtts = made_rtts(8, tracing_ns=30 * US, noise_ns=30 * US)
    measured = measure(rounds_of(rtts), 3.0)
    found = estimate([measured], elsewhere=False)
    known, _ = prior_of(measured)
    assert abs(found.terms_ns[1] - known[1]) < abs(measured.terms_ns[1] - known[1]) / 3
    assert found.variance_ns2 < SIGNS @ np.array(measured.covariance_ns2) @ SIGNS


def test_an_event_is_known_to_cost_more_where_the_machines_own_code_takes_longer() -> None:
    warm = measure(rounds_of(made_rtts()), 3.0)
    cold = msgspec.structs.replace(warm, own_path_ns=4 * warm.own_path_ns)
    more = msgspec.structs.replace(warm, events=2 * warm.events)
    known, (_, as_cold), (_, as_more) = (
        prior_of(warm)[0][1],
        prior_of(cold)[0][:2],
        prior_of(more)[0][:2],
    )
    assert known < as_cold < 4 * known
    assert as_more == pytest.approx(2 * known)


def test_a_wire_within_this_kernel_is_taken_as_it_was_measured() -> None:
    rtts = made_rtts(30, wire_ns=6 * US, noise_ns=4 * US)
    beyond = measure(rounds_of(rtts), 3.0)
    within = msgspec.structs.replace(beyond, wire_within=True)
    taken, drawn = (
        estimate([one], elsewhere=False).terms_ns[2] / one.terms_ns[2] for one in (within, beyond)
    )
    assert drawn < taken < 1.02
    assert taken > 0.9


def test_more_captures_tell_more() -> None:
    several = [measure(rounds_of(made_rtts(noise_ns=3 * US, seed=n)), 3.0) for n in range(4)]
    one = estimate(several[:1])
    assert estimate(several).variance_ns2 < one.variance_ns2


def test_another_capture_is_known_less_well_than_the_one_that_was_measured() -> None:
    measured = measure(rounds_of(made_rtts()), 3.0)
    here = estimate([measured], elsewhere=False)
    assert estimate([measured]).variance_ns2 > here.variance_ns2


def test_two_rounds_that_are_alike_by_chance_promise_no_more_than_others() -> None:
    """The third and the fourth round judge what the others measured."""
    alike, unlike = (
        native_of(made_rtts(5, host_ns=[ns * US for ns in host], noise_ns=50)).left
        for host in ([8, 2, 5, 5, 11], [5, 5, 8, 2, 11])
    )
    assert alike.rounds == unlike.rounds == 2
    assert alike.high_ns - alike.low_ns == pytest.approx(unlike.high_ns - unlike.low_ns, rel=0.2)


# The native RTT


def test_every_corrected_ping_is_shifted_and_keeps_its_spread() -> None:
    rtts = made_rtts()
    native = native_of(rtts)
    assert native.correction is not None
    added = add_native_rtt(rtts, native.correction)
    corrected = added["status"] == "corrected"
    assert added.loc[~corrected, "native_rtt_ns"].isna().all()
    shift = (added["native_rtt_ns"] - added["bare_metal_rtt_ns"])[corrected & (added["seq"] > 1)]
    assert set(shift) == {round(native.correction.shift_ns)}


def test_the_first_ping_of_a_run_gets_what_it_has_more() -> None:
    rtts = made_rtts(20, first_ns=12 * US, noise_ns=50)
    native = native_of(rtts)
    assert native.correction is not None
    assert native.correction.first_ns == pytest.approx(12 * US, rel=0.5)
    added = add_native_rtt(rtts, native.correction)
    medians = added.groupby(["arm", added["seq"] == 1], observed=True)
    truth = medians["rtt_ns"].median()["native untraced"]
    found = medians["native_rtt_ns"].median()["container traced"]
    assert found[False] == pytest.approx(truth[False], abs=600)
    assert abs(found[True] - truth[True]) < 6 * US


def test_runs_of_two_pings_have_no_first_one_apart() -> None:
    native = native_of(made_rtts(20, pings=2, first_ns=12 * US))
    assert native.correction is not None
    assert native.correction.first_ns == 0


def test_the_median_s_interval_holds_the_native_rtt() -> None:
    rtts = made_rtts(20, host_ns=6 * US)
    native = native_of(rtts)
    assert native.source == ITSELF
    truth = float(rtts.loc[rtts["arm"] == "native untraced", "rtt_ns"].median())
    assert native.median.low_ns < truth < native.median.high_ns


def test_another_capture_s_calibration_is_judged_by_these_natives() -> None:
    given_ = calibration_of(made_rtts(24, host_ns=6 * US, noise_ns=100, seed=2))
    rtts = made_rtts(24, host_ns=9 * US, noise_ns=100)
    native = native_of(rtts, given_)
    assert native.source == CALIBRATION
    assert native.left.estimate_ns == pytest.approx(-3 * US, abs=500)
    assert {f.finding for f in native_doubts(None, native)} >= {"calibration", "native RTT"}


def test_a_calibration_serves_a_capture_without_natives() -> None:
    inside = ("container traced", "container untraced")
    rtts = made_rtts(arms=inside)
    native = native_of(rtts, calibration_of(made_rtts(host_ns=6 * US, seed=2)))
    assert native.source == CALIBRATION
    assert native.left.rounds == 0
    assert native.correction is not None
    assert native.correction.terms_ns[0] == pytest.approx(6 * US, abs=500)
    assert native.median.low_ns < native.median.estimate_ns < native.median.high_ns


def test_natives_of_a_capture_do_not_judge_what_they_made() -> None:
    # Pairs of rounds whose host's part is 6 us alternate with those where it is 10 us. Half of the
    # rounds is off by 4 us in the other; all of them together would be off by nothing.
    host = [6 * US, 6 * US, 10 * US, 10 * US] * 3
    native = native_of(made_rtts(12, host_ns=host, noise_ns=20))
    assert abs(native.left.estimate_ns) == pytest.approx(4 * US, abs=300)
    assert native.left.rounds == 6


def test_with_few_rounds_nothing_is_judged_and_the_report_says_so() -> None:
    native = native_of(made_rtts(1))
    assert native.source == ITSELF
    assert native.left.rounds == 0
    assert LEFT not in set(native.closure["term"])
    (told,) = [f.message for f in native_doubts(None, native) if f.finding == "native RTT"]
    assert "fewer than four rounds" in told


@pytest.mark.parametrize(
    "arms", [("container traced",), ("container traced", "container untraced", "native untraced")]
)
def test_without_natives_or_calibration_there_is_none_and_the_report_says_why(
    arms: tuple[str, ...],
) -> None:
    rtts = made_rtts(arms=arms)
    native = native_of(rtts)
    assert native.correction is None
    assert add_native_rtt(rtts, None)["native_rtt_ns"].isna().all()
    (finding,) = [f for f in native_doubts(None, native) if f.finding == "no native RTT"]
    assert "was not run from the host" in finding.message
    assert "maceproc calibrate" in finding.advice


# Findings


def test_a_shorter_wire_is_a_finding_of_its_own() -> None:
    native = native_of(made_rtts(wire_ns=7 * US))
    (wire,) = [f for f in native_doubts(None, native) if f.finding == "wire"]
    assert "us less on the wire than the native ones" in wire.message
    assert "shares this machine, or the path differs" in wire.message


def test_what_is_left_of_more_than_a_fifth_of_the_overhead_is_a_warning() -> None:
    host = [6 * US, 6 * US, 16 * US, 16 * US] * 3
    native = native_of(made_rtts(12, host_ns=host, noise_ns=20))
    (left,) = [f for f in native_doubts(None, native) if f.finding == "native RTT"]
    assert left.level == "warning"
    assert "% of the overhead" in left.message
    assert not native.held
    assert native_of(made_rtts(12, host_ns=6 * US, noise_ns=20)).held
    assert not native_of(made_rtts(1)).held  # nothing judged it


def test_what_was_measured_on_a_colder_machine_is_scaled() -> None:
    measured = measure(rounds_of(made_rtts(24, host_ns=8 * US, noise_ns=50)), 3.0)
    assert measured.container_path_ns == OWN_NS
    same = estimate([measured], container_path_ns=OWN_NS)
    assert same.terms_ns[0] == pytest.approx(8 * US, abs=100)
    warm = estimate([measured], container_path_ns=OWN_NS / 2)
    assert warm.terms_ns[0] == pytest.approx(4 * US, abs=100)
    far = estimate([measured], container_path_ns=OWN_NS / 100)
    assert far.terms_ns[0] == pytest.approx(8 * US / MOST_WARMTH, abs=100)


def test_a_machine_that_is_much_warmer_is_told() -> None:
    given_ = calibration_of(made_rtts(24, host_ns=8 * US, noise_ns=50, seed=2))
    given_.measured[0].container_path_ns = 3 * OWN_NS
    doubts = native_doubts(None, native_of(made_rtts(24, host_ns=3 * US, noise_ns=50), given_))
    (told,) = [f for f in doubts if "warmer than when it was calibrated" in f.message]
    assert told.level == "warning"


def test_drift_since_the_calibration_is_told() -> None:
    given_ = calibration_of(made_rtts(24, host_ns=2 * US, noise_ns=50, seed=2))
    native = native_of(made_rtts(24, host_ns=9 * US, noise_ns=50), given_)
    drifts = [f for f in native_doubts(None, native) if f.finding == "calibration drift"]
    assert [f.message.partition(" is ")[0] for f in drifts] == ["host's part"]
