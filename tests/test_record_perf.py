"""`record --tracer perf`: the same events as by trace-cmd, and nothing lost in silence."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import maceproc
from maceproc.capture_files import load_sidecar, save_sidecar, sidecar_path
from maceproc.errors import TraceFormatError, TracingError
from maceproc.perfdata.joining import join
from maceproc.recording import perf_recorder
from maceproc.recording.event_sets import MINIMAL_EVENTS
from maceproc.recording.lab import Lab
from maceproc.recording.perf_trial import try_perf
from maceproc.recording.record import record
from maceproc.recording.recorder import recorded_to
from maceproc.recording.sites import here_site, lab_site
from tests import perfdata_writer as w
from tests.test_perfdata import FORMATS, MACHINE, needs_perf, tick
from tests.test_record import (
    MACEPROC,
    children,
    comm,
    error_lines,
    in_private_mounts,
    is_zombie,
    programs,
    run_maceproc,
    wait_until,
)

PING = ["ping", "-i", "0.01", "-c", "20"]
kernel = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as up:
        yield up


# --- what is recorded -----------------------------------------------------------------------------


@kernel
@needs_perf
def test_every_ping_is_corrected_and_untraced_runs_have_no_events(lab: Lab, tmp_path: Path) -> None:
    capture = record(PING, lab_site(lab), tmp_path / "t.dat", rounds=2, tracer="perf")
    assert capture.sidecar is not None
    tracing = capture.sidecar.tracing
    assert (tracing.tracer, tracing.clock, tracing.problems) == ("perf", "mono", [])
    assert tracing.perf_version
    assert not tracing.tracecmd_version
    analysis = maceproc.analyze(capture.trace)
    traced = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    assert (traced["status"] == "corrected").sum() >= 38  # of 40: a loaded machine may lose one
    assert (traced["residual_ns"].dropna() > -1000).all()
    times = np.concatenate([table["time_ns"] for table in analysis.trace.events.values()])
    untraced = [run for run in capture.sidecar.runs if not run.traced]
    assert len(untraced) == 4
    for run in untraced:
        assert not ((times >= run.start_ns) & (times <= run.end_ns)).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.dat", "t.dat.json"]
    said = subprocess.run(["perf", "script", "-i", capture.trace], capture_output=True, check=True)
    everything = maceproc.read_events(capture.trace, fields=()).events
    assert len(said.stdout.splitlines()) == sum(map(len, everything.values()))


@kernel
@needs_perf
def test_beside_ftrace_the_same_pings_give_the_same_tables(lab: Lab, tmp_path: Path) -> None:
    perf, ftrace = tmp_path / "perf.dat", tmp_path / "ftrace.dat"
    with recorded_to(ftrace, list(MINIMAL_EVENTS), 4096) as recorder:
        recorder.switch_on()
        named = ",".join(MINIMAL_EVENTS)
        capture = record(PING, lab_site(lab), perf, baseline=False, tracer="perf", events=named)
        recorder.switch_off()
    assert capture.sidecar is not None
    save_sidecar(sidecar_path(ftrace), msgspec.structs.replace(capture.sidecar, trace=None))
    ours, theirs = maceproc.analyze(perf), maceproc.analyze(ftrace)
    both = (ours.rtts["status"] == "corrected") & (theirs.rtts["status"] == "corrected")
    assert both.sum() >= 18  # of 20
    assert ours.rtts["seq"].equals(theirs.rtts["seq"])
    # Each tracer reads the clock for itself, at the same tracepoint.
    for column in ("outbound_ns", "inbound_ns"):
        apart = (ours.rtts[column] - theirs.rtts[column])[both].abs()
        assert apart.median() < theirs.rtts["rtt_ns"][both].median() / 4, column
    (run,) = capture.sidecar.runs
    for name, table in ours.trace.events.items():
        # Away from the ends of the run, what one has the other has, of the same thread and packet.
        inside = table[table["time_ns"].between(run.start_ns, run.end_ns)]
        columns = [c for c in ("pid", "cpu", "skbaddr", "len", "ret") if c in table]
        own = Counter(inside[columns].itertuples(index=False, name=None))
        other = Counter(theirs.trace.events[name][columns].itertuples(index=False, name=None))
        assert (own - other).total() <= 2, name


@kernel
@needs_perf
def test_what_found_no_room_is_counted_as_perf_counts_it(lab: Lab, tmp_path: Path) -> None:
    busy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=60000"]
    capture = record(
        busy,
        here_site(),
        tmp_path / "t.dat",
        baseline=False,
        tracer="perf",
        events="raw_syscalls:*",
        buffer_kb=8,
    )
    assert capture.sidecar is not None
    lost = capture.sidecar.tracing.events_lost
    said = subprocess.run(
        ["perf", "script", "--show-lost-events", "-i", capture.trace],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    counts = [int(said[at + 2]) for at, word in enumerate(said) if word == "PERF_RECORD_LOST"]
    assert sum(lost.values()) >= sum(counts) > 0
    assert maceproc.read_events(capture.trace).lost["count"].sum() == sum(lost.values())


# --- ended early ----------------------------------------------------------------------------------


def started(lab: Lab, trace: Path, *words: str) -> subprocess.Popen[str]:
    """Start a recording; return when its ping runs beside perf."""
    argv = [
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        "--lab",
        lab.name,
        "--tracer",
        "perf",
        "-o",
        str(trace),
        *words,
    ]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: all(children(process.pid, name) for name in ("perf", "ping")), 40)
    return process


@kernel
@needs_perf
def test_ctrl_c_keeps_what_was_recorded(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = started(lab, trace, "--no-baseline", "--", "ping", "-i", "0.01")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    (line,) = error_lines(stderr)
    assert line.startswith(f"maceproc: interrupted by SIGINT; 1 run kept in {trace}")
    assert load_sidecar(sidecar_path(trace)).interrupted == "SIGINT"
    assert maceproc.analyze(trace).rtts["status"].eq("corrected").sum() >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.dat", "trace.dat.json"]


@kernel
@needs_perf
def test_killed_outright_perf_ends_and_salvage_finds_everything(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = started(lab, trace, "--rounds", "9", "--", "ping", "-i", "0.01", "-c", "30")
    (perf,) = children(process.pid, "perf")
    process.kill()
    process.communicate()
    wait_until(lambda: not comm(perf) or is_zombie(perf), 40)
    words = [*MACEPROC, "salvage", str(trace)]
    saved = subprocess.run(words, capture_output=True, text=True, check=False)
    assert saved.returncode == 0, saved.stderr
    assert load_sidecar(sidecar_path(trace)).interrupted == "the recorder was killed"
    sends = maceproc.read_events(trace).events["sys_enter_sendto"]
    assert sends["comm"].eq("ping").any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.dat", "trace.dat.json"]


@kernel
@needs_perf
def test_a_perf_that_is_killed_is_told(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = started(lab, trace, "--no-baseline", "--", "ping", "-i", "0.01", "-c", "50")
    (perf,) = children(process.pid, "perf")
    os.kill(perf, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 69
    (line,) = error_lines(stderr)
    assert "perf ended before the recording did" in line
    assert "1 run kept" in line or "maceproc salvage" in line
    if trace.exists():
        assert any(
            "perf ended" in each for each in load_sidecar(sidecar_path(trace)).tracing.problems
        )


@kernel
@needs_perf
def test_disk_full(lab: Lab, tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=1m none {tmp_path}; "$@" || s=$?; ls {tmp_path}/*; exit $s'
    words = ["--lab", lab.name, "--tracer", "perf", "--events", "net:*,skb:*,sched:*"]
    words += ["-o", str(tmp_path / "a.dat"), "--", "ping", "-c300", "-i0.002"]
    done = in_private_mounts(script, *words)
    assert done.returncode == 69
    (line,) = error_lines(done.stderr)
    assert "perf failed: " in line
    assert "No space left on device" in line
    assert "a.dat" in done.stdout


# --- what is missing ------------------------------------------------------------------------------


@kernel
def test_without_perf_one_clear_line(tmp_path: Path) -> None:
    env = programs(tmp_path / "bin", "ping", "ip", "nsenter", "lsns", "unshare", "setpriv")
    words = ["--tracer", "perf", "-o", str(tmp_path / "a.dat"), "--", "ping", "::1"]
    done = run_maceproc(*words, env=env)
    assert done.returncode == 69
    assert "perf: not found; install it (Debian: apt install linux-perf)" in done.stderr
    assert done.stderr.count("\n") == 1


@kernel
@needs_perf
def test_without_trace_cmd_perf_is_offered_and_records(lab: Lab, tmp_path: Path) -> None:
    names = ["perf", "ping", "ip", "nsenter", "lsns", "unshare", "setpriv", "sh", "mount"]
    env = programs(tmp_path / "bin", *names)
    words = ["--no-baseline", "-o", str(tmp_path / "a.dat"), "--", "ping", "-c", "2", "-i", "0.1"]
    done = run_maceproc("--lab", lab.name, *words, env=env)
    assert done.returncode == 69
    assert "or record with --tracer perf, which is installed" in done.stderr
    done = run_maceproc("--lab", lab.name, "--tracer", "perf", *words, env=env)
    assert done.returncode == 0, done.stderr


@kernel
@needs_perf
def test_a_perf_that_may_not_trace_says_why(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "perf"
    refusing.write_text(
        "#!/bin/sh\necho 'Error: No permission to enable net:net_dev_queue' >&2\nexit 255\n"
    )
    refusing.chmod(0o755)
    monkeypatch.setattr(perf_recorder, "PROGRAM", str(refusing))
    (tmp_path / "out").mkdir()
    with pytest.raises(TracingError, match="perf does not record: Error: No permission to enable"):
        record(PING, lab_site(lab), tmp_path / "out" / "t.dat", tracer="perf")
    assert list((tmp_path / "out").iterdir()) == []
    level, message, _ = try_perf()
    assert level == "warning"
    assert "No permission" in message


@kernel
@needs_perf
def test_doctor_tries_it() -> None:
    level, message, _ = try_perf()
    assert level == "ok", message


# --- pieces ---------------------------------------------------------------------------------------


def piece(start: int, total: int, ids: list[int], *, lost: int = 0) -> bytes:
    """A pipe with two events of these ids, whose samples go on in turn."""
    has = w.USUAL | w.ID
    attrs = [w.Attr(300 + n, has, ids=[own]) for n, own in enumerate(ids)]
    records = [w.comm(MACHINE, attrs[0], start, 1, f"from {start}")]
    for n in range(total):
        attr = attrs[n % 2]
        payload = tick(start + n, kind=300 + n % 2)
        sample = w.Sample(attr, start + n, payload, cpu=n % 2, id=attr.ids[0])
        records.append(sample.write(MACHINE))
    if lost:
        records.append(w.lost(MACHINE, attrs[0], start + total, 1, lost))
    records.append(w.finished_round(MACHINE))
    return w.PerfData(attrs, records, FORMATS).write_pipe()


def test_a_piece_whose_last_round_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.perf0").write_bytes(piece(1000, 10, [5, 9])[:-8])
    joined = join(tmp_path / "t.dat", [tmp_path / "t.perf0"])
    assert joined.samples == 10
    assert joined.notes == ["t.perf0: its end is missing: perf was killed, or could not write it"]


def test_pieces_become_one_file_of_one_perf(tmp_path: Path) -> None:
    pieces = [tmp_path / f"t.perf{n}" for n in range(3)]
    for n, (path, ids) in enumerate(zip(pieces, ([5, 9], [17, 4], [9, 5]), strict=True)):
        path.write_bytes(piece(1000 * (n + 1), 10, ids, lost=3 * n))
    joined = join(tmp_path / "t.dat", pieces)
    assert (joined.samples, joined.lost, joined.notes) == (30, {"1": 9}, [])
    trace = maceproc.read_events(tmp_path / "t.dat")
    for kind, name in enumerate(("tick", "tock")):
        numbers = [1000 * p + n for p in (1, 2, 3) for n in range(kind, 10, 2)]
        assert trace.events[name]["number"].tolist() == numbers
        assert trace.events[name]["time_ns"].tolist() == numbers
    assert trace.events["tick"]["comm"].tolist()[-1] == "from 3000"
    assert trace.lost["count"].tolist() == [3, 6]
    assert trace.notes == ()
    assert (tmp_path / "t.dat").read_bytes().count(b"\x17\x08\x44tracing") == 1


@pytest.mark.parametrize("cut", [1, 8, 100, 600])
def test_what_is_whole_of_a_cut_piece_is_kept(tmp_path: Path, cut: int) -> None:
    pieces = [tmp_path / "t.perf0", tmp_path / "t.perf1"]
    pieces[0].write_bytes(piece(1000, 10, [5, 9])[:-cut])
    pieces[1].write_bytes(piece(2000, 10, [6, 7]))
    joined = join(tmp_path / "t.dat", pieces)
    assert any("left out" in note or "end is missing" in note for note in joined.notes)
    numbers = maceproc.read_events(tmp_path / "t.dat").events["tick"]["number"].tolist()
    assert numbers[-5:] == [2000, 2002, 2004, 2006, 2008]
    assert numbers[:-5] == [1000, 1002, 1004, 1006, 1008][: len(numbers) - 5]
    assert joined.samples < 20 or cut <= 8


def test_a_piece_with_other_cpus_declares_its_own_ids(tmp_path: Path) -> None:
    pieces = [tmp_path / "t.perf0", tmp_path / "t.perf1"]
    pieces[0].write_bytes(piece(1000, 4, [5, 9]))
    attrs = [w.Attr(300, w.USUAL | w.ID, ids=[7, 8])]
    samples = [w.Sample(attrs[0], 2000, tick(2000), id=8).write(MACHINE)]
    samples.append(w.finished_round(MACHINE))
    pieces[1].write_bytes(w.PerfData(attrs, samples, FORMATS).write_pipe())
    assert join(tmp_path / "t.dat", pieces).samples == 5
    trace = maceproc.read_events(tmp_path / "t.dat")
    assert trace.events["tick"]["number"].tolist() == [1000, 1002, 2000]


def test_pieces_that_are_none_are_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "t.perf0"
    wrong.write_bytes(b"no perf.data")
    with pytest.raises(TraceFormatError, match="PERFILE2"):
        join(tmp_path / "t.dat", [wrong])


PERFMON, SEARCH = 1 << 38, 1 << 2


@pytest.mark.parametrize(
    ("capabilities", "place", "said"),
    [
        (PERFMON, ["--netns", "x"], "recording needs root: CAP_PERFMON is enough for perf, but a"),
        (PERFMON, [], "perf needs to read /sys/kernel/tracing: Permission denied; give this"),
        (0, [], "perf needs CAP_PERFMON to record the events of all tasks; give it to"),
        (SEARCH, ["--host"], "perf needs CAP_PERFMON to record the events of all tasks; give it"),
    ],
)
def test_each_capability_that_is_missing_is_named(
    tmp_path: Path, capabilities: int, place: list[str], said: str
) -> None:
    # Imported as root, since nobody may not be allowed to read the place where the tests run; the
    # capability stays over the change of user (PR_SET_KEEPCAPS, prctl(2)).
    script = (
        "import ctypes, os, maceproc.recording.record, maceproc.cli;"
        "ctypes.CDLL(None).prctl(8, 1, 0, 0, 0);"
        "os.setuid(65534);"
        "head = (ctypes.c_uint32 * 2)(0x20080522, 0);"
        f"low, high = {capabilities & 0xFFFFFFFF}, {capabilities >> 32};"
        "sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0);"
        "assert ctypes.CDLL(None).capset(head, sets) == 0;"
        "maceproc.cli.main()"
    )
    words = ["record", *place, "--tracer", "perf", "--output", str(tmp_path / "a"), "--"]
    argv = [sys.executable, "-c", script, *words, "ping", "::1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr.startswith(f"maceproc: {said}")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 77


AS_NOBODY = (
    "exec setpriv --reuid=65534 --regid=65534 --clear-groups "
    '--inh-caps={caps} --ambient-caps={caps} -- "$@"'
)
EVERYBODY_S_TMP = "mount -t tmpfs -o mode=1777 none /tmp && "


@pytest.mark.kernel
@needs_perf
def test_the_host_s_own_ping_is_recorded_without_root() -> None:
    """By a user that has CAP_PERFMON, and CAP_DAC_READ_SEARCH to read tracefs."""
    script = AS_NOBODY.format(caps="+perfmon,+dac_read_search,+net_raw")
    if not Path("/tmp").stat().st_mode & 0o002:  # perf writes there
        if {Path("/tmp")} & {*Path(__file__).parents, *Path(sys.executable).parents}:
            pytest.skip("we are in /tmp, where only root may write")
        script = EVERYBODY_S_TMP + script
    words = ["record", "--tracer", "perf", "--no-baseline", "--rounds", "1", "-o", "p.dat", "--"]
    program = [sys.executable, "-P", "-m", "maceproc"]
    both = [*program, *words, "ping", "-c", "10", "-i", "0.02", "127.0.0.1"]
    shown = shlex.join([*program, "events", "p.dat", "net_dev_queue", "--csv"])
    made = "cd $(mktemp -d) && trap 'rm -r $PWD' EXIT"
    argv = ["unshare", "--mount", "sh", "-c", script, "sh"]
    argv += ["sh", "-c", f"{made} && {shlex.join(both)} && id -u && {shown}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("65534\n")
    assert done.stdout.count(",lo") >= 20  # ten requests and ten replies
    assert "more needs CAP_IPC_LOCK" in done.stderr
