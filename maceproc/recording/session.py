"""Run the plan of a recording, and keep its sidecar up to date in case we are killed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from maceproc.capture import Run, Sidecar, Tracing
from maceproc.capture_files import identify, save_sidecar
from maceproc.errors import CaptureError, TracingError
from maceproc.recording.arms import Arm
from maceproc.recording.both_recorders import BothRecorders
from maceproc.recording.command import Command
from maceproc.recording.echo_recorder import EchoRecorder
from maceproc.recording.perf_recorder import PerfRecorder
from maceproc.recording.processes import Interruption, execute
from maceproc.recording.recorder import Recorder
from maceproc.recording.workplace import Workplace

# trace-cmd 3.1.6 counts the bytes of a CPU with 32 bits. The limit leaves room for what is still in
# the ring buffer, and for what is written until the size is checked again.
PIECE_LIMIT_BYTES = 7 << 29
FASTEST_BYTES_PER_S = 5e8  # more than one CPU writes into its ring buffer
SHORTEST_WATCH_S = 0.05
KILLED = "the recorder was killed"
SETTLE_S = 0.02  # pause between switching events and the run: enabling a tracepoint patches code
# A ping that sent a packet prints its statistics or a reply.
_SENT = re.compile(r"transmitted| bytes from ")

AnyRecorder = Recorder | PerfRecorder | EchoRecorder | BothRecorders


class Progress(NamedTuple):
    """How far a recording or an experiment is: told before every run and after the last run."""

    done: int
    total: int
    arm: str  # that runs, of an experiment with its block; empty after the last run


class Session:
    """Runs the plan, and fills in the sidecar."""

    def __init__(
        self,
        recorder: AnyRecorder,
        interruption: Interruption,
        command: Command,
        sidecar: Sidecar,
        workplace: Workplace,
        piece_limit_bytes: int,
    ) -> None:
        self._recorder = recorder
        self._interruption = interruption
        self._command = command
        self._sidecar = sidecar
        self._workplace = workplace
        self._piece_limit_bytes = piece_limit_bytes
        self._others: set[str] = set()  # instances that traced during an untraced run

    def execute(
        self,
        plan: list[tuple[int, Arm]],
        tell: Callable[[Progress], None],
        show: Callable[[bytes], None] | None,
    ) -> None:
        """Run every arm of the plan; also after an error, leave a trace with a sidecar."""
        try:
            with self._recorder, self._within_limit():
                self._sidecar.tracing.buffer_size_kb = self._recorder.buffer_kb
                self._save_unfinished()
                for done, (number, arm) in enumerate(plan):
                    tell(Progress(done, len(plan), str(arm)))
                    if self._interruption.reason or self._has_failed():
                        break
                    self._run(number, arm, show)
                    self._save_unfinished()
                    if not arm.entrance.is_alive():
                        break
        except TracingError as error:
            with contextlib.suppress(CaptureError):  # the first error is the one to report
                self._save()
            raise self._told(error) from error
        except BaseException:
            with contextlib.suppress(CaptureError):
                self._save()
            raise
        self._save()
        tell(Progress(len(plan), len(plan), ""))

    def _save_unfinished(self) -> None:
        """Write what is known so far, for the case that we are killed."""
        self._sidecar.interrupted = KILLED
        with contextlib.suppress(CaptureError):  # a full disk is reported at the end
            save_sidecar(self._workplace.sidecar, self._sidecar)

    def _save(self) -> None:
        """Complete the sidecar, and move the capture out of the private directory."""
        self._sidecar.interrupted = self._interruption.reason
        tracing = self._sidecar.tracing
        note_losses(tracing, self._recorder)
        self._sidecar.notes += self._recorder.notes
        if self._others:
            names = ", ".join(
                sorted(repr(name) if name else "the top one" for name in self._others)
            )
            self._sidecar.notes.append(
                f"untraced runs were traced by somebody else, in another instance ({names})"
            )
        if self._workplace.trace.exists():
            self._sidecar.trace = identify(self._workplace.trace)
        if not nothing_happened(self._command, self._sidecar.runs):
            self._workplace.save(self._sidecar)

    def _told(self, error: TracingError) -> TracingError:
        """Add to a recorder's error what is kept, and what to do next."""
        output = self._workplace.output
        if self._workplace.keep:
            hint = f"`maceproc salvage {output}` makes a capture of what is left"
            full = os.strerror(errno.ENOSPC) in error.message
            return TracingError(error.message, hint=f"{'free some space, then ' * full}{hint}")
        if nothing_happened(self._command, self._sidecar.runs):
            return error
        return TracingError(
            f"{error.message}; {kept(self._command, self._sidecar.runs, output)}",
            hint="record again, or analyze what is whole: the report says what is missing",
        )

    @contextlib.contextmanager
    def _within_limit(self) -> Iterator[None]:
        """End the recording before a CPU's events take more than trace-cmd can count."""
        over = threading.Event()

        def watch() -> None:
            room = self._piece_limit_bytes
            while room > 0:
                # As rarely as possible: a process that wakes up beside a measurement disturbs it.
                if over.wait(max(room / FASTEST_BYTES_PER_S, SHORTEST_WATCH_S)):
                    return
                room = self._piece_limit_bytes - self._recorder.largest_piece()
            self._interruption.end(
                f"the events of one CPU took {self._piece_limit_bytes / 2**30:.3g} GiB, the most "
                "that one recording can hold"
            )

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def _has_failed(self) -> bool:
        runs = self._sidecar.runs
        return bool(runs) and failed(self._command, runs[-1])

    def _run(self, number: int, arm: Arm, show: Callable[[bytes], None] | None) -> None:
        run = Run(round=number, place=arm.place, traced=arm.traced, argv=list(self._command.argv))
        self._recorder.check_running()
        self._sidecar.runs.append(run)
        with self._traced() if arm.traced else self._untraced():
            time.sleep(SETTLE_S)
            execute(run, arm.entrance, self._interruption, show)

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        self._recorder.switch_on()
        try:
            yield
        finally:
            self._recorder.switch_off()

    @contextlib.contextmanager
    def _untraced(self) -> Iterator[None]:
        self._others.update(self._recorder.others())
        yield
        self._others.update(self._recorder.others())


def note_losses(tracing: Tracing, recorder: AnyRecorder) -> None:
    """Note in a sidecar what a recorder that has ended lost, and what went wrong."""
    tracing.events_lost = recorder.events_lost
    tracing.events_missing = recorder.events_missing
    tracing.problems = list(recorder.problems)
    if isinstance(recorder, EchoRecorder | BothRecorders):
        tracing.points_lost = recorder.points_lost
        tracing.unread = recorder.unread


def failed(command: Command, run: Run) -> bool:
    """Tell whether the command failed, or its namespace could not be entered any more."""
    return command.failed(run.exit_status) or run.errors.startswith("nsenter: ")


def nothing_happened(command: Command, runs: list[Run]) -> bool:
    """Tell whether there is nothing to keep: no run ended, or only a ping that sent no packet."""
    ended = [run for run in runs if run.end_ns]
    if len(ended) != 1 or not command.is_ping:
        return not ended
    (run,) = ended
    refused = failed(command, run) and (run.exit_status or 0) > 0
    return refused and not _SENT.search(run.output)


def kept(command: Command, runs: list[Run], trace: Path) -> str:
    """Say how many runs a capture keeps, and where."""
    if nothing_happened(command, runs):
        return "nothing was recorded"
    return f"{len(runs)} run{'s' * (len(runs) != 1)} kept in {trace}"
