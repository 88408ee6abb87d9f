"""One trace-cmd that records a tracing instance of our own, and the check that it lost nothing.

It runs for the whole session; its events are switched on and off between the runs of the command
through the instance's ``set_event``, so that nothing is traced while an untraced run lasts. When it
has ended, the kernel's own counts are compared with the events in the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from maceproc.errors import TracingError
from maceproc.recording import ring, written
from maceproc.recording.owners import owner_name
from maceproc.recording.remains import (
    INSTANCE_PREFIX,
    REMOVE_TIMEOUT_S,
    forget,
    remember,
    remove_instance,
)
from maceproc.recording.tracing import (
    CLOCK,
    FTRACE_ENABLED,
    FUNCTION_TRACER_FILES,
    TRACEFS,
    function_tracer_denied,
    instances_with_events,
)
from maceproc.recording.workplace import Workplace

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 120

# Mounts an empty file over each file named before the first "--", then runs the words after it,
# trace-cmd's. Without /proc/kallsyms a trace does not reveal the kernel's addresses, and is a
# megabyte smaller.
_COVER_SCRIPT = """
mount --bind /dev/null /proc/kallsyms 2>/dev/null
while [ "$1" != -- ]; do [ ! -e "$1" ] || mount --bind /dev/null "$1" || exit 125; shift; done
shift; exec "$@"
"""
# This script waits until its standard input ends, which happens however this process ends. Then it
# switches off the events of our instance, and ends the processes that a killed trace-cmd leaves:
# they would wait forever. The script is in their process group itself: while it runs, the number of
# the group cannot be given to other processes. The first step runs in a subshell: a redirection
# that fails ends the shell.
_OFF_SWITCH = """
trap "" HUP INT TERM
read -r line
(: >"$1")
while [ -d /proc/$2 ] && ! grep -q ') Z ' /proc/$2/stat; do sleep 0.1; done
kill -s KILL -- -$2
"""


class Recorder:
    """One trace-cmd that records one instance; its events can be switched on and off.

    Use it as a context manager: when the block is left, in whatever way, trace-cmd has ended, the
    file is written, and the instance is removed.
    """

    def __init__(
        self,
        output: Path,
        events: list[str],
        buffer_kb: int,
        tracefs: Path = TRACEFS,
        *,
        name: str = "",
        lock: int = -1,
    ) -> None:
        """Prepare to record into `output`, in a directory where nobody else may write.

        `name` tells several recorders of one process apart. `lock` is a descriptor that trace-cmd
        inherits: while it is open, somebody still writes.
        """
        self.output = output
        self.events = events
        self.buffer_kb = buffer_kb  # after the start: the size that the kernel reports
        self.instance = "-".join(filter(None, (f"{INSTANCE_PREFIX}{owner_name()}", name)))
        self.covers_function_tracer = function_tracer_denied(tracefs)
        self.events_lost: dict[str, int] = {}
        self.events_missing: dict[str, int] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._tracefs = tracefs
        self._directory = tracefs / "instances" / self.instance
        self._lock = lock
        self._log = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._writers: set[str] = set()  # pids of trace-cmd's processes, one per CPU
        self._resources = contextlib.ExitStack()

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
            with contextlib.suppress(TracingError):  # the first error is the one to report
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
        return instances_with_events(self._tracefs, self._directory)

    def check_running(self) -> None:
        """Raise TracingError when trace-cmd, or its process for one of the CPUs, has ended."""
        if self._process is None or self._process.poll() is not None:
            raise TracingError(f"trace-cmd ended before the recording did: {self._said()}")
        if self._writers - set(self._children()):
            raise TracingError(
                "a process of trace-cmd ended before the recording did: events of its CPU are lost"
            )

    def largest_piece(self) -> int:
        """Return how much trace-cmd has written of the CPU with the most events [bytes]."""
        sizes = [0]
        for piece in written.pieces_of(self.output):
            with contextlib.suppress(OSError):
                sizes.append(piece.stat().st_size)
        return max(sizes)

    # Start

    def _start(self) -> None:
        remember(self.instance, self.output)
        (self._directory / "tracing_on").write_text("0")  # trace-cmd sets it when all is ready
        self._log = os.memfd_create(
            "trace-cmd"
        )  # its messages, in memory: no file can be left behind
        self._resources.callback(os.close, self._log)
        # -k: events that are in the ring buffer when trace-cmd ends stay there, and we read them.
        record = ["trace-cmd", "record", "-q", "-k", "-B", self.instance, "-C", CLOCK]
        record += ["-b", str(self.buffer_kb), "-o", self.output.name]
        record += [word for event in self.events for word in ("-e", event)]
        self._process = subprocess.Popen(
            # If we are killed, trace-cmd gets a signal to end, and writes the file.
            ["setpriv", "--pdeathsig=INT", *self._covered(record)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # Its files have predictable names, "(null).cpu0" among them (trace-cmd 3.1.6).
            cwd=self.output.absolute().parent,
            umask=0o077,
            pass_fds=[self._lock] if self._lock >= 0 else [],
            process_group=0,  # we get Ctrl-C of the terminal, and pass it on
        )
        self._resources.enter_context(self._off_switch(self._process.pid))
        self._wait_for(lambda: (self._directory / "tracing_on").read_text().strip() == "1")
        self.switch_off()
        self._resources.enter_context(ring.held(self._directory))
        self._writers = set(self._children())
        self.buffer_kb = int((self._directory / "buffer_size_kb").read_text().split()[0])

    def _covered(self, record: list[str]) -> list[str]:
        """Wrap a command so that it sees empty files in place of those it may not open."""
        covered = []
        if self.covers_function_tracer:
            covered = [
                str(directory / name)
                for directory in (self._tracefs, self._directory)
                for name in FUNCTION_TRACER_FILES
            ]
            covered.append(str(FTRACE_ENABLED))
        return ["unshare", "--mount", "sh", "-c", _COVER_SCRIPT, "sh", *covered, "--", *record]

    @contextlib.contextmanager
    def _off_switch(self, tracecmd: int) -> Iterator[None]:
        """Start a process that waits for our end, and then ends what trace-cmd leaves running."""
        theirs, ours = os.pipe()
        waiting = subprocess.Popen(
            ["sh", "-c", _OFF_SWITCH, "sh", str(self._directory / "set_event"), str(tracecmd)],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=tracecmd,
        )
        os.close(theirs)
        try:
            yield
        finally:
            os.close(ours)
            waiting.wait()

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            self.check_running()
            if time.monotonic() > deadline:
                raise TracingError(f"trace-cmd has not started after {START_TIMEOUT_S} s")
            time.sleep(0.01)

    def _children(self) -> list[str]:
        """Return the pids of trace-cmd's processes that have not ended."""
        if self._process is None:
            return []
        pid = self._process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return [child for child in children if not _has_ended(child)]
        return []

    # End

    def _stop(self) -> None:
        """End trace-cmd, make sure that its file is complete, and remove the instance."""
        try:
            with contextlib.suppress(TracingError):  # a file that cannot be read is reported below
                self.switch_off()
            dead = len(self._writers - set(self._children()))
            status = self._end_process()
            if self._writers:  # it had started
                self._settle(status, dead)
        finally:
            self._resources.close()
            remove_instance(self._directory)
            forget(self.instance)
        if self.problems:
            raise TracingError("; ".join(self.problems))

    def _end_process(self) -> int:
        """Ask trace-cmd to end, and wait for it; return its exit status."""
        process = self._process
        if process is None:
            return 0
        written.keep_pieces(self.output)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        with contextlib.suppress(ProcessLookupError):  # its children still run if it was killed
            os.killpg(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while not all(map(_has_ended, self._writers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return process.wait()

    def _settle(self, status: int, dead: int) -> None:
        """Add the events that the kernel still holds to the file, count, and say what went wrong.

        trace-cmd may fail only when it puts its file together. Then its pieces are joined here; if
        no event is missing after that, its failure is a note and not a problem.
        """
        failure = self._failure(status, dead)
        self._complete_file()
        if failure and not dead and not self.problems:
            self.notes.append(
                f"{failure}; the trace was made of the pieces that it had written, and has every "
                "event"
            )
        elif failure:
            self.problems.insert(0, failure)

    def _failure(self, status: int, dead: int) -> str:
        """Say how trace-cmd failed; empty if it did not."""
        if status:
            # trace-cmd exits with the errno it died of (trace-util.c, die(), 3.1.6).
            full = status == errno.ENOSPC
            said = os.strerror(status) if full else f"{self._said()} (status {status})"
            return f"trace-cmd failed: {said}"
        return f"{dead} of trace-cmd's processes, one per CPU, died" if dead else ""

    def _complete_file(self) -> None:
        """Make the file complete, and compare the kernel's counts with the events in it."""
        try:
            kernel = ring.counts(self._directory)
        except OSError as error:
            self.problems.append(f"{self._directory}: {error.strerror}: events were not counted")
            return
        self.events_lost = {str(cpu): count.lost for cpu, count in kernel.items() if count.lost}
        try:
            found = written.complete(self.output, self._directory, kernel)
        except (OSError, TracingError) as error:
            what = error.strerror if isinstance(error, OSError) else error.message
            self.problems.append(f"what was recorded could not be put together: {what}")
            return
        self._compare({cpu: count.recorded for cpu, count in kernel.items()}, found)

    def _compare(self, handed_over: dict[int, int], found: dict[int, int]) -> None:
        """Compare the kernel's counts with the events in the file."""
        cpus = handed_over.keys() | found.keys()
        missing = {cpu: handed_over.get(cpu, 0) - found.get(cpu, 0) for cpu in sorted(cpus)}
        self.events_missing = {str(cpu): count for cpu, count in missing.items() if count}
        if self.events_missing:
            total = sum(handed_over.values())
            where = ", ".join(f"{count} of CPU {cpu}" for cpu, count in self.events_missing.items())
            self.problems.append(
                f"the kernel recorded {total} events, and the trace lacks some: {where}"
            )

    def _said(self) -> str:
        try:
            said = os.pread(self._log, 4096, 0).decode(errors="replace").splitlines()
        except OSError:
            said = []
        return " ".join(line.strip() for line in said if line.strip()) or "it gave no reason"


@contextlib.contextmanager
def recorded_to(
    output: Path, events: list[str], buffer_kb: int, tracefs: Path = TRACEFS, *, name: str = ""
) -> Iterator[Recorder]:
    """Record into `output` while the block runs; after it the trace is complete.

    Raises TracingError when it is not complete, and CaptureError when the output cannot be written.
    """
    with Workplace(output) as workplace:
        try:
            with Recorder(
                workplace.trace, events, buffer_kb, tracefs, name=name, lock=workplace.lock
            ) as recorder:
                yield recorder
        finally:
            workplace.publish()


def _has_ended(pid: str) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
