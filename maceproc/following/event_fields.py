"""What following needs of the tables of a trace: these fields, of these types.

Kernels and tools differ in what they print, text can be cut, and a file can be damaged. If a
field that following needs is missing, the analysis ends with one line that names the event and the
field, instead of matching wrong packets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from maceproc.errors import AnalysisError
from maceproc.following.calls import RECEIVE_CALLS, SEND_CALLS
from maceproc.following.hop_arrays import HOP_EVENTS, Kind
from maceproc.schema import Trace

DEVICE_FIELDS = ("name", "dev")  # the kernel's name of the field, and what it prints


def require_fields(path: Path, trace: Trace) -> None:
    """Raise AnalysisError for the first field that is missing or of another type than it must be.

    Tables without rows need no fields.
    """
    for event, table in trace.events.items():
        for complaint in _complaints(event.rpartition(":")[2], table) if len(table) else ():
            raise AnalysisError(
                f"{path}: {event} {complaint}",
                hint=f"`maceproc events {path} {event}` shows what it has",
            )


def device_names(trace: Trace) -> set[str]:
    """Return the names of the devices that the events of packets tell."""
    columns = [
        table[name]
        for event, table in trace.events.items()
        if HOP_EVENTS.get(event.rpartition(":")[2], Kind.COPY) < Kind.COPY
        for name in DEVICE_FIELDS
        if name in table
    ]
    return {str(name) for column in columns for name in column.unique().dropna()} - {""}


def require_devices(path: Path, given: Iterable[str], told: set[str]) -> None:
    """Raise AnalysisError when no event of a trace is told of a device that was given by hand.

    `told` are the `device_names` of the trace; an empty name was not given.
    """
    for name in given:
        if name and name not in told:
            raise AnalysisError(
                f"{path}: no event of a packet has a device {name!r}",
                hint=f"its events have {', '.join(sorted(told)) or 'none'}",
            )


def _complaints(event: str, table: pd.DataFrame) -> Iterator[str]:
    if event in HOP_EVENTS:
        yield from _integers(table, "skbaddr", may_be_missing=True)
        if HOP_EVENTS[event] < Kind.COPY:
            yield from _integers(table, "len")
            if not any(name in table for name in DEVICE_FIELDS):
                yield "has no field name or dev, which tells the device"
        for name in DEVICE_FIELDS:
            if name in table and not isinstance(table[name].dtype, pd.CategoricalDtype):
                yield f"has a field {name} that is a number, expected a device's name"
    elif event in SEND_CALLS:
        for name in ("fd", "len"):
            if name in table:
                yield from _integers(table, name, may_be_missing=True)
    elif event in RECEIVE_CALLS:
        yield from _integers(table, "ret")


def _integers(table: pd.DataFrame, name: str, *, may_be_missing: bool = False) -> Iterator[str]:
    """Complain when a field is absent, is no integer, or lacks a value that it must have."""
    if name not in table:
        yield f"has no field {name}"
        return
    column = table[name]
    if not pd.api.types.is_integer_dtype(column.dtype):
        yield f"has a field {name} that is no integer, such as {_odd_one(column)!r}"
    elif column.hasnans and not may_be_missing:
        yield f"has {int(column.isna().sum())} rows without {name}"


def _odd_one(column: pd.Series) -> str:
    """Return the first value of a column that is no integer, cut short."""
    texts = column.dropna().astype(str)
    odd = texts[~texts.str.fullmatch(r"-?\d{1,20}|0x[0-9a-f]{1,16}")]
    return str(next(iter(odd), ""))[:40]
