"""Tables as CSV, JSON and Parquet, with the unit and the meaning of every column.

* CSV: rows alone; beside it ``FILE-metadata.json`` in the terms of the W3C's "CSV on the Web",
  which programs find by that name.
* JSON: one object, the columns' descriptions and the rows. Addresses are hexadecimal strings.
* Parquet: descriptions in the fields' metadata, provenance in the file's, zstd. Pandas reads the
  very same table back: dtypes, missing values, categories.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from maceproc import schema
from maceproc.errors import AnalysisError
from maceproc.reporting.export.provenance import provenance, required
from maceproc.schema import Column, Table, rows_of

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        schema.RTTS,
        schema.PINGS,
        schema.CROSSINGS,
        schema.JOURNEYS,
        schema.HOPS,
        schema.STEPS,
        schema.SERIES,
        schema.COMPARISONS,
        schema.FINDINGS,
        schema.LOST,
    )
}

# https://www.w3.org/TR/tabular-metadata/#built-in-datatypes
CSVW_DATATYPES = {
    "int64": "long",
    "int32": "int",
    "uint64": "unsignedLong",
    "uint8": "unsignedByte",
    "float64": "double",
    "bool": "boolean",
    "boolean": "boolean",
}


def table_of(analysis: Analysis, name: str) -> tuple[Table, pd.DataFrame]:
    """Return a table of an analysis by its name in `TABLES`, declaration and rows."""
    if name not in TABLES:
        raise AnalysisError(f"no table {name!r}", hint=f"there are {', '.join(TABLES)}")
    frame = analysis.trace.lost if name == "lost" else getattr(analysis, name)
    return TABLES[name], frame


def write(analysis: Analysis, name: str, form: str, path: Path) -> list[Path]:
    """Write a table as csv, json or parquet; return the files written."""
    table, frame = table_of(analysis, name)
    if form == "parquet":
        _write_parquet(table, frame, provenance(analysis), path)
        return [path]
    if form == "json":
        path.write_text(as_json(analysis, name) + "\n")
        return [path]
    frame.to_csv(path, index=False)
    beside = path.with_name(path.name + "-metadata.json")
    document = csvw(table, path.name, provenance(analysis))
    beside.write_text(json.dumps(document, indent=1) + "\n")
    return [path, beside]


def as_csv(analysis: Analysis, name: str) -> str:
    """Return a table as CSV text; missing values are empty."""
    text: str = table_of(analysis, name)[1].to_csv(index=False)
    return text


def as_json(analysis: Analysis, name: str) -> str:
    """Return a table as JSON text: its columns, where it comes from, and its rows."""
    table, frame = table_of(analysis, name)
    document = {
        "table": table.name,
        "row": table.row,
        "columns": [_described(column) for column in table.columns],
        "provenance": provenance(analysis),
        "rows": rows_of(frame),
    }
    return json.dumps(document, indent=1, allow_nan=False)


def csvw(table: Table, file: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Describe a CSV file in the terms of "CSV on the Web"."""
    columns = [
        {
            "name": column.name,
            "titles": column.name,
            "datatype": CSVW_DATATYPES.get(column.dtype.lower(), "string"),
            "null": "",
            "dc:description": column.meaning,
            **({"schema:unitText": column.unit} if column.unit else {}),
        }
        for column in table.columns
    ]
    return {
        "@context": ["http://www.w3.org/ns/csvw", {"@language": "en"}],
        "url": file,
        "dc:description": f"a row is {table.row}",
        "tableSchema": {"columns": columns},
        "notes": [facts],
    }


def _described(column: Column) -> dict[str, str]:
    return {
        "name": column.name,
        "dtype": column.dtype,
        "unit": column.unit,
        "meaning": column.meaning,
    }


def _with_text_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Say of categories that there are none of that they would be text: Arrow cannot tell."""
    text = pd.CategoricalDtype(pd.Index([], dtype="str"))
    empty = [
        c for c, dtype in frame.dtypes.items() if dtype == "category" and not len(dtype.categories)
    ]
    return frame.astype(dict.fromkeys(empty, text))


def _write_parquet(table: Table, frame: pd.DataFrame, facts: dict[str, Any], path: Path) -> None:
    arrow = required("pyarrow", "pyarrow")
    parquet = required("pyarrow.parquet", "pyarrow")
    rows = arrow.Table.from_pandas(_with_text_categories(frame), preserve_index=False)
    fields = [
        field.with_metadata({"unit": table[field.name].unit, "meaning": table[field.name].meaning})
        for field in rows.schema
    ]
    about = {"maceproc": json.dumps({"table": table.name, "row": table.row, **facts})}
    described = arrow.schema(fields, metadata={**rows.schema.metadata, **about})
    parquet.write_table(rows.cast(described), path, compression="zstd")
