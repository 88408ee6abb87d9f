"""What can belong to one run of a ping: its system calls."""

from __future__ import annotations

import pandas as pd
import pytest

from maceproc.following.run_packets import echo_requests
from maceproc.pings import PingOutput

DNS_QUERY, ECHO = 33, 64  # bytes; the echo is an ICMP message with 56 bytes of payload


def sends(*calls: tuple[int | None, int]) -> pd.DataFrame:
    """Return SENDS of (length [bytes], file descriptor)."""
    return pd.DataFrame(
        {
            "time_ns": range(len(calls)),
            "len": pd.array([length for length, _ in calls], "Int64"),
            "fd": [fd for _, fd in calls],
        }
    )


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(ECHO, id="the kernel writes the IP header"),
        pytest.param(20 + ECHO, id="the program writes it, as hping3 does"),
        pytest.param(40 + ECHO, id="the program writes one of IPv6"),
    ],
)
def test_echo_requests_are_told_from_other_calls_by_their_length(length: int) -> None:
    found = echo_requests(
        sends((DNS_QUERY, 5), (length, 3), (length, 3)), PingOutput(payload_bytes=56)
    )
    assert list(found["time_ns"]) == [1, 2]


def test_calls_whose_length_was_not_recorded_may_be_echo_requests() -> None:
    found = echo_requests(sends((DNS_QUERY, 5), (None, 3), (None, 3)), PingOutput(payload_bytes=56))
    assert list(found["time_ns"]) == [1, 2]


def test_of_calls_of_the_right_length_those_of_one_socket_are_taken() -> None:
    found = echo_requests(sends((ECHO, 5), (ECHO, 3), (ECHO, 3)), PingOutput(payload_bytes=56))
    assert list(found["time_ns"]) == [1, 2]
