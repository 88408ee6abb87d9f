"""The values of one run and the statistics of them; pairs of runs of one round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

Values = npt.NDArray[np.float64]
Pair = tuple[Values, Values]
Statistic = Callable[..., Values]

DECILES = np.arange(1, 10) / 10


def median(values: Values, axis: int = -1) -> Values:
    """Return the median."""
    return np.asarray(np.median(values, axis=axis))


def mean(values: Values, axis: int = -1) -> Values:
    """Return the mean."""
    return np.asarray(np.mean(values, axis=axis))


def deviation(values: Values, axis: int = -1) -> Values:
    """Return the standard deviation."""
    return np.asarray(np.std(values, axis=axis, ddof=1))


def deciles(values: Values, axis: int = -1) -> Values:
    """Return the nine deciles, along the first axis."""
    return np.asarray(np.quantile(values, DECILES, axis=axis))


def pair_rounds(mine: pd.DataFrame, other: pd.DataFrame) -> dict[int, Pair]:
    """Return the values of every round that both have: round -> (mine, other).

    Both have columns ``round`` and ``value_ns``, in the order of time.
    """
    ours, theirs = (
        {number: rows.to_numpy(np.float64) for number, rows in table.groupby("round")["value_ns"]}
        for table in (mine, other)
    )
    return {number: (ours[number], theirs[number]) for number in sorted(ours.keys() & theirs)}
