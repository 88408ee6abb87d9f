"""How the tables of a dataset are stored: typed, every column with its unit and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from maceproc.errors import MaceprocError
from maceproc.fleet.declared import HINT, columns_of
from maceproc.foreign_text import clean
from maceproc.schema import Table

if TYPE_CHECKING:
    import pyarrow as pa


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
    return parts_as_parquet(table, [frame], facts)[1]


def parts_as_parquet(
    table: Table, frames: Iterable[pd.DataFrame], facts: Mapping[str, Any]
) -> tuple[int, bytes]:
    """Return how many rows a table has, and its file, as `as_parquet`; its rows come in parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    sink, count = pa.BufferOutputStream(), 0
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(_described(frame, schema, facts))
            count += len(frame)
    return count, sink.getvalue().to_pybytes()


def _described(frame: pd.DataFrame, schema: pa.Schema, facts: Mapping[str, Any]) -> pa.Table:
    """Return rows with what is known of their capture."""
    import pyarrow as pa

    arrays = []
    for field in schema:
        if field.name in frame.columns:
            arrays.append(_array(frame[field.name], field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(facts[field.name], field.type), len(frame)))
    return pa.Table.from_arrays(arrays, schema=schema)


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
