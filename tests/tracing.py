"""Record with the running kernel, for tests: trace-cmd in an instance of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")

# [001] b..1. 12.3: (also without -l) and, with -R, [001]-0x80 12.3:
FLAGS_OF_3_3 = re.compile(r"(?<=\])(?:-0x[0-9a-f]+|\s+\S{4,6})?\s+(?=\d+\.\d+: )")
# Some hosts deny the function tracer's files even to root, and trace-cmd dies on them; an empty
# file is mounted over them in a mount namespace of its own.
FUNCTION_TRACER_FILES = [
    "set_ftrace_filter", "set_ftrace_notrace", "set_ftrace_pid", "set_ftrace_notrace_pid",
    "set_graph_function", "set_graph_notrace",
]  # fmt: skip
COVER = """
empty=$(mktemp); for file in $FILES; do [ -e "$file" ] && mount --bind "$empty" "$file"; done
rm "$empty"; exec "$@"
"""

has_trace_cmd = bool(shutil.which("trace-cmd"))
can_record = os.geteuid() == 0 and has_trace_cmd and (TRACEFS / "events").exists()


@contextmanager
def instance() -> Iterator[str]:
    """Make a tracing instance with a name nobody else has, and remove it."""
    name = f"maceproc-test-{os.getpid()}-{secrets.token_hex(3)}"
    directory = TRACEFS / "instances" / name
    directory.mkdir()
    try:
        yield name
    finally:
        with suppress(FileNotFoundError):  # trace-cmd may have removed it
            directory.rmdir()


def trace_cmd(*arguments: str | Path, covered: str = "") -> str:
    """Run trace-cmd with the function tracer's files covered, also those of an instance."""
    places = [TRACEFS, TRACEFS / "instances" / covered] if covered else [TRACEFS]
    files = [str(place / file) for place in places for file in FUNCTION_TRACER_FILES]
    files.append("/proc/sys/kernel/ftrace_enabled")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", COVER, "sh", "trace-cmd", *map(str, arguments)],
        env={**os.environ, "FILES": " ".join(files)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_whole(path: Path) -> bool:
    """Whether trace-cmd finds all parts of a file.

    Now and then its 3.1.6 writes a version 6 file without the instance, and exits with 0.
    """
    dump = ["trace-cmd", "dump", "--summary", "-i", str(path)]
    return subprocess.run(dump, capture_output=True, check=False).returncode == 0


def record(path: Path, events: list[str], command: list[str], *options: str) -> Path:
    """Record a command's events in an instance into `path`.

    trace-cmd 3.1.6 gives up where the kernel's list of command names changes between the measuring
    and the copying of it ("error in size of file"): then it is run again.
    """
    chosen = [word for event in events for word in ("-e", event)]
    for left in (2, 1, 0):
        with instance() as name:
            arguments = ["record", "-o", path, "-B", name, *options, *chosen, *command]
            try:
                trace_cmd(*arguments, covered=name)
            except AssertionError:
                if not left:
                    raise
                continue
        if is_whole(path):
            break
    return path


def report(path: Path, *options: str) -> list[str]:
    """Return the lines of events that trace-cmd report prints, without the flags of 3.3."""
    done = subprocess.run(
        ["trace-cmd", "report", "-i", str(path), *options],
        capture_output=True, errors="backslashreplace", check=True, timeout=120,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if not line.startswith("cpus=")]
    return [FLAGS_OF_3_3.sub(" ", line, count=1) for line in lines]
