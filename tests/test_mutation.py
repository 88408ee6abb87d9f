"""Whatever is made of ping's text, no line is given the packets of another ping."""

from __future__ import annotations

from functools import cache

import pytest

from tests.mutation import MUTATIONS, Subject
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
