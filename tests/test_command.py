from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.errors import CommandError
from maceproc.recording.command import is_iputils, parse_command, resolve


@pytest.mark.parametrize(
    ("line", "destination"),
    [
        ("ping 192.0.2.1", "192.0.2.1"),
        ("ping -c 5 -i 0.2 example.net", "example.net"),
        ("ping -c5 -nqi0.2 example.net -W 1", "example.net"),
        ("/bin/ping -c 5", ""),
        ("ping -c 5 192.0.2.1 192.0.2.9", "192.0.2.9"),
        ("ping -I eth0 -s 100 ::1", "::1"),
        ("busybox ping -c 3 192.0.2.1", "192.0.2.1"),
        ("fping -C 5 192.0.2.3", "192.0.2.3"),
        ("iperf3 -c 192.0.2.3 -t 5", "192.0.2.3"),
        ("sleep 5", ""),
        ("ping --unknown 192.0.2.1", "192.0.2.1"),
    ],
)
def test_destination(line: str, destination: str) -> None:
    assert parse_command(line.split()).destination == destination


OPTIONS = st.sampled_from(
    [["-c", "5"], ["-c5"], ["-n"], ["-nqD"], ["-i", "0.2"], ["-W1"], ["-I", "eth0"], ["-s", "8000"]]
)


@given(st.lists(OPTIONS), st.lists(OPTIONS))
def test_destination_wherever_it_stands(before: list[list[str]], after: list[list[str]]) -> None:
    words = [*chain(*before), "192.0.2.1", *chain(*after)]
    command = parse_command(["ping", *words])
    assert command.destination == "192.0.2.1"
    assert command.has("-D") is (["-nqD"] in before + after)


def test_timestamps_are_added_once_and_only_to_iputils() -> None:
    assert is_iputils(["ping"])
    added = parse_command(["ping", "-c", "1", "::1"]).with_timestamps()
    assert added.argv == ("ping", "-D", "-c", "1", "::1")
    assert added.with_timestamps() == added
    for line in ("ping -nD ::1", "busybox ping ::1", "fping ::1"):
        command = parse_command(line.split())
        assert command.with_timestamps() == command


def test_losing_packets_is_no_failure_of_a_ping() -> None:
    for program, status, failed in [
        ("ping", 0, False),
        ("ping", 1, False),
        ("ping", 2, True),
        ("fping", 1, False),
        ("curl", 1, True),
        ("ping", -9, True),
    ]:
        assert parse_command([program]).failed(status) is failed


def test_the_family_asked_for_decides_the_address() -> None:
    assert resolve("localhost", parse_command(["ping", "-4", "localhost"]).family) == "127.0.0.1"
    assert resolve("::1", parse_command(["ping", "-n4", "::1"]).family) == ""
    assert resolve("nosuch.invalid") == ""


def test_no_command_says_how() -> None:
    with pytest.raises(CommandError, match="after --"):
        parse_command([])
