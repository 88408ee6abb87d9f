"""Positions in a table, one for each of several questions, where an answer can be absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FOREVER = np.iinfo(np.int64).max // 2
"""A time after everything [ns]; its negative is before everything. Sums with it do not overflow."""


@dataclass(frozen=True)
class Choice:
    """The row of another table that was chosen for each of several rows, where there is one.

    Attributes
    ----------
    position
        Positions in the other table; without meaning where `exists` is false.
    exists
        Whether a row was chosen.
    """

    position: Indices
    exists: Bools

    @classmethod
    def none(cls, count: int) -> Choice:
        """Return the choice of nothing, `count` times."""
        return cls(np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.position)

    def of(self, values: npt.NDArray[Any], absent: Any) -> npt.NDArray[Any]:
        """Return the values at the chosen positions, and `absent` where nothing was chosen."""
        return pick(values, self.position, self.exists, absent)

    def through(self, other: Choice) -> Choice:
        """Return what `other` chose for the rows chosen here."""
        exists = self.of(other.exists, absent=False)
        return Choice(pick(other.position, self.position, exists, 0), exists)

    def where(self, condition: Bools) -> Choice:
        """Keep the choices of which the condition is true."""
        return Choice(self.position, self.exists & condition)

    def otherwise(self, other: Choice) -> Choice:
        """Fill in what `other` chose where nothing was chosen here."""
        position = np.where(self.exists, self.position, other.position)
        return Choice(position, self.exists | other.exists)

    def unshared(self) -> Choice:
        """Keep the choices of rows that were chosen only once."""
        return self.where(~self.shared)

    @property
    def shared(self) -> Bools:
        """Tell which choices have a row that another one chose, too."""
        found, counts = np.unique(self.position[self.exists], return_counts=True)
        return self.exists & np.isin(self.position, found[counts > 1])

    def differs(self, other: Choice) -> Bools:
        """Tell where the choices of the two differ: in the row, or in whether there is one."""
        same_row = ~self.exists | (self.position == other.position)
        return (self.exists != other.exists) | ~same_row


def pick(values: npt.NDArray[Any], at: Indices, where: Bools, absent: Any) -> npt.NDArray[Any]:
    """Return `values[at]` where the condition is true, and `absent` elsewhere."""
    if not len(values):
        return np.full(len(at), absent, dtype=np.result_type(values.dtype, type(absent)))
    return np.asarray(np.where(where, values[np.where(where, at, 0)], absent))


def only_one(
    times_ns: Times, earliest_ns: Times, latest_ns: Times, where: Bools | None = None
) -> tuple[Choice, Indices]:
    """Choose the only one of the sorted times within each interval, and count those within.

    `where` tells which intervals to look at, by default all. For the others nothing is chosen, and
    the count is 0.
    """
    first = np.searchsorted(times_ns, earliest_ns, side="left")
    count = np.searchsorted(times_ns, latest_ns, side="right") - first
    if where is not None:
        count = np.where(where, count, 0)
    return Choice(np.asarray(first, dtype=np.int64), np.asarray(count == 1)), count
