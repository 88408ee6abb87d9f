"""Many captures at once: each is analyzed in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path

from maceproc.errors import AnalysisError, MaceprocError, as_error
from maceproc.pipeline import LOG, Analysis, analyze
from maceproc.worker import WorkerDied, Workers


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
    """Analyze captures in several processes, each of them one capture at a time."""
    outcomes: dict[int, Outcome] = {}
    pool = Workers(workers)
    try:
        places = {pool.submit(_analyze, path): place for place, path in enumerate(paths)}
        for future in as_completed(places):
            place = places[future]
            outcomes[place] = _outcome(paths[place], future)
            tell(len(outcomes), outcomes[place])
    finally:
        # If this is left early, as by Ctrl-C, no more captures are begun and the processes end.
        pool.shutdown(wait=False, cancel_futures=True)
    return [outcomes[place] for place in range(len(paths))]


def _outcome(path: Path, future: Future[Outcome]) -> Outcome:
    """Return what a process answered; if it died, an outcome that says so."""
    try:
        return future.result()
    except WorkerDied as died:
        return Outcome(path, error=killed(str(path), died))


def killed(what: str, died: WorkerDied) -> AnalysisError:
    """Return the error of a capture whose process died."""
    hint = "perhaps memory was short: analyze it on a larger machine"
    return AnalysisError(f"{what}: the process that analyzed it was killed ({died})", hint=hint)
