"""The ledger and the series are declared once, and everything that shows them knows all of them."""

from __future__ import annotations

import pandas as pd

from maceproc import ledger, series
from maceproc.experiment.series import DIFFERENCES, MEANING, SOURCES
from maceproc.reporting.colors import SEGMENT_COLORS, SERIES_COLORS
from maceproc.schema import RTTS
from tests.recorded import analyzed


def test_every_segment_is_a_column_of_rtts_with_the_same_meaning() -> None:
    for segment in ledger.LEDGER:
        assert RTTS[segment.column].meaning == segment.meaning
    assert len(set(ledger.COLUMNS.values())) == len(ledger.LEDGER)


def test_segments_add_up_and_without_the_crossings_to_the_corrected_rtt() -> None:
    rtts = analyzed("idle").rtts
    rows = rtts[(rtts["status"] == "corrected") & (rtts["rtt_basis"] == "printed")]
    assert len(rows)
    whole = rows[[segment.column for segment in ledger.LEDGER]].sum(axis=1)
    shared = rows[[segment.column for segment in ledger.SHARED]].sum(axis=1)
    pd.testing.assert_series_equal(whole, rows["rtt_ns"], check_names=False)
    pd.testing.assert_series_equal(shared, rows["bare_metal_rtt_ns"], check_names=False)


def test_the_request_passes_its_segments_before_the_wire_and_the_reply_after_it() -> None:
    directions = [segment.direction for segment in ledger.LEDGER if segment.part != "unseen"]
    middle = ledger.LEDGER.index(ledger.WIRE)
    assert directions[:middle] == ["outbound"] * middle
    assert set(directions[middle + 1 :]) == {"inbound"}


def test_everything_has_a_colour() -> None:
    assert list(SEGMENT_COLORS) == list(ledger.COLUMNS)
    assert {one.name for one in series.ALL_SERIES} <= set(SERIES_COLORS)


def test_series_are_columns_of_rtts_and_shown_once() -> None:
    assert {one.column for one in series.QUANTITIES} <= set(RTTS.names)
    assert sorted(map(id, series.SHOWN)) == sorted(map(id, series.ALL_SERIES))
    assert len({one.name for one in series.QUANTITIES}) == len(series.QUANTITIES)


def test_the_experiment_knows_every_series_by_the_name_of_the_paper() -> None:
    # The experiment draws what the paper drew; the native RTT is not among it.
    assert series.NATIVE_RTT.in_experiment is None
    for one in set(series.ALL_SERIES) - {series.NATIVE_RTT}:
        assert one.in_experiment
        assert SOURCES[one.in_experiment.name] is one
        assert MEANING[one.in_experiment.name] == one.in_experiment.meaning
    named = {name for terms in DIFFERENCES.values() for name, _ in terms}
    assert named <= set(SOURCES)
