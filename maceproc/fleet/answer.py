"""The answer to a question in SQL, as JSON, as CSV, and as a table in a terminal."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.foreign_text import clean
from maceproc.reporting.console import escape
from maceproc.reporting.export.tables import csv_ready
from maceproc.reporting.text_table import report_table

if TYPE_CHECKING:
    from rich.console import Console


def json_of(answer: pd.DataFrame) -> str:
    """Return an array of row objects, a row a line; what is not known (also NaN) is null.

    Addresses (uint64) are hexadecimal strings, because most readers of JSON keep only 53 bits.
    Raises ValueError never: what JSON lacks, such as dates, becomes text.
    """
    names = [str(name) for name in answer.columns]
    wide = [str(dtype).lower() == "uint64" for dtype in answer.dtypes]
    columns = [
        [_json_value(value, is_wide) for value in answer.iloc[:, place].astype(object)]
        for place, is_wide in enumerate(wide)
    ]
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    return "[" + ",".join("\n" + json.dumps(row, allow_nan=False) for row in rows) + "\n]"


def csv_of(answer: pd.DataFrame) -> str:
    """Return CSV text that neither controls a terminal nor is a formula in a spreadsheet."""
    text: str = csv_ready(_with_unique_names(answer)).to_csv(index=False)
    return text


def print_answer(answer: pd.DataFrame, console: Console) -> None:
    """Print an answer as a table; if that is too wide, a line for every value of every row."""
    names = [escape(str(name)) for name in answer.columns]
    texts = [[escape(_shown(value)) for value in row] for row in answer.itertuples(index=False)]
    widths = [
        max(map(len, (name, *(row[place] for row in texts)))) for place, name in enumerate(names)
    ]
    if texts and sum(widths) + 3 * len(widths) > console.width:
        _print_lines(names, texts, console)
        return
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in answer.dtypes]
    table = report_table("")
    table.title, table.columns = None, []
    for name, right in zip(names, numeric, strict=True):
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
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.10g}"
    return str(value)


def _json_value(value: Any, wide: bool) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [_json_value(item, wide) for item in value]
    if isinstance(value, dict):
        return {clean(key): _json_value(item, wide) for key, item in value.items()}
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and wide:
        return f"{value:#x}"
    return value if isinstance(value, bool | int | str) else str(value)


def _with_unique_names(answer: pd.DataFrame) -> pd.DataFrame:
    seen: dict[str, int] = {}
    names = []
    for name in map(str, answer.columns):
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return answer.set_axis(names, axis=1)
