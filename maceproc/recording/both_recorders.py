"""Record by both tracers at once: raw events, and beside them echoes by identity."""

from __future__ import annotations

from maceproc.recording.echo_recorder import EchoRecorder
from maceproc.recording.recorder import Recorder


class BothRecorders:
    """A recorder of events and one of echoes, switched on and off together.

    It has the form of `maceproc.recording.recorder.Recorder`: use it as a context manager.
    """

    def __init__(self, events: Recorder, echoes: EchoRecorder) -> None:
        self._events, self._echoes = events, echoes
        self.output = events.output
        self.events = events.events
        self.instance = events.instance
        self.covers_function_tracer = events.covers_function_tracer

    def __enter__(self) -> BothRecorders:
        """Start both, switched off; TracingError when one of them does not start."""
        self._echoes.__enter__()
        try:
            self._events.__enter__()
        except BaseException:
            self._echoes.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._events.__exit__(*exception)
        finally:
            self._echoes.__exit__(*exception)

    def switch_on(self) -> None:
        """Let both record."""
        self._echoes.switch_on()
        self._events.switch_on()

    def switch_off(self) -> None:
        """Let neither record."""
        try:
            self._events.switch_off()
        finally:
            self._echoes.switch_off()

    def others(self) -> list[str]:
        """Return the other tracing instances that have events on now."""
        return self._events.others()

    def check_running(self) -> None:
        """Raise TracingError when one of the two does not record any more."""
        self._events.check_running()
        self._echoes.check_running()

    def largest_piece(self) -> int:
        """Return how much was written of the CPU with the most events [bytes]."""
        return self._events.largest_piece()

    @property
    def buffer_kb(self) -> int:
        """The ring buffer of the events, per CPU [KiB]."""
        return self._events.buffer_kb

    @property
    def notes(self) -> list[str]:
        """Remarks about a complete recording, for the sidecar."""
        return [*self._events.notes, *self._echoes.notes]

    @property
    def events_lost(self) -> dict[str, int]:
        """Events that the kernel dropped, by CPU."""
        return self._events.events_lost

    @property
    def events_missing(self) -> dict[str, int]:
        """Events that the trace lacks, by CPU."""
        return self._events.events_missing

    @property
    def problems(self) -> list[str]:
        """What went wrong with either."""
        return [*self._events.problems, *self._echoes.problems]

    @property
    def points_lost(self) -> int:
        """Points of echoes that were overwritten before they were read."""
        return self._echoes.points_lost

    @property
    def unread(self) -> dict[str, int]:
        """Headers that the tracer of echoes could not read, by reason."""
        return self._echoes.unread
