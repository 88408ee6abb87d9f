"""Places by name: what the programs that know them answer, read as foreign text.

The answers of systemctl and machinectl are those of systemd 252, recorded from one that was booted
for this. Those of crictl and Incus follow the documentation of their interfaces. LXC is asked for
real in `test_lxc`, Docker in `test_containers`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import maceproc
from maceproc.cli import cli
from maceproc.errors import TargetError
from maceproc.recording import machines
from maceproc.recording.sites import NamedKind, named_site

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NAME = f"maceproc-test-{os.getpid()}"
ID, OTHER = "0" * 63 + "a", "0" * 63 + "b"


@contextmanager
def namespace() -> Iterator[str]:
    """Make a named network namespace; gives its file."""
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    try:
        yield f"/run/netns/{NAME}"
    finally:
        subprocess.run(["ip", "netns", "delete", NAME], check=True)


class Programs:
    """Programs that answer as they were told, in front of all others."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.asked = directory / "asked"

    def answer(self, program: str, answers: dict[str, Any], otherwise: str = "exit 1") -> None:
        """Let a program print an answer when its words begin with those of a key."""
        cases = []
        for number, (words, said) in enumerate(answers.items()):
            file = self._directory / f"{program}-{number}"
            file.write_text(said if isinstance(said, str) else json.dumps(said))
            cases.append(f"'{words}'*) cat {file};;")
        script = self._directory / program
        log = f'echo {program} "$@" >>{self.asked}'
        script.write_text(
            f'#!/bin/sh\n{log}\ncase "$*" in\n' + "\n".join(cases) + f"\n*) {otherwise};; esac\n"
        )
        script.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Programs(tmp_path)


def refused(kind: NamedKind, name: str) -> str:
    with pytest.raises(TargetError) as error:
        named_site(kind, name)
    return str(error.value)


def pod(name: str, namespace: str = "web", identity: str = ID) -> dict[str, Any]:
    return {
        "id": identity,
        "metadata": {"name": name, "uid": "7", "namespace": namespace, "attempt": 0},
        "state": "SANDBOX_READY",
        "createdAt": "1795768636000000000",
        "labels": {},
    }


def sandbox(file: str = "", pid: int = 0) -> dict[str, Any]:
    network = {"type": "network", "path": file} if file else {"type": "network"}
    spec = {"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, network]}}
    return {"status": {"id": ID}, "info": {"pid": pid, "runtimeSpec": spec}}


@needs_root
@pytest.mark.parametrize("name", ["probe-1", "web/probe-1"])
def test_a_pod_of_containerd_is_found_by_its_namespace_file(programs: Programs, name: str) -> None:
    with namespace() as file:
        programs.answer(
            "crictl",
            {
                "pods ": {"items": [pod("probe-1"), pod("probe-10", identity=OTHER)]},
                f"inspectp --output json {ID}": sandbox(file),
            },
        )
        site = named_site("pod", name)
    assert (site.kind, site.name, site.inside.path) == ("pod", "web/probe-1", file)
    assert site.own_programs is None  # nothing of the pod is executed


def test_a_pod_without_a_sandbox_process_is_found_by_a_container(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A container's process counts if its control group names the container.
    monkeypatch.setattr("maceproc.recording.pods._is_of", lambda pid, owner: owner == OTHER)
    programs.answer(
        "crictl",
        {
            "pods ": {"items": [pod("probe")]},
            "inspectp ": {"status": {"id": ID}, "info": {"image": "pause"}},
            f"ps --quiet --no-trunc --pod {ID}": f"{OTHER}\n",
            f"inspect --output json {OTHER}": sandbox(pid=os.getpid()),
        },
    )
    assert named_site("pod", "probe").inside.path == f"/proc/{os.getpid()}/ns/net"


def test_a_process_that_is_not_the_pod_s_is_not_entered(programs: Programs) -> None:
    answers = {"pods ": {"items": [pod("probe")]}, "inspectp ": sandbox(pid=os.getpid()), "ps ": ""}
    programs.answer("crictl", answers)
    assert "the network namespace of pod web/probe is not here" in refused("pod", "probe")


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "/run/netns/../../etc/passwd", "-t", "/proc/1/ns/net", "/run/netns/\n"]
)
def test_a_file_that_is_no_sandbox_s_is_not_entered(programs: Programs, file: str) -> None:
    programs.answer("crictl", {"pods ": {"items": [pod("p")]}, "inspectp ": sandbox(file)})
    assert "is not here" in refused("pod", "p")


@pytest.mark.parametrize(
    ("listed", "name", "said"),
    [
        ({"items": [pod("a"), pod("a", "shop", OTHER)]}, "a", "2 pods are called 'a'; give one"),
        ({"items": [pod("\x1b[2Ja")]}, "b", r"there are web/\x1b[2Ja"),
        ({"items": []}, "b", "no pod 'b' runs on this node"),
        ({"items": [pod("a", identity="$(reboot)")]}, "a", "no pod 'a' runs on this node"),
        ("no JSON", "a", "its answer is not understood"),
        ({"items": [{"id": 7}]}, "a", "its answer is not understood"),
        ("[" * 100_000, "a", "its answer is not understood"),
    ],
)
def test_pods_that_are_not_to_be_told(
    programs: Programs, listed: Any, name: str, said: str
) -> None:
    programs.answer("crictl", {"pods ": listed})
    assert said in refused("pod", name)


def test_an_endless_answer_is_cut_off(programs: Programs) -> None:
    programs.answer("crictl", {}, otherwise="exec yes")
    assert "printed more than" in refused("pod", "a")


INCUS = {
    "query --force-local /1.0/instances/c1/state": {"status": "Running", "pid": os.getpid()},
    "query --force-local /1.0/instances/c1": {"name": "c1", "type": "container"},
    "query --force-local /1.0/instances/vm/state": {"status": "Running", "pid": os.getpid()},
    "query --force-local /1.0/instances/vm": {"name": "vm", "type": "virtual-machine"},
    "query --force-local /1.0/instances/off/state": {"status": "Stopped", "pid": 0},
    "query --force-local /1.0/instances/off": {"name": "off", "type": "container"},
}


def test_a_container_of_incus(programs: Programs) -> None:
    programs.answer("incus", INCUS, otherwise="echo Error: Instance not found >&2; exit 1")
    assert named_site("lxc", "c1").inside.path == f"/proc/{os.getpid()}/ns/net"
    assert "it is a virtual-machine, not a container" in refused("lxc", "vm")
    assert "it does not run" in refused("lxc", "off")
    assert "Error: Instance not found" in refused("lxc", "nosuch")


def test_a_name_that_no_instance_has_is_not_put_into_a_path(programs: Programs) -> None:
    programs.answer("incus", INCUS)
    assert "no such name is possible" in refused("lxc", "c1/../../profiles")
    assert "incus" not in (programs.asked.read_text() if programs.asked.exists() else "")


MACHINECTL = "show --property=Class --property=Leader -- "
SYSTEMCTL = (
    "show --property=Id --property=LoadState --property=MainPID --property=ControlGroup "
    "--property=NetworkNamespacePath -- "
)


def test_machines_of_systemd(programs: Programs) -> None:
    programs.answer(
        "machinectl",
        {
            MACHINECTL + "mp.inner": f"Leader={os.getpid()}\nClass=container\n",
            MACHINECTL + ".host": "Leader=1\nClass=host\n",
            MACHINECTL + "vm": f"Leader={os.getpid()}\nClass=vm\n",
            MACHINECTL + "gone": "Leader=4194305\nClass=container\n",
        },
        otherwise="echo \"Could not get path to machine: No machine '$5' known\" >&2; exit 1",
    )
    assert named_site("machine", "mp.inner").inside.path == f"/proc/{os.getpid()}/ns/net"
    assert "record in it" in refused("machine", "vm")  # its process is the emulator, here
    assert "--host" in refused("machine", ".host")
    assert "has no process here" in refused("machine", "gone")
    assert "No machine 'nosuch' known" in refused("machine", "nosuch")
    assert "no machine can be called" in refused("machine", "a b")


def unit(name: str, pid: int, group: str = "", file: str = "", state: str = "loaded") -> str:
    lines = (f"MainPID={pid}", f"ControlGroup={group}", f"NetworkNamespacePath={file}")
    return "\n".join((*lines, f"Id={name}.service", f"LoadState={state}", ""))


@needs_root
def test_units_of_systemd(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = ["unshare", "--net", "sh", "-c", "echo; exec sleep 60"]
    with namespace() as file, subprocess.Popen(argv, stdout=subprocess.PIPE) as apart:
        assert apart.stdout is not None
        apart.stdout.readline()  # it has its namespace now
        monkeypatch.setattr(machines, "CGROUP_ROOT", tmp_path)
        members = tmp_path / "unified/system.slice/mpu.service/cgroup.procs"
        members.parent.mkdir(parents=True)
        members.write_text(f"{apart.pid}\n")
        programs.answer(
            "systemctl",
            {
                SYSTEMCTL + "main": unit("main", apart.pid, "/system.slice/main.service"),
                SYSTEMCTL + "forked": unit("forked", 0, "/system.slice/mpu.service"),
                SYSTEMCTL + "idle": unit("idle", 0, file=file),
                SYSTEMCTL + "shared": unit("shared", os.getpid()),
                SYSTEMCTL + "stopped": unit("stopped", 0),
                SYSTEMCTL + "up": unit("up", 0, "/../../../etc"),
                SYSTEMCTL + "nosuch": unit("nosuch", 0, state="not-found"),
            },
        )
        for name in ("main", "forked"):
            site = named_site("unit", name)
            assert (site.name, site.inside.path) == (
                f"{name}.service",
                f"/proc/{apart.pid}/ns/net",
            )
        assert named_site("unit", "idle").inside.path == file
        assert "has no network of its own" in refused("unit", "shared")
        for name in ("stopped", "up"):
            assert "has no process here" in refused("unit", name)
        assert "no unit 'nosuch'" in refused("unit", "nosuch")
        apart.kill()


@pytest.mark.parametrize("name", ["*", "1", "", "a b", "a\x1b[2J", "-.slice\n"])
def test_a_name_that_no_unit_has_is_not_asked_for(programs: Programs, name: str) -> None:
    programs.answer("systemctl", {}, otherwise="cat /dev/zero")
    assert "no unit can be called" in refused("unit", name)
    assert not programs.asked.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("record --lxc a --unit b -- ping x", "choose one of --lxc and --unit"),
        ("run --pod a --pid 1 --lab -- ping -c 1 x", "choose one of --lab, --pod and --pid"),
        ("calibrate --machine a --netns b -- ping x", "choose one of --machine and --netns"),
        ("record --pod a --host-ping -- ping x", "--host-ping goes with --container or --compose"),
        ("experiment -- ping x", "say where"),
        ("watch", "say what to watch"),
    ],
)
def test_the_verbs_take_one_place(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, words.split())
    assert result.exit_code == 2
    assert said in result.output


def test_record_in_python_takes_the_same_kinds_of_places(programs: Programs) -> None:
    programs.answer("systemctl", {})
    with pytest.raises(TargetError, match="more than one place"):
        maceproc.record("ping x", lxc="a", unit="b")
    with pytest.raises(TargetError, match="no unit can be called"):
        maceproc.record("ping x", unit="a b")
    with pytest.raises(TypeError, match="unexpected keyword argument 'cluster'"):
        maceproc.record("ping x", cluster="a")
