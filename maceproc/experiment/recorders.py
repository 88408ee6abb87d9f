"""The recorder of each tracer of an experiment, writing its capture of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from maceproc.experiment.plan import BPF
from maceproc.experiment.stage import Stage
from maceproc.recording.bpf.libbpf import require_bpf
from maceproc.recording.echo_recorder import EchoRecorder, devices_to_watch
from maceproc.recording.event_sets import EventSet, choose_events, events_needed
from maceproc.recording.recorder import Recorder, recorded_to
from maceproc.recording.workplace import Workplace

AnyRecorder = Recorder | EchoRecorder


def events_of(stage: Stage, tracer: str) -> tuple[list[str], EventSet]:
    """Return the events that a tracer records, and what their choice is called; BPF has none.

    Raises RecordError for an event that is not known here, and where BPF cannot be used.
    """
    wanted = stage.plan.events_of(tracer)
    if wanted == BPF:
        require_bpf()
        devices_to_watch(stage.surveyed)
        return [], "bpf"
    minimal = events_needed(stage.surveyed)
    chosen, event_set, _ = choose_events(wanted, stage.available, minimal)
    return chosen, event_set


@contextlib.contextmanager
def recording_of(stage: Stage, tracer: str, output: Path) -> Iterator[AnyRecorder]:
    """Record into `output` by a tracer while the block runs."""
    events, _ = events_of(stage, tracer)
    if events:
        name = output.name.removesuffix(".dat")
        with recorded_to(output, events, stage.buffer_kb, stage.tracefs, name=name) as recorder:
            yield recorder
        return
    with Workplace(output) as workplace:
        try:
            with EchoRecorder(workplace.trace, devices_to_watch(stage.surveyed)) as echoes:
                yield echoes
        finally:
            workplace.publish()
