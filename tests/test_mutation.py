"""Whatever is made of ping's text, no line is given the packets of another ping."""

from __future__ import annotations

from functools import cache

import pytest

from tests.mutation import MUTATIONS, Line, Subject, Text
from tests.recorded import NAMES, path_of

EVERY_KIND = 2  # times


@cache
def subject(name: str) -> Subject:
    return Subject.of(path_of(name), most_runs=1)


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_given_the_packets_of_another_ping(name: str) -> None:
    foreign = [text for other in NAMES if other != name for text in subject(other).texts]
    kept = 0
    for seed in range(EVERY_KIND * len(MUTATIONS)):
        trial = subject(name).mutated(seed, foreign)
        assert trial.wrong().empty, (trial.name, seed)
        kept += trial.corrected
    assert kept  # or nothing was compared


@pytest.mark.parametrize("name", NAMES)
def test_without_a_mutation_every_ping_is_answered(name: str) -> None:
    whole = subject(name)
    pings = sum(len(text.lines) for text in whole.texts)
    # The very first request of `native` was not recorded.
    assert sum(map(len, whole.truth.values())) >= pings - (name == "native")


def test_a_text_is_judged_by_what_it_says_not_by_how_it_came_about() -> None:
    def owners(*lines: tuple[int, int | None]) -> list[int | None]:
        return Text(
            "", tuple(Line(f"icmp_seq={number} time=1 ms", own) for number, own in lines), ""
        ).owners

    # Two lines exchanged and numbered in order again: it is the text of two RTTs exchanged.
    assert owners((1, 1), (2, 5), (3, 3), (4, 6), (5, 2)) == [1, 2, 3, 5, 6]
    # Not numbered again, a line is that of its number, wherever it is printed.
    assert owners((1, 1), (3, 3), (2, 2)) == [1, 3, 2]
    # Numbered on after one that was left out, or that is printed twice, they are other lines.
    assert owners((1, 1), (2, 3), (3, 4)) == [1, 3, 4]
    assert owners((1, 1), (2, 2), (3, 2), (4, 3)) == [1, 2, 2, 3]
    assert owners((1, None), (2, None)) == [None, None]
