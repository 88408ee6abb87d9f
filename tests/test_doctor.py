"""`maceproc doctor` tells what is, and removes only what was left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from maceproc import doctor
from maceproc.cli import cli
from maceproc.doctor import Check, _absent_fields, _engine, _pieces, examine
from maceproc.recording.lab import NETNS_DIR
from maceproc.recording.remains import REGISTRY, forget, remember, stale_notes
from tests.engine import Engine
from tests.tracing import TRACEFS

pytestmark = pytest.mark.kernel

DEAD = 4194305  # above PID_MAX_LIMIT: no process can have it
LEVELS = {"ok", "warning", "problem"}


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.check: check for check in checks}


def test_a_machine_that_records_has_no_problem(tmp_path: Path) -> None:
    checks = examine(tmp_path)
    assert {check.level for check in checks} <= LEVELS
    assert [check for check in checks if check.level == "problem"] == []
    found = by_name(checks)
    for name in ("privileges", "trace-cmd", "tracefs", "events", "clock", "trial", "ping"):
        assert found[name].level == "ok", found[name]
    assert found["leftovers"].message == "none" or "killed" in found["leftovers"].message


def test_without_root_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    assert result.exit_code == 1
    rows = {row["check"]: row for row in json.loads(result.stdout)["checks"]}
    assert rows["privileges"]["level"] == "problem"
    assert rows["privileges"]["advice"] == "run it with sudo"
    assert rows["tracefs"]["level"] == "problem"
    assert rows["ping"]["level"] == "ok"


def test_without_trace_cmd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_TRACECMD", (99, 0))
    assert by_name(examine())["trace-cmd"].level == "warning"
    monkeypatch.setenv("PATH", "/nonexistent")
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "problem  programs         trace-cmd: not found" in result.output
    assert "apt install trace-cmd" in result.output
    assert "warning  lab              ip, nsenter, iptables" in result.output
    assert result.output.startswith("not ready to record: programs")
    assert "warning  engines          none of docker, podman, nerdctl is installed" in result.output


def test_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    for name, value in engine.env.items():
        monkeypatch.setenv(name, value)
    assert _engine("docker").level == "ok"
    assert _engine("docker").message.endswith(" answers")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert _engine("docker").level == "warning"
    assert "/nonexistent/docker.sock" in _engine("docker").message


def test_fields_that_an_event_lacks() -> None:
    declared = """
        field:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
        field:__data_loc char[] name;\toffset:20;\tsize:4;\tsigned:0;
    """
    assert _absent_fields(declared, "netif_rx") == ["len"]
    assert _absent_fields(declared + "field:unsigned int len;", "netif_rx") == []


@pytest.fixture
def leftovers() -> Iterator[tuple[Path, Path]]:
    """A tracing instance and a part of a lab, as a recording leaves them that is killed."""
    instance = TRACEFS / "instances" / f"maceproc-{DEAD}"
    netns = NETNS_DIR / f"maceproc-{DEAD}-abcd-container"
    instance.mkdir()
    subprocess.run(["ip", "netns", "add", netns.name], check=True)
    try:
        yield instance, netns
    finally:
        if instance.exists():
            instance.rmdir()
        if netns.exists():
            subprocess.run(["ip", "netns", "delete", netns.name], check=True)


def test_leftovers_are_told_and_removed_when_asked(leftovers: tuple[Path, Path]) -> None:
    told = CliRunner().invoke(cli, ["doctor"])
    assert f"tracing instance maceproc-{DEAD}, of a recording that was killed" in " ".join(
        told.output.split()
    )
    assert f"lab maceproc-{DEAD}-abcd, of a recording that was killed" in " ".join(
        told.output.split()
    )
    assert all(path.exists() for path in leftovers)
    fixed = CliRunner().invoke(cli, ["doctor", "--fix"])
    assert f"removed tracing instance maceproc-{DEAD}\n" in fixed.output
    assert f"removed lab maceproc-{DEAD}-abcd\n" in fixed.output
    assert not any(path.exists() for path in leftovers)


def test_notes_of_instances_that_are_gone_are_removed(leftovers: tuple[Path, Path]) -> None:
    gone, there, ours = f"maceproc-{DEAD}-gone", leftovers[0].name, f"maceproc-{os.getpid()}"
    for name in (gone, there, ours):
        remember(name, Path("/nonexistent/trace.dat"))
    assert REGISTRY / gone in stale_notes()
    removed = doctor.remove_leftovers()
    assert f"note {REGISTRY / gone}" in removed
    assert f"tracing instance {there}" in removed
    left = {path.name for path in REGISTRY.iterdir()}
    forget(ours)
    assert {gone, there, ours} & left == {ours}


def test_a_container_of_a_killed_recording_is_removed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in engine.env.items():
        monkeypatch.setenv(name, value)
    left, other, living = (
        f"maceproc-{DEAD}-0123abcd", f"maceproc-{DEAD}", f"maceproc-{os.getpid()}-0123abcd",
    )  # fmt: skip
    with engine.container(left), engine.container(other), engine.container(living):
        found = doctor.remove_leftovers()
        assert f"docker container {left}" in found
        assert set(engine.docker("ps", "--format", "{{.Names}}").split()) >= {other, living}
        assert left not in engine.docker("ps", "--all", "--format", "{{.Names}}").split()


def test_pieces_of_a_trace_are_counted_and_stay(tmp_path: Path) -> None:
    for name in (
        "trace.dat.cpu0", "trace.dat.cpu1", f"web.dat.maceproc-{DEAD}.cpu0",
        f"now.dat.maceproc-{os.getpid()}.cpu0", "notes.cpuinfo",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert _pieces(tmp_path) == {str(tmp_path / "trace.dat"): 2, str(tmp_path / "web.dat"): 1}
    doctor.remove_leftovers()
    assert len(list(tmp_path.iterdir())) == 5


def test_directories_of_killed_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, living = tmp_path / f"maceproc-{DEAD}-ab12", tmp_path / f"maceproc-{os.getpid()}-ab12"
    other = tmp_path / "maceproc-notes"
    for directory in (dead, living, other):
        directory.mkdir()
        (directory / "file").touch()
    for name in ("empty", "full"):
        (tmp_path / f"{name}.dat.recording").mkdir(mode=0o700)
    (tmp_path / "full.dat.recording" / "full.dat").touch()
    told = " ".join(CliRunner().invoke(cli, ["doctor"]).output.split())
    assert f"directory {dead}, of a recording that was killed" in told
    assert "`maceproc salvage full.dat` makes a capture of it" in told
    removed = doctor.remove_leftovers()
    assert {f"directory {dead}", "directory empty.dat.recording"} <= set(removed)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {living.name, other.name, "full.dat.recording"}


def test_a_failing_record_points_to_the_doctor() -> None:
    result = CliRunner().invoke(
        cli, ["record", "--container", "nosuch", "-o", "/nonexistent/a.dat", "--", "ping", "::1"]
    )
    assert "`maceproc doctor` checks what a recording needs" in str(result.exception)
