"""Many captures at once: each is analyzed in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from maceproc.errors import AnalysisError, MaceprocError, as_error
from maceproc.pipeline import LOG, Analysis, analyze
from maceproc.worker import Worker, WorkerDied


@dataclass(frozen=True)
class Outcome:
    """What became of one capture: its analysis, or the error that prevented it."""

    path: Path
    analysis: Analysis | None = None
    error: MaceprocError | None = None


TellOutcome = Callable[[int, Outcome], object]


def analyze_many(
    paths: Iterable[str | os.PathLike[str]],
    *,
    workers: int | None = None,
    tell: TellOutcome | None = None,
) -> list[Outcome]:
    """Analyze captures side by side; return an outcome for each, in the order given.

    If a capture cannot be analyzed, its outcome holds the error, and the others are analyzed all
    the same. The processes are new ones and do not import the caller's module: scripts and
    notebooks need no ``if __name__ == "__main__":``.

    Parameters
    ----------
    paths
        Captures as for `analyze`.
    workers
        Processes at a time: by default one for every CPU this process may use. With 1 everything
        runs in this process.
    tell
        Called after each capture, in the order in which they finish, with the number of captures
        done so far and the outcome.
    """
    captures = [Path(path) for path in paths]
    workers = min(workers or len(os.sched_getaffinity(0)), len(captures))

    def told(done: int, outcome: Outcome) -> None:
        LOG.info("%d of %d done: %s", done, len(captures), outcome.path)
        if tell:
            tell(done, outcome)

    if workers > 1:
        return _side_by_side(captures, workers, told)
    outcomes = []
    for path in captures:
        outcomes.append(_analyze(path))
        told(len(outcomes), outcomes[-1])
    return outcomes


def _analyze(path: Path) -> Outcome:
    """Analyze one capture; an exception becomes the error of its outcome."""
    try:
        return Outcome(path, analyze(path))
    except Exception as error:
        return Outcome(path, error=as_error(error, str(path)))


def _side_by_side(paths: list[Path], workers: int, tell: TellOutcome) -> list[Outcome]:
    """Analyze captures in several processes; for each, a thread hands it one capture at a time."""
    outcomes: dict[int, Outcome] = {}
    idle: SimpleQueue[Worker] = SimpleQueue()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for _ in range(workers):
            idle.put(stack.enter_context(Worker()))
        # If this is left early, as by Ctrl-C, no more captures are begun and the processes end.
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        places = {pool.submit(_in_a_worker, path, idle): place for place, path in enumerate(paths)}
        for future in as_completed(places):
            outcomes[places[future]] = future.result()
            tell(len(outcomes), outcomes[places[future]])
    return [outcomes[place] for place in range(len(paths))]


def _in_a_worker(path: Path, idle: SimpleQueue[Worker]) -> Outcome:
    """Analyze a capture in an idle process; if the process dies, the outcome holds that error."""
    worker = idle.get()
    try:
        outcome: Outcome = worker.call(_analyze, path)
        return outcome
    except WorkerDied as died:
        hint = "perhaps memory was short: analyze it on a larger machine"
        message = f"{path}: the process that analyzed it was killed ({died})"
        return Outcome(path, error=AnalysisError(message, hint=hint))
    finally:
        idle.put(worker)
