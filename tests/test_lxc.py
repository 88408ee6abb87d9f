"""`--lxc` with a real container of LXC, made from its busybox template, in a lab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import maceproc
from maceproc.recording.lab import NETNS_DIR, Lab
from tests.engine import mounted_cgroups

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("lxc-create") is None, reason="not installed: lxc"),
]
NAME = f"maceproc-test-{os.getpid()}"
PORT = f"lxc{os.getpid()}"
# Without lxc.net.0.link: LXC looks for the bridge in /sys, which is that of another namespace.
CONFIGURATION = f"""
lxc.net.0.type = veth
lxc.net.0.veth.pair = {PORT}
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.ipv4.address = 172.17.0.77/16
lxc.net.0.ipv4.gateway = 172.17.0.1
lxc.apparmor.profile = unconfined
lxc.init.cmd = /bin/sleep 600
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab with an LXC container beside its own."""
    configuration = tmp_path / "lxc.conf"
    configuration.write_text(CONFIGURATION)
    with mounted_cgroups(), Lab() as lab:
        inside(lab, "lxc-create", "-n", NAME, "-t", "busybox", "-f", str(configuration))
        try:
            done = inside(lab, "lxc-start", "-n", NAME, "-o", str(tmp_path / "log"))
            if done.returncode:
                pytest.skip(
                    f"LXC starts no container here: {(tmp_path / 'log').read_text()[-300:]}"
                )
            inside(lab, "ip", "link", "set", PORT, "master", "br0", "up")
            yield lab
        finally:
            inside(lab, "lxc-destroy", "--force", "-n", NAME)
            for left in Path("/sys/fs/cgroup").glob("*/lxc.pivot"):
                with suppress(OSError):  # another container of this machine is in it
                    left.rmdir()


def inside(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the lab's host namespace: what LXC listens to is found only there.

    The result has all that it prints in `stdout`.
    """
    entered = ["nsenter", f"--net={NETNS_DIR / lab.netns('host')}", "--", *argv]
    with tempfile.TemporaryFile("w+") as said:  # no pipe: what lxc-start leaves running holds it
        done = subprocess.run(entered, stdout=said, stderr=said, check=False)
        said.seek(0)
        return subprocess.CompletedProcess(argv, done.returncode, said.read())


def test_a_container_of_lxc_is_recorded_and_corrected(lab: Lab, tmp_path: Path) -> None:
    trace = tmp_path / "lxc.dat"
    words = ("record", "--lxc", NAME, "--rounds", "1", "--no-baseline", "-o", str(trace))
    pings = ("--", "ping", "-c", "10", "-i", "0.02", "192.0.2.2")
    done = inside(lab, sys.executable, "-m", "maceproc", *words, *pings)
    assert done.returncode == 0, done.stdout
    analysis = maceproc.analyze(trace)
    sidecar = analysis.capture.sidecar
    assert sidecar is not None
    assert (sidecar.target.kind, sidecar.target.name) == ("lxc", NAME)
    assert sidecar.target.route.startswith(f"{NAME}:eth0 -> host:{PORT} -> br0")
    rtts = analysis.rtts[analysis.rtts["arm"] == "container traced"]
    assert list(rtts["status"]) == ["corrected"] * 10
    inside(lab, "lxc-stop", "--kill", "-n", NAME)
    done = inside(lab, sys.executable, "-m", "maceproc", *words, "--force", *pings)
    assert done.returncode == 68
    assert f"no container '{NAME}' runs" in done.stdout
