"""A perf.data into tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.errors import TraceFormatError
from maceproc.perfdata.container import PerfFile, info_of, tracing_data
from maceproc.perfdata.lost import lost_table
from maceproc.perfdata.records import Records, read_records
from maceproc.perfdata.samples import Samples, read_samples
from maceproc.perfdata.structures import PERF_CLOCK
from maceproc.perfdata.tasks import Commands, read_commands
from maceproc.schema import Trace
from maceproc.tracedat.columns import (
    Block,
    ColumnData,
    Payloads,
    TableSpec,
    copy_fields,
    dtype_of,
    recoded,
    typed_column,
    value_column,
)
from maceproc.tracedat.formats import EventFormat, read_formats, read_layout
from maceproc.tracedat.ringbuffer import TYPES, Order, in_parallel, order_records, word_view
from maceproc.tracedat.selection import Selection

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Recording:
    """Samples, what they mean, and in which order they are read."""

    data: npt.NDArray[np.uint8]
    order: str
    samples: Samples
    commands: Commands
    codes: Codes  # the command of every sample
    places: Order


def read_opened(perf: PerfFile, selection: Selection) -> Trace:
    """Read the selected tracepoints of a perf.data into one typed table per event.

    The tables are those of `maceproc.tracedat.read_events`. ``pid`` is the thread as the kernel's
    first PID namespace numbers it. Samples also hold the number in the PID namespace that perf ran
    in (kernel/events/core.c, perf_event_pid_type(), v6.18), which is 0 for threads outside of it.
    ``comm`` is the command that the thread ran at that time, ``swapper`` for the idle thread. Rows
    at the same time are in the order of the file. Where the recording has no CPU, ``cpu`` is -1,
    and a note says so. A note counts the samples of events that are no tracepoints.

    Raises TraceFormatError when the file has no formats of its tracepoints, or its samples have no
    time.
    """
    if selection.buffer:
        found = f"no buffer {selection.buffer!r}"
        raise TraceFormatError(perf.path, offset=None, found=found, expected="'', the only one")
    formats = _formats(perf)
    records = read_records(perf)
    samples = read_samples(perf, records)
    _require_times(perf, samples)
    lost = lost_table(perf, records, samples)
    recording, others = _select(perf, records, samples, formats, selection)
    _note_others(perf, formats, others)
    if len(samples.cpus) and samples.cpus.min() < 0:
        perf.notes.append("the samples have no CPU: cpu is -1; record with --sample-cpu or -a")
    if perf.clock == PERF_CLOCK:
        perf.notes.append(
            "times are of perf's own clock, which has no place on UTC; record with -k mono"
        )
    return Trace(
        events=_tables(recording, formats, selection),
        lost=lost,
        clock=perf.clock,
        info=info_of(perf),
        notes=tuple(perf.notes),
    )


def _formats(perf: PerfFile) -> dict[int, EventFormat]:
    """Return the formats of the kernel's events: id -> format."""
    trace = tracing_data(perf)
    formats = {} if trace is None else read_formats(trace, read_layout(trace).commit_size)
    if not formats:
        tracepoints = [attr for attr in perf.attrs if attr.is_tracepoint]
        hint = "perf writes them when it ends: let it end, or stop it with Ctrl-C"
        hint = f"{perf.notes[0]}; {hint}" if perf.notes else hint
        raise TraceFormatError(
            perf.path,
            offset=None,
            found=f"{len(tracepoints)} tracepoints, and no formats of their fields",
            expected="tracepoints and the feature TRACING_DATA",
            hint=hint if tracepoints else "record tracepoints: perf record -e 'net:*' -k mono -a",
        )
    # perf pads the data of a tracepoint to 8 bytes, so its size says nothing of its last array's.
    return {number: _without_open_end(form) for number, form in formats.items()}


def _without_open_end(form: EventFormat) -> EventFormat:
    if not any(field.is_open for field in form.fields):
        return form
    return replace(form, fields=tuple(replace(field, is_open=False) for field in form.fields))


def _require_times(perf: PerfFile, samples: Samples) -> None:
    if len(samples.times) and (samples.times < 0).all():
        raise TraceFormatError(
            perf.path,
            offset=None,
            found="samples without a time",
            expected="samples with a time",
            hint="record with `perf record --timestamp`",
        )


def _select(
    perf: PerfFile,
    records: Records,
    samples: Samples,
    formats: dict[int, EventFormat],
    selection: Selection,
) -> tuple[Recording, npt.NDArray[np.int64]]:
    """Choose the samples wanted, in the order of time; and count those that no table can have."""
    types = np.empty(0, np.uint16)
    if len(samples.positions):
        types = word_view(records.data, 2, perf.order)[samples.positions].astype(np.uint16)
    wanted = np.full(TYPES, selection.events is None)
    least = np.full(TYPES, 1 << 30, np.int64)  # of a type without a format
    for number, form in formats.items():
        wanted[number] = selection.takes(form)
        least[number] = form.size
    chosen = wanted[types]
    if selection.start_ns is not None:
        chosen &= samples.times >= selection.start_ns
    if selection.end_ns is not None:
        chosen &= samples.times < selection.end_ns
    whole = samples.lengths >= least[types]
    others = np.bincount(types[chosen & ~whole], minlength=TYPES)
    own = chosen & whole
    kept = samples if own.all() else samples.where(own)
    commands = read_commands(perf, records)
    codes = commands.codes_of(kept.tids, kept.times)
    places = order_records(kept.times, types[own])
    return Recording(records.data, perf.order, kept, commands, codes, places), others


def _note_others(
    perf: PerfFile, formats: dict[int, EventFormat], others: npt.NDArray[np.int64]
) -> None:
    for number in np.flatnonzero(others).tolist():
        form = formats.get(number)
        perf.notes.append(
            f"{others[number]} samples of {form.name} too short, left out"
            if form
            else f"{others[number]} samples left out: no format for type {number}"
        )


# --- tables ---------------------------------------------------------------------------------------


def _tables(
    recording: Recording, formats: dict[int, EventFormat], selection: Selection
) -> dict[str, pd.DataFrame]:
    there = [
        form
        for form in formats.values()
        if selection.takes(form) and (_has_rows(recording, form) or selection.names(form))
    ]
    tasks = [
        partial(_table, recording, TableSpec(form, selection.fields_of(form))) for form in there
    ]
    tables: dict[str, pd.DataFrame] = {}
    size = int(recording.samples.lengths.sum())
    for form, table in zip(there, in_parallel(tasks, size=size), strict=True):
        key = form.name if form.name not in tables else f"{form.system}:{form.name}"
        tables[key] = table
    return tables


def _has_rows(recording: Recording, form: EventFormat) -> bool:
    group = recording.places.of(form.id)
    return bool(group.stop > group.start)


def _table(recording: Recording, spec: TableSpec) -> pd.DataFrame:
    """Build the table of one event type."""
    samples, group = recording.samples, recording.places.of(spec.form.id)
    rows, ranks = recording.places.numbers[group], recording.places.ranks[group]
    payloads = Payloads(
        recording.data, recording.order, samples.positions[rows], samples.lengths[rows]
    )
    block = Block(len(rows), map(dtype_of, spec.numbers))
    (pids, flags, *numbers), (_, *values) = copy_fields(payloads, spec.numbers, spec.values, block)
    columns: dict[str, ColumnData] = {
        "time_ns": samples.times[rows],
        "cpu": samples.cpus[rows],
        "pid": pids,
        "flags": flags,
        "comm": _comms(recording.codes[rows], recording.commands.names),
    }
    for field in spec.fields:
        name = f"{field.name}_" if field.name in columns else field.name
        if field.is_number:
            columns[name] = typed_column(numbers.pop(0), field)
        else:
            columns[name] = value_column(values.pop(0), field, recording.order)
    return pd.DataFrame(columns, index=pd.Index(ranks), copy=False)


def _comms(codes: Codes, names: list[str]) -> ColumnData:
    """Return a categorical of those names that occur."""
    used, own = np.unique(codes, return_inverse=True)
    return recoded(own.astype(np.int32), [names[code] for code in used.tolist()])
