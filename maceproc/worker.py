"""A process of its own that calls functions for this one, and never runs the caller's script.

`multiprocessing` makes its new processes import the caller's main module: a script without
``if __name__ == "__main__":`` then starts itself again in every one of them. These workers import
nothing of the caller. They get a function and its argument, pickled, on standard input, and
answer on standard output.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any

_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from maceproc.worker import serve; serve()"
)


class WorkerDied(Exception):  # noqa: N818  named after what happened
    """The process ended before it answered; its exit status is the argument."""


class Worker:
    """One process, started when it is first called, and again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Return ``function(argument)``, called in the process; WorkerDied when that has ended."""
        process = self._process = self._process or _start()
        try:
            _send(process.stdin, (function, argument))
            return pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            self.stop()
            raise WorkerDied(f"exit status {process.wait()}") from error

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(OSError):  # what was not sent cannot be flushed
                stream.close()


class Workers(Executor):
    """Several such processes as an executor: ``submit(function, argument)``.

    A call whose process dies raises WorkerDied, and the others go on.
    """

    def __init__(self, number: int) -> None:
        self._threads = ThreadPoolExecutor(number)  # each hands one process one call at a time
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._all = [Worker() for _ in range(number)]
        for worker in self._all:
            self._idle.put(worker)

    def submit(  # type: ignore[override]  # one argument, which is sent
        self, function: Callable[[Any], Any], argument: Any, /
    ) -> Future[Any]:
        """Call ``function(argument)`` in the next process that is idle."""
        return self._threads.submit(self._call, function, argument)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: when their calls have ended, or at once."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        for worker in self._all:
            worker.stop()

    def _call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(function, argument)
        finally:
            self._idle.put(worker)


def serve() -> None:
    """Answer calls until standard input ends; whatever else prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            function, argument = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        _send(answers, function(argument))


def _start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        # -P: the directory we are in, which may be anybody's, is no place to import from.
        [sys.executable, "-P", "-c", _BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    _send(process.stdin, sys.path)
    return process


def _send(stream: IO[bytes] | None, message: Any) -> None:
    assert stream is not None
    pickle.dump(message, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()
