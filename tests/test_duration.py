"""How long a recording takes is known from ping's options, before anything runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.recording.command import parse_command
from maceproc.recording.duration import (
    own_command,
    ping_duration_s,
    ping_warnings,
    plan_sentence,
)


@pytest.mark.parametrize(
    ("line", "expected_s"),
    [
        ("ping -c 6 192.0.2.1", 5),
        ("ping -c6 -i0.5 192.0.2.1", 2.5),
        ("nice -n 5 ping -c 6 192.0.2.1", 5),
        ("busybox ping -c 6 192.0.2.1", 5),
        ("ping -w 3 192.0.2.1", 3),
        ("ping -c 100 -w 3 192.0.2.1", 3),
        ("ping -f -c 101 192.0.2.1", 1),
        ("ping -c 10 -l 5 192.0.2.1", 5),
        ("ping -c 10 -l 50 192.0.2.1", 0),
        ("ping -A -c 10 192.0.2.1", None),  # as long as the replies take
        ("ping -A -w 4 192.0.2.1", 4),
        ("ping 192.0.2.1", None),
        ("ping -c many 192.0.2.1", None),
        ("curl 192.0.2.1", None),
    ],
)
def test_duration_of_one_run(line: str, expected_s: float | None) -> None:
    assert ping_duration_s(parse_command(line.split())) == expected_s


@pytest.mark.parametrize(
    ("line", "runs", "expected"),
    [
        ("ping -c 6", 15, "15 runs of about 5 s each: about 1 min 15 s"),
        ("ping -c 100 -i 0.05", 15, "15 runs of about 5 s each: about 1 min 15 s"),
        ("ping -c 61", 1, "1 run of about 1 min"),
        ("ping -c 3 -i 0.05", 3, "3 runs of less than 1 s each"),
        ("ping -c 3 -i 0.05", 30, "30 runs of less than 1 s each: about 3 s"),
        ("ping -c 721", 30, "30 runs of about 12 min each: about 6 h"),
        ("ping 192.0.2.1", 3, "3 runs; how long one takes is not known"),
    ],
)
def test_the_plan_in_words(line: str, runs: int, expected: str) -> None:
    assert plan_sentence(parse_command(line.split()), runs) == expected


@given(st.integers(1, 10_000), st.floats(0.002, 10), st.integers(1, 50))
def test_more_packets_never_take_less(count: int, interval_s: float, more: int) -> None:
    shorter, longer = (
        ping_duration_s(parse_command(["ping", "-c", str(n), "-i", str(interval_s)]))
        for n in (count, count + more)
    )
    assert shorter is not None
    assert longer is not None
    assert longer > shorter


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ping -c 5 192.0.2.1", []),
        ("ping -w 5 192.0.2.1", []),
        ("ping 192.0.2.1", ["no end"]),
        ("ping -qc5 192.0.2.1", ["-q prints no RTTs"]),
        ("ping -f -c 5 192.0.2.1", ["-f prints no RTTs"]),
        ("ping -fq 192.0.2.1", ["no end", "-q prints", "-f prints"]),
        ("curl -f 192.0.2.1", []),
    ],
)
def test_what_takes_results_away_is_told(line: str, expected: list[str]) -> None:
    told = ping_warnings(parse_command(line.split()))
    assert len(told) == len(expected)
    assert all(part in warning for part, warning in zip(expected, told, strict=True))


@pytest.mark.parametrize(
    ("line", "duration_s"),
    [
        ("docker exec web ping -c 6 192.0.2.1", 5),
        ("docker run --rm -e A=1 alpine ping -c 3 192.0.2.1", 2),
        ("ping -c 6 192.0.2.1", 5),
    ],
)
def test_the_ping_of_an_engine_is_found(line: str, duration_s: float) -> None:
    command = own_command(line.split())
    assert command is not None
    assert ping_duration_s(command) == duration_s


@pytest.mark.parametrize("line", ["", "docker ps", "docker run alpine"])
def test_a_command_that_is_not_understood_has_no_duration(line: str) -> None:
    command = own_command(line.split())
    assert command is None or not command.is_ping
