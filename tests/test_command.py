import time
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.errors import CommandError
from maceproc.recording.command import address_in, addresses, is_iputils, parse_command, resolve


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


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("ping ::1", None),
        ("ping -i 0.2 ::1", None),
        ("ping -c many ::1", None),
        ("ping -w 5 ::1", 70),
        ("ping -c 1000000 -w 5 ::1", 70),
        ("ping -c 9 -i 20 ::1", 460),
        ("curl ::1", None),
    ],
)
def test_how_long_a_ping_may_take_by_its_own_options(line: str, seconds: float | None) -> None:
    assert parse_command(line.split()).longest_s == seconds


@pytest.mark.parametrize(
    ("line", "tried"),
    [
        ("ping -c 100 -W 9 ::1", "ping -c 100 -W 9 ::1 -c 1 -W 1"),
        ("busybox ping -A -- ::1", "busybox ping -A -c 1 -W 1 -- ::1"),
    ],
)
def test_a_trial_has_the_same_words_and_sends_one(line: str, tried: str) -> None:
    trial = parse_command(line.split()).trial()
    assert " ".join(trial) == tried
    assert dict(parse_command(trial).options)["-c"] == "1"


@pytest.mark.parametrize(
    "header",
    ["PING " + "(" * 60_000, "PING (" + "1" * 60_000, "PING x (" * 8_000, "PING " * 12_000,
     "PING (1.2.3.4.5)", "PING (:::::)", "PING -oProxy (--help)"],
)  # fmt: skip
def test_a_header_that_tells_no_address(header: str) -> None:
    began = time.process_time()
    assert address_in(header) == ""
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("PING till (172.29.0.3) 56(84) bytes of data.", "172.29.0.3"),
        ("PING till(fd6d::3) 56 data bytes", "fd6d::3"),
        ("PING till (fe80::3%eth0): 56 data bytes", "fe80::3"),
        ("WARNING: x\nPING till (10.0.0.1): 56 data bytes", "10.0.0.1"),
    ],
)
def test_the_address_that_a_ping_tells_first(header: str, address: str) -> None:
    assert address_in(header) == address


@pytest.mark.parametrize(
    ("line", "destination", "further"),
    [
        ("fping -C 20 -q -B1 -r1 -i10 a.example 192.0.2.2 ::1", "a.example", "192.0.2.2 ::1"),
        ("fping -S 10.0.0.1 -c 3 b.example", "b.example", ""),
        ("nice fping --count=3 x y", "x", "y"),
        ("fping -g 192.0.2.0 192.0.2.3", "192.0.2.3", ""),
        ("fping --unheard-of 192.0.2.2", "192.0.2.2", ""),
    ],
)
def test_targets_of_fping(line: str, destination: str, further: str) -> None:
    command = parse_command(line.split())
    assert (command.program, command.destination) == ("fping", destination)
    assert command.further == tuple(further.split())


def test_of_several_addresses_the_namespace_s_choice_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = [(0, 0, 0, "", (address, 0)) for address in ("::1", "127.0.0.1", "::1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: known)
    assert addresses("many") == ["::1", "127.0.0.1"]
    chosen = tmp_path / "getent"
    chosen.write_text("#!/bin/sh\necho 127.0.0.1 STREAM many\n")
    chosen.chmod(0o755)
    assert resolve("many", enter=lambda argv: [str(chosen), *argv[1:]]) == "127.0.0.1"
    chosen.write_text("#!/bin/sh\nexit 2\n")
    assert resolve("many", enter=lambda argv: [str(chosen), *argv[1:]]) == "::1"
