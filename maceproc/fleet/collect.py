"""Many captures into a dataset, by any executor: what is missing is analyzed, the rest is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from maceproc.analysis import TABLES
from maceproc.errors import AnalysisError
from maceproc.fleet.collecting import Job, Receipt, collect_one
from maceproc.fleet.declared import LARGE, MARK, STORED
from maceproc.fleet.layout import Place
from maceproc.fleet.running import run_by
from maceproc.fleet.sources import find_captures
from maceproc.fleet.store import LocalStore, Store, is_url, open_store, places
from maceproc.fleet.tables import require_fleet
from maceproc.worker import Workers

TellReceipt = Callable[[int, int, Receipt], object]
Run = Callable[[Sequence[Job], Callable[[Receipt], None]], None]

DEFAULT_TABLES = tuple(name for name in TABLES if name not in LARGE)


def collect(
    captures: Iterable[str | os.PathLike[str]],
    dataset: str | os.PathLike[str],
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    scheduler: str = "",
    tables: Iterable[str] = DEFAULT_TABLES,
    host: str = "",
    again: bool = False,
    tell: TellReceipt | None = None,
) -> list[Receipt]:
    """Analyze captures and write their tables into a dataset; return a receipt for each.

    What the dataset has is not analyzed again, and what failed is; two calls at once do no harm.
    Raises CaptureError when a pattern matches nothing or the dataset cannot be written,
    MaceprocError when a library is not installed.

    Parameters
    ----------
    captures
        Traces, as `find_captures` takes them: paths, directories, patterns, URLs.
    dataset
        A directory, or a URL that fsspec reaches; it is made if it is not there.
    workers
        Processes here: by default one for every CPU this process may use; with 1, this process.
    executor
        Any `concurrent.futures.Executor` that runs them instead; its workers need the same paths.
    scheduler
        Address of Dask's scheduler, ``tcp://HOST:8786``, whose workers run them instead.
    tables
        Which tables are stored, beside `captures`, `quantities` and `failures`: by default all but
        hops and journeys, which have a row for every event or packet.
    host
        Name of the machine that recorded, if it is to be another than each capture's own.
    again
        Analyze also what the dataset has, as after an upgrade.
    tell
        Called after each capture with the number done, the number of all, and the receipt.
    """
    require_fleet()
    wanted = _checked(tables)
    store = open_store(dataset, create=True)
    jobs = [
        Job(source, _whole_name(store.name), wanted, host, again)
        for source in dict.fromkeys(map(_whole_name, find_captures(captures)))
    ]
    if isinstance(store, LocalStore):
        store.remove_forgotten(MARK)
    before = places(store, MARK)
    receipts: dict[str, Receipt] = {}

    def done(receipt: Receipt) -> None:
        _remove_elsewhere(store, receipt, before)
        receipts[receipt.source] = receipt
        if tell:
            tell(len(receipts), len(jobs), receipt)

    _runner(store, workers, executor, scheduler)(jobs, done)
    return [receipts[job.source] for job in jobs]


def _whole_name(name: str) -> str:
    """Return a name that means the same in a worker, whose directory may be another."""
    return name if is_url(name) else os.path.abspath(name)  # noqa: PTH100  links stay as given


def _checked(tables: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(tables))
    for name in wanted:
        if name not in TABLES:
            raise AnalysisError(f"no table {name!r}", hint=f"there are {', '.join(TABLES)}")
    return wanted


def _runner(store: Store, workers: int | None, executor: Executor | None, scheduler: str) -> Run:
    """Return what runs the jobs: Dask, the executor given, processes of ours, or this process."""
    if scheduler and executor:
        raise ValueError("give an executor or a scheduler, not both")
    if scheduler:
        from maceproc.fleet.cluster import run_on_cluster

        return lambda jobs, done: run_on_cluster(scheduler, jobs, done, store)
    if executor:
        return lambda jobs, done: run_by(executor, jobs, done, store)
    number = workers or len(os.sched_getaffinity(0))
    return lambda jobs, done: _run_here(min(number, len(jobs)), jobs, done, store)


def _run_here(
    number: int, jobs: Sequence[Job], done: Callable[[Receipt], None], store: Store
) -> None:
    if number <= 1:
        for job in jobs:
            done(collect_one(job))
        return
    pool = Workers(number)
    try:
        run_by(pool, jobs, done, store)
    finally:
        # If this is left early, as by Ctrl-C, no more captures are begun and the processes end.
        pool.shutdown(wait=False, cancel_futures=True)


def _remove_elsewhere(store: Store, receipt: Receipt, before: dict[str, Place]) -> None:
    """Remove the files that a capture had in another partition: its host was told anew."""
    old = before.get(receipt.capture)
    if receipt.state == "collected" and old is not None and old != receipt.place:
        for table in STORED:
            store.remove(old.file(table))
