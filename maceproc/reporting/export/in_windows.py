"""Tables of every packet from a trace that is larger than memory.

An analysis in windows of time keeps the packets of pings alone. So the trace is read again, and the
hops of all packets wait in a temporary file that is as large as they are (48 bytes each).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maceproc.following.every_packet import IN_WINDOWS, Columns, InWindows, Part, every_packet
from maceproc.following.hop_arrays import HOP_EVENTS
from maceproc.following.journeys import journeys_table
from maceproc.following.windowed import read_ahead
from maceproc.traces import read_trace

if TYPE_CHECKING:
    from maceproc.analysis import Analysis

OF_EVERY_PACKET = ("crossings", "journeys", "hops")
"""Tables that an analysis in windows of time has only for the packets of pings."""

MOST_ROWS = 500_000
"""Of a piece [rows of HOPS]: some 100 MB with what is made of them."""


def pieces(analysis: Analysis, name: str, directory: Path | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a table of `OF_EVERY_PACKET`, in order; `directory` has the temporary file.

    By default that is where `tempfile` makes files: TMPDIR.
    """
    known: InWindows = analysis.trace.info[IN_WINDOWS]
    path, sidecar = analysis.capture.trace, analysis.capture.sidecar
    assert sidecar is not None, "without one, a trace is read as a whole"
    traces = read_ahead(known.windows, lambda window: read_trace(path, HOP_EVENTS, *window))
    with FileShelf(directory) as shelf:
        for hops, crossings in every_packet(sidecar, known, traces, shelf, MOST_ROWS):
            if name == "journeys":
                yield journeys_table(hops)
            else:
                yield hops if name == "hops" else crossings


class FileShelf:
    """Rows in a temporary file that has no name: it is gone when it is closed."""

    def __init__(self, directory: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, prefix="maceproc-")  # noqa: SIM115  see __exit__
        self._dtype: np.dtype[Any] = np.dtype([])
        self.parts: list[Part] = []

    def __enter__(self) -> FileShelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, columns: Columns) -> None:
        """Put rows aside, in order of address."""
        address = columns["skbaddr"]
        if not len(address):
            return
        self._dtype = np.dtype([(name, values.dtype) for name, values in columns.items()])
        rows = np.empty(len(address), self._dtype)
        for name, values in columns.items():
            rows[name] = values
        self._file.write(rows.data)
        begins = np.flatnonzero(np.append(True, address[1:] != address[:-1]))
        behind = self.parts[-1].starts[-1] if self.parts else 0
        self.parts.append(Part(address[begins], np.append(begins, len(address)) + behind))

    def rows(self, first: int, last: int) -> Columns:
        """Return the rows from `first` to before `last`."""
        size = self._dtype.itemsize
        self._file.seek(first * size)
        rows = np.frombuffer(self._file.read((last - first) * size), self._dtype)
        return {name: np.ascontiguousarray(rows[name]) for name in self._dtype.names or ()}
