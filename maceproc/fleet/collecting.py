"""One capture into a dataset: analyzed where it is asked for, its tables written from there.

This is what a worker does, on whatever machine it is. What it returns is a receipt, not data.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from maceproc import __version__
from maceproc.capture_files import Capture, open_capture
from maceproc.comparison import describe
from maceproc.errors import MaceprocError, as_error
from maceproc.fleet.about import about, place_of_capture
from maceproc.fleet.declared import ABOUT, CAPTURES, FAILURES, MARK, QUANTITIES, STORED
from maceproc.fleet.layout import Place
from maceproc.fleet.packs import has, is_packed
from maceproc.fleet.sources import at_hand
from maceproc.fleet.store import Store, open_store
from maceproc.fleet.tables import as_parquet, parts_as_parquet
from maceproc.following.coverage import coverage
from maceproc.following.losses import losses
from maceproc.foreign_text import clean
from maceproc.pipeline import Analysis, analyze
from maceproc.reporting.export.tables import parts
from maceproc.schema import SCHEMA_VERSION
from maceproc.series import INBOUND, OUTBOUND, OVERHEAD

if TYPE_CHECKING:
    from pathlib import Path

CROSSED = "both crossings"
"""The quantity that is every ping's outbound and inbound crossing together: every capture of a
container has it, whether natives ran beside it or not."""

State = Literal["collected", "present", "failed"]


@dataclass(frozen=True)
class Job:
    """One capture to collect; it goes to a worker."""

    source: str  # path or URL
    dataset: str
    tables: tuple[str, ...]
    host: str = ""  # of the machine that recorded, if it is to be another than the capture's own
    again: bool = False  # also if the dataset has it


@dataclass(frozen=True)
class Receipt:
    """What became of one capture; it comes back from a worker.

    Attributes
    ----------
    source
        The path or URL, as given.
    state
        ``collected``; ``present``: the dataset had it already; or ``failed``.
    capture, host, date
        Where in the dataset it is: SHA-256 of the trace, and the partition.
    rows
        How many rows each table got.
    size_bytes
        What was written.
    took_s
        How long that took.
    error
        Why it failed, in one line; empty otherwise.
    """

    source: str
    state: State
    capture: str = ""
    host: str = ""
    date: str = ""
    rows: Mapping[str, int] | None = None
    size_bytes: int = 0
    took_s: float = 0.0
    error: str = ""

    @property
    def place(self) -> Place:
        """Where in the dataset its files are."""
        return Place(self.capture, self.host, self.date)


def collect_one(job: Job) -> Receipt:
    """Analyze one capture and write its tables; whatever is wrong is in the receipt.

    A capture that the dataset has is only told. One that fails gets a row in `failures`, which it
    loses when it is collected later. Raises MaceprocError when the dataset cannot be written.
    """
    began = time.monotonic()
    store = open_store(job.dataset, create=True)
    place = unknown_place(job.source)
    try:
        with at_hand(job.source) as trace:
            try:
                capture = open_capture(trace)
                place = place_of_capture(capture, job.host)
                if not job.again and has(store, place):
                    return Receipt(job.source, "present", *place, took_s=time.monotonic() - began)
                files = dict(_files(job, capture, place, analyze(trace)))
            except Exception as error:
                raise _renamed(as_error(error, job.source), trace, job.source) from error
    except MaceprocError as error:
        return tell_failure(store, job, place, error, took_s=time.monotonic() - began)
    except OSError as error:
        known = as_error(error, job.source)
        return tell_failure(store, job, place, known, took_s=time.monotonic() - began)
    return _write(store, job, place, files, began)


def unknown_place(source: str) -> Place:
    """Return the place of a capture that cannot be read: a digest of its name stands for it."""
    return Place(hashlib.sha256(f"name {source}".encode(errors="replace")).hexdigest(), "", "")


def tell_failure(
    store: Store, job: Job, place: Place, error: MaceprocError, *, took_s: float = 0.0
) -> Receipt:
    """Write a row into `failures`; return the receipt of it."""
    row = FAILURES.from_rows([(str(error), type(error).__name__)])
    facts = dict.fromkeys(("ran_in", "target", "path", "kernel", "event_set", "recorded_by"), "")
    named = {"capture": place.capture, "file": clean(job.source)}
    versions = {"analyzed_by": __version__, "schema_version": SCHEMA_VERSION}
    data = as_parquet(FAILURES, row, {**facts, **named, **versions})
    store.write(place.file(FAILURES.name), data)
    return Receipt(
        job.source, "failed", *place, size_bytes=len(data), took_s=took_s, error=str(error)
    )


def _write(
    store: Store, job: Job, place: Place, files: Mapping[str, tuple[int, bytes]], began: float
) -> Receipt:
    _hide_former(store, job, place, files)
    for name, (_, data) in files.items():
        store.write(place.file(name), data)
    for stale in {place, unknown_place(job.source)}:
        store.remove(stale.file(FAILURES.name))
    return Receipt(
        job.source,
        "collected",
        *place,
        rows={name: rows for name, (rows, _) in files.items()},
        size_bytes=sum(len(data) for _, data in files.values()),
        took_s=time.monotonic() - began,
    )


def _hide_former(store: Store, job: Job, place: Place, written: Collection[str]) -> None:
    """See to it that tables without rows do not keep those of a former analysis.

    A file without rows is read instead of a pack's rows; another process may be packing them now,
    so that removing the former file would not do.
    """
    if job.again or is_packed(store, place.capture):
        facts = dict.fromkeys(column.name for column in ABOUT)
        for name in set(store.tables()) & set(STORED) - {*written, FAILURES.name}:
            table = STORED[name]
            store.write(place.file(name), as_parquet(table, table.from_rows([]), facts))


def _files(
    job: Job, capture: Capture, place: Place, analysis: Analysis
) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield name, rows and file of every table that has rows; `MARK` comes last."""
    facts = about(capture, place, job.source)
    for name in (*job.tables, QUANTITIES.name, MARK):
        rows, data = parts_as_parquet(STORED[name], _frames(analysis, name), facts)
        if rows:
            yield name, (rows, data)


def _frames(analysis: Analysis, name: str) -> Iterable[pd.DataFrame]:
    """Give the rows of a table; those of every packet in parts where the trace is a large one."""
    if name == QUANTITIES.name:
        return [quantities(analysis)]
    if name == MARK:
        return [_summary(analysis)]
    return parts(analysis, name)


def quantities(analysis: Analysis) -> pd.DataFrame:
    """Return QUANTITIES of one capture: what fleets are compared by, without its every ping."""
    rows = [row[1:] for row in describe("", analysis)]
    rtts = analysis.rtts
    both = (rtts[OUTBOUND.column] + rtts[INBOUND.column])[rtts["arm"] == OUTBOUND.arm].dropna()
    if len(both):
        p5, median, p95 = np.percentile(both.to_numpy(np.float64), [5, 50, 95])
        rounds = int(rtts["round"][both.index].nunique())
        rows.append((CROSSED, len(both), rounds, median, p5, p95))
    differences = analysis.comparisons.set_index("comparison")
    if OVERHEAD.name in differences.index:
        row = differences.loc[OVERHEAD.name]
        used = int(analysis.series.set_index("series").loc[OVERHEAD.series.name, "used"])
        # Of a difference of medians there are no percentiles.
        rows.append((OVERHEAD.name, used, int(row["rounds"]), row["estimate_ns"], np.nan, np.nan))
    return QUANTITIES.from_rows(rows)


def _summary(analysis: Analysis) -> pd.DataFrame:
    sidecar = analysis.capture.sidecar
    begun = [run.start_utc_ns for run in sidecar.runs if run.start_utc_ns] if sidecar else []
    counts = coverage(analysis.rtts)
    levels = analysis.findings["level"]
    row = (
        " ".join(sidecar.command) if sidecar else "",
        min(begun, default=None),
        int(analysis.rtts["round"].nunique()),
        len(analysis.rtts),
        counts["answered"],
        counts["corrected"],
        losses(analysis.trace, sidecar).known,
        int((levels == "problem").sum()),
        int((levels == "warning").sum()),
        _size(analysis.capture.trace),
    )
    return CAPTURES.from_rows([row])


def _size(trace: Path) -> int:
    files = trace.rglob("*") if trace.is_dir() else [trace]
    return sum(file.stat().st_size for file in files if file.is_file())


def _renamed(error: MaceprocError, trace: Path, source: str) -> MaceprocError:
    """Return an error that speaks of a copied file by the name that it was given by."""
    if str(trace) == source:
        return error
    error.message = error.message.replace(str(trace), source)
    error.hint = error.hint.replace(str(trace), source)
    return error
