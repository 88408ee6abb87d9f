"""The runs of a ping, when nothing but its output and the events is left."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pandas as pd

from maceproc.capture import Run
from maceproc.following.positions import FOREVER
from maceproc.pings import PingOutput


def runs_by_hand(
    printed: Iterable[PingOutput], sends: pd.DataFrame
) -> list[tuple[Run, PingOutput]]:
    """Give every run of a ping its task.

    In order of time, each run gets the next task that made as many send calls as it sent
    requests; none, if there is no such task.
    """
    tasks = sends.groupby("pid")["time_ns"].agg(["size", "min", "max"]).sort_values("min")
    runs, left = [], list(tasks.itertuples())
    for number, output in enumerate(printed, start=1):
        fitting = [place for place, task in enumerate(left) if task.size == output.sent]
        run = Run(round=number, place="container", traced=True, argv=["ping"])
        if fitting:
            task = left[fitting[0]]
            del left[: fitting[0] + 1]
            run.pid, run.start_ns, run.end_ns = task.Index, task.min, FOREVER
        runs.append((run, output))
    for (run, _), (following, _) in pairwise(runs):
        if following.start_ns:
            run.end_ns = following.start_ns - 1
    return runs
