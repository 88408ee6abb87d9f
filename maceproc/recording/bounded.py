"""Run a program and read what it prints, with a limit of time and one of bytes.

A program in a container belongs to somebody else, and so does an engine on the other side of a
socket: either may never end, or print without end.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO

PROBE_TIMEOUT_S = 10.0
PROBE_LIMIT_BYTES = 64 << 10
CLOSING_TIME_S = 1.0  # a program may run on for so long after it closed its output
ANSWER_LIMIT_BYTES = 4 << 20  # of an engine or of ip(8): descriptions of many things

_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Finished:
    """What a program printed until it ended, or was ended.

    Attributes
    ----------
    returncode
        Its exit status; negative when a signal ended it.
    stdout, stderr
        What it printed, of each no more than the limit; what is not UTF-8 is escaped.
    ended
        Why it was ended here, as the end of a sentence; empty when it ended by itself.
    """

    returncode: int
    stdout: str
    stderr: str
    ended: str = ""


def run_bounded(
    argv: list[str],
    *,
    timeout_s: float | None = PROBE_TIMEOUT_S,
    limit_bytes: int = PROBE_LIMIT_BYTES,
    errors: str = "backslashreplace",
) -> Finished:
    """Run a program to its end, or until it has run too long or printed too much.

    Processes that the program started end with it, unless they left its process group.

    Parameters
    ----------
    timeout_s
        None: without a limit.
    limit_bytes
        Of standard output and of standard error each.
    errors
        What becomes of bytes that are not UTF-8, as `bytes.decode` takes it.

    Raises OSError when the program cannot be started.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    streams = {process.stdout: bytearray(), process.stderr: bytearray()}
    ended = "was interrupted"
    try:
        ended = _read_all(streams, timeout_s, limit_bytes)
    finally:
        _end(process, at_once=bool(ended))
    out, err = (bytes(read[:limit_bytes]).decode("utf-8", errors) for read in streams.values())
    return Finished(process.returncode, out, err, ended)


def _read_all(
    streams: dict[IO[bytes], bytearray], timeout_s: float | None, limit_bytes: int
) -> str:
    """Read streams until all have ended; return why reading stopped early, "" when it did not."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for stream, read_from_it in streams.items():
            selector.register(stream, selectors.EVENT_READ, read_from_it)
        while selector.get_map():
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return f"did not end within {timeout_s:g} s"
            for key, _ in selector.select(left_s):
                read: bytearray = key.data
                piece = os.read(key.fd, _READ_BYTES)
                if not piece:
                    selector.unregister(key.fileobj)
                read += piece
                if len(read) > limit_bytes:
                    return f"printed more than {limit_bytes >> 10} KiB"
    return ""


def _end(process: subprocess.Popen[bytes], *, at_once: bool) -> None:
    """Wait for a process that closed its output; kill its group if it does not end."""
    if not at_once:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSING_TIME_S)
    if process.returncode is None:
        os.killpg(
            process.pid, signal.SIGKILL
        )  # it is not reaped yet, so no other group can have this number
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
