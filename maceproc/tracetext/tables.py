"""The lines of every event as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from maceproc.schema import EVENTS
from maceproc.tracetext.bodies import TEXT, Value
from maceproc.tracetext.lines import Head
from maceproc.tracetext.values import typed_column

# A table may have this many times the cells that its lines have values. Lines that name ever other
# fields (a bpf_printk with a counter in its names) would need a column for each of them.
CELLS_PER_VALUE = 16


@dataclass
class Line:
    """One event, as text."""

    number: int  # of the line in the file
    head: Head
    event: str
    fields: dict[str, Value]
    further: list[str] = field(default_factory=list)  # lines that belong to its text


def tables_of(events: Mapping[str, list[Line]]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Build a table per event, in the order of time; and say what could not be a column.

    Lines at the same time keep the order of the file. The index of a table is the place of each row
    among all rows.
    """
    lines = sorted((line for own in events.values() for line in own), key=lambda x: x.number)
    order = np.argsort(np.array([line.head.time_ns for line in lines], np.int64), kind="stable")
    rank = np.empty(len(lines), np.int64)
    rank[order] = np.arange(len(lines))
    ranks = {line.number: place for line, place in zip(lines, rank.tolist(), strict=True)}
    several = len({line.head.buffer for line in lines}) > 1
    tables: dict[str, pd.DataFrame] = {}
    notes = []
    for name, own in sorted(events.items()):
        if own:
            own.sort(key=lambda line: ranks[line.number])
            if not _has_columns(own):
                notes.append(f"{name}: too many different fields for columns, all are in {TEXT}")
                _put_fields_into_text(own)
            tables[name] = _table(name, own, ranks, several)
    return tables, notes


def _has_columns(lines: list[Line]) -> bool:
    """Whether the lines' fields can be columns, in space proportional to the text."""
    names = {name for line in lines for name in line.fields}
    values = sum(len(line.fields) for line in lines)
    return len(names) * len(lines) <= CELLS_PER_VALUE * (values + len(lines))


def _put_fields_into_text(lines: list[Line]) -> None:
    for line in lines:
        if TEXT not in line.fields:
            line.fields[TEXT] = " ".join(f"{name}={value}" for name, value in line.fields.items())
        line.fields = {TEXT: line.fields[TEXT]}


def _table(event: str, lines: list[Line], ranks: dict[int, int], several: bool) -> pd.DataFrame:
    heads = [line.head for line in lines]
    data: dict[str, Any] = {
        column.name: pd.Series([getattr(head, column.name) for head in heads], dtype=column.dtype)
        for column in EVENTS.columns
    }
    if several:
        data["buffer"] = pd.Series([head.buffer for head in heads], dtype="category")
    names = dict.fromkeys(name for line in lines for name in line.fields)
    if TEXT in names:  # the last column
        names[TEXT] = names.pop(TEXT)
    for name in names:
        column = name if name not in data else f"{name}_"
        data[column] = typed_column(event, name, [line.fields.get(name) for line in lines])
    frame = pd.DataFrame(data)
    frame.index = pd.Index([ranks[line.number] for line in lines], dtype="int64")
    return frame
