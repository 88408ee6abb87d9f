"""Nothing is lost in silence, and nobody else's file is touched: the attacks on a recording."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import maceproc
from maceproc.capture_files import load_sidecar, recording_directory, sidecar_path
from maceproc.echo_rows import MAGIC
from maceproc.errors import CaptureError, TracingError
from maceproc.recording import recorder as recorder_module
from maceproc.recording import ring, written
from maceproc.recording.lab import NETNS_DIR, Lab
from maceproc.recording.record import record
from maceproc.recording.remains import stale_instances
from maceproc.recording.rescue import finish_killed, remove_stale_instances
from maceproc.recording.sites import lab_site
from maceproc.recording.tracing import TRACEFS
from maceproc.recording.workplace import Workplace
from maceproc.tracedat.container import KALLSYMS, open_trace
from maceproc.tracedat.counting import count_events
from maceproc.tracedat.salvage import REST
from tests.fuzz_tracedat import formats_of
from tests.recorded import path_of
from tests.test_record import MACEPROC, children, comm, error_lines, is_zombie, wait_until
from tests.tracedat_writer import Buffer, File, write_v7

pytestmark = pytest.mark.kernel

PING = ["ping", "-i", "0.002", "-c", "50"]
MOMENTS = int(os.environ.get("MACEPROC_KILLS", "6"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def started(lab: str, trace: Path, *words: str, **more: object) -> subprocess.Popen[str]:
    where = ["--lab", lab] if lab else ["--lab"]
    argv = [*MACEPROC, "record", "--rounds", "1", *where, "-o", str(trace), *words]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload, no-any-return]


def is_recording(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> bool:
    """Whether the recorded ping runs: one without trace-cmd is `ping -V`."""
    return all(children(process.pid, name) for name in ("trace-cmd", "ping"))


def tracecmd_of(process: subprocess.Popen[str]) -> tuple[int, list[int]]:
    """The trace-cmd of a recorder, and its processes, one per CPU."""
    wait_until(lambda: is_recording(process))
    (parent,) = children(process.pid, "trace-cmd")
    return parent, children(parent, "trace-cmd")


# Counts


def test_the_kernel_and_the_file_agree(lab: Lab, tmp_path: Path) -> None:
    capture = record(PING, lab_site(lab), tmp_path / "trace.dat", events="full")
    assert capture.sidecar is not None
    tracing = capture.sidecar.tracing
    assert (tracing.events_missing, tracing.problems) == ({}, [])
    (counted,) = (c for c in count_events(capture.trace).values() if c)
    read = maceproc.read_events(capture.trace, fields=())
    assert sum(counted.values()) == sum(len(table) for table in read.events.values()) > 1000


def test_the_buffer_size_is_the_kernel_s(lab: Lab, tmp_path: Path) -> None:
    capture = record(PING, lab_site(lab), tmp_path / "a.dat", baseline=False, buffer_kb=65)
    assert capture.sidecar is not None
    assert capture.sidecar.tracing.buffer_size_kb >= 65
    assert capture.sidecar.tracing.buffer_size_kb != 65  # whole pages, as the kernel makes them


def test_missing_events_are_a_problem_everywhere(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is cut out of the file between its end and the comparison."""
    real = written.events_written

    def with_a_loss(trace: Path, instance: str) -> dict[int, int]:
        return {cpu: count - 7 for cpu, count in real(trace, instance).items()}

    monkeypatch.setattr(recorder_module.written, "events_written", with_a_loss)
    trace = tmp_path / "trace.dat"
    with pytest.raises(TracingError, match=r"the trace lacks some: 7 of CPU .*1 run kept in"):
        record(PING, lab_site(lab), trace, baseline=False)
    kept = load_sidecar(sidecar_path(trace))
    assert set(kept.tracing.events_missing.values()) == {7}
    findings = maceproc.analyze(trace).findings
    (told,) = findings[findings["finding"] == "incomplete trace"].itertuples()
    assert told.level == "problem"
    assert "lacks some: 7 of CPU" in told.message


def test_a_process_of_trace_cmd_that_is_killed_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = started(lab.name, trace, "--no-baseline", "--", "ping", "-i", "0.01", "-c", "100")
    _, writers = tracecmd_of(process)
    for writer in writers:
        os.kill(writer, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 69
    (line,) = error_lines(stderr)
    assert f"{len(writers)} of trace-cmd's processes, one per CPU, died" in line
    assert "1 run kept" in line
    assert "lacks" not in line  # all that was recorded is there
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600
    analysis = maceproc.analyze(trace)
    assert (analysis.rtts["status"] == "corrected").sum() >= 95
    assert "incomplete trace" in set(analysis.findings["finding"])


def test_a_trace_cmd_that_is_killed_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = started(lab.name, trace, "--no-baseline", "--", "ping", "-i", "0.01", "-c", "100")
    parent, _ = tracecmd_of(process)
    os.kill(parent, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 69
    (line,) = error_lines(stderr)
    assert "trace-cmd failed" in line
    assert "lacks" not in line
    assert not (TRACEFS / "instances" / f"maceproc-{process.pid}").exists()
    assert (maceproc.analyze(trace).rtts["status"] == "corrected").sum() >= 95
    assert not list(tmp_path.glob("*.recording"))


# Each takes the place of trace-cmd. The first makes the kernel's list of command names change all
# the time, so that its size has changed when it is copied. The second leaves a file without events,
# as 3.1.6 does now and then, and the third one none.
CHANGING_NAMES = """
echo "1 init" >{place}/names
mount --bind {place}/names {tracefs}/saved_cmdlines
while [ -d {place} ]; do echo "1 init"; echo "1 init"; : >{place}/names; done >>{place}/names &
exec {tracecmd} "$@"
"""
ENDS_BADLY = """
trap 'kill -s INT $tracecmd' INT
{tracecmd} "$@" &
tracecmd=$!
while kill -0 $tracecmd 2>/dev/null; do wait $tracecmd; done
{finally}
"""
REPLACED = "cp {other} trace.dat; exit 0"
REMOVED = "rm trace.dat; echo bad luck >&2; exit 22"


@pytest.mark.parametrize(
    ("script", "note"),
    [
        (CHANGING_NAMES, ""),
        (ENDS_BADLY.replace("{finally}", REPLACED), ""),
        (ENDS_BADLY.replace("{finally}", REMOVED), "bad luck (status 22); "),
    ],
    ids=["names", "replaced", "removed"],
)
def test_what_trace_cmd_does_wrong_when_it_ends_loses_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, note: str
) -> None:
    wrapper = tmp_path / "bin" / "trace-cmd"
    wrapper.parent.mkdir()
    words = {"tracecmd": shutil.which("trace-cmd"), "tracefs": TRACEFS}
    words |= {"place": wrapper.parent, "other": path_of("every_event")}
    others = '#!/bin/sh\n[ "$1" = record ] || exec {tracecmd} "$@"\n'
    wrapper.write_text((others + script).format(**words))
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    capture = record(PING, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    assert capture.sidecar is not None
    assert capture.sidecar.tracing.problems == []
    assert note in " ".join(capture.sidecar.notes)
    rtts = maceproc.analyze(capture.trace).rtts
    assert (rtts["status"] == "corrected").mean() > 0.9
    assert not list(tmp_path.glob("*.recording"))


def test_a_recording_ends_before_trace_cmd_miscounts(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    ping = ["ping", "-i", "0.002", "-c", "100000"]
    with pytest.raises(TracingError, match="the most that one recording can hold; 1 run kept"):
        record(
            ping,
            lab_site(lab),
            trace,
            events="full",
            rounds=3,
            buffer_kb=64,
            piece_limit_bytes=1 << 20,
        )
    kept = load_sidecar(sidecar_path(trace))
    assert "GiB" in kept.interrupted
    assert "ping statistics" in kept.runs[0].output
    assert (maceproc.analyze(trace).rtts["status"] == "corrected").any()


# Killed


def kill_at_once(pids: list[int]) -> None:
    """Kill processes before any of them can react to the end of another one."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it had ended by itself
                os.kill(pid, number)


def unread_events(instance: str) -> int:
    """How many events the ring buffers of an instance hold."""
    return sum(count.unread for count in ring.counts(TRACEFS / "instances" / instance).values())


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_any_moment(lab: Lab, tmp_path: Path, moment: int) -> None:
    """Whoever is killed and when: nothing goes on, and what was written can be analyzed."""
    random_moment = random.Random(moment)
    trace = tmp_path / "trace.dat"
    process = started(lab.name, trace, "--rounds", "20", "--", *PING)
    if random_moment.random() < 0.8:  # else: while it starts
        wait_until(lambda: is_recording(process))
    time.sleep(random_moment.uniform(0.0, 4.0))
    others = children(process.pid, "trace-cmd")
    kill_at_once([process.pid, *(others if random_moment.random() < 0.5 else [])])
    process.communicate()
    wait_until(lambda: not any(comm(pid) and not is_zombie(pid) for pid in others))
    if recording_directory(trace).exists():
        outcome: list[str] = []
        wait_until(lambda: outcome.append(finished(trace)) or outcome[-1] != "going on")
        if outcome[-1] == "nothing":
            with Workplace(trace):  # the name is free
                pass
        else:
            judge_saved(trace)
    remove_stale_instances()
    instance = TRACEFS / "instances" / f"maceproc-{process.pid}"
    wait_until(lambda: bool(remove_stale_instances()) or not instance.exists())


def finished(trace: Path) -> str:
    """Finish a killed recording, unless its writers are still about to end."""
    try:
        finish_killed(trace, trace)
    except CaptureError as error:
        if "nothing to salvage" in error.message:
            return "nothing"
        if "is being recorded in" in error.message:
            return "going on"
        raise
    return "saved"


def judge_saved(trace: Path) -> None:
    """Every run that had ended is whole; one without a sidecar was killed before the first run."""
    if not sidecar_path(trace).exists():
        return
    kept = load_sidecar(sidecar_path(trace))
    assert kept.interrupted == "the recorder was killed"
    analysis = maceproc.analyze(trace)
    traced = [run for run in kept.runs if run.arm == "container traced"]
    if traced:
        whole = analysis.rtts[analysis.rtts["arm"] == "container traced"]
        assert len(whole) == 50 * len(traced)
        assert (whole["status"] == "corrected").mean() > 0.8


def test_the_next_recording_saves_the_ring_buffer(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = started(lab.name, trace, "--", "ping", "-i", "0.01", "-c", "500")
    parent, writers = tracecmd_of(process)
    name = f"maceproc-{process.pid}"
    for pid in writers:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: unread_events(name) > 0)
    kill_at_once([process.pid, parent, *writers])
    process.communicate()
    wait_until(lambda: name in stale_instances())
    unread = unread_events(name)
    record(PING, lab_site(lab), tmp_path / "other.dat", baseline=False)
    assert not (TRACEFS / "instances" / name).exists()
    assert any(path.name.endswith(REST) for path in recording_directory(trace).iterdir())
    finish_killed(trace, trace)
    assert sum(count_events(trace)[name].values()) >= unread


# Signals


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1])
def test_a_burst_of_signals_leaves_nothing(tmp_path: Path, delay_s: float) -> None:
    process = started("", tmp_path / "trace.dat", "--", "ping", "-i", "0.01")
    wait_until(lambda: is_recording(process) or process.poll() is not None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(delay_s)
    for _ in range(20):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    process.communicate(timeout=60)
    # Of signals that arrive together none is the first: the status tells one of them.
    assert process.returncode - 128 in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    assert not list(NETNS_DIR.glob(f"maceproc-{process.pid}-*"))
    assert not (TRACEFS / "instances" / f"maceproc-{process.pid}").exists()
    assert not list(tmp_path.glob("*.recording"))


def test_a_signal_that_is_ignored_stays_ignored(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    argv = [
        "nohup",
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        "--lab",
        lab.name,
        "-o",
        str(trace),
        "--no-baseline",
    ]
    with subprocess.Popen(
        [*argv, "--", "ping", "-i", "0.01", "-c", "80"], stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: is_recording(process))
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert load_sidecar(sidecar_path(trace)).interrupted == ""


@pytest.mark.parametrize("redirect", ["2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_nobody_to_tell_loses_no_recording(lab: Lab, tmp_path: Path, redirect: str) -> None:
    argv = [
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        "--lab",
        lab.name,
        "-o",
        str(tmp_path / "a.dat"),
        "--",
        *PING,
    ]
    done = subprocess.run(["sh", "-c", f'"$@" {redirect}', "sh", *argv], check=False)
    assert done.returncode == 0
    assert [run.exit_status for run in load_sidecar(tmp_path / "a.dat.json").runs] == [0, 0, 0, 0]
    assert (maceproc.analyze(tmp_path / "a.dat").rtts["status"] == "corrected").any()


# Files


def test_planted_links_are_not_followed(lab: Lab, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's own")
    place = tmp_path / "place"
    place.mkdir()
    names = ["trace.dat", "trace.dat.json", "trace.dat.json.partial", "trace.dat.joined"]
    names += [f"trace.dat.maceproc-{os.getpid()}.cpu{cpu}" for cpu in range(2)]
    names += ["trace.dat.cpu0", "(null).cpu0"]
    for name in names:
        (place / name).symlink_to(secret)
    with pytest.raises(CaptureError, match="exists"):
        record(PING, lab_site(lab), place / "trace.dat", baseline=False)
    record(PING, lab_site(lab), place / "trace.dat", baseline=False, force=True)
    assert secret.read_text() == "root's own"
    for name in names[:2]:
        file = place / name
        assert not file.is_symlink()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert all((place / name).is_symlink() for name in names[2:])


def test_a_link_in_place_of_the_private_directory(lab: Lab, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    (tmp_path / "trace.dat.recording").symlink_to(theirs)
    with pytest.raises(CaptureError, match=r"trace.dat.recording"):
        record(PING, lab_site(lab), tmp_path / "trace.dat", force=True)
    assert not list(theirs.iterdir())
    (tmp_path / "trace.dat.recording").unlink()
    (tmp_path / "trace.dat.recording").mkdir()
    (tmp_path / "trace.dat.recording").chmod(0o777)
    with pytest.raises(CaptureError, match="is not a recording's"):
        record(PING, lab_site(lab), tmp_path / "trace.dat", force=True)


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_two_recorders_with_one_name(lab: Lab, tmp_path: Path, force: list[str]) -> None:
    trace = tmp_path / "trace.dat"
    first = started(lab.name, trace, "--", "ping", "-i", "0.01", "-c", "60")
    wait_until(lambda: recording_directory(trace).exists())
    second = started(lab.name, trace, *force, "--", *PING)
    _, refused = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "is being recorded by another process" in refused
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert (maceproc.analyze(trace).rtts["status"] == "corrected").sum() >= 55


def test_many_recorders_claim_one_name(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from maceproc.errors import CaptureError
from maceproc.recording.workplace import Workplace
try:
    with Workplace(Path(sys.argv[1]), force=True):
        print("mine", flush=True)
        sys.stdin.read()
except CaptureError as error:
    print(error.message)
"""
    argv = [sys.executable, "-c", script, str(tmp_path / "trace.dat")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racing = [subprocess.Popen(argv, **pipes) for _ in range(6)]  # type: ignore[call-overload]
    wait_until(lambda: sum(process.poll() is not None for process in racing) == 5)
    said = [process.communicate()[0] for process in racing]
    assert said.count("mine\n") == 1
    assert sum("is being recorded by another process" in line for line in said) == 5


def test_what_a_killed_recording_left_is_not_overwritten(lab: Lab, tmp_path: Path) -> None:
    directory = recording_directory(tmp_path / "trace.dat")
    directory.mkdir(mode=0o700)
    (directory / "trace.dat").write_bytes(b"events")
    with pytest.raises(CaptureError, match=r"killed recording.*salvage"):
        record(PING, lab_site(lab), tmp_path / "trace.dat")
    assert (directory / "trace.dat").read_bytes() == b"events"
    with Workplace(tmp_path / "trace.dat", force=True):
        assert not list(directory.iterdir())
    assert not directory.exists()


@pytest.mark.parametrize("file", ["", "trace.dat", "rows"])
def test_a_recording_killed_before_any_event_does_not_keep_the_name(
    lab: Lab, tmp_path: Path, file: str
) -> None:
    directory = recording_directory(tmp_path / "trace.dat")
    directory.mkdir(mode=0o700)
    sidecar = sidecar_path(path_of("every_event")).read_bytes()
    (directory / "trace.dat.json").write_bytes(sidecar)
    if file == "trace.dat":
        with open_trace(path_of("every_event")) as known:
            empty = write_v7(File([Buffer("", {0: []})], formats_of(known)))
        (directory / "trace.dat").write_bytes(empty)
    elif file == "rows":
        (directory / "trace.dat").write_bytes(MAGIC + b"{}\n")
    else:
        (directory / "trace.dat.maceproc-1.cpu0").touch()
    with pytest.raises(CaptureError, match="nothing to salvage"):
        finish_killed(tmp_path / "trace.dat", tmp_path / "trace.dat")
    with Workplace(tmp_path / "trace.dat"):
        assert not list(directory.iterdir())


def test_the_caller_of_sudo_owns_the_capture(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65533")
    capture = record(PING, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    for path in (capture.trace, sidecar_path(capture.trace)):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (65534, 65533)
        assert stat.S_IMODE(status.st_mode) == 0o600


def test_the_kernel_s_addresses_are_not_recorded(lab: Lab, tmp_path: Path) -> None:
    capture = record(PING, lab_site(lab), tmp_path / "trace.dat", baseline=False)
    with open_trace(capture.trace) as trace:
        kallsyms = trace.section(KALLSYMS)
        assert kallsyms is None or not bytes(kallsyms.data).strip(b"\0")


def test_a_trace_with_another_sidecar_is_refused(lab: Lab, tmp_path: Path) -> None:
    a, b = (record(PING, lab_site(lab), tmp_path / f"{name}.dat").trace for name in "ab")
    sidecar_path(a).write_bytes(sidecar_path(b).read_bytes())
    with pytest.raises(CaptureError, match=r"a.dat.json: belongs to another trace"):
        maceproc.analyze(a)
    old = json.loads(sidecar_path(b).read_text())
    del old["trace"]  # as it was before
    sidecar_path(b).write_text(json.dumps(old))
    assert len(maceproc.analyze(b).rtts) == 200
