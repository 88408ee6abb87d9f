"""Find the runs of a ping from its output and the events alone, without a sidecar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.doubts import CLEAR
from maceproc.following.due import due_of
from maceproc.following.matching import disagreement_with
from maceproc.following.numbering import number_sends, requests_spoken_of, with_calls_for_requests
from maceproc.following.positions import FOREVER
from maceproc.following.run_packets import echo_requests, packets_of_run
from maceproc.following.several_targets import Joined, join_targets
from maceproc.following.stamps import stamp_of
from maceproc.pings import PingOutput, pings_table
from maceproc.schema import LOST


def runs_by_hand(
    printed: Iterable[PingOutput],
    sends: pd.DataFrame,
    deliveries: pd.DataFrame,
    crossings: pd.DataFrame,
) -> list[tuple[Run, PingOutput]]:
    """Give every run of a ping its task.

    The runs are taken in order of time. A run gets the task that made as many send calls as the run
    sent requests. Where the run does not count its requests, the largest number in its lines says
    how many there were. If several tasks qualify, the run gets the one whose packets clearly agree
    best with the printed RTTs. If no task qualifies, or the RTTs do not tell which, it gets none.

    `sends` is SENDS, `deliveries` DELIVERIES, and `crossings` CROSSINGS of all peers of the
    container's device.
    """
    found: list[tuple[Run, list[PingOutput]]] = []
    since_ns = -FOREVER
    for number, outputs in enumerate(_by_run(printed), start=1):
        run = Run(round=number, place="container", traced=True, argv=["ping"])
        joint = _joint(run, outputs)
        fitting = [_run_of(run, task) for task in _tasks(sends, joint, since_ns)]
        own = _best(fitting, joint, sends, deliveries, crossings)
        if own is not None:
            since_ns = own.start_ns + 1
        found.append((own or run, outputs))
    for (run, _), (following, _) in pairwise(found):
        if following.start_ns:
            run.end_ns = following.start_ns - 1
    return [(run, output) for run, outputs in found for output in outputs]


def _by_run(printed: Iterable[PingOutput]) -> Iterator[list[PingOutput]]:
    """Put together what one run printed about each of its targets."""
    rest = iter(printed)
    for output in rest:
        yield [output, *islice(rest, output.targets - 1)]


def _joint(run: Run, outputs: list[PingOutput]) -> PingOutput:
    """Join what a run printed about its targets into one output; return the first if that fails."""
    if len(outputs) == 1:
        return outputs[0]
    rows = [(output, pings_table([(run, output)])) for output in outputs]
    joined = join_targets(run, rows)
    if not isinstance(joined, Joined):
        return outputs[0]
    pings = joined.pings.assign(target=joined.printed.target)
    answers = [
        {name: value for name, value in row.items() if pd.notna(value)}
        for row in pings.to_dict("records")
    ]
    return replace(joined.printed, answers=answers)


def _tasks(sends: pd.DataFrame, output: PingOutput, since_ns: int) -> list[pd.DataFrame]:
    """Return the calls of every task that made as many calls as a run sent, in order of time."""
    sends = sends[sends["time_ns"] >= since_ns]
    tasks = [echo_requests(calls, output) for _, calls in sends.groupby("pid", sort=False)]
    sent = output.sent
    if sent is None:
        sent = requests_spoken_of(np.array([row["seq"] for row in output.answers]), output)
    return [calls for calls in tasks if len(calls) == sent and len(calls)]


def _run_of(run: Run, calls: pd.DataFrame) -> Run:
    return Run(
        round=run.round,
        place=run.place,
        traced=True,
        argv=run.argv,
        pid=int(calls["pid"].iloc[0]),
        start_ns=int(calls["time_ns"].iloc[0]),
        end_ns=FOREVER,
    )


def _best(
    fitting: Sequence[Run],
    output: PingOutput,
    sends: pd.DataFrame,
    deliveries: pd.DataFrame,
    crossings: pd.DataFrame,
) -> Run | None:
    """Return the run whose packets agree clearly better with the output than all others do.

    Several runs of one ping follow one another. So where the RTTs do not tell, and the tasks do not
    overlap in time, the first task is taken.
    """
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    disagreement = [_disagreement(run, output, sends, deliveries, crossings) for run in fitting]
    best, *others = np.argsort(disagreement, kind="stable")
    if all(disagreement[other] >= disagreement[best] + CLEAR for other in others):
        return fitting[best]
    one_after_the_other = all(
        sends.loc[sends["pid"] == run.pid, "time_ns"].max() < after.start_ns
        for run, after in pairwise(fitting)
    )
    return fitting[0] if one_after_the_other else None


def _disagreement(
    run: Run,
    output: PingOutput,
    sends: pd.DataFrame,
    deliveries: pd.DataFrame,
    crossings: pd.DataFrame,
) -> float:
    """Return how much the printed RTTs disagree with the packets of a task."""
    pings = pings_table([(run, output)])
    packets = packets_of_run(run, output, sends, deliveries, crossings, lost=LOST.frame())
    output = with_calls_for_requests(pings, output, packets)
    stamp = stamp_of(run, output)
    totals = []
    for first_seq in (0, 1) if output.first_seq is None else (output.first_seq,):
        numbering = number_sends(pings, run, output, packets, first_seq)
        due = due_of(pings, run, packets, numbering.send)
        _, here = disagreement_with(pings, numbering, due, stamp, packets)
        totals.append(here.sum())
    return float(min(totals))
