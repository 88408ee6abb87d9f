"""Record raw events by ``perf record``, where there is no trace-cmd.

perf runs only while events are switched on. With its events disabled it would leave its probes on
the tracepoints (kernel/trace/trace_event_perf.c, perf_trace_event_init(), v6.18), and an untraced
run would be one with some tracing. So every traced run has a file of its own, a piece, in the form
that perf writes to a pipe: what it needs to be read is at its start, and a perf that is killed
leaves a file that can be read. At the end the pieces are joined to one perf.data.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

from maceproc.errors import TracingError
from maceproc.recording import written
from maceproc.recording.machine import CAP_SYS_ADMIN, has_capability, locked_buffer_kb
from maceproc.recording.recorder import START_TIMEOUT_S, STOP_TIMEOUT_S
from maceproc.recording.tracing import CLOCK, TRACEFS, instances_with_events

PROGRAM = "perf"
FINISHED_ROUND = struct.Struct("=IHH")  # a record of perf's own, without content
LITTLE_SPACE = 1 << 20  # [bytes]
_ERROR = re.compile("[Ee]rror|failed|[Pp]ermission")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") >> 10

# Without /proc/kallsyms a recording does not reveal the kernel's addresses. Without CAP_SYS_ADMIN
# it cannot be covered, and shows what it shows to this user anyway.
_COVER = 'mount --bind /dev/null /proc/kallsyms 2>/dev/null; exec "$@"'
_ENDING = ["setpriv", "--pdeathsig=INT"]
_COVERED = [*_ENDING, "unshare", "--mount", "sh", "-c", _COVER, "sh"]


def require_perf() -> None:
    """Raise TracingError when perf is not installed."""
    if shutil.which(PROGRAM) is None:
        raise TracingError(
            "perf: not found",
            hint="install it (Debian: apt install linux-perf), or record with --tracer ftrace",
        )


def _hint() -> str:
    """Say what keeps perf from recording without a word; nothing when that is not seen."""
    # put_tracepoints_path() writes there, whatever TMPDIR says; tools/perf/util/trace-event-info.c
    return "" if os.access("/tmp", os.W_OK) else "perf needs to write to /tmp, where it may not"


def perf_version() -> str:
    """Return perf's version; empty when it does not say."""
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", said.stdout)
    return found[1] if found else ""


class PerfRecorder:
    """Runs perf while events are switched on, and joins what it wrote.

    It has the form of `maceproc.recording.recorder.Recorder`: use it as a context manager.
    """

    def __init__(
        self,
        output: Path,
        events: list[str],
        buffer_kb: int,
        tracefs: Path = TRACEFS,
        *,
        lock: int = -1,
    ) -> None:
        """Prepare to record into `output`, in a directory where nobody else may write.

        `buffer_kb` is made a power of two pages, as perf needs it. `lock` is a descriptor that perf
        inherits: while it is open, somebody still writes.
        """
        self.output = output
        self.events = events
        self.notes: list[str] = []
        allowed_kb = locked_buffer_kb()
        if allowed_kb is not None and buffer_kb > allowed_kb:
            self.notes.append(
                f"perf has {allowed_kb} KiB of buffer per CPU, not {buffer_kb}: more needs "
                "CAP_IPC_LOCK, or a larger kernel.perf_event_mlock_kb"
            )
            buffer_kb = allowed_kb
        self.buffer_kb = PAGE_KB << max(0, (buffer_kb // PAGE_KB).bit_length() - 1)
        self.instance = ""
        self.covers_function_tracer = False
        self.events_lost: dict[str, int] = {}
        self.events_missing: dict[str, int] = {}
        self.problems: list[str] = []
        self.samples = 0  # in the file, when it is complete
        self._tracefs = tracefs
        self._lock = lock
        self._pieces = 0
        self._piece = output  # the last one's file
        self._log = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: list[int] = []  # its orders and answers

    def __enter__(self) -> PerfRecorder:
        """Make sure that perf can record these events, by a piece that is removed again.

        Raises TracingError when it cannot.
        """
        self._log = os.memfd_create("perf")  # messages stay in memory: no file can be left behind
        try:
            self.switch_on()
            self.switch_off()
        except BaseException:
            self._kill()
            self._remove_pieces()
            os.close(self._log)
            raise
        self._remove_pieces()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._end()
            self._join()
        finally:
            self._kill()
            os.close(self._log)
        if self.problems:
            raise TracingError("; ".join(self.problems))

    def switch_on(self) -> None:
        """Start perf; return when its events are enabled. TracingError when it does not start."""
        command_end, command = os.pipe()
        answer, answer_end = os.pipe()
        # perf stops recording when the pipe of its orders is closed: it stays open while perf runs.
        self._pipes = [command, answer]
        try:
            self._process = self._started(command_end, answer_end)
            os.write(command, b"enable\n")
            if not self._has_answered(answer):
                raise TracingError(f"perf does not record: {self._said()}", hint=_hint())
        except BaseException:
            self._kill()
            raise
        finally:
            os.close(command_end)
            os.close(answer_end)

    def switch_off(self) -> None:
        """End perf, whose file is complete then; TracingError when it ended by itself."""
        self._end()
        if self.problems:
            raise TracingError("; ".join(self.problems))

    def others(self) -> list[str]:
        """Return the tracing instances that have events on ("" is the top one)."""
        return instances_with_events(self._tracefs)

    def check_running(self) -> None:
        """Raise TracingError when perf has failed."""
        if self.problems:
            raise TracingError("; ".join(self.problems))

    def largest_piece(self) -> int:
        """Return 0 [bytes]: perf counts with 64 bits, so its files need no limit."""
        return 0

    def _started(self, command: int, answer: int) -> subprocess.Popen[bytes]:
        """Start perf, with its events disabled until `command` says otherwise."""
        record = [PROGRAM, "record", "-q", "-o", "-", "-a", "-k", CLOCK, "-m", f"{self.buffer_kb}K"]
        record += ["-B", "-N", "-D", "-1", f"--control=fd:{command},{answer}"]
        record += [word for event in self.events for word in ("-e", event)]
        name = f"{self.output.name}{written.PERF_PIECE}{self._pieces:04}"
        piece = self._piece = self.output.with_name(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(piece, flags, 0o600)
        except OSError as error:
            raise TracingError(f"{piece.name}: {error.strerror}") from error
        self._pieces += 1
        os.lseek(self._log, 0, os.SEEK_SET)
        os.ftruncate(self._log, 0)
        try:
            return subprocess.Popen(
                # If we are killed, perf gets a signal to end, and completes the file.
                [*(_ENDING if has_capability(CAP_SYS_ADMIN) is False else _COVERED), *record],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=self._log,
                pass_fds=[command, answer, *[self._lock] * (self._lock >= 0)],
                process_group=0,  # we get Ctrl-C of the terminal, and pass it on
            )
        finally:
            os.close(file)

    def _has_answered(self, answer: int) -> bool:
        """Wait for perf's answer that its events are enabled; False when it ends or takes long."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if select.select([answer], [], [], 0.05)[0]:
                return os.read(answer, 16).startswith(b"ack")
        return False

    def _end(self) -> None:
        """Ask perf to end, and wait until it has written what it holds; note when it failed."""
        process, self._process = self._process, None
        if process is None:
            return
        early = process.poll()
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._close_pipes()
        if early is not None:
            self.problems.append(
                f"perf ended before the recording did: {self._said()} (status {early})"
            )
        elif status not in (0, -signal.SIGINT):
            self.problems.append(f"perf failed: {self._said()} (status {status})")
        elif not self._is_whole() and shutil.disk_usage(self.output.parent).free < LITTLE_SPACE:
            # After a signal perf says nothing of what it could not write any more.
            self.problems.append(f"perf failed: {os.strerror(errno.ENOSPC)}")

    def _is_whole(self) -> bool:
        """Whether the last piece ends as perf ends one; see `maceproc.perfdata.joining`."""
        with self._piece.open("rb") as file:
            file.seek(-min(FINISHED_ROUND.size, self._piece.stat().st_size), os.SEEK_END)
            return file.read() == FINISHED_ROUND.pack(68, 0, FINISHED_ROUND.size)

    def _kill(self) -> None:
        """End a perf that nobody waits for any more."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        while self._pipes:
            os.close(self._pipes.pop())

    def _join(self) -> None:
        """Make one file of the pieces; what cannot be joined stays, for salvage."""
        if not written.pieces_of(self.output):
            return
        try:
            joined = written.join_remains(self.output, CLOCK)
            self.events_lost, self.samples = dict(joined.lost), joined.events
            self.problems += joined.notes
        except (OSError, TracingError) as error:
            what = error.strerror if isinstance(error, OSError) else error.message
            self.problems.append(f"what was recorded could not be put together: {what}")

    def _remove_pieces(self) -> None:
        for piece in written.pieces_of(self.output):
            with contextlib.suppress(OSError):
                piece.unlink()

    def _log_text(self) -> str:
        with contextlib.suppress(OSError):
            return os.pread(self._log, 1 << 16, 0).decode(errors="replace")
        return ""

    def _said(self) -> str:
        """Return what perf said last: its warnings come before the error."""
        lines = [line.strip() for line in self._log_text().splitlines() if line.strip()]
        errors = [line for line in lines if _ERROR.search(line)]
        return " ".join((errors or lines)[-2:]) or "it gave no reason"
