"""Run the recorded command: keep what it prints, and pass signals on to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import FrameType
from typing import Any

from maceproc.capture import Run
from maceproc.errors import Interrupted
from maceproc.recording.command import parse_command
from maceproc.recording.entrances import Entrance
from maceproc.recording.kernel_pids import marked_start
from maceproc.recording.machine import sees_kernel_pids
from maceproc.recording.output import is_full, make_output, printed_bytes, printed_text

GRACE_S = 5.0  # for an interrupted command to print its summary and end


def execute(
    run: Run,
    entrance: Entrance,
    interruption: Interruption,
    show: Callable[[bytes], None] | None,
) -> None:
    """Run the command and sleep until it ends; its output goes to memory and is read afterwards."""
    with (
        _Memory("stdout", show) as stdout,
        _Memory("stderr", None) as stderr,
        nullcontext() if sees_kernel_pids() else marked_start() as marked,
    ):
        words = entrance.enter(run.argv)
        words = marked.command(words) if marked else words
        run.start_ns, run.start_utc_ns = time.monotonic_ns(), time.time_ns()
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout.fd,
            stderr=stderr.fd,
            env=os.environ | {"LC_ALL": "C"},
            process_group=0,  # we get Ctrl-C of the terminal, and pass it on
        )
        pid = entrance.find_pid(process)
        run.pid = pid if sees_kernel_pids() else None
        longest_s = parse_command(run.argv).longest_s
        with interruption.watching(process, pid) as running, running.no_longer_than(longest_s):
            run.exit_status = process.wait()
        run.end_ns, run.end_utc_ns = time.monotonic_ns(), time.time_ns()
        if marked and pid == process.pid:  # what an engine starts is another process
            run.pid = marked.pid()
        run.output, run.errors = stdout.text(), stderr.text()
        run.cut = is_full(stdout.fd) or is_full(stderr.fd)


class _Memory:
    """A file in memory that a command prints to (see `maceproc.recording.output`)."""

    def __init__(self, name: str, show: Callable[[bytes], None] | None) -> None:
        self.fd = make_output(name)
        self._show = show
        self._shown = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> _Memory:
        if self._show:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._show:
            self._thread.join()
            self._show_more()
        os.close(self.fd)

    def text(self) -> str:
        """Return what was printed so far."""
        return printed_text(self.fd)

    def _follow(self) -> None:
        while not self._over.wait(1.0):
            self._show_more()

    def _show_more(self) -> None:
        more = os.pread(self.fd, printed_bytes(self.fd) - self._shown, self._shown)
        self._shown += len(more)
        if more and self._show:
            self._show(more)


class Interruption:
    """Ctrl-C, SIGTERM and SIGHUP: the command is asked to end, and the recording ends after it.

    A second signal kills the command, and so does a command that does not end in time. While
    `raises` is set, no command runs, and the first signal raises Interrupted. A signal that was
    ignored when we began (SIGHUP, by nohup) stays ignored.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, *, raises: bool = False) -> None:
        self.raises = raises
        self.signal_number = 0
        self._cause = ""
        self._running: _Running | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str:
        """The signal's name, or why `end` was called; empty without a signal or call."""
        return signal.Signals(self.signal_number).name if self.signal_number else self._cause

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Ignore further signals: what follows is clean-up, also in programs that we start."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def end(self, cause: str) -> None:
        """End the command, and the recording after it, for another reason than a signal."""
        self._cause = cause
        self._end(signal.SIGINT)

    @contextlib.contextmanager
    def watching(self, process: subprocess.Popen[bytes], pid: int | None) -> Iterator[_Running]:
        """End this process at a signal while the block runs, or at once if one came before."""
        with _Running(process, pid) as running:
            self._running = running
            if self.reason:
                self._end(signal.SIGINT)
            yield running
            self._running = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.raises:
            self.signal_number = number
            self.ignore()
            raise Interrupted(f"interrupted by {self.reason}", signal_number=number)
        self._end(signal.SIGKILL if self.signal_number else signal.SIGINT)
        self.signal_number = self.signal_number or number

    def _end(self, number: signal.Signals) -> None:
        if self._running is not None:
            self._running.send_signal(number)
            killer = threading.Timer(GRACE_S, self._running.send_signal, [signal.SIGKILL])
            killer.daemon = True
            killer.start()


class _Running:
    """A command that runs: our child, or started by a container engine that is our child.

    An engine does not pass signals on to the command that it executes, so we send them there.
    """

    def __init__(self, process: subprocess.Popen[bytes], pid: int | None) -> None:
        self._process = process
        self._pidfd = -1
        if pid not in (None, process.pid):
            with contextlib.suppress(OSError):  # it has ended
                self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # where the engine's program alone ended
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1

    @contextlib.contextmanager
    def no_longer_than(self, longest_s: float | None) -> Iterator[None]:
        """Kill the command when the block takes longer than `longest_s` [s]; None: never."""
        if longest_s is None:
            yield
            return
        killer = threading.Timer(longest_s, self.send_signal, [signal.SIGKILL])
        killer.daemon = True
        killer.start()
        try:
            yield
        finally:
            killer.cancel()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the command; SIGKILL also to the engine's program."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
        if self._pidfd < 0 or number == signal.SIGKILL:
            self._process.send_signal(number)
