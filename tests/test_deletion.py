"""Without some of its events, no ping gets another correction than with all; perhaps none."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.deletion import ANSWERED, WAYS, Subject, changed

CAPTURES = sorted((Path(__file__).parent.parent / "captures").glob("*.dat"))
TRIALS = 2 * len(WAYS)


@cache
def subject(path: Path) -> Subject:
    return Subject.of(path)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_nothing_is_corrected_otherwise(path: Path) -> None:
    kept = 0
    for seed in range(TRIALS):
        way, rtts = subject(path).without(seed)
        assert changed(subject(path), rtts).empty, (way, seed)
        kept += int(rtts["status"].isin(ANSWERED).sum())
    assert kept  # or nothing was compared


def test_what_cannot_be_corrected_says_why() -> None:
    idle = subject(CAPTURES[0].with_name("idle.dat"))
    _, rtts = idle.without(0)
    rest = rtts[~rtts["status"].isin([*ANSWERED, "untraced"])]
    assert len(rest)
    assert (rest["reason"] != "").all()
    assert rest["bare_metal_rtt_ns"].isna().all()
