"""Record the echoes of a container by the tracer in the kernel, in place of raw events.

The file holds `maceproc.echo_rows.MAGIC`, a line of JSON, and the points as the kernel wrote them.
The file is written during the recording: a recorder that is killed leaves every point that it read.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

from maceproc import __version__
from maceproc.echo_rows import MAGIC
from maceproc.errors import TargetError, TracingError
from maceproc.recording.bpf.devices import devices_beneath, inner_device, outer_device
from maceproc.recording.bpf.echo_tracer import EchoTracer, Watched
from maceproc.recording.bpf.memory import POINTS
from maceproc.recording.bpf.rings import POINT_BYTES
from maceproc.recording.survey import Survey

READ_EVERY_S = 0.05  # where few points come; a flood fills the ring of a CPU within 0.1 to 0.3 s


def devices_to_watch(surveyed: Survey) -> set[Watched]:
    """Return the devices of a survey's path; TargetError when it crosses no namespace."""
    target = surveyed.target
    if surveyed.host is None or len(target.path) < 2 or target.transient:
        why = "every run has a container of its own" if target.transient else "nothing is crossed"
        raise TargetError(
            f"the BPF tracer follows packets from a container's device to the outer one: {why}",
            hint="record with --tracer ftrace",
        )
    inside = next(n for n in surveyed.namespaces if n.name == target.path[0].netns)
    host = next(n for n in surveyed.namespaces if n.name == target.path[-1].netns)
    inner = next(link for link in inside.links if link.name == target.path[0].dev)
    outer = next(link for link in host.links if link.name == target.path[-1].dev)
    return {
        inner_device(inside.inode, inner, 1),
        outer_device(host.inode, outer),
        *devices_beneath(host.inode, host.links, outer),
    }


class EchoRecorder:
    """Writes the points of the tracer to a file; it can be switched on and off.

    It has the form of `maceproc.recording.recorder.Recorder`: use it as a context manager.
    """

    def __init__(self, output: Path, devices: set[Watched]) -> None:
        self.output = output
        self.events: list[str] = []
        self.instance = ""
        self.covers_function_tracer = False
        self.buffer_kb = POINTS * POINT_BYTES >> 10
        self.events_lost: dict[str, int] = {}
        self.events_missing: dict[str, int] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.points_lost = 0
        self.unread: dict[str, int] = {}
        self._devices = devices
        self._file = -1
        self._tracer: EchoTracer | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read_on, daemon=True)

    def __enter__(self) -> EchoRecorder:
        """Load the tracer, switched off, and begin the file; TracingError when it cannot be."""
        self._tracer = EchoTracer()
        try:
            self._tracer.watch(self._devices)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self.output, flags, 0o600)
            facts = {"maceproc": __version__, "point_bytes": POINT_BYTES, "clock": "mono"}
            self._write(MAGIC + json.dumps(facts).encode() + b"\n")
        except OSError as error:
            self._close()
            raise TracingError(f"{self.output.name}: {error.strerror}") from error
        except BaseException:
            self._close()
            raise
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._reader.join()
        tracer = self._tracer
        if tracer is not None:
            tracer.stop()
            self._take_points()
            self.unread = {name: count for name, count in tracer.counts().items() if count}
        self._close()
        if self.problems:
            raise TracingError("; ".join(self.problems))

    def switch_on(self) -> None:
        """Let the tracer's programs run."""
        assert self._tracer is not None
        self._tracer.start()

    def switch_off(self) -> None:
        """Take the tracer's programs out of the kernel."""
        assert self._tracer is not None
        self._tracer.stop()
        self._take_points()

    def others(self) -> list[str]:
        """Return no tracing instances: this tracer does not look for others."""
        return []

    def check_running(self) -> None:
        """Raise TracingError when points could not be written."""
        if self.problems:
            raise TracingError("; ".join(self.problems))

    def largest_piece(self) -> int:
        """Return 0 [bytes]: these files have no limit of size."""
        return 0

    def _read_on(self) -> None:
        assert self._tracer is not None
        while not self._over.wait(self._tracer.pause_s(READ_EVERY_S)):
            self._take_points()

    def _take_points(self) -> None:
        """Write the points that have come."""
        assert self._tracer is not None
        with self._lock:
            data, lost, _ = self._tracer.read_points()
            self.points_lost += lost
            if not data or self.problems:
                return
            try:
                self._write(data)
            except OSError as error:
                self.problems.append(f"points could not be written: {error.strerror}")

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._tracer is not None:
            tracer, self._tracer = self._tracer, None
            with contextlib.suppress(TracingError):
                tracer.__exit__(None, None, None)
