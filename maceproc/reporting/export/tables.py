"""Tables as CSV, JSON and Parquet, with the unit and the meaning of every column.

* CSV: rows alone; beside it ``FILE-metadata.json`` in the terms of the W3C's "CSV on the Web",
  which programs find by that name.
* JSON: one object, the columns' descriptions and the rows. Addresses are hexadecimal strings.
* Parquet: compressed by zstd, with descriptions in the metadata of the fields and provenance in the
  metadata of the file. Pandas reads back the same table: dtypes, missing values, categories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from maceproc.analysis import TABLES
from maceproc.errors import AnalysisError
from maceproc.following.losses import is_partial
from maceproc.foreign_text import clean_cell
from maceproc.reporting.export.in_windows import OF_EVERY_PACKET, pieces
from maceproc.reporting.export.provenance import provenance, required
from maceproc.schema import Column, Table, rows_of
from maceproc.whole_file import is_stream, written_whole

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

PIECE = 20_000  # rows that are text at a time

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


def parts(analysis: Analysis, name: str, directory: Path | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a table, in order: of every packet, also where the analysis has only some.

    There is at least one part. `directory` is for a temporary file; see `in_windows.pieces`.
    """
    table, frame = table_of(analysis, name)
    if name not in OF_EVERY_PACKET or not is_partial(analysis.trace):
        yield frame
        return
    found = pieces(analysis, name, directory)
    yield next(found, table.frame())
    yield from found


def write(analysis: Analysis, name: str, form: str, path: Path) -> None:
    """Write a table as csv, json or parquet, each file whole or not at all."""
    table, _ = table_of(analysis, name)
    beside_it = None if is_stream(path) else path.parent
    with written_whole(path) as file:
        if form == "parquet":
            _write_parquet(table, parts(analysis, name, beside_it), provenance(analysis), file)
        elif form == "json":
            with file.open("w", encoding="utf-8") as text:
                text.writelines(as_json(analysis, name, beside_it))
                text.write("\n")
        else:
            with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as text:
                text.writelines(as_csv(analysis, name, beside_it))
            for about in beside(path):
                document = csvw(table, path.name, provenance(analysis))
                with written_whole(about) as metadata:
                    metadata.write_text(json.dumps(document, indent=1) + "\n")


def beside(path: Path) -> list[Path]:
    """Return the file that describes a CSV file; none where the CSV goes to a device or a pipe."""
    return [] if is_stream(path) else [path.with_name(path.name + "-metadata.json")]


def as_csv(analysis: Analysis, name: str, directory: Path | None = None) -> Iterator[str]:
    """Give a table as pieces of CSV text, quoted as RFC 4180 says; missing values are empty.

    `directory` is for a temporary file; see `in_windows.pieces`.
    """
    for number, frame in enumerate(parts(analysis, name, directory)):
        for start in range(0, max(len(frame), 1), PIECE):
            rows = csv_ready(frame.iloc[start : start + PIECE])
            yield rows.to_csv(index=False, header=number == 0 and start == 0)


def csv_ready(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text neither controls a terminal nor is a formula in a spreadsheet.

    Control, bidi and zero-width characters become escapes (`maceproc.foreign_text`), and text that
    begins like a formula gets an apostrophe before it (OWASP, CSV injection). Numbers stay.
    """
    return frame.assign(
        **{name: frame[name].map(_harmless, na_action="ignore") for name in _texts(frame)}
    )


def _texts(frame: pd.DataFrame) -> list[str]:
    return [
        str(name)
        for name, dtype in frame.dtypes.items()
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype))
    ]


def _harmless(value: object) -> object:
    return clean_cell(value) if isinstance(value, str) else value


def as_json(analysis: Analysis, name: str, directory: Path | None = None) -> Iterator[str]:
    """Give a table as pieces of JSON text: its columns, where it comes from, and its rows.

    `directory` is for a temporary file; see `in_windows.pieces`.
    """
    table, _ = table_of(analysis, name)
    document = {
        "table": table.name,
        "row": table.row,
        "columns": [_described(column) for column in table.columns],
        "provenance": provenance(analysis),
        "rows": [],
    }
    head = json.dumps(document, indent=1, allow_nan=False).removesuffix("[]\n}")
    before = head + "["
    for frame in parts(analysis, name, directory):
        for start in range(0, len(frame), PIECE):
            rows = rows_of(frame.iloc[start : start + PIECE])
            text = json.dumps(rows, indent=1, allow_nan=False)
            # The rows are one level deeper in the document than in a list of their own.
            yield before + text.removeprefix("[").removesuffix("\n]").replace("\n", "\n ")
            before = ","
    yield "\n ]\n}" if before == "," else before + "]\n}"


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
    """Give empty categories the type text: Arrow cannot infer it without a value."""
    text = pd.CategoricalDtype(pd.Index([], dtype="str"))
    empty = [
        c for c, dtype in frame.dtypes.items() if dtype == "category" and not len(dtype.categories)
    ]
    return frame.astype(dict.fromkeys(empty, text))


def _write_parquet(
    table: Table, frames: Iterator[pd.DataFrame], facts: dict[str, Any], path: Path
) -> None:
    arrow = required("pyarrow", "pyarrow")
    parquet = required("pyarrow.parquet", "pyarrow")
    each = (
        arrow.Table.from_pandas(_with_text_categories(frame), preserve_index=False)
        for frame in frames
    )
    rows = next(each)
    fields = [
        field.with_metadata({"unit": table[field.name].unit, "meaning": table[field.name].meaning})
        for field in rows.schema
    ]
    about = {"maceproc": json.dumps({"table": table.name, "row": table.row, **facts})}
    described = arrow.schema(fields, metadata={**rows.schema.metadata, **about})
    with parquet.ParquetWriter(path, described, compression="zstd") as writer:
        for part in chain([rows], each):
            writer.write_table(part.cast(described))
