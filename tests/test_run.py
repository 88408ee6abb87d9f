"""`maceproc run`, the place of `--`, and what a shell completes after options that take names."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from maceproc.cli import candidates, cli
from maceproc.cli.options import with_separator
from maceproc.errors import CaptureError, CommandError, NoReply


def failing(*words: str) -> Exception:
    result = CliRunner().invoke(cli, words)
    assert result.exception
    assert isinstance(result.exception, Exception)
    return result.exception


@pytest.mark.kernel
def test_it_tells_its_duration_and_leaves_capture_report_and_page(tmp_path: Path) -> None:
    trace = tmp_path / "t.dat"
    words = ["run", "--lab", "--rounds", "1", "-o", str(trace), "--", "ping", "-c5", "-i", "0.01"]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = result.stderr.index("4 runs of less than 1 s each")
    assert told < result.stderr.index("recorded")
    assert "corrected: 5 of 5 answered pings" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"t.dat", "t.dat.json", "t.html"}


@pytest.mark.kernel
def test_without_any_reply_the_report_and_the_page_are_there_and_the_status_is_not_0(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "t.dat"
    ping = ["ping", "-c", "1", "-W", "0.2", "192.0.2.99"]
    result = CliRunner().invoke(
        cli, ["run", "--lab", "--rounds", "1", "-o", str(trace), "--", *ping]
    )
    assert isinstance(result.exception, NoReply)
    assert str(result.exception).startswith("no reply from 192.0.2.99; 2 runs kept in")
    assert {path.name for path in tmp_path.iterdir()} == {"t.dat", "t.dat.json", "t.html"}
    again = CliRunner().invoke(cli, ["analyze", str(trace)])
    assert again.exit_code == 1
    for told in (result.stdout, again.stdout):
        assert told.startswith("None of 2 pings in the container got a reply.")
        assert re.search(r"problem +no reply: none of 2 pings got a reply", told)


def test_what_would_waste_a_recording_is_told_before_it(tmp_path: Path) -> None:
    end = failing("run", "--lab", "-o", f"{tmp_path}/t.dat", "--", "ping", "192.0.2.2")
    assert isinstance(end, CommandError)
    assert str(end) == "this ping has no end; give it a number of packets, such as -c 100"
    quiet = failing("run", "-o", f"{tmp_path}/t.dat", "--", "ping", "-qc", "3", "127.0.0.1")
    assert "leave -q out" in str(quiet)
    (tmp_path / "t.html").touch()
    page = failing("run", "-o", f"{tmp_path}/t.dat", "--", "ping", "-c", "3", "127.0.0.1")
    assert isinstance(page, CaptureError)
    assert "t.html: exists" in str(page)
    assert [path.name for path in tmp_path.iterdir()] == ["t.html"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--lab ping -c 5", "--lab -- ping -c 5"),
        ("--container web ping -c 5 192.0.2.1", "--container web -- ping -c 5 192.0.2.1"),
        ("ping -i 0.1 192.0.2.1", "-- ping -i 0.1 192.0.2.1"),
        ("docker run --rm alpine ping 192.0.2.1", "-- docker run --rm alpine ping 192.0.2.1"),
        ("--host /bin/ping 127.0.0.1", "--host -- /bin/ping 127.0.0.1"),
        ("--container ping -- ping -c 1 x", None),
        ("--container ping", None),
        ("--lab", None),
        ("--lab -- curl -f x", None),
    ],
)
def test_where_the_separator_belongs(line: str, expected: str | None) -> None:
    meant = with_separator(line.split())
    assert (" ".join(meant) if meant else None) == expected


@pytest.mark.parametrize("verb", ["record", "run"])
@pytest.mark.parametrize("line", ["--lab ping -c 5", "--container web ping -c 5 192.0.2.1"])
def test_a_missing_separator_is_told(verb: str, line: str) -> None:
    result = CliRunner().invoke(cli, [verb, *line.split()])
    assert result.exit_code == 2
    assert "Put -- before the command: " in result.output
    assert re.search(rf"{verb} .*-- ping -c 5", result.output)


def complete(of: object, begun: str) -> list[str]:
    return of(click.Context(cli), cli.params[0], begun)  # type: ignore[operator]


def test_candidates_are_those_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "lo" in complete(candidates.devices, "l")
    assert complete(candidates.devices, "no such device") == []
    for name in ("x1-container", "x1-host", "x1-remote", "other"):
        (tmp_path / name).touch()
    monkeypatch.setattr("maceproc.recording.lab.NETNS_DIR", tmp_path)
    assert complete(candidates.namespaces, "x1-h") == ["x1-host"]
    assert complete(candidates.labs, "") == ["x1"]


def test_candidates_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "available_events").write_text("net:netif_rx\nnet:net_dev_queue\nskb:kfree_skb\n")
    monkeypatch.setattr(candidates, "EVENTS", (tmp_path / "none", tmp_path))
    assert complete(candidates.events, "net:") == ["net:net_dev_queue", "net:netif_rx"]
    assert complete(candidates.events, "skb:kfree_skb,net:netif") == ["skb:kfree_skb,net:netif_rx"]
    assert complete(candidates.events, "m") == ["minimal"]


def test_candidates_of_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that hangs or fails takes nothing from the shell but a moment."""
    for name, script in (
        ("docker", "echo web; echo web2; echo db"),
        ("podman", "exit 1"),
        ("nerdctl", "exec sleep 60"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(candidates, "LONGEST_WAIT_S", 0.2)
    assert complete(candidates.containers, "we") == ["web", "web2"]
