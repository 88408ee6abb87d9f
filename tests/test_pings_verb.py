"""`maceproc pings`, and real programs: what they print now is what is read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from maceproc.capture import Run
from maceproc.cli import cli
from maceproc.errors import CaptureError
from maceproc.following.checks import find_doubts
from maceproc.pings import PingOutput, parse_ping, pings_table, rows_of_run
from maceproc.reporting.json_schema import pings_schema
from maceproc.schema import COMPARISONS, LOST, RTTS, Trace
from tests.ping_texts import REAL
from tests.recorded import NAMES, analyzed, path_of
from tests.test_pings import FPING_TWO


def as_json(*words: str, given: str | None = None) -> Any:
    result = CliRunner().invoke(cli, ["pings", "--json", *words], input=given)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    jsonschema.validate(document, pings_schema())
    return document


def test_a_text(tmp_path: Path) -> None:
    file = tmp_path / "ping.txt"
    file.write_text("?\n" + FPING_TWO)
    document = as_json(str(file))
    assert [(run["target"], run["sent"], run["received"]) for run in document["runs"]] == [
        ("192.0.2.1", 2, 2),
        ("b.example (192.0.2.2)", 2, 0),
    ]
    assert document["runs"][0]["first_seq"] == 0
    rows = document["runs"][0]["rows"]
    assert [(row["seq"], row["rtt_ns"]) for row in rows] == [(0, 153_000), (1, 116_000)]
    assert (document["not_understood"], document["not_understood_first"]) == (1, ["?"])
    assert as_json("-", given=file.read_text()) == document


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_and_its_sidecar(name: str) -> None:
    document = as_json(str(path_of(name)))
    assert as_json(f"{path_of(name)}.json") == document
    pings = analyzed(name).pings
    assert sum(len(run["rows"]) for run in document["runs"]) == len(pings)
    assert document["not_understood"] == 0
    assert {run["flavour"] for run in document["runs"]} == {"iputils"}


def test_people_see_why(tmp_path: Path) -> None:
    file = tmp_path / "ping.txt"
    file.write_text("one\n" + REAL["busybox"][0])
    shown = CliRunner().invoke(cli, ["pings", "--head", "1", str(file)]).stdout
    for words in (
        "busybox: only busybox prints",
        "first seq  0: busybox counts from 0",
        "program: busybox networking/ping.c",
        "1 line, first: 'one'",
        "2 rows in all",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Pinging 192.0.2.1 with 32 bytes of data:\n", "Windows"),
        ("", "it is empty"),
        ("hello\nworld\n", "2 lines, the first: 'hello'"),
        ("ping: no.example: Name or service not known\n", "Name or service not known"),
        ("\x1b[31mred\x07\n", "1 line: 'red'"),
    ],
)
def test_nothing_understood_is_one_line_and_a_failure(
    text: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "ping.txt"
    file.write_text(text)
    for option in ([], ["--json"]):
        result = CliRunner().invoke(cli, ["pings", *option, str(file)])
        assert isinstance(result.exception, CaptureError)
        assert result.stdout == ""
        assert words in str(result.exception)
        assert len(str(result.exception).splitlines()) == 1


def test_a_trace_without_a_sidecar(tmp_path: Path) -> None:
    shutil.copy(path_of("idle"), tmp_path / "trace.dat")
    result = CliRunner().invoke(cli, ["pings", str(tmp_path / "trace.dat")])
    assert "without a sidecar" in str(result.exception)
    result = CliRunner().invoke(cli, ["pings", str(tmp_path / "none")])
    assert "No such file" in str(result.exception)


def test_utf_16_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ping.txt"
    file.write_bytes(REAL["busybox"][0].replace("\n", "\r\n").encode("utf-16"))
    assert as_json(str(file))["runs"][0]["flavour"] == "busybox"


def findings_of(output: PingOutput, rule: str = "corrected") -> list[tuple[str, str]]:
    run = Run(round=1, place="container", traced=True, argv=["ping"])
    trace = Trace({}, LOST.frame(), clock="mono")
    pings = pings_table([(run, output)])
    rtts = RTTS.frame(pings.reindex(columns=RTTS.names).assign(status="", reason="", rule=rule))
    doubts = find_doubts(None, trace, rtts, COMPARISONS.frame(), [(run, output)])
    return list(zip(doubts["finding"], doubts["message"], strict=True))


def test_findings_tell_of_the_text() -> None:
    (output,) = parse_ping("one\ntwo\n" + REAL["busybox"][0])
    told = dict(findings_of(output))["ping's output"]
    assert told.startswith("2 lines were not understood, in 1 of 1 outputs, first: 'one'")
    (output,) = parse_ping("64 bytes from 192.0.2.1: icmp_seq=1 ttl=63 time=0.1 ms\n")
    told = dict(findings_of(output, "first-number-unknown"))["numbering"]
    assert "0 or 1 is not known in 1 of 1 outputs" in told
    assert "numbering" not in dict(findings_of(output, "corrected"))  # the packets decided it
    (output,) = parse_ping(REAL["busybox"][0])
    assert not {"ping's output", "numbering"} & set(dict(findings_of(output)))


PROGRAMS = {
    "iputils": ["ping", "-c", "3", "-i", "0.01", "127.0.0.1"],
    "busybox": ["busybox", "ping", "-c", "2", "-A", "127.0.0.1"],
    "fping": ["fping", "-c", "3", "-p", "10", "127.0.0.1"],
}


@pytest.mark.parametrize("flavour", PROGRAMS)
def test_the_program_that_is_here(flavour: str) -> None:
    argv = PROGRAMS[flavour]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        pytest.skip(f"{argv[0]} may not ping here: {ran.stderr}")
    for text, known in ((ran.stdout + ran.stderr, ()), (ran.stdout, argv)):
        (output,) = parse_ping(text, known)
        assert output.flavour == flavour
        assert output.not_understood == 0
        assert output.payload_bytes == 56
        rows = rows_of_run(output)
        first = output.first_seq or 0
        assert [row["seq"] for row in rows] == list(range(first, first + len(rows)))
        assert {row["status"] for row in rows} == {"replied"}
        assert all(row["rtt_ns"] > 0 and row["rtt_resolution_ns"] > 0 for row in rows)
