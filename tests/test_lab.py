import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maceproc.errors import LabError
from maceproc.recording.lab import NETNS_DIR, REMOTE_IPV4, REMOTE_IPV6, Lab, labs, remove_stale_labs
from maceproc.recording.lab_remote import spinning
from maceproc.recording.sites import lab_site

pytestmark = pytest.mark.kernel


def ping(lab: Lab, role: str, *words: str) -> int:
    argv = ["ip", "netns", "exec", lab.netns(role), "ping", "-qc1", "-W2", *words]
    return subprocess.run(argv, capture_output=True, check=False).returncode


def own_network() -> str:
    """Everything of the machine's own network that a lab must leave alone."""
    commands = (
        "ip -o link | sort; ip -o address; ip route; ip -6 route; iptables-save; ip6tables-save;"
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
    )
    shown = subprocess.run(["sh", "-c", commands], capture_output=True, text=True, check=False)
    lines = re.sub(r"\[\d+:\d+\]|valid_lft.*", "", shown.stdout).splitlines()  # they count
    return "\n".join(line for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("address", ["192.0.2.2", "fd6d:6163:6500:2::2"])
def test_every_container_and_the_host_reach_the_remote_at_once(address: str) -> None:
    with Lab(containers=2) as lab:
        for role in ("container", "container2", "host"):
            assert ping(lab, role, address) == 0, role


def test_remote_sees_the_host_address_not_the_container_s() -> None:
    # The remote has no route to the containers: only translated packets can be answered.
    with Lab() as lab:
        routes = subprocess.check_output(["ip", "-n", lab.netns("remote"), "route"], text=True)
        assert "172.17" not in routes
        assert "default" not in routes
        assert ping(lab, "container", "192.0.2.2") == 0


@pytest.mark.parametrize("address", ["192.0.2.2", "fd6d:6163:6500:2::2"])
def test_without_nat_the_remote_knows_the_way_and_the_host_no_rules(address: str) -> None:
    with Lab(containers=2, nat=False) as lab:
        for role in ("container", "container2", "host"):
            assert ping(lab, role, address) == 0, role
        for program in ("iptables-save", "ip6tables-save"):
            argv = ["nsenter", f"--net={NETNS_DIR / lab.netns('host')}", "--", program, "-t", "nat"]
            shown = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
            assert "MASQUERADE" not in shown


@pytest.mark.parametrize("nat", [True, False])
def test_a_remote_that_is_a_program_answers_and_ends_with_the_lab(nat: bool) -> None:
    def program() -> list[int]:
        """The processes in the remote's namespace."""
        argv = ["ip", "netns", "pids", lab.netns("remote")]
        return [int(pid) for pid in subprocess.check_output(argv).split()]

    with Lab(nat=nat, remote="program") as lab:
        for role in ("container", "host"):
            for address in (REMOTE_IPV4, REMOTE_IPV6):
                assert ping(lab, role, address) == 0, (role, address)
            assert ping(lab, role, "-s8000", REMOTE_IPV4) == 0
        assert ping(lab, "host", "192.0.2.4") != 0  # nobody has that address
        (pid,) = program()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cpu_ticks(pid: int) -> int:
    """Clock ticks that a process has run, user and system: fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def grows(pid: int, seconds: float = 0.3) -> bool:
    """Tell whether a process uses most of a CPU; one that is asleep uses next to nothing."""
    before = cpu_ticks(pid)
    time.sleep(seconds)
    return cpu_ticks(pid) - before > 0.3 * seconds * os.sysconf("SC_CLK_TCK")


def test_the_remote_spins_only_while_a_recorder_is_there() -> None:
    hold = (
        "import sys, time; from pathlib import Path\n"
        "from maceproc.recording.lab_remote import spinning\n"
        "with spinning(Path(sys.argv[1])) as cpu: print(cpu, flush=True); time.sleep(60)"
    )
    with Lab(remote="program") as lab:
        argv = ["ip", "netns", "pids", lab.netns("remote")]
        (pid,) = map(int, subprocess.check_output(argv).split())
        assert not grows(pid)
        held = [sys.executable, "-c", hold, str(lab.remote_socket)]
        with subprocess.Popen(held, stdout=subprocess.PIPE, text=True) as recorder:
            assert recorder.stdout is not None
            cpu = int(recorder.stdout.readline())
            assert os.sched_getaffinity(pid) == {cpu}
            assert grows(pid)
            assert ping(lab, "container", REMOTE_IPV4) == 0
            recorder.kill()
        wait = time.monotonic() + 5
        while grows(pid):
            assert time.monotonic() < wait
        assert ping(lab, "container", REMOTE_IPV4) == 0
        # What is recorded runs on another CPU.
        others = os.sched_getaffinity(0) - {cpu}
        assert lab_site(lab).inside.cpu in (others or {None})
    assert not lab.remote_socket.exists()


def test_a_remote_in_the_kernel_has_nothing_to_spin() -> None:
    with Lab() as lab, spinning(lab.remote_socket) as cpu:
        assert cpu is None
        assert lab_site(lab).inside.cpu is None


def test_labs_live_side_by_side_and_leave_the_machine_alone() -> None:
    before = own_network()
    with Lab() as one, Lab() as other:
        assert ping(one, "container", "192.0.2.2") == 0
        assert ping(other, "container", "192.0.2.2") == 0
        assert {one.name, other.name} <= set(labs())
        assert own_network() == before
    assert not {one.name, other.name} & set(labs())
    assert own_network() == before


def test_down_is_idempotent_and_removes_half_a_lab() -> None:
    lab = Lab()
    subprocess.run(["ip", "netns", "add", lab.netns("container")], check=True)
    assert lab.existing() == ["container"]
    assert lab.down() == ["container"]
    assert lab.down() == []


def test_up_replaces_half_a_lab_but_not_a_whole_one() -> None:
    lab = Lab()
    subprocess.run(["ip", "netns", "add", lab.netns("host")], check=True)
    with lab:
        assert ping(lab, "container", "192.0.2.2") == 0
        with pytest.raises(LabError, match="is up already"):
            lab.up()
        assert ping(lab, "container", "192.0.2.2") == 0


def test_a_lab_that_cannot_be_made_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for program in ("ip", "nsenter", "sh"):  # but no iptables
        found = subprocess.check_output(["which", program], text=True).strip()
        (tmp_path / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    lab = Lab()
    with pytest.raises(LabError, match="iptables"):
        lab.up()
    assert lab.existing() == []


def test_lab_of_a_killed_process_is_removed_by_the_next() -> None:
    script = (
        "import os, signal; from maceproc.recording.lab import Lab; lab = Lab(); lab.up();"
        "print(lab.name, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    left = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    name = left.stdout.strip()
    assert name in labs()
    with Lab() as living:
        assert name not in labs()
        remove_stale_labs()
        assert living.name in labs()


@pytest.mark.parametrize("name", ["a/b", "../x", "-n", "a b"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="lab name"):
        Lab(name)


def test_without_root_up_says_so() -> None:
    script = "import os; from maceproc.recording.lab import Lab; os.setuid(65534); Lab().up()"
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "a lab needs root" in done.stderr


def test_up_status_and_down_from_the_shell() -> None:
    lab = Lab()

    def maceproc(*words: str) -> str:
        argv = [sys.executable, "-m", "maceproc", "lab", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    try:
        assert f"lab {lab.name!r} is up" in maceproc("up", "--name", lab.name, "--containers", "2")
        assert f"{lab.name}: up (container, container2, host, remote)" in maceproc("status")
        assert "is up already" in maceproc("up", "--name", lab.name)
        assert maceproc("down", "--name", lab.name) == f"lab {lab.name!r} is down\n"
        assert maceproc("down", "--name", lab.name) == f"lab {lab.name!r} was not up\n"
        assert lab.name not in maceproc("status")
    finally:
        lab.down()
