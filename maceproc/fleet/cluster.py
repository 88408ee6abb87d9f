"""Captures collected by the workers of Dask's scheduler, which hands out tasks and nothing else.

A worker that dies loses its task; the scheduler gives it to another, and fails the task when that
has happened several times (`distributed.scheduler.allowed-failures`). When the scheduler itself is
gone, everything that it knew is, and this waits until there is one again at the same address. Then
the captures without a receipt are handed in once more: those that were collected meanwhile are
found in the dataset, so none is collected twice. What is still without a receipt when no scheduler
or worker comes back is told as failed.

The workers need maceproc with its extras `fleet` and `cluster`, and the same paths or URLs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from maceproc.errors import AnalysisError, MaceprocError
from maceproc.fleet.collecting import Job, Receipt, collect_one, tell_failure, unknown_place
from maceproc.fleet.running import failed
from maceproc.fleet.store import Store

Client = Any  # of distributed, which has no types
Future = Any

LOG = logging.getLogger("maceproc")
PATIENCE_S = 60.0  # so long it is waited for a scheduler, and for a worker
LOOK_EVERY_S = 1.0  # whether there is a scheduler with workers


def run_on_cluster(
    scheduler: str,
    jobs: Sequence[Job],
    done: Callable[[Receipt], None],
    store: Store,
    *,
    patience_s: float = PATIENCE_S,
) -> None:
    """Run jobs on the workers of a scheduler; see `maceproc.fleet.collect.collect`.

    Raises MaceprocError when Dask is not installed, AnalysisError when no scheduler answers at the
    beginning.
    """
    client: Client | None = connect(scheduler, patience_s)
    if client is None:
        raise AnalysisError(
            f"{scheduler}: no scheduler answers", hint="start one with: dask scheduler"
        )
    left = list(jobs)

    def settled(job: Job, receipt: Receipt) -> None:
        left.remove(job)
        done(receipt)

    while left and client is not None:
        try:
            lost = _run(client, tuple(left), settled, store, patience_s)
        finally:
            client.close(timeout=2)
        if not lost:
            break
        LOG.info("%s is gone: waiting for it", scheduler)
        client = connect(scheduler, patience_s)
    for job in tuple(left):
        message = f"{job.source}: no scheduler or worker at {scheduler} was left to collect it"
        error = AnalysisError(message, hint="run the same command again")
        settled(job, tell_failure(store, job, unknown_place(job.source), error))


def connect(scheduler: str, patience_s: float) -> Client | None:
    """Return a client of a scheduler; None when none answers in time."""
    try:
        import distributed
    except ImportError as error:
        raise MaceprocError(
            "--scheduler needs Dask's distributed",
            hint="install it with: pip install 'maceproc[cluster]'",
        ) from error
    for name in ("distributed.client", "distributed.comm", "distributed.core", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is told by us
    deadline = time.monotonic() + patience_s
    while True:
        try:
            make: Any = distributed.Client
            return make(scheduler, timeout=min(patience_s, 5), set_as_default=False)
        except (OSError, TimeoutError):
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK_EVERY_S / 4)
        except ValueError as error:
            raise AnalysisError(
                f"{scheduler}: not a scheduler's address: {error}", hint="tcp://HOST:8786 is one"
            ) from error


def _run(
    client: Client,
    jobs: Sequence[Job],
    settled: Callable[[Job, Receipt], None],
    store: Store,
    patience_s: float,
) -> bool:
    """Run jobs until all have an answer; return whether the scheduler, or every worker, went."""
    answers: SimpleQueue[Future] = SimpleQueue()
    futures = client.map(collect_one, jobs, pure=False)
    waiting = {future.key: job for future, job in zip(futures, jobs, strict=True)}
    for future in futures:
        future.add_done_callback(answers.put)
    alive_s = time.monotonic()
    while waiting:
        try:
            future = answers.get(timeout=LOOK_EVERY_S)
        except Empty:
            alive_s = time.monotonic() if _has_workers(client) else alive_s
            if time.monotonic() - alive_s > patience_s:
                return True
            continue
        job = waiting[future.key]
        try:
            receipt: Receipt = future.result()
        except Exception as error:
            if future.status in ("cancelled", "lost"):  # all are, when the scheduler went
                return True
            receipt = failed(store, job, error)
        del waiting[future.key]
        settled(job, receipt)
    return False


def _has_workers(client: Client) -> bool:
    """Tell whether there is a scheduler with a worker that could go on."""
    try:
        return bool(client.scheduler_info().get("workers"))
    except Exception:  # it is gone, or going, which has many names
        return False
