"""Run `maceproc watch` for tests, as its user would."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maceproc.errors import TracingError
from maceproc.recording.bpf.libbpf import require_bpf

START_TIMEOUT_S = 60


def why_no_bpf() -> str:
    """Return why nothing can be traced by BPF here; empty where it can."""
    try:
        require_bpf()
    except TracingError as error:
        return str(error)
    return "" if os.geteuid() == 0 else "needs root"


def programs_of(pid: int) -> set[int]:
    """Return the ids of the BPF programs that a process holds, proc_pid_fdinfo(5)."""
    shown = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return {
        int(number) for text in shown for number in re.findall(r"^prog_id:\s*(\d+)", text, re.M)
    }


def in_kernel(programs: set[int]) -> set[int]:
    """Return those of these BPF programs that the kernel still has."""
    library = ctypes.CDLL("libbpf.so.1")
    found = set()
    for program in programs:
        descriptor = library.bpf_prog_get_fd_by_id(program)
        if descriptor >= 0:
            os.close(descriptor)
            found.add(program)
    return found


class Watch:
    """A watch that runs, and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], place: Path) -> None:
        self.process = process
        self._place = place

    @property
    def notes(self) -> str:
        """What it has told until now."""
        return (self._place / "notes").read_text()

    @property
    def output(self) -> str:
        """What it has printed until now."""
        return (self._place / "output").read_text()

    @property
    def echoes(self) -> list[dict[str, Any]]:
        """The echoes that it has printed as JSON."""
        return [json.loads(line) for line in self.output.splitlines()]

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has told a text so many times."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.notes.count(text) < times:
            assert self.process.poll() is None, self.notes
            assert time.monotonic() < deadline, self.notes
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def watch(
    place: Path, *options: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[Watch]:
    """Give a watch that runs as long as the block; `prefix` is a command that executes it."""
    place.mkdir(exist_ok=True)
    argv = [*prefix, sys.executable, "-m", "maceproc", "watch", *options]
    with (place / "output").open("wb") as output, (place / "notes").open("wb") as notes:
        process = subprocess.Popen(argv, stdout=output, stderr=notes, env=env)
    try:
        yield Watch(process, place)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
