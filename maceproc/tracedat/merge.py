"""One table for all events, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from maceproc.schema import EVENTS, Trace
from maceproc.tracedat.columns import Categorical, categorical_of

if TYPE_CHECKING:
    import pandas as pd

COMMON_COLUMNS = (*EVENTS.names, "buffer")

Part: TypeAlias = (
    "tuple[npt.NDArray[np.intp], pd.Series[Any]]"  # places in the merged table, and values
)


def merge_events(trace: Trace, fields: Iterable[str] | None = None) -> pd.DataFrame:
    """Merge the tables of a trace into one, in the order of time.

    At equal times the lowest CPU comes first, then the order of recording. A column ``event``
    names the row's event; a field that an event does not have is missing there (<NA>), so
    integers come as nullable integers of the same width.
    """
    import pandas as pd

    frames = {name: frame for name, frame in trace.events.items() if len(frame)}
    if not frames:
        return EVENTS.frame().assign(event=pd.Categorical([]))
    # The index orders rows; it has gaps when the caller has dropped some.
    present = np.sort(np.concatenate([f.index.to_numpy() for f in frames.values()]))
    places = {name: np.searchsorted(present, f.index.to_numpy()) for name, f in frames.items()}
    own = None if fields is None else set(fields)
    names = dict.fromkeys(COMMON_COLUMNS)
    names |= dict.fromkeys(column for frame in frames.values() for column in frame.columns)
    columns: dict[str, Any] = {}
    for column in names:
        parts = [(places[n], frame[column]) for n, frame in frames.items() if column in frame]
        if parts and (own is None or column in own or column in COMMON_COLUMNS):
            columns[column] = _merged_column(parts, len(present))
        if column == COMMON_COLUMNS[-1]:
            columns["event"] = _merged_event(places, len(present))
    return pd.DataFrame(columns, copy=False)


def _merged_event(places: dict[str, npt.NDArray[np.intp]], total: int) -> Categorical:
    codes = np.zeros(total, np.int16)
    for number, place in enumerate(places.values()):
        codes[place] = number
    return categorical_of(codes, list(places))


def _merged_column(parts: list[Part], total: int) -> Any:
    import pandas as pd

    if all(isinstance(values.dtype, pd.CategoricalDtype) for _, values in parts):
        return _merged_categories(parts, total)
    dtype = np.result_type(*{_plain_dtype(values) for _, values in parts})
    if dtype.kind not in "iub":  # uint64 with int64 would pass through float64
        dtype = np.dtype(object)
    gap = None if dtype.kind == "O" else 0
    merged: npt.NDArray[Any] = np.full(total, gap, dtype)
    missing = np.ones(total, bool)
    for place, values in parts:
        merged[place] = values.to_numpy(dtype=dtype, na_value=gap)
        missing[place] = values.isna()
    if dtype.kind == "O" or not missing.any():
        return merged
    nullable = pd.arrays.BooleanArray if dtype.kind == "b" else pd.arrays.IntegerArray
    return nullable(merged, missing)


def _plain_dtype(values: pd.Series[Any]) -> np.dtype[Any]:
    """Return a column's dtype without its <NA>, which would make floats of addresses."""
    dtype = getattr(values.dtype, "numpy_dtype", values.dtype)
    return dtype if isinstance(dtype, np.dtype) else np.dtype(object)


def _merged_categories(parts: list[Part], total: int) -> Categorical:
    categories = list(dict.fromkeys(c for _, values in parts for c in values.cat.categories))
    number = {category: code for code, category in enumerate(categories)}
    codes = np.full(total, -1, np.int32)
    for place, values in parts:
        table = np.array([*(number[c] for c in values.cat.categories), -1], np.int32)
        codes[place] = table[values.cat.codes]
    return categorical_of(codes, categories)
