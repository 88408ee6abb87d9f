"""The answer to a question in SQL, as JSON, as CSV, and as a table in a terminal.

It is made of Python's own values: a command that asks loads neither NumPy nor pandas for it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from maceproc.foreign_text import clean, clean_cell
from maceproc.reporting.console import escape
from maceproc.reporting.text_table import report_table

if TYPE_CHECKING:
    from rich.console import Console

Row = tuple[Any, ...]
PIECE = 20_000  # rows that are text at a time

NUMERIC = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|BOOLEAN|DECIMAL\(.*\)")
# Python has no value for all that these hold, or needs another library for it.
AS_TEXT = ("TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "TIME WITH TIME ZONE", "TIME_NS")


class Answer(NamedTuple):
    """The rows of an answer, or the first of them."""

    names: Sequence[str]
    types: Sequence[str]  # as DuckDB calls them
    rows: Sequence[Row]
    total: int  # rows of the whole answer


def answer_of(relation: Any, most: int | None = None) -> Answer:
    """Return the answer that a relation of DuckDB is; at most so many of its rows."""
    names, types = relation.columns, [str(kind) for kind in relation.types]
    if any(kind in AS_TEXT for kind in types):  # by number: two columns can have one name
        columns = (
            f"#{number}::varchar" if kind in AS_TEXT else f"#{number}"
            for number, kind in enumerate(types, 1)
        )
        relation = relation.project(", ".join(columns))
    rows = (relation if most is None else relation.limit(most)).fetchall()
    cut = most is not None and len(rows) == most
    count = relation.aggregate("count(*)").fetchall()[0][0] if cut else len(rows)
    return Answer(names, types, rows, count)


def json_of(answer: Answer) -> Iterator[str]:
    """Give an array of row objects, a row a line; what is not known (also NaN) is null.

    Addresses (uint64) are hexadecimal strings, because most readers of JSON keep only 53 bits.
    Raises ValueError never: what JSON lacks, such as dates, becomes text.
    """
    wide = [kind == "UBIGINT" for kind in answer.types]
    yield "["
    for number, row in enumerate(answer.rows):
        values = (_json_value(value, is_wide) for value, is_wide in zip(row, wide, strict=True))
        text = json.dumps(dict(zip(answer.names, values, strict=True)), allow_nan=False)
        yield f",\n{text}" if number else f"\n{text}"
    yield "\n]\n"


def csv_of(answer: Answer) -> Iterator[str]:
    """Give CSV text that neither controls a terminal nor is a formula in a spreadsheet."""
    for start in range(0, len(answer.rows) or 1, PIECE):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if start == 0:
            writer.writerow(map(clean_cell, _unique(answer.names)))
        writer.writerows(map(_csv_value, row) for row in answer.rows[start : start + PIECE])
        yield text.getvalue()


def print_answer(answer: Answer, console: Console) -> None:
    """Print an answer as a table; if that is too wide, a line for every value of every row."""
    names = [escape(name) for name in answer.names]
    texts = [[escape(_shown(value)) for value in row] for row in answer.rows]
    widths = [
        max(map(len, (name, *(row[place] for row in texts)))) for place, name in enumerate(names)
    ]
    if texts and sum(widths) + 3 * len(widths) > console.width:
        _print_lines(names, texts, console)
        return
    table = report_table("")
    table.title, table.columns = None, []
    for name, kind in zip(names, answer.types, strict=True):
        right = NUMERIC.fullmatch(kind) is not None
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in texts:
        table.add_row(*row)
    console.print(table)


def _print_lines(names: list[str], texts: list[list[str]], console: Console) -> None:
    longest = max(map(len, names))
    for number, row in enumerate(texts, 1):
        console.print(f"[bold]row {number}[/bold]")
        for name, text in zip(names, row, strict=True):
            console.print(f"  {name:{longest}}  {text}", soft_wrap=True)


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _csv_value(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, bool | int | float | Decimal) else clean_cell(value)


def _json_value(value: Any, wide: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_json_value(item, wide) for item in value]
    if isinstance(value, dict):
        return {clean(key): _json_value(item, wide) for key, item in value.items()}
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and wide:
        return f"{value:#x}"
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _unique(names: Sequence[str]) -> list[str]:
    """Return names of which no two are equal."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
