"""The machine that records: what it is, what this process may do on it, and its idle CPUs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from maceproc.capture import Machine
from maceproc.errors import PrivilegeError, TracingError
from maceproc.recording.owners import FIRST_PID_NAMESPACE, pid_namespace

# What runs beside us, and the Debian package that has it.
_PROGRAMS = {
    "trace-cmd": "trace-cmd",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "lsns": "util-linux",
    "setpriv": "util-linux",
}

CPU_DMA_LATENCY = Path("/dev/cpu_dma_latency")
CAP_SYS_ADMIN, CAP_PERFMON = 21, 38  # include/uapi/linux/capability.h, v6.8


def require_root() -> None:
    """Raise PrivilegeError unless this process may trace and enter namespaces."""
    if os.geteuid() != 0:
        raise PrivilegeError("recording needs root", hint="run it with sudo")
    if has_capability(CAP_SYS_ADMIN) is False:
        raise PrivilegeError(
            "recording needs CAP_SYS_ADMIN, which this root has not",
            hint="run it on the host, or in a container started with --privileged",
        )


def has_capability(number: int) -> bool | None:
    """Tell whether this process has a capability, by its number; None where that is not known."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", _read("/proc/self/status"), re.MULTILINE)
    return bool(int(effective[1], 16) >> number & 1) if effective else None


def require_programs(
    tracer: Literal["ftrace", "perf", "bpf", "ftrace+bpf"] = "ftrace",
) -> None:
    """Raise TracingError when a program that recording needs is not installed."""
    for name, package in _PROGRAMS.items():
        if name == "trace-cmd" and tracer in ("perf", "bpf"):
            continue
        if shutil.which(name) is None:
            other = name == "trace-cmd" and shutil.which("perf")
            raise TracingError(
                f"{name}: not found",
                hint=f"install it (Debian: apt install {package})"
                + (", or record with --tracer perf, which is installed" if other else ""),
            )


def sees_kernel_pids() -> bool:
    """Tell whether a pid that we know is the one in the kernel's events.

    They hold that of the first PID namespace.
    """
    return pid_namespace() == FIRST_PID_NAMESPACE


@contextlib.contextmanager
def cpus_awake() -> Iterator[None]:
    """Keep every CPU out of idle states as long as the block runs.

    An open /dev/cpu_dma_latency holds the latency written to it
    (Documentation/power/pm_qos_interface.rst, v6.8). Raises TracingError where that is not allowed.
    """
    try:
        with CPU_DMA_LATENCY.open("wb", buffering=0) as device:
            device.write(struct.pack("i", 0))
            yield
    except OSError as error:
        if error.filename != str(CPU_DMA_LATENCY):
            raise
        raise TracingError(
            f"{CPU_DMA_LATENCY}: {error.strerror}", hint="record without --awake"
        ) from error


def describe_machine(awake: bool = False) -> Machine:
    """Describe what of this machine influences a latency."""
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    hypervisor = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE)
    vendor = _read("/sys/class/dmi/id/sys_vendor")
    return Machine(
        kernel=platform.release(),
        cpu=model[1] if model else platform.machine(),
        cpus=os.cpu_count() or 0,
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        virtualization=(vendor or "a hypervisor") if hypervisor else "",
        load_average=os.getloadavg()[0],
        awake=awake,
        host=platform.node(),
        identity=_identity(),
    )


def _identity() -> str:
    """Return a digest of what tells this machine from others, machine-id(5) or its host name."""
    known = _read("/etc/machine-id") or platform.node()
    return hashlib.sha256(f"maceproc {known}".encode()).hexdigest()[:16]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
