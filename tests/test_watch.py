"""`maceproc watch`: every echo of every container, whatever sends it, and nothing left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest

from maceproc.recording.lab import NETNS_DIR, REMOTE_IPV4, REMOTE_IPV6, Lab
from tests.engine import Engine
from tests.test_record import wait_until
from tests.watched import in_kernel, programs_of, watch, why_no_bpf

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_no_bpf()), reason=why_no_bpf() or "BPF works"),
]

GATEWAY = "172.17.0.1"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=2) as up:
        yield up


def run_in(lab: Lab, *words: str, role: str = "container") -> str:
    argv = ["ip", "netns", "exec", lab.netns(role), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def test_every_echo_of_every_program_is_told(lab: Lab, tmp_path: Path) -> None:
    sent: Counter[tuple[str, str]] = Counter()
    with watch(tmp_path, "--lab", lab.name, "--json") as watching:
        watching.wait_for("followed", times=2)
        printed = run_in(lab, "ping", "-i", "0.01", "-c", "50", REMOTE_IPV4)
        sent["container", REMOTE_IPV4] += 50
        run_in(lab, "ping", "-q", "-f", "-c", "2000", REMOTE_IPV6, role="container2")
        sent["container2", REMOTE_IPV6] += 2000
        if shutil.which("fping"):
            run_in(lab, "fping", "-q", "-c", "5", "-p", "20", "-i", "1", REMOTE_IPV4, GATEWAY)
            sent["container", REMOTE_IPV4] += 5
        targets = f"{REMOTE_IPV4},{REMOTE_IPV6}"
        # Datagram sockets: the kernel chooses the identifiers, threads use the same numbers.
        run_in(lab, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647", role="container2")
        pinger = [sys.executable, "-m", "tests.threaded_pinger", targets, "8", "25", "0.001"]
        answered = run_in(lab, *pinger, role="container2")
        sent["container2", REMOTE_IPV4] += 200
        sent["container2", REMOTE_IPV6] += 200
        time.sleep(0.5)
        assert watching.end() == 0
        echoes = watching.echoes
    assert answered.count(" 25 25\n") == 16
    assert Counter((e["container"], e["target"]) for e in echoes) == sent
    assert {echo["status"] for echo in echoes} == {"complete"}
    for echo in echoes:
        crossed = echo["outbound_ns"] + echo["inbound_ns"]
        assert echo["kernel_rtt_ns"] == echo["corrected_rtt_ns"] + crossed
        assert 0 < echo["wire_ns"] <= echo["corrected_rtt_ns"]
    assert len({e["id"] for e in echoes if e["container"] == "container2"}) == 17
    _kernels_rtt_is_within_what_ping_prints(printed, echoes)
    gateway = 5 if shutil.which("fping") else 0
    assert ("requests left by no outer device" in watching.notes) == bool(gateway)


def _kernels_rtt_is_within_what_ping_prints(printed: str, echoes: list[dict[str, object]]) -> None:
    lines = re.findall(r"icmp_seq=(\d+) .*time=([0-9.]+) ms", printed)
    mine = [echo for echo in echoes if echo["container"] == "container"]
    (of_ping,) = {echo["id"] for echo in mine if echo["seq"] == 50}  # fping counts to 5
    of_seq = {echo["seq"]: echo for echo in mine if echo["id"] == of_ping}
    assert len(lines) == 50
    for seq, time_ms in lines:
        assert of_seq[int(seq)]["kernel_rtt_ns"] < float(time_ms) * 1e6 + 1000


def scrape_until(line: str, port: int) -> None:
    """Wait until a scrape has a line."""
    deadline = time.monotonic() + 30
    metrics = ""
    while line not in metrics:
        assert time.monotonic() < deadline, metrics
        time.sleep(0.1)
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()


def test_what_is_not_answered_is_told_after_the_timeout(lab: Lab, tmp_path: Path) -> None:
    neighbour = ["ip", "neigh", "replace", "192.0.2.77", "lladdr", "02:00:00:00:00:77", "dev"]
    run_in(lab, *neighbour, "eth0", role="host")
    with watch(tmp_path, "--lab", lab.name, "--json", "--timeout", "0.3") as watching:
        watching.wait_for("followed", times=2)
        run_in(lab, "ping", "-q", "-i", "0.01", "-c", "7", "-W", "0.1", "192.0.2.77")
        wait_until(lambda: watching.output.count('"unanswered"') == 7)
        assert watching.end(signal.SIGINT) == 0
        echoes = watching.echoes
    assert [echo["seq"] for echo in echoes] == list(range(1, 8))
    assert {echo["status"] for echo in echoes} == {"unanswered"}
    assert all(echo["kernel_rtt_ns"] is None and echo["outbound_ns"] > 0 for echo in echoes)


def test_plain_lines_parquet_and_prometheus(lab: Lab, tmp_path: Path) -> None:
    where = str(NETNS_DIR / lab.netns("container"))
    options = ["--netns", where, "-o", str(tmp_path / "echoes"), "--prometheus", "127.0.0.1:0"]
    with watch(tmp_path / "said", *options) as watching:
        watching.wait_for("followed")
        run_in(lab, "ping", "-q", "-i", "0.01", "-c", "100", REMOTE_IPV4)
        port = re.search(r"127.0.0.1:(\d+)/metrics", watching.notes)
        assert port
        name = lab.netns("container")
        labels = f'container="{name}",status="complete",target="{REMOTE_IPV4}"'
        scrape_until(f"maceproc_echoes_total{{{labels}}} 100.0", int(port[1]))
        assert watching.end() == 0
    assert f"{name} -> {REMOTE_IPV4}: 100 echoes" in watching.output
    assert "100 echoes followed" in watching.notes
    (file,) = (tmp_path / "echoes").iterdir()
    assert pq.read_metadata(file).num_rows == 100
    assert b'"points_lost": 0' in pq.read_metadata(file).metadata[b"maceproc"]


def test_killed_it_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    with watch(tmp_path / "said", "--lab", lab.name, "-o", str(tmp_path / "echoes")) as watching:
        watching.wait_for("followed", times=2)
        run_in(lab, "ping", "-q", "-f", "-c", "100", REMOTE_IPV4)
        programs = programs_of(watching.process.pid)
        assert in_kernel(programs) == programs
        assert len(programs) >= 2
        watching.end(signal.SIGKILL)
    wait_until(lambda: not in_kernel(programs))
    assert list((tmp_path / "echoes").iterdir()) == []


def test_a_full_disk_ends_it_in_one_line_and_keeps_what_is_whole(lab: Lab, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    try:
        options = ["--lab", lab.name, "-o", str(full), "--rotate-s", "1"]
        with watch(tmp_path / "said", *options) as watching:
            watching.wait_for("followed", times=2)
            run_in(lab, "ping", "-q", "-i", "0.01", "-c", "20", REMOTE_IPV4)
            watching.wait_for("wrote ")
            run_in(lab, "ping", "-q", "-f", "-c", "20000", REMOTE_IPV4)
            assert watching.process.wait(30) == 1
        assert watching.notes.count("No space left on device") == 1
        lost = re.search(r"the last (\d+) echoes are not kept", watching.notes)
        assert lost
        files = list(full.iterdir())  # without the file that is not whole
        whole = sum(pq.read_metadata(file).num_rows for file in files)
        followed = re.search(r"(\d+) echoes followed", watching.notes)
        assert followed
        assert whole + int(lost[1]) == int(followed[1])
        assert "Traceback" not in watching.notes
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_nothing_is_chosen_or_found(tmp_path: Path) -> None:
    with watch(tmp_path / "a") as watching:
        assert watching.process.wait(30) == 2
    assert "say what to watch" in watching.notes
    with watch(tmp_path / "b", "--netns", "maceproc-none", "--duration", "1") as watching:
        assert watching.process.wait(30) == 0
    assert "no network namespace 'maceproc-none'; it is watched as soon as" in watching.notes
    with watch(tmp_path / "c", "--pid", str(os.getpid()), "--duration", "4") as watching:
        assert watching.process.wait(30) == 0
    assert "it has the host's network, nothing is crossed" in watching.notes


def test_containers_that_come_and_go(engine: Engine, tmp_path: Path) -> None:
    prefix = ["nsenter", f"--net={NETNS_DIR / engine.host}", "--"]
    count = ["ping", "-q", "-i", "0.01", "-c", "20", REMOTE_IPV4]
    with watch(tmp_path, "--all", "--json", prefix=prefix, env=engine.env) as watching:
        with engine.container("first"):
            watching.wait_for("first: followed")
            engine.docker("exec", "first", *count)
        watching.wait_for("first: has left")
        with engine.container("second"), engine.container("third", "--network", "host"):
            watching.wait_for("second: followed")
            engine.docker("exec", "second", *count)
            engine.docker("exec", "third", *count)
            watching.wait_for("third: not followed: it has the host's network")
        with engine.container("first"):  # another one, under the same name
            watching.wait_for("first: followed", times=2)
            engine.docker("exec", "first", *count)
            time.sleep(0.5)
            assert watching.end() == 0
        echoes = watching.echoes
    assert Counter(echo["container"] for echo in echoes) == {"first": 40, "second": 20}
    assert {echo["status"] for echo in echoes} == {"complete"}


def test_an_engine_that_is_started_again(engine: Engine, tmp_path: Path) -> None:
    prefix = ["nsenter", f"--net={NETNS_DIR / engine.host}", "--"]
    count = ["ping", "-q", "-i", "0.01", "-c", "20", REMOTE_IPV4]
    with (
        engine.container("lasting", "--restart", "always", "--stop-timeout", "1", "--init"),
        watch(tmp_path, "--all", "--json", prefix=prefix, env=engine.env) as watching,
    ):
        watching.wait_for("lasting: followed")
        engine.docker("exec", "lasting", *count)
        with engine.stopped():
            watching.wait_for("lasting: has left")
        watching.wait_for("lasting: followed", times=2)
        engine.docker("exec", "lasting", *count)
        wait_until(lambda: watching.output.count("\n") == 40)
        assert watching.end() == 0
    assert Counter(echo["container"] for echo in watching.echoes) == {"lasting": 40}
    assert {echo["status"] for echo in watching.echoes} == {"complete"}
    assert "40 echoes followed" in watching.notes
    assert "lost" not in watching.notes


def test_a_container_is_followed_on_when_its_engine_is_killed(
    engine: Engine, tmp_path: Path
) -> None:
    prefix = ["nsenter", f"--net={NETNS_DIR / engine.host}", "--"]
    with engine.container("lasting") as name:
        pid = engine.pid(name)
        count = ["ping", "-q", "-i", "0.01", "-c", "20", REMOTE_IPV4]
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *count]
        what = ("--all", "--container", name)
        with watch(tmp_path, *what, "--json", prefix=prefix, env=engine.env) as watching:
            watching.wait_for("lasting: followed")
            with (
                engine.killed(),
                subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) as other,
            ):
                # Asked, as a namespace came: the engine's containers, and the one that is named.
                watching.wait_for("what is followed is followed on", times=2)
                subprocess.run(inside, check=True, stdout=subprocess.DEVNULL)
                other.communicate()
            assert engine.pid(name) == pid
            subprocess.run(inside, check=True, stdout=subprocess.DEVNULL)
            wait_until(lambda: watching.output.count("\n") == 40)
            assert watching.end() == 0
    assert {echo["status"] for echo in watching.echoes} == {"complete"}
    assert "Cannot connect" in watching.notes
    assert "has left" not in watching.notes
    assert "40 echoes followed" in watching.notes


def test_an_engine_that_does_not_answer_is_told_and_asked_again(
    engine: Engine, tmp_path: Path
) -> None:
    env = {**engine.env, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with watch(tmp_path, "--container", "web", "--duration", "3", env=env) as watching:
        assert watching.process.wait(30) == 0
    assert "no container 'web'" in watching.notes
    assert watching.notes.count("it is watched as soon as it is there") == 1
