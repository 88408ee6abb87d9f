import contextlib
import itertools
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maceproc.capture import Link, Sidecar
from maceproc.capture_files import Capture, load_sidecar, sidecar_path
from maceproc.errors import CaptureError, CommandError, TracingError
from maceproc.recording.arms import Arm, balanced_orders, schedule
from maceproc.recording.event_sets import MINIMAL_EVENTS, choose_events, minimal_events
from maceproc.recording.lab import NETNS_DIR, Lab, is_complete
from maceproc.recording.machine import CPU_DMA_LATENCY, cpus_awake
from maceproc.recording.record import record
from maceproc.recording.sites import Netns, here_site, lab_site, netns_site
from maceproc.recording.tracing import TRACEFS
from tests.tracing import report

MACEPROC = [sys.executable, "-m", "maceproc"]
PING = ["ping", "-i", "0.002", "-c", "20"]
HERE = Netns("host", "/proc/self/ns/net")

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def capture(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    trace = tmp_path_factory.mktemp("capture") / "trace.dat"
    return record(PING, lab_site(lab), trace, rounds=2)


@pytest.fixture(scope="module")
def sidecar(capture: Capture) -> Sidecar:
    assert capture.sidecar is not None
    assert load_sidecar(sidecar_path(capture.trace)) == capture.sidecar
    return capture.sidecar


@pytest.fixture(autouse=True)
def _tracing_is_left_alone() -> Iterator[None]:
    before = tracing_state()
    yield
    wait_until(lambda: tracing_state() == before)


def tracing_state() -> dict[str, str]:
    """The top instance's settings, and the instances of processes that this test started."""
    state = {
        name: (TRACEFS / name).read_text()
        for name in ("set_event", "tracing_on", "trace_clock", "buffer_size_kb", "current_tracer")
    }
    ours = [path.name for path in (TRACEFS / "instances").glob("maceproc-*") if is_ours(path.name)]
    return state | {"instances": " ".join(ours)}


def is_ours(instance: str) -> bool:
    pid = instance.removeprefix("maceproc-")
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True  # its owner is dead
    return pid == str(os.getpid()) or f"PPid:\t{os.getpid()}\n" in status


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reported(trace: Path) -> list[tuple[int, int, str]]:
    """(pid, time [ns], event) of every event, as trace-cmd itself reads the file."""
    event = re.compile(r"-(\d+)\s+\[\d+\]\s+(\d+)\.(\d{9}): (\w+):")
    found = event.findall("\n".join(report(trace, "-t")))
    return [(int(p), int(s + ns), name) for p, s, ns, name in found]


def error_lines(stderr: str) -> list[str]:
    """What went wrong, without what was told before."""
    return [line for line in stderr.splitlines() if not line.startswith(("path: ", "note: "))]


def run_maceproc(
    *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [*MACEPROC, "record", "--rounds", "1", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)


# What is recorded


def test_rounds_alternate_the_order_of_the_arms(sidecar: Sidecar) -> None:
    arms = ["container traced", "container untraced", "native traced", "native untraced"]
    assert [(run.round, run.arm) for run in sidecar.runs] == [
        *((1, arm) for arm in arms),
        *((2, arm) for arm in reversed(arms)),
    ]


def test_schedule_runs_every_arm_once_a_round() -> None:
    arms = [
        Arm(place, traced, HERE) for place in ("container", "native") for traced in (True, False)
    ]
    plan = list(schedule(arms, 5))
    for number in range(1, 6):
        assert sorted(arm for n, arm in plan if n == number) == sorted(arms)
    assert [arm for _, arm in plan[:4]] == [arm for _, arm in plan[7:3:-1]]


@pytest.mark.parametrize("arms", [1, 2, 3, 4, 5, 6])
def test_orders_are_balanced(arms: int) -> None:
    orders = balanced_orders(arms)
    for position in range(arms):
        counts = Counter(order[position] for order in orders)
        assert set(counts.values()) == {len(orders) // arms}
        assert len(counts) == arms
    followers = Counter(pair for order in orders for pair in itertools.pairwise(order))
    assert len(followers) == arms * (arms - 1)
    assert len(set(followers.values())) <= 1
    assert all(one == other[::-1] for one, other in zip(orders[::2], orders[1::2], strict=True))


def test_every_run_keeps_what_ping_said_and_when(sidecar: Sidecar) -> None:
    for run in sidecar.runs:
        assert run.argv == ["ping", "-D", *PING[1:], "192.0.2.2"]
        assert run.exit_status == 0
        assert "20 packets transmitted, 20 received" in run.output
        stamps = [float(stamp) for stamp in re.findall(r"^\[(\d+\.\d+)\]", run.output, re.M)]
        assert len(stamps) == 20
        assert run.start_utc_ns / 1e9 < stamps[0] < stamps[-1] < run.end_utc_ns / 1e9
    ends = [(run.start_ns, run.end_ns) for run in sidecar.runs]
    assert all(start < end for start, end in ends)
    assert ends == sorted(ends)


def test_every_ping_is_traced_and_none_in_an_untraced_run(
    capture: Capture, sidecar: Sidecar
) -> None:
    events = reported(capture.trace)
    for run in sidecar.runs:
        during = [event for event in events if run.start_ns <= event[1] <= run.end_ns]
        sends = [pid for pid, _, event in during if event == "sys_enter_sendto" and pid == run.pid]
        assert len(sends) == (20 if run.traced else 0)
        assert bool(during) == run.traced


def test_no_event_before_the_first_run_or_after_the_last(
    capture: Capture, sidecar: Sidecar
) -> None:
    traced = [run for run in sidecar.runs if run.traced]
    slack_ns = 1_000_000_000  # events are on a little longer than the command runs
    for _, time_ns, _ in reported(capture.trace):
        assert any(r.start_ns - slack_ns < time_ns < r.end_ns + slack_ns for r in traced)


def test_sidecar_says_how_it_was_recorded(sidecar: Sidecar) -> None:
    tracing = sidecar.tracing
    assert tracing.event_set == "minimal"
    assert "net:net_dev_queue" in tracing.events
    assert tracing.clock == "mono"
    assert tracing.instance == f"maceproc-{os.getpid()}"
    assert tracing.tracecmd_version
    assert tracing.events_lost == {}
    assert sidecar.machine.kernel == os.uname().release
    assert sidecar.interrupted == ""
    try:
        (TRACEFS / "set_ftrace_filter").read_bytes()
    except PermissionError:
        assert tracing.function_tracer_denied


def test_without_baseline_only_the_traced_run(lab: Lab, tmp_path: Path) -> None:
    made = record(PING, lab_site(lab), tmp_path / "trace.dat", baseline=False).sidecar
    assert made is not None
    assert [run.arm for run in made.runs] == ["container traced"]


def test_a_native_ping(lab: Lab, tmp_path: Path) -> None:
    made = record([*PING, "127.0.0.1"], here_site(), tmp_path / "trace.dat").sidecar
    assert made is not None
    assert [run.arm for run in made.runs] == ["native traced", "native untraced"]
    assert [str(hop) for hop in made.target.path] == ["host:lo"]


def test_ipv6_in_the_lab(lab: Lab, tmp_path: Path) -> None:
    made = record(["ping", "-6", *PING[1:]], lab_site(lab), tmp_path / "trace.dat").sidecar
    assert made is not None
    assert {run.argv[-1] for run in made.runs} == {"fd6d:6163:6500:2::2"}
    assert len(made.runs) == 4


def test_no_native_control_where_the_packet_does_not_leave_the_host(
    lab: Lab, tmp_path: Path
) -> None:
    made = record([*PING, "172.17.0.3"], lab_site(lab), tmp_path / "trace.dat").sidecar
    assert made is not None
    assert [run.arm for run in made.runs] == ["container traced", "container untraced"]
    assert made.notes[0] == "no native ping: no outer device is known"


def test_no_native_control_where_the_host_gets_no_reply(lab: Lab, tmp_path: Path) -> None:
    remote = lab.netns("remote")
    drop = ["ip", "netns", "exec", remote, "ip", "address"]
    subprocess.run([*drop, "add", "192.0.2.9/24", "dev", "wire0"], check=True)
    rule = "OUTPUT -d 192.0.2.9 -j DROP"  # the host's own packets, not the forwarded ones
    inside = ["ip", "netns", "exec", lab.netns("host"), "iptables"]
    subprocess.run([*inside, "-A", *rule.split()], check=True)
    try:
        made = record([*PING, "192.0.2.9"], lab_site(lab), tmp_path / "trace.dat").sidecar
    finally:
        subprocess.run([*inside, "-D", *rule.split()], check=True)
        subprocess.run([*drop, "del", "192.0.2.9/24", "dev", "wire0"], check=True)
    assert made is not None
    assert [run.arm for run in made.runs] == ["container traced", "container untraced"]
    assert made.notes[0] == "no native ping: host gets no reply from the target"


def test_any_command_can_be_recorded(lab: Lab, tmp_path: Path) -> None:
    made = record(["sh", "-c", "echo out; echo err >&2"], lab_site(lab), tmp_path / "a.dat").sidecar
    assert made is not None
    assert {(run.output, run.errors) for run in made.runs} == {("out\n", "err\n")}
    assert len(made.target.path) == 4  # towards the remote


# Keeps trace-cmd's readers from reading while it pings, so that the ring buffer overflows.
OVERFLOW = """
for child in $(cat /proc/$PPID/task/$PPID/children); do
    [ "$(cat /proc/$child/comm)" != trace-cmd ] || readers=$(cat /proc/$child/task/$child/children)
done
kill -STOP $readers; ping -q -i 0 -c 1000 192.0.2.2; kill -CONT $readers
"""


def test_lost_events_are_counted_as_trace_cmd_counts_them(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    command = ["sh", "-ec", OVERFLOW]
    made = record(
        command, lab_site(lab), trace, baseline=False, events="full", buffer_kb=64
    ).sidecar
    assert made is not None
    text = "\n".join(report(trace))
    counted: dict[str, int] = {}
    for cpu, count in re.findall(r"CPU:(\d+) \[(\d+) EVENTS DROPPED\]", text):
        counted[cpu] = counted.get(cpu, 0) + int(count)
    # A page can be too full to say how many were lost before it; then only the sidecar knows.
    uncounted = set(re.findall(r"CPU:(\d+) \[EVENTS DROPPED\]", text))
    assert made.tracing.events_lost
    for cpu, lost in made.tracing.events_lost.items():
        assert counted.get(cpu, 0) == lost or cpu in uncounted


# Which events


def test_events_by_set_pattern_and_name() -> None:
    available = ["net:netif_rx", "net:net_dev_queue", "skb:kfree_skb", "sched:sched_switch"]
    assert choose_events("net:*, skb:kfree_skb", available, [])[:2] == (available[:3], "list")
    chosen, event_set, notes = choose_events("full", available, [])
    assert (chosen, event_set) == (available[:3], "full")
    assert "this kernel has no event qdisc:qdisc_enqueue" in notes
    with pytest.raises(TracingError, match=r"no event .*sys_enter_sendto"):
        choose_events("minimal", available, list(MINIMAL_EVENTS))
    for nothing in ("", ",", "net:nosuch", "net:netif_rx,net:nosuch"):
        with pytest.raises(TracingError, match="no event"):
            choose_events(nothing, available, [])


def test_minimal_events_are_those_that_the_devices_need() -> None:
    def virtual(gro: bool, **more: Any) -> Link:
        offloads = {"generic-receive-offload": gro}
        return Link(ifindex=2, name="eth0", kind="veth", offloads=offloads, **more)

    veth, with_gro = virtual(False, qdisc="noqueue"), virtual(True, qdisc="noqueue")
    queueing = virtual(False, qdisc="htb")
    bridge = Link(ifindex=3, name="br0", kind="bridge")
    physical = Link(ifindex=2, name="eno1", qdisc="mq")
    assert set(minimal_events([veth, veth, bridge, veth])) == set(MINIMAL_EVENTS)
    queue, driver = "net:net_dev_start_xmit", "net:netif_receive_skb"
    assert set(minimal_events([veth, queueing])) == {*MINIMAL_EVENTS, queue}
    for path in ([with_gro, veth], [veth, with_gro, bridge, veth]):
        assert set(minimal_events(path)) == {*MINIMAL_EVENTS, driver}
    for path in ([veth, physical], [veth, None], []):
        assert set(minimal_events(path)) == {*MINIMAL_EVENTS, queue, driver}


def test_awake_holds_the_idle_latency_and_gives_it_back() -> None:
    def held() -> int:
        return struct.unpack("i", CPU_DMA_LATENCY.open("rb", buffering=0).read(4))[0]

    before = held()
    with cpus_awake():
        assert held() == 0
    assert held() == before


# What goes wrong


def test_a_ping_that_loses_some_packets_is_a_result(lab: Lab, tmp_path: Path) -> None:
    inside = ["ip", "netns", "exec", lab.netns("host"), "iptables"]
    every_4th = "FORWARD -s 172.17.0.2 -m statistic --mode nth --every 4 --packet 0 -j DROP"
    rule = every_4th.split()
    subprocess.run([*inside, "-A", *rule], check=True)
    try:
        ping = [*PING, "-W", "0.2"]
        made = record(ping, lab_site(lab), tmp_path / "trace.dat", baseline=False).sidecar
    finally:
        subprocess.run([*inside, "-D", *rule], check=True)
    assert made is not None
    assert "20 packets transmitted, 15 received" in made.runs[0].output


def test_no_reply_at_all_is_told_and_kept(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    with pytest.raises(CommandError, match=r"no reply from 192.0.2.99; 2 runs kept"):
        record(["ping", "-c1", "-W", "0.1", "192.0.2.99"], lab_site(lab), trace)
    assert trace.stat().st_size
    assert len(load_sidecar(sidecar_path(trace)).runs) == 2


def test_a_command_that_fails_is_told_in_its_own_words(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    said = r"ping failed with exit status 2: ping: invalid option.*; nothing was recorded"
    with pytest.raises(CommandError, match=said):
        record(["ping", "--bogus"], lab_site(lab), trace, rounds=3)
    assert not list(tmp_path.iterdir())  # the next one can have the name
    with pytest.raises(CommandError, match=r"sh failed with exit status 3.*; 1 run kept in"):
        record(["sh", "-c", "echo words; exit 3"], lab_site(lab), trace, rounds=3)
    assert load_sidecar(sidecar_path(trace)).runs[0].output == "words\n"


def test_an_existing_capture_is_replaced_only_by_force(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    for old in (trace, sidecar_path(trace)):
        old.write_text("old")
        with pytest.raises(CaptureError, match="exists"):
            record(PING, lab_site(lab), trace)
        assert old.read_text() == "old"
    record(PING, lab_site(lab), trace, baseline=False, force=True)
    assert len(load_sidecar(sidecar_path(trace)).runs) == 1


def test_somebody_else_s_instance_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    theirs = TRACEFS / "instances" / f"maceproc-{os.getpid()}"
    theirs.mkdir()
    try:
        (theirs / "set_event").write_text("net:netif_rx")
        with pytest.raises(TracingError, match="exists and is not ours"):
            record(PING, lab_site(lab), tmp_path / "trace.dat")
        assert (theirs / "set_event").read_text() == "net:netif_rx\n"
    finally:
        (theirs / "set_event").write_text("")
        theirs.rmdir()


@pytest.mark.parametrize("baseline", [True, False])
def test_somebody_else_s_tracing_of_untraced_runs_is_noted(
    lab: Lab, tmp_path: Path, baseline: bool
) -> None:
    theirs = TRACEFS / "instances" / f"theirs-{os.getpid()}"
    theirs.mkdir()
    try:
        (theirs / "set_event").write_text("net:netif_rx")
        made = record(PING, lab_site(lab), tmp_path / "trace.dat", baseline=baseline).sidecar
        assert (theirs / "set_event").read_text() == "net:netif_rx\n"
    finally:
        (theirs / "set_event").write_text("")
        theirs.rmdir()
    assert made is not None
    assert any(repr(theirs.name) in note for note in made.notes) is baseline


def programs(directory: Path, *names: str) -> dict[str, str]:
    """An environment in which only these programs are found."""
    directory.mkdir()
    for name in names:
        found = subprocess.check_output(["which", name], text=True).strip()
        (directory / name).symlink_to(found)
    return os.environ | {"PATH": str(directory)}


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--netns", "nosuch", "--", "ping", "::1"], 68, "no network namespace 'nosuch'"),
        (["--pid", "4194305", "--", "ping", "::1"], 68, "no process 4194305"),
        (["--lab", "nosuch", "--", "ping"], 68, "lab 'nosuch' is not up"),
        (["--outer", "eth9", "--lab", "--", "ping"], 68, "no device 'eth9' in host"),
        (["--events", "net:bogus", "--", "ping", "::1"], 69, "no event net:bogus"),
        (["--", "nosuchprogram"], 1, "nosuchprogram: no such program"),
        (["--", "ping", "nosuch.invalid"], 1, "nosuch.invalid: no such host"),
        ([], 1, "no command to record"),
        (["-o", "/nonexistent/a.dat", "--", "ping", "::1"], 1, "/nonexistent: no such directory"),
        (["-o", "/proc/a.dat", "--", "ping", "::1"], 1, "/proc/a.dat: cannot be written"),
        (["-o", "/", "--", "ping", "::1"], 1, "/: is a directory"),
    ],
)
def test_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_maceproc(*words)
    assert done.returncode == status
    assert done.stderr.startswith("maceproc: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
    assert not list(tmp_path.iterdir())


def test_options_that_contradict_each_other() -> None:
    done = run_maceproc("--lab", "--host", "--", "ping")
    assert done.returncode == 2
    assert "choose one of" in done.stderr


def test_without_root(tmp_path: Path) -> None:
    # Imported as root: nobody may not be allowed to read the place where the tests run.
    script = (
        "import os, maceproc.recording.record, maceproc.cli; os.setuid(65534); maceproc.cli.main()"
    )
    words = ["record", "--output", str(tmp_path / "a.dat"), "--", "ping", "::1"]
    argv = [sys.executable, "-c", script, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("maceproc: recording needs root; run: sudo ")
    assert done.stderr.endswith("`maceproc doctor` checks what a recording needs\n")
    assert done.returncode == 77


def test_root_without_its_capability(tmp_path: Path) -> None:
    argv = ["setpriv", "--bounding-set=-sys_admin", *MACEPROC, "record", "--", "ping", "::1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 77
    assert done.stderr.startswith("maceproc: recording needs CAP_SYS_ADMIN")
    assert done.stderr.count("\n") == 1


def test_without_trace_cmd(tmp_path: Path) -> None:
    env = programs(tmp_path / "bin", "ping", "ip", "nsenter", "lsns")
    done = run_maceproc("-o", str(tmp_path / "a.dat"), "--", "ping", "::1", env=env)
    assert done.returncode == 69
    assert "trace-cmd: not found; install it (Debian: apt install trace-cmd)" in done.stderr


def test_without_ping(tmp_path: Path) -> None:
    env = programs(tmp_path / "bin", "trace-cmd", "ip", "nsenter", "lsns")
    done = run_maceproc("-o", str(tmp_path / "a.dat"), "--", "ping", "::1", env=env)
    assert done.returncode == 1
    assert "apt install iputils-ping" in done.stderr


def in_private_mounts(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        script,
        "sh",
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        *words,
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_tracefs_is_mounted_where_missing_and_unmounted_again(tmp_path: Path) -> None:
    script = f'umount {TRACEFS}; "$@"; ls {TRACEFS}'
    done = in_private_mounts(script, "-o", str(tmp_path / "a.dat"), "--", "ping", "-c1", "::1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert len(load_sidecar(tmp_path / "a.dat.json").runs) == 2


def test_no_tracefs_to_be_had(tmp_path: Path) -> None:
    refuse = tmp_path / "mount"
    refuse.write_text("#!/bin/sh\necho mount: unknown filesystem type >&2\nexit 32\n")
    refuse.chmod(0o755)
    script = f'umount {TRACEFS}; export PATH={tmp_path}:$PATH; "$@"'
    done = in_private_mounts(script, "-o", str(tmp_path / "a.dat"), "--", "ping", "-c1", "::1")
    assert done.returncode == 69
    assert "tracefs is not mounted and cannot be: mount: unknown filesystem" in done.stderr
    assert done.stderr.count("\n") == 1


def test_disk_full(lab: Lab, tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=100k none {tmp_path}; "$@" || s=$?; ls {tmp_path}/*; exit $s'
    trace = str(tmp_path / "a.dat")
    words = ["--lab", lab.name, "--events", "full", "-o", trace, "--", "ping", "-c300", "-i0.002"]
    done = in_private_mounts(script, *words)
    assert done.returncode == 69
    assert "No space left on device" in done.stderr
    assert f"free some space, then `maceproc salvage {trace}`" in done.stderr
    assert len(error_lines(done.stderr)) == 1
    assert "a.dat.maceproc-" in done.stdout  # what salvage needs


def test_a_target_that_ends_meanwhile(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    inside = ["nsenter", f"--net=/run/netns/{lab.netns('container')}", "--", "sleep", "60"]
    with subprocess.Popen(inside) as target:
        wait_until(lambda: comm(target.pid) == "sleep")
        words = ["--pid", str(target.pid), "-o", str(trace), "--", "ping", "-i", "0.1", "-c", "20"]
        argv = [*MACEPROC, "record", "--rounds", "1", *words, "192.0.2.2"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: bool(recorded_pings(process.pid)))
            target.kill()
            target.wait()
            _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert re.search(r"failed with exit status 1: nsenter: .*; 2 runs kept", stderr)
    assert load_sidecar(sidecar_path(trace)).runs[0].exit_status == 0


# Interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_keeps_what_it_has(
    lab: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    trace = tmp_path / "trace.dat"
    process = start_long_recording(lab.name, trace)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    (line,) = error_lines(stderr)
    assert line.startswith(f"maceproc: interrupted by {number.name}; 1 run kept in {trace}")
    kept = load_sidecar(sidecar_path(trace))
    assert kept.interrupted == number.name
    assert "ping statistics" in kept.runs[0].output
    sends = [event for event in reported(trace) if event[0] == kept.runs[0].pid]
    assert sends
    assert not Path(f"/proc/{kept.runs[0].pid}").exists()


def start_long_recording(lab: str, trace: Path, *words: str) -> subprocess.Popen[str]:
    """Start a recording, and return once its first ping is under way."""
    where = ["--lab", lab] if lab else ["--lab"]
    argv = [
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        *where,
        "-o",
        str(trace),
        "--",
        "ping",
        "-i",
        "0.01",
        *words,
    ]
    env = os.environ | {"TMPDIR": str(trace.parent)}  # where a killed one leaves a directory
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=env)
    wait_until(lambda: has_replies(process.pid))
    return process


def has_replies(pid: int) -> bool:
    """Whether a ping that a maceproc records has had some replies."""
    for ping in recorded_pings(pid):
        # An error: it has ended.
        with contextlib.suppress(OSError), Path(f"/proc/{ping}/fd/1").open("rb") as printed:
            return b"icmp_seq=5 " in printed.read(4096)
    return False


def recorded_pings(pid: int) -> list[int]:
    """The pings that a maceproc records: they have -D, its probe of the native path has not."""
    return [child for child in children(pid, "ping") if b"\0-D\0" in cmdline(child)]


def children(pid: int, name: str) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in listed if comm(int(child)) == name]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_command_that_ignores_ctrl_c_is_killed_by_the_second(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    ready = tmp_path / "ready"
    stubborn = ["sh", "-c", f"trap '' INT; touch {ready}; while :; do sleep 0.1; done"]
    argv = [
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        "--lab",
        lab.name,
        "-o",
        str(trace),
        "--",
        *stubborn,
    ]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        wait_until(ready.exists)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert load_sidecar(sidecar_path(trace)).runs[0].exit_status == -signal.SIGKILL


@pytest.mark.skipif(is_complete(Lab("maceproc").existing()), reason="a lab is up on this machine")
def test_killed_outright_nothing_is_left_that_hurts(tmp_path: Path) -> None:
    trace = tmp_path / "trace.dat"
    process = start_long_recording("", trace)
    started = children(process.pid, "ping") + children(process.pid, "trace-cmd")
    assert len(started) == 2
    process.kill()
    process.communicate()
    # trace-cmd is told to end by the kernel, and writes the file.
    wait_until(lambda: not any(comm(pid) and not is_zombie(pid) for pid in started))
    instance = TRACEFS / "instances" / f"maceproc-{process.pid}"
    wait_until(lambda: not (instance / "set_event").read_text())  # nothing is traced any more
    saved = subprocess.run([*MACEPROC, "salvage", str(trace)], capture_output=True, check=False)
    assert saved.returncode == 0, saved.stderr
    events = [event for _, _, event in reported(trace)]
    assert "sys_enter_sendto" in events, (saved.stdout, load_sidecar(sidecar_path(trace)))
    assert load_sidecar(sidecar_path(trace)).interrupted == "the recorder was killed"
    assert not list(tmp_path.glob("*.recording"))
    left = list(NETNS_DIR.glob(f"maceproc-{process.pid}-*"))
    assert len(left) in (3, 0)  # another recording on this machine may have removed them
    assert run_maceproc("--lab", "--force", "-o", str(trace), "--", *PING).returncode == 0
    assert not any(path.exists() for path in left)


def is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# Beside a measurement


def test_recording_is_light() -> None:
    script = "import sys, maceproc.recording.record; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert not {"numpy", "pandas", "scipy", "rich"} & set(loaded)


def test_asleep_while_the_command_runs(lab: Lab, tmp_path: Path) -> None:
    argv = [*MACEPROC, "record", "--rounds", "1", "--lab", lab.name, "--no-baseline"]
    argv += ["-o", str(tmp_path / "a.dat"), "--", "sleep", "60"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: bool(children(process.pid, "sleep")))
        wait_until(lambda: is_asleep(process.pid))
        (command,) = children(process.pid, "sleep")
        os.kill(command, signal.SIGTERM)


def is_asleep(pid: int) -> bool:
    """Whether no thread of a process runs for 0.6 s; it may still be about to begin to wait."""
    before = switches(pid)
    time.sleep(0.6)
    return switches(pid) == before


def switches(pid: int) -> list[str]:
    """How often each thread of a process gave up its CPU."""
    status = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    return [line for text in status for line in text.splitlines() if "ctxt_switches" in line]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--no-baseline"], r"64 bytes from 192.0.2.2.*20 packets transmitted"),
        (["--rounds", "2"], r"container traced.*run 0 of 8.*recorded"),
    ],
)
def test_a_terminal_shows_ping_or_a_bar(
    lab: Lab, tmp_path: Path, words: list[str], shown: str
) -> None:
    ours, theirs = pty.openpty()
    argv = [
        *MACEPROC,
        "record",
        "--rounds",
        "1",
        "--lab",
        lab.name,
        *words,
        "-o",
        str(tmp_path / "a.dat"),
    ]
    done = subprocess.run([*argv, "--", *PING], stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    screen = b"".join(iter(lambda: read_terminal(ours), b""))
    os.close(ours)
    assert done.returncode == 0
    assert re.search(shown, screen.decode(), re.DOTALL)


def read_terminal(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # how a terminal ends
        return b""


def test_a_namespace_by_name(lab: Lab, tmp_path: Path) -> None:
    site = netns_site(lab.netns("container"))
    made = record([*PING, "192.0.2.2"], site, tmp_path / "trace.dat").sidecar
    assert made is not None
    arms = [run.arm for run in made.runs]
    assert arms == ["container traced", "container untraced", "native traced", "native untraced"]
