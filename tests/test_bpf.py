"""The tracer in the kernel: its object is what its source gives, and its rows are true."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from maceproc.echo_rows import ANSWERED, NATIVE, RECEIVED
from maceproc.echoes import points_from
from maceproc.errors import TracingError
from maceproc.pairing import Rows, pair
from maceproc.recording.bpf import memory
from maceproc.recording.bpf.echo_tracer import EchoTracer, Watched
from maceproc.recording.bpf.libbpf import require_bpf
from maceproc.recording.lab import NETNS_DIR, REMOTE_IPV4, REMOTE_IPV6, Lab

ROOT = Path(__file__).parent.parent
OBJECT = ROOT / "maceproc/recording/bpf/echoes.bpf.o"

INNER = memory.INNER_QUEUED | memory.INNER_RX
OUTER = memory.OUTER_QUEUED | memory.OUTER_SENT | memory.OUTER_RX


def why_not() -> str:
    try:
        require_bpf()
    except TracingError as error:
        return str(error)
    return "" if os.geteuid() == 0 else "needs root"


needs_bpf = pytest.mark.skipif(bool(why_not()), reason=why_not() or "BPF works")


def made_by() -> str:
    """Return the compiler's major version that the object names."""
    said = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+)", said.stdout)
    return found[1] if found else ""


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
def test_the_object_is_what_its_source_gives(tmp_path: Path) -> None:
    if made_by() != "14":
        pytest.skip(f"made by clang 14, here is {made_by()}: another one gives other code")
    source = tmp_path / "maceproc/recording/bpf"
    source.mkdir(parents=True)
    shutil.copy(OBJECT.with_suffix(".c"), source)
    shutil.copy(ROOT / "Makefile", tmp_path)
    subprocess.run(["make", "-s", "-C", tmp_path, "bpf"], check=True)
    assert (source / OBJECT.name).read_bytes() == OBJECT.read_bytes(), "make it anew: make bpf"


def ifindex(netns: str, dev: str) -> int:
    words = ["ip", "netns", "exec", netns, "cat", f"/sys/class/net/{dev}/ifindex"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def device(netns: str, dev: str, roles: int, container: int = 0) -> Watched:
    inode = (NETNS_DIR / netns).stat().st_ino
    return Watched(inode, ifindex(netns, dev), roles, container)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(containers=2, remote="kernel") as up:
        yield up


@pytest.fixture
def tracer(lab: Lab) -> Iterator[EchoTracer]:
    with EchoTracer() as made:
        made.watch(
            [
                device(lab.netns("container"), "eth0", INNER, 1),
                device(lab.netns("container2"), "eth0", INNER, 2),
                device(lab.netns("host"), "eth0", OUTER),
            ]
        )
        made.start()
        yield made


def ping(lab: Lab, *words: str, role: str = "container") -> str:
    command = ["ip", "netns", "exec", lab.netns(role), "ping", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def rows_of(tracer: EchoTracer) -> Rows:
    tracer.stop()
    read = tracer.read_points()
    assert read.lost == 0
    return pair(points_from(read.data)).rows


@needs_bpf
@pytest.mark.parametrize("address", [REMOTE_IPV4, REMOTE_IPV6])
def test_one_row_an_echo_in_order_of_time(lab: Lab, tracer: EchoTracer, address: str) -> None:
    ping(lab, "-q", "-i", "0.01", "-c", "20", address)
    rows = rows_of(tracer)
    assert rows["seq"].tolist() == list(range(1, 21))
    assert set(rows["flags"].tolist()) == {ANSWERED | RECEIVED}
    assert set(rows["container"].tolist()) == {1}
    names = ("queued_ns", "outer_queued_ns", "sent_ns", "outer_received_ns", "received_ns")
    for earlier, later in pairwise(names):
        assert (rows[earlier] < rows[later]).all()
    assert not any(tracer.counts().values())


@needs_bpf
def test_floods_of_two_containers_to_one_target_are_kept_apart(
    lab: Lab, tracer: EchoTracer
) -> None:
    flood = ["-f", "-q", "-c", "5000", REMOTE_IPV4]
    words = ["ip", "netns", "exec", lab.netns("container2"), "ping", *flood]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as other:
        ping(lab, *flood)
        other.wait()
    rows = rows_of(tracer)
    for container in (1, 2):
        mine = rows[rows["container"] == container]
        assert mine["seq"].tolist() == list(range(1, 5001))
    # A queue that overflows drops a packet; nothing else is missing.
    assert set(rows["flags"].tolist()) <= {ANSWERED | RECEIVED, ANSWERED, 0}
    assert (rows["flags"] == ANSWERED | RECEIVED).mean() > 0.9


@needs_bpf
@pytest.mark.parametrize("address", [REMOTE_IPV4, REMOTE_IPV6])
def test_the_hosts_own_pings_are_told_apart(lab: Lab, tracer: EchoTracer, address: str) -> None:
    ping(lab, "-q", "-i", "0.01", "-c", "5", address, role="host")
    rows = rows_of(tracer)
    assert rows["seq"].tolist() == [1, 2, 3, 4, 5]
    assert set(rows["flags"].tolist()) == {ANSWERED | RECEIVED | NATIVE}
    assert (rows["queued_ns"] == rows["outer_queued_ns"]).all()
    assert (rows["received_ns"] == rows["outer_received_ns"]).all()
    assert set(rows["netns"].tolist()) == {(NETNS_DIR / lab.netns("host")).stat().st_ino}


@needs_bpf
def test_unanswered_echoes_are_rows(lab: Lab, tracer: EchoTracer) -> None:
    in_host = ["ip", "netns", "exec", lab.netns("host")]
    neighbour = ["ip", "neigh", "replace", "192.0.2.77", "lladdr", "02:00:00:00:00:77", "dev"]
    subprocess.run([*in_host, *neighbour, "eth0"], check=True)
    ping(lab, "-q", "-i", "0.01", "-c", "3", "-W", "0.2", "192.0.2.77")
    rows = rows_of(tracer)
    assert rows["seq"].tolist() == [1, 2, 3]
    assert not rows["flags"].any()


@needs_bpf
def test_nothing_stays_in_the_kernel(lab: Lab) -> None:
    def programs() -> set[str]:
        shown = Path("/proc/self/fdinfo")
        return {path.name for path in shown.iterdir() if "prog_tag" in _text(path)}

    before = programs()
    with EchoTracer() as made:
        made.watch([Watched(1, 0, INNER | OUTER)])
        made.start()
        assert len(programs()) > len(before)
    assert programs() == before


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_memory_is_declared_as_in_the_source() -> None:
    source = OBJECT.with_suffix(".c").read_text()
    for name in ("DEVICES", "CHAIN", "POINTS", "RINGS"):
        assert re.search(rf"#define {name} {getattr(memory, name)}\b", source)
    assert ctypes.sizeof(memory.Point) % 32 == 0


LINKED = """
import ctypes, subprocess
from maceproc.recording.bpf.device_programs import devices_with_links
library = ctypes.CDLL("libbpf.so.1", use_errno=True)
code = bytes.fromhex("b7000000ffffffff 9500000000000000")  # return TCX_NEXT
program = library.bpf_prog_load(3, b"next", b"GPL", code, 2, None)  # BPF_PROG_TYPE_SCHED_CLS
subprocess.run("ip link add v0 index 7777 type veth peer name v1".split(), check=True)
before = devices_with_links().get(7777)
link = library.bpf_link_create(program, 7777, 46, None)  # BPF_TCX_INGRESS
print(link >= 0 or ctypes.get_errno(), before, devices_with_links().get(7777))
"""


@pytest.mark.kernel
def test_programs_linked_to_a_device_are_found() -> None:
    argv = ["unshare", "--net", sys.executable, "-c", LINKED]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    if done.stdout.startswith("22 "):
        pytest.skip("this kernel has no tcx (6.6)")
    assert done.stdout == "True None ['tcx']\n"
