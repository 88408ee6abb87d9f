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
from maceproc.recording.tracing import TRACEFS

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
CAP_IPC_LOCK, CAP_SYS_ADMIN, CAP_PERFMON = 14, 21, 38  # include/uapi/linux/capability.h, v6.8
PERF_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
PERF_MLOCK = Path("/proc/sys/kernel/perf_event_mlock_kb")


def require_root() -> None:
    """Raise PrivilegeError unless this process may trace and enter namespaces."""
    if os.geteuid() != 0:
        raise PrivilegeError("recording needs root", hint="run it with sudo")
    if has_capability(CAP_SYS_ADMIN) is False:
        raise PrivilegeError(
            "recording needs CAP_SYS_ADMIN, which this root has not",
            hint="run it on the host, or in a container started with --privileged",
        )


def require_rights(tracer: str, *, own_network: bool) -> None:
    """Raise PrivilegeError unless this process may record: as root, or by perf in our network."""
    if os.geteuid() and tracer == "perf" and own_network:
        require_perf_rights()
    else:
        require_root()


def require_perf_rights(tracefs: Path = TRACEFS) -> None:
    """Raise PrivilegeError unless perf may record all tasks' events for this process.

    That is what perf needs in the network that we are in; another one is entered by root.
    """
    if has_capability(CAP_PERFMON) is False and has_capability(CAP_SYS_ADMIN) is False:
        paranoid = _read(str(PERF_PARANOID)).strip()
        if paranoid != "-1":  # perf_allow_tracepoint(), include/linux/perf_event.h, v6.8
            raise PrivilegeError(
                "perf needs CAP_PERFMON to record the events of all tasks",
                hint="give it to this process (`setpriv --inh-caps +perfmon --ambient-caps "
                "+perfmon`), or run it as root",
            )
    try:
        next((tracefs / "events").iterdir(), None)
    except PermissionError as error:
        raise PrivilegeError(
            f"perf needs to read {tracefs}: {error.strerror}",
            hint="give this process CAP_DAC_READ_SEARCH, or let its group read tracefs: "
            f"`mount -o remount,gid=GROUP,mode=750 {tracefs}`",
        ) from error
    except OSError:
        return  # not mounted: `tracing.mounted_tracefs` says that


def locked_buffer_kb() -> int | None:
    """Return how large a buffer perf may have per CPU [KiB]; None: as large as is asked for.

    Without CAP_IPC_LOCK, kernel.perf_event_mlock_kb holds, which has one page for perf itself
    (kernel/events/core.c, perf_mmap(), v6.8).
    """
    if has_capability(CAP_IPC_LOCK) is not False:
        return None
    limit = _read(str(PERF_MLOCK)).strip()
    return int(limit) - (os.sysconf("SC_PAGE_SIZE") >> 10) if limit.isdigit() else None


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
