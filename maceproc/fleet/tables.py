"""Which tables a dataset has, and how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from maceproc.analysis import QUANTITIES as QUANTITIES_OF_COMPARISON
from maceproc.errors import MaceprocError
from maceproc.fleet.about import ABOUT
from maceproc.foreign_text import clean
from maceproc.reporting.export.tables import TABLES as TABLES_OF_ANALYSIS
from maceproc.schema import Column, Table

if TYPE_CHECKING:
    import pyarrow as pa

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


def arrow_schema(table: Table) -> pa.Schema:
    """Return the types of a table's file; every column with its unit and meaning."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "int32": pa.int32(),
        "uint64": pa.uint64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "str": pa.string(),
        "category": pa.string(),  # Parquet's files have dictionaries of their own
    }
    return pa.schema(
        pa.field(
            column.name,
            types[column.dtype.lower()],
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in columns_of(table)
    )


def as_parquet(table: Table, frame: pd.DataFrame, facts: Mapping[str, Any]) -> bytes:
    """Return a table's file: every row with what is known of its capture (`about.about`).

    Text is stored without control characters (`maceproc.foreign_text`); a number that is not known
    is null, also in columns of floating-point numbers.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    arrays = []
    for field in schema:
        if field.name in frame.columns:
            arrays.append(_array(frame[field.name], field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(facts[field.name], field.type), len(frame)))
    sink = pa.BufferOutputStream()
    rows = pa.Table.from_arrays(arrays, schema=schema)
    pq.write_table(rows, sink, compression="zstd")
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _array(values: pd.Series[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if not pa.types.is_string(kind):
        return pa.Array.from_pandas(values, type=kind)
    codes, texts = pd.factorize(values.astype(object), use_na_sentinel=True)
    places = pa.array(codes, mask=codes < 0, type=pa.int32())
    words = pa.array([clean(text) for text in texts], pa.string())
    return pa.DictionaryArray.from_arrays(places, words).cast(pa.string())


def require_fleet() -> None:
    """Raise MaceprocError unless what stores and reads datasets is installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MaceprocError("a dataset needs pyarrow", hint=HINT) from error
