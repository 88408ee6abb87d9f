"""Which tables a dataset has, and their columns. Nothing here takes long to load."""

from __future__ import annotations

from collections.abc import Mapping

from maceproc.analysis import QUANTITIES as QUANTITIES_OF_COMPARISON
from maceproc.analysis import TABLES as TABLES_OF_ANALYSIS
from maceproc.schema import Column, Table

ABOUT = (
    Column("capture", "str", "", "SHA-256 of the trace it is from, in hexadecimal"),
    Column("file", "str", "", "where the trace was when it was collected"),
    Column("ran_in", "str", "", "the container, namespace or process that the command ran in"),
    Column("target", "str", "", "what was pinged"),
    Column("path", "str", "", "devices its packets pass; made-up names are cut: veth*, br-*"),
    Column("kernel", "str", "", "kernel release"),
    Column("event_set", "str", "", "what was recorded: minimal, full or list"),
    Column("recorded_by", "str", "", "version of maceproc that recorded; empty when not known"),
    Column("analyzed_by", "str", "", "version of maceproc that analyzed"),
    Column("schema_version", "int64", "", "version of the tables"),
)
"""Columns that every table of a dataset begins with."""

HOST = Column("host", "str", "", "the machine that recorded, by its name; unknown without one")
DATE = Column("date", "date", "", "day of the recording, UTC; unknown without a sidecar")
PARTITIONS = (HOST, DATE)
"""Columns that are in the directories' names, so in no file."""

HINT = "install it with: pip install 'maceproc[fleet]'"
LARGE = ("hops", "journeys")
"""Tables with a row for every packet or event: they are stored only when asked for."""

CAPTURES = Table(
    "captures",
    "one capture of the dataset",
    (
        Column("command", "str", "", "what ran"),
        Column("recorded_at_ns", "Int64", "ns", "UTC, begin of the first run"),
        Column("rounds", "int64", "", "rounds"),
        Column("pings", "int64", "", "pings, whatever became of them"),
        Column("answered", "int64", "", "traced pings that were answered"),
        Column("corrected", "int64", "", "those of them that were corrected"),
        Column("events_lost", "int64", "", "events known to be lost"),
        Column("problems", "int64", "", "findings that are problems"),
        Column("warnings", "int64", "", "findings that are warnings"),
        Column("size_bytes", "int64", "byte", "the trace file"),
    ),
)

QUANTITIES = Table(
    "quantities",
    "one quantity in one capture: a series of RTTs, a crossing, or the container overhead",
    tuple(column for column in QUANTITIES_OF_COMPARISON.columns if column.name != "capture"),
)

FAILURES = Table(
    "failures",
    "one capture that could not be analyzed",
    (
        Column("error", "str", "", "what was wrong, and what to do about it"),
        Column("kind", "str", "", "the error's name in `maceproc.errors`"),
    ),
)

MARK = CAPTURES.name
"""The table that is written last: a capture that is in it is complete."""

STORED: Mapping[str, Table] = {
    **TABLES_OF_ANALYSIS,
    **{table.name: table for table in (QUANTITIES, CAPTURES, FAILURES)},
}
"""Every table that a dataset can have, by name."""


def columns_of(table: Table) -> tuple[Column, ...]:
    """Return the columns of a table's file: what tells its capture, then the table's own.

    Of a name that both have, the table's own is kept: `target` of RTTS is that of the ping.
    """
    own = set(table.names)
    return (*(column for column in ABOUT if column.name not in own), *table.columns)
