"""The kernel's tracing system: tracefs, an instance of our own, and trace-cmd that records it.

One trace-cmd runs for the whole session; its events are switched on and off between the runs of the
command through the instance's ``set_event``, so that nothing is traced while an untraced run lasts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from maceproc.errors import TracingError

TRACEFS = Path("/sys/kernel/tracing")  # since kernel 4.1, Documentation/trace/ftrace.rst
CLOCK = "mono"  # comparable between CPUs, and equal to CLOCK_MONOTONIC
INSTANCE_PREFIX = "maceproc-"
BUFFER_KB = 8192  # per CPU
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 120
REMOVE_TIMEOUT_S = 5

# trace-cmd resets these before it records, and gives up when it may not (trace-cmd 3.1.6,
# tracecmd/trace-record.c: reset_function_filters, set_ftrace_enabled).
_FUNCTION_TRACER_FILES = (
    "set_ftrace_filter",
    "set_ftrace_notrace",
    "set_ftrace_pid",
    "set_ftrace_notrace_pid",
)
_FTRACE_ENABLED = Path("/proc/sys/kernel/ftrace_enabled")
_MEMINFO = Path("/proc/meminfo")
# $1 is the file to cover the control files with; the rest are trace-cmd's words after "--".
_COVER_SCRIPT = """
while [ "$1" != -- ]; do [ ! -e "$1" ] || mount --bind /dev/null "$1" || exit 125; shift; done
shift; exec "$@"
"""


@contextlib.contextmanager
def mounted_tracefs() -> Iterator[Path]:
    """Give the directory of tracefs; where it is not mounted, mount it for the time being.

    Raises TracingError when the kernel has none or it may not be mounted.
    """
    if (TRACEFS / "trace_clock").exists():
        yield TRACEFS
        return
    mount = ["mount", "-t", "tracefs", "nodev", str(TRACEFS)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise TracingError(
            f"{TRACEFS}: tracefs is not mounted and cannot be: {said[0]}",
            hint="maceproc needs a kernel with CONFIG_TRACING, and the right to mount",
        )
    try:
        yield TRACEFS
    finally:
        subprocess.run(["umount", str(TRACEFS)], capture_output=True, check=False)


def available_events(tracefs: Path = TRACEFS) -> list[str]:
    """Return every event of the running kernel as ``system:event``.

    Raises TracingError when it may not be read.
    """
    path = tracefs / "available_events"
    try:
        return path.read_text().split()
    except OSError as error:
        raise TracingError(f"{path}: {error.strerror}") from error


def function_tracer_denied(tracefs: Path = TRACEFS) -> bool:
    """Tell whether this host denies the function tracer's control files, even to root."""
    try:
        for name in _FUNCTION_TRACER_FILES:
            if (tracefs / name).exists():
                os.close(os.open(tracefs / name, os.O_RDONLY))
        if _FTRACE_ENABLED.exists():
            # Writing what it holds already changes nothing.
            _FTRACE_ENABLED.write_text(_FTRACE_ENABLED.read_text())
    except OSError:  # EPERM, or EROFS where /proc/sys is read-only
        return True
    return False


def tracecmd_version() -> str:
    """Return trace-cmd's version; empty when it does not say."""
    said = subprocess.run(["trace-cmd", "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", said.stdout + said.stderr)
    return found[1] if found else ""


def default_buffer_kb() -> int:
    """Return the ring buffer's size per CPU [KiB]: 8 MiB, or a 16th of what is available."""
    meminfo = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    available_kb = int(meminfo["MemAvailable"].split()[0])
    return max(64, min(BUFFER_KB, available_kb // 16 // (os.cpu_count() or 1)))


class Recorder:
    """One trace-cmd that records one instance; its events can be switched on and off.

    Use it as a context manager: however the block is left, trace-cmd has ended, the file is
    written, and the instance is gone.
    """

    def __init__(
        self,
        output: Path,
        events: list[str],
        buffer_kb: int,
        tracefs: Path = TRACEFS,
        *,
        name: str = "",
    ) -> None:
        """Prepare to record into `output`; `name` tells several recorders of one process apart."""
        self.output = output
        self.events = events
        self.buffer_kb = buffer_kb
        self.instance = "-".join(filter(None, (f"{INSTANCE_PREFIX}{os.getpid()}", name)))
        self.covers_function_tracer = function_tracer_denied(tracefs)
        self.events_lost: dict[str, int] = {}
        self._tracefs = tracefs
        self._directory = tracefs / "instances" / self.instance
        self._log = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._workplace: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Recorder:
        """Start recording, with every event off.

        Raises TracingError when the instance exists, or trace-cmd does not start.
        """
        try:
            self._directory.mkdir()
        except FileExistsError as error:
            raise TracingError(
                f"tracing instance {self.instance!r} exists and is not ours",
                hint=f"when nobody uses it, remove it: rmdir {self._directory}",
            ) from error
        except OSError as error:
            raise TracingError(f"{self._directory}: {error.strerror}") from error
        try:
            self._start()
        except BaseException:
            with contextlib.suppress(TracingError):  # the first error is the one to tell
                self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def switch_on(self) -> None:
        """Enable the events; TracingError when one of them is not on then."""
        self._set_events(self.events)

    def switch_off(self) -> None:
        """Disable every event of the instance; TracingError when one is still on then."""
        self._set_events([])

    def _set_events(self, events: list[str]) -> None:
        path = self._directory / "set_event"
        try:
            path.write_text("")  # opened with O_TRUNC, it switches all events off
            with path.open("r+b", buffering=0) as file:
                for event in events:  # one a write: Documentation/trace/events.rst
                    file.write(event.encode())
            wrong = set(events) ^ set(path.read_text().split())
        except OSError as error:
            raise TracingError(f"{path}: cannot switch events: {error.strerror}") from error
        if wrong:
            raise TracingError(f"{path}: cannot switch {', '.join(sorted(wrong))}")

    def others(self) -> list[str]:
        """Return the instances, apart from ours, that have events on now ("" is the top one)."""
        busy = []
        for path in (self._tracefs, *(self._tracefs / "instances").iterdir()):
            with contextlib.suppress(OSError):  # it may have been removed meanwhile
                if path != self._directory and (path / "set_event").read_text().strip():
                    busy.append("" if path == self._tracefs else path.name)
        return busy

    def check_running(self) -> None:
        """Raise TracingError, in trace-cmd's own words, when it has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            raise TracingError(f"trace-cmd ended before the recording did: {self._said()}")

    def _start(self) -> None:
        (self._directory / "tracing_on").write_text("0")  # trace-cmd sets it when all is ready
        # trace-cmd 3.1.6 uses files called "(null).cpu0" where it runs: keep two of them apart.
        self._workplace = tempfile.TemporaryDirectory(prefix="maceproc-")
        self._log = os.memfd_create("trace-cmd")  # what it says; no file to leave behind
        record = ["trace-cmd", "record", "-q", "-B", self.instance, "-C", CLOCK]
        record += ["-b", str(self.buffer_kb), "-o", str(self.output.absolute())]
        record += [word for event in self.events for word in ("-e", event)]
        self._process = subprocess.Popen(
            # Should we be killed, trace-cmd is told to end, and writes the file.
            ["setpriv", "--pdeathsig=INT", *self._covered(record)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=self._workplace.name,
            process_group=0,  # Ctrl-C in the terminal is ours to pass on
        )
        self._wait_for(lambda: (self._directory / "tracing_on").read_text().strip() == "1")
        self.switch_off()

    def _covered(self, record: list[str]) -> list[str]:
        """Wrap a command so that it sees empty files in place of those it may not open."""
        if not self.covers_function_tracer:
            return record
        covered = [
            str(directory / name)
            for directory in (self._tracefs, self._directory)
            for name in _FUNCTION_TRACER_FILES
        ]
        covered.append(str(_FTRACE_ENABLED))
        return ["unshare", "--mount", "sh", "-c", _COVER_SCRIPT, "sh", *covered, "--", *record]

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            self.check_running()
            if time.monotonic() > deadline:
                raise TracingError(f"trace-cmd has not started after {START_TIMEOUT_S} s")
            time.sleep(0.01)

    def _stop(self) -> None:
        """End trace-cmd, keep what it wrote, and remove the instance."""
        try:
            if self._directory.exists():
                self.switch_off()
                self.events_lost = _events_lost(self._directory)
        finally:
            status = self._end_process()
            self._remove_instance()
            failure = self._failure(status) if status else None
            self._put_away()
        if failure:
            raise failure

    def _remove_instance(self) -> None:
        """Remove the instance, unless trace-cmd has; it is busy until its last reader is gone."""
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while self._directory.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self._directory.rmdir()
                return
            time.sleep(0.01)

    def _put_away(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        if self._workplace is not None:
            self._workplace.cleanup()

    def _end_process(self) -> int:
        """Ask trace-cmd to end, and wait for it; return its exit status."""
        process = self._process
        if process is None:
            return 0
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        with contextlib.suppress(ProcessLookupError):  # its children, should it have been killed
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def _failure(self, status: int) -> TracingError:
        # trace-cmd exits with the errno it died of (lib/trace-cmd/trace-util.c: die).
        full = status == errno.ENOSPC
        reason = os.strerror(status) if full else f"{self._said()} (status {status})"
        pieces = f"{self.output.name}.{self.instance}.cpu*"
        hint = ""
        if any(self.output.parent.glob(pieces)):
            restore = f"trace-cmd restore -o {self.output} {self.output.with_name(pieces)}"
            hint = f"{'free some space, then ' * full}`{restore}` saves what was recorded"
        return TracingError(f"{self.output}: trace-cmd failed: {reason}", hint=hint)

    def _said(self) -> str:
        said = os.pread(self._log, 4096, 0).decode(errors="replace").splitlines()
        return " ".join(line.strip() for line in said if line.strip()) or "it gave no reason"


def stale_instances(tracefs: Path = TRACEFS) -> list[str]:
    """Return the names of the instances whose recordings were killed."""
    names = (path.name for path in (tracefs / "instances").glob(f"{INSTANCE_PREFIX}[0-9]*"))
    pids = {name: name.removeprefix(INSTANCE_PREFIX).partition("-")[0] for name in names}
    return sorted(
        name for name, pid in pids.items() if pid.isdigit() and not Path(f"/proc/{pid}").exists()
    )


def remove_stale_instances(tracefs: Path = TRACEFS) -> list[str]:
    """Remove the instances of recordings that were killed; return their names.

    One that somebody still uses (its owner seen from another pid namespace) is busy, and stays.
    """
    removed = []
    for name in stale_instances(tracefs):
        with contextlib.suppress(OSError):
            (tracefs / "instances" / name).rmdir()
            removed.append(name)
    return removed


def _events_lost(instance: Path) -> dict[str, int]:
    """Return how many events each CPU lost: overwritten before they were read, or dropped."""
    lost = {}
    for stats in sorted(instance.glob("per_cpu/cpu*/stats")):
        counts = dict(_stat_lines(stats.read_text().splitlines()))
        total = sum(counts.get(name, 0) for name in ("overrun", "commit overrun", "dropped events"))
        if total:
            lost[stats.parent.name.removeprefix("cpu")] = total
    return lost


def _stat_lines(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        name, _, value = line.partition(": ")
        if value.isdigit():
            yield name, int(value)
