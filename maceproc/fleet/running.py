"""Jobs run by an executor; one that gets no answer is told as failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, as_completed
from typing import Any

from maceproc.errors import AnalysisError, CaptureError, MaceprocError, as_error
from maceproc.fleet.collecting import Job, Receipt, collect_one, tell_failure, unknown_place
from maceproc.fleet.store import Store
from maceproc.many import killed
from maceproc.worker import WorkerDied


def run_by(
    executor: Executor, jobs: Sequence[Job], done: Callable[[Receipt], None], store: Store
) -> None:
    """Run jobs by an executor; one whose worker dies or refuses it is told as failed."""
    futures: dict[Future[Any], Job] = {}
    try:
        for job in jobs:
            try:
                futures[executor.submit(collect_one, job)] = job
            except Exception as error:  # a pool that is broken takes no more
                done(failed(store, job, error))
        for future in as_completed(futures):
            done(outcome(store, futures[future], future))
    finally:
        for future in futures:
            future.cancel()


def outcome(store: Store, job: Job, future: Future[Any]) -> Receipt:
    """Return the receipt of a job that has ended, or has lost its worker."""
    try:
        receipt: Receipt = future.result()
    except Exception as error:
        return failed(store, job, error)
    return receipt


def failed(store: Store, job: Job, error: Exception) -> Receipt:
    """Tell in the dataset that a job got no answer; raise what concerns the whole dataset."""
    if isinstance(error, CaptureError):
        raise error  # it cannot be written
    return tell_failure(store, job, unknown_place(job.source), _known(job, error))


def _known(job: Job, error: Exception) -> MaceprocError:
    if isinstance(error, WorkerDied):
        return killed(job.source, error)
    if type(error).__module__.partition(".")[0] in ("maceproc", "builtins"):
        return as_error(error, job.source)
    said = " ".join(str(error).split())[:300]
    message = f"{job.source}: no worker finished it: {type(error).__name__}: {said}"
    return AnalysisError(message, hint="run the same command again")
