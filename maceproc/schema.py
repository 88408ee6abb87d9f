"""The tables: every column with its dtype, unit and meaning, declared once.

Code, JSON, Parquet and documentation use these names. Times are int64 nanoseconds on the trace
clock unless the name says UTC. A nullable dtype (``Int64``, ``UInt64``) marks a column that can be
unknown; addresses never pass through float64, whose step there is 2048.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Version of the tables and of ``analyze --json``; grows when a column changes its meaning."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    dtype: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table: its name, what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        """Return the column of that name; KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return [column.name for column in self.columns]

    def frame(self, data: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Build a DataFrame with exactly these columns and dtypes; without data, an empty one.

        Raises KeyError when a column is missing and ValueError when a value does not fit.
        """
        import pandas as pd

        if data is None:
            data = {name: [] for name in self.names}
        return pd.DataFrame({c.name: pd.Series(data[c.name], dtype=c.dtype) for c in self.columns})


@dataclass(frozen=True)
class Trace:
    """What a reader returns, whatever the file format.

    Attributes
    ----------
    events
        Per event name (``net_dev_queue``, without its system) a DataFrame in time order: the
        columns of `EVENTS`, then the event's own fields under the kernel's names. Integer fields
        keep the kernel's width and sign, pointers are uint64, strings are categoricals.
    lost
        The `LOST` table.
    clock
        The trace clock's name (``mono``, ``local``, ...); empty when the file does not say.
    info
        What else the file tells about itself (version, compression, CPUs, uname, ...).
    notes
        What was found wrong while reading (truncated file, skipped lines), one sentence each.
    """

    events: Mapping[str, pd.DataFrame]
    lost: pd.DataFrame
    clock: str
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


EVENTS = Table(
    "events",
    "one tracepoint hit",
    (
        Column("time_ns", "int64", "ns", "trace clock"),
        Column("cpu", "int32", "", "CPU it was recorded on"),
        Column("pid", "int32", "", "task that ran; in softirq, the task that was interrupted"),
        Column("flags", "uint8", "", "common_flags: 0x08 hardirq, 0x10 softirq, ..."),
        Column("comm", "category", "", "command name of the pid; <...> when unknown"),
    ),
)

LOST = Table(
    "lost",
    "one gap in one CPU's ring buffer",
    (
        Column("buffer", "category", "", "buffer instance; empty for the top one"),
        Column("cpu", "int32", "", "CPU whose events were lost"),
        Column("after_ns", "Int64", "ns", "last event before the gap; unknown at the start"),
        Column("before_ns", "Int64", "ns", "first event after the gap; unknown at the end"),
        Column("count", "Int64", "", "number of events lost; unknown when the kernel did not say"),
    ),
)
