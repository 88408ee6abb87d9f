"""Debian's kernels, from its packages, booted in qemu over this file system.

They are unpacked under build/kernels and never installed; the guest sees this machine's files, and
what it writes anywhere but in the directory for results is thrown away.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from tests.kernels.scenarios import BASE, Scenario

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "build" / "kernels"
NAMES = {
    "6.1": r"linux-image-6\.1\.\d+-\d+-amd64",
    "6.12": r"linux-image-6\.12\.\d+\+deb\d+-amd64",
}
"""What the kernels are called in the packages of Debian 12 and its backports."""

FETCH_S = 300
BOOT_S = 150  # and to start Python there
SCENARIO_S = 120
PINGS, ROUNDS = 20, 2
BEGUN = "begun"
"""The file, among the results, that says that a guest has booted and runs its script."""


class CannotRun(Exception):  # noqa: N818 - said of a machine, it is no error of the bench
    """A kernel that cannot be fetched or booted on this machine; the message says why."""


def fetched(series: str, seconds: float) -> tuple[str, Path]:
    """Return the release of a series' newest kernel and where it is unpacked; fetch it if needed.

    Raises CannotRun where no package of it can be had within these seconds.
    """
    end = time.monotonic() + seconds
    for command in (None, ["apt-get", "update", "-qq"]):  # the lists may be missing, or old
        try:
            if command:
                _apt(command, KERNELS, end)
            package = newest_package(series)
            if package is None:
                raise CannotRun(f"no package of kernel {series}")
            return unpacked(package, end)
        except CannotRun as error:
            why = error
    raise why


def _apt(argv: list[str], directory: Path, end: float) -> None:
    """Run a program of the packages' until a time of the monotonic clock, or raise CannotRun."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            argv,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=max(1, end - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"`{shlex.join(argv)}` was not done in time") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        raise CannotRun(f"`{shlex.join(argv)}` failed: {''.join(said)}")


def newest_package(series: str) -> str | None:
    """Return the newest package of a kernel series; None where the packages have none."""
    found = subprocess.run(
        ["apt-cache", "search", "--names-only", "^linux-image-[0-9]"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.split()[0] for line in found.stdout.splitlines()]
    names = [name for name in names if re.fullmatch(NAMES[series], name)]
    return max(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], default=None)


def unpacked(package: str, end: float) -> tuple[str, Path]:
    """Return a kernel's release and the directory that it is unpacked in; fetch it if needed.

    Raises CannotRun if that fails, or is not done at this time of the monotonic clock.
    """
    release = package.removeprefix("linux-image-")
    root = KERNELS / release
    if (root / ".complete").exists():
        return release, root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _apt(["apt-get", "download", "-qq", package], root, end)
    (archive,) = root.glob("*.deb")
    _apt(["dpkg", "-x", str(archive), str(root)], root, end)
    archive.unlink()
    _apt(["depmod", "-b", str(root), release], root, end)
    (root / ".complete").touch()
    return release, root


def has_modules(root: Path, release: str, scenario: Scenario) -> bool:
    """Tell whether a kernel has what a scenario needs, as a module or built in."""
    tree = root / "lib" / "modules" / release
    named = (tree / "modules.order").read_text() + (tree / "modules.builtin").read_text()
    have = {Path(line).name.partition(".")[0].replace("-", "_") for line in named.split()}
    return all(module.replace("-", "_") in have for module in scenario.modules)


def boot(root: Path, release: str, script: Path, results: Path, *, seconds: float) -> bool:
    """Boot a kernel, and run a script in it as root; tell whether that came to its end in time.

    What the console showed is kept in the directory for results. Raises CannotRun when the script
    never began.
    """
    programs = Path(sys.executable).parent  # vng calls others of its package by their names
    if not (programs / "vng").exists():
        raise CannotRun("virtme-ng is not installed: `make emulator` does that")
    path = f"{programs}:{os.environ['PATH']}"
    argv = [str(programs / "vng"), "--verbose", "--run", str(root / "boot" / f"vmlinuz-{release}")]
    argv += ["--cpus", "2", "--memory", "3G", "--disable-microvm", "--user", "root"]
    argv += ["--force-9p", "--disable-kvm", "--rwdir", str(results)]
    argv += ["--", "bash", str(script)]
    begun = results / BEGUN
    begun.unlink(missing_ok=True)
    with (results / "console.log").open("wb") as console:
        in_time = ran_within(argv, console, {**os.environ, "PATH": path}, seconds)
    if not begun.exists():
        shown = (results / "console.log").read_text(errors="replace").strip().splitlines()[-1:]
        when = "" if in_time else f" within {seconds:.0f} s"
        raise CannotRun(f"{release} did not boot in qemu{when}: {''.join(shown) or 'no output'}")
    return in_time


def ran_within(argv: list[str], console: BinaryIO, environ: dict[str, str], seconds: float) -> bool:
    """Run a program, and end it and those that it started after a time; tell if it ended itself."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        env=environ,
        start_new_session=True,
    ) as guest:
        try:
            guest.wait(timeout=seconds)
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            if guest.poll() is None:
                os.killpg(guest.pid, signal.SIGKILL)


def run_here(script: Path, *, seconds: float) -> str:
    """Run a script on the running kernel; the namespaces that it names are seen by it alone."""
    alone = "mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec bash "
    argv = ["unshare", "--mount", "bash", "-c", alone + shlex.quote(str(script))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    return done.stdout + done.stderr


def guest_script(names: Iterable[str], results: Path) -> str:
    """Return the script that records these scenarios, each in namespaces made anew."""
    argv = [sys.executable, "-m", "tests.kernels.guest", str(results), *names]
    return (
        f"cd {shlex.quote(str(ROOT))}\nexport HOME=/root PYTHONDONTWRITEBYTECODE=1\n"
        f"touch {shlex.quote(str(results / BEGUN))}\nexec {shlex.join(argv)}\n"
    )


def setup_script(scenario: Scenario) -> str:
    """Return the script that makes a scenario's network, and tells whether it works."""
    modules = " ".join(scenario.modules)
    load = f"for m in {modules}; do modprobe -q $m; done\n" if modules else ""
    pings = f"ip netns exec ct ping -c 3 -i 0.3 -W 2 {scenario.target}\n"
    return f"set -x\n{load}{scenario.begins or BASE}{scenario.setup}\n{pings}"


def done_file(name: str, results: Path) -> Path:
    """Return the file that says that a scenario was recorded, as far as it could be."""
    return results / f"{name}.done"


def record_arguments(name: str, scenario: Scenario, results: Path) -> list[str]:
    """Return the arguments of maceproc that record a scenario's pings."""
    argv = ["record", "--netns", "ct", *scenario.options, "--force", "--rounds", str(ROUNDS)]
    argv += ["-o", str(results / f"{name}.dat"), "--"]
    return [*argv, "ping", "-D", "-i", "0.05", "-c", str(PINGS), scenario.target]


CLEAN_UP = """
for daemon in ovs-vswitchd ovsdb-server; do
    [ -e /run/openvswitch/$daemon.pid ] && kill $(cat /run/openvswitch/$daemon.pid)
done
rm -rf /run/openvswitch
ip -all netns delete
"""
