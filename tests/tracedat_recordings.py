"""Recordings of everything the kernel tells of a ping, a shell and a few files, in every form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.tracing import TRACEFS, instance, is_whole, trace_cmd

SYSTEMS = ["net", "skb", "napi", "sched", "irq", "syscalls", "timer", "tcp", "sock", "udp"]

WORK = """
echo 'a marker: x=1' > {marker}
ping -q -c 10 -i 0.002 127.0.0.1 > /dev/null; ls -l / > /dev/null
taskset 1 ping -q -c 5 -i 0.002 127.0.0.1 > /dev/null
"""
# A buffer of a few pages loses events while its readers, trace-cmd's other children, are stopped.
TINY, LARGE = ["-b", "16"], ["-b", "20000"]  # [KiB per CPU]
LOSING_WORK = """
readers=$(tr ' ' '\\n' < /proc/$PPID/task/$PPID/children | grep -vx $$)
kill -STOP $readers
{work}
kill -CONT $readers
{work}
"""


@dataclass(frozen=True)
class Recording:
    """How a recording is made: the file's form, the buffer's size, and which buffers."""

    version: str
    compression: str
    tiny: bool = False
    top: bool = False  # into the top buffer, and some events into an instance

    def __str__(self) -> str:
        words = [f"v{self.version}", self.compression]
        return "-".join([*words, *["tiny"] * self.tiny, *["top"] * self.top])


RECORDINGS = [
    Recording("6", "none"),
    Recording("7", "none"),
    Recording("7", "zstd"),
    Recording("6", "none", tiny=True),
    Recording("7", "zstd", tiny=True),
    Recording("6", "none", top=True),
    Recording("7", "zstd", top=True),
]


def record_everything(path: Path, recording: Recording) -> Path:
    """Record all `SYSTEMS` into `path`."""
    size = TINY if recording.tiny else LARGE
    everything = [*size, *(word for system in SYSTEMS for word in ("-e", system))]
    for _ in range(3):
        with instance() as name:
            marker = TRACEFS / "trace_marker"
            events = [*everything, "-B", name, *size, "-e", "net", "-e", "skb"]
            if not recording.top:
                marker = TRACEFS / "instances" / name / "trace_marker"
                events = ["-B", name, *everything]
            work = WORK.format(marker=marker)
            trace_cmd(
                "record", "-o", path, "-C", "mono",
                "--file-version", recording.version, "--compression", recording.compression,
                *events, "sh", "-c", LOSING_WORK.format(work=work) if recording.tiny else work,
                covered=name,
            )  # fmt: skip
        if is_whole(path):
            break
    return path
