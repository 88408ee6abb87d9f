"""Many captures at once: each is analyzed in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from maceproc.errors import AnalysisError, MaceprocError
from maceproc.pipeline import LOG, Analysis, analyze


@dataclass(frozen=True)
class Outcome:
    """What became of one capture: its analysis, or the error that prevented it."""

    path: Path
    analysis: Analysis | None = None
    error: MaceprocError | None = None


Told = Callable[[int, Outcome], object]


def analyze_many(
    paths: Iterable[str | os.PathLike[str]],
    *,
    workers: int | None = None,
    tell: Told | None = None,
) -> list[Outcome]:
    """Analyze captures side by side; return an outcome for each, in the order given.

    A capture that cannot be analyzed has its error in its outcome, and takes nothing from the
    others. The processes are new ones, not forks: so a script that calls this needs the usual
    ``if __name__ == "__main__":``; a notebook does not.

    Parameters
    ----------
    paths
        Captures as for `analyze`.
    workers
        Processes at a time: by default one for every CPU this process may use. With 1 everything
        runs in this process.
    tell
        Called as each is done, in whatever order they are, with how many are done and the outcome.
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
    """Analyze one capture; whatever is raised becomes its error."""
    try:
        return Outcome(path, analyze(path))
    except MaceprocError as error:
        return Outcome(path, error=error)
    except Exception as error:
        hint = "this is a fault of maceproc: please report it"
        message = f"{path}: {type(error).__name__}: {error}"
        return Outcome(path, error=AnalysisError(message, hint=hint))


def _side_by_side(paths: list[Path], workers: int, tell: Told) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    with _pool(workers) as pool:
        places: dict[Future[Outcome], int] = {
            pool.submit(_analyze, path): place for place, path in enumerate(paths)
        }
        for future in as_completed(places):
            try:
                outcomes[places[future]] = future.result()
            except BrokenProcessPool:
                continue
            tell(len(outcomes), outcomes[places[future]])
    # A process that was killed takes the pool with it: what is left is done one at a time.
    for place in sorted(set(range(len(paths))) - set(outcomes)):
        outcomes[place] = _alone(paths[place])
        tell(len(outcomes), outcomes[place])
    return [outcomes[place] for place in range(len(paths))]


def _alone(path: Path) -> Outcome:
    try:
        with _pool(1) as pool:
            return pool.submit(_analyze, path).result()
    except BrokenProcessPool:
        hint = "perhaps memory was short: analyze it on a larger machine"
        error = AnalysisError(f"{path}: the process that analyzed it was killed", hint=hint)
        return Outcome(path, error=error)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Make a pool of new processes: forks of one with threads may hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(workers, mp_context=context)
