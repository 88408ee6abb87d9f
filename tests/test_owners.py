"""Only a process that can see an owner judges whether it has ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maceproc.recording import owners
from maceproc.recording.owners import OWNER, has_ended, owner_name

ELSEWHERE = """
import os, subprocess, sys
from maceproc.recording.owners import has_ended, owner_name
child = subprocess.Popen(["true"])
child.wait()
ours, own_child = has_ended(sys.argv[1]), has_ended(owner_name(child.pid))
print(owner_name(), ours, has_ended(owner_name()), own_child)
"""


def ended() -> int:
    """Return the pid of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_process_of_this_namespace_is_judged() -> None:
    assert not has_ended(owner_name())
    assert has_ended(owner_name(ended()))
    assert has_ended(owner_name(9_999_999_999))  # the kernel has no such pids
    assert not has_ended(owner_name(1))


@pytest.mark.parametrize(
    "name", ["", "name", "12x", "12nx", "n", "0n0", "-1", "1n4026531999", f"{1 << 22}n1"]
)
def test_what_names_no_process_that_can_be_seen_is_left_alone(name: str) -> None:
    assert not has_ended(name)


def test_without_proc_nobody_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = ended()
    dead = owner_name(pid)
    monkeypatch.setattr(owners, "pid_namespace", lambda: 0)
    assert not has_ended(dead)
    assert re.fullmatch(OWNER, owner_name(pid))
    assert not has_ended(owner_name(pid))  # its namespace is as unknown as ours


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a PID namespace of its own")
def test_processes_of_two_pid_namespaces_do_not_judge_each_other() -> None:
    dead = owner_name(ended())
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", ELSEWHERE, dead]
    root = Path(__file__).parent.parent
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    name, judged_ours, judged_self, judged_own = done.stdout.split()
    assert re.fullmatch(OWNER, name)
    assert "n" in name
    assert (judged_ours, judged_self, judged_own) == ("False", "False", "True")
    assert has_ended(dead)
    assert not has_ended(name)  # it has ended, but its pid means another process here
