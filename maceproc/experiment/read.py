"""From the captures of an experiment to its pings, and the events on their path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from maceproc.capture import Sidecar
from maceproc.capture_files import open_capture
from maceproc.echoes import is_echo_file
from maceproc.errors import CaptureError
from maceproc.experiment.plan import Block, file_name
from maceproc.experiment.tables import EVENTS, PINGS
from maceproc.following import event_costs
from maceproc.following.by_identity import follow_echoes
from maceproc.following.follow import EVENTS_USED, follow_pings
from maceproc.schema import EVENTS_ON_PATH
from maceproc.tracedat import read_events


def read_pings(
    directory: Path,
    blocks: Sequence[Block],
    tracers: Sequence[str],
    tell: Callable[[int, int], None],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the captures of these blocks, and follow the packets of each: PINGS and EVENTS.

    `tell` is called with the number of captures read so far, and the number of all.
    """
    tables: list[pd.DataFrame] = []
    counts: list[pd.DataFrame] = []
    total = len(blocks) * len(tracers)
    for block in blocks:
        for tracer in tracers:
            tell(len(tables), total)
            path = directory / block.path / file_name(tracer)
            rows, recorded = _read_capture(path, block.flows, tracer)
            if tracer != tracers[0]:
                rows = rows[rows["tracer"] != ""]  # every capture of a block has the untraced runs
            tables.append(rows)
            counts.append(recorded.assign(flows=block.flows, tracer=tracer))
    tell(total, total)
    pings = PINGS.frame(pd.concat(tables, ignore_index=True))
    return pings, _events_table(pings, pd.concat(counts, ignore_index=True))


def _read_capture(path: Path, flows: int, tracer: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the PINGS of one capture, and how many events it recorded and lost, by place."""
    capture = open_capture(path)
    if capture.sidecar is None:
        raise CaptureError(f"{path}: its sidecar is missing", hint="remove the block; run again")
    times: Mapping[int, event_costs.Times] = {}
    if is_echo_file(path):
        _, followed = follow_echoes(capture)
        rtts = followed.rtts
        seen = EVENTS_ON_PATH.frame()  # there are no events to count
    else:
        followed = follow_pings(capture, read_events(path, events=EVENTS_USED))
        rtts = followed.rtts
        times = event_costs.times_by_cpu(read_events(path, fields=()).events)
        seen = event_costs.count_events(rtts, followed.hops, times)
    counts = ["events", "events_inside", "events_anywhere"]
    rows = rtts.merge(
        seen[["round", "arm", "seq", *counts]], how="left", on=["round", "arm", "seq"]
    )
    rows[counts] = rows[counts].astype("Int64")
    arm = rows["arm"].astype(str)
    started = {(run.round, run.arm): run.start_ns for run in capture.sidecar.runs}
    native = (rows["status"] == "native").to_numpy()
    bare_ns = rows["bare_metal_rtt_ns"].mask(native, rows["rtt_ns"])
    rows = rows.assign(
        flows=flows,
        place=arm.str.partition(" ")[0],
        tracer=np.where(arm.str.endswith(" traced"), tracer, ""),
        started_ns=[started[key] for key in zip(rows["round"], arm, strict=True)],
        bare_metal_rtt_ns=bare_ns,
    )
    return rows[PINGS.names], _recorded(capture.sidecar, times)


def _recorded(sidecar: Sidecar, times: Mapping[int, event_costs.Times]) -> pd.DataFrame:
    lost = sum(sidecar.tracing.events_lost.values())
    traced = [run for run in sidecar.runs if run.traced]
    rows = []
    for run in traced:
        span = (run.start_ns, run.end_ns)
        during = sum(int(np.diff(np.searchsorted(t, span))[0]) for t in times.values())
        rows.append((run.place, during, lost / len(traced)))
    return pd.DataFrame(rows, columns=["place", "recorded", "lost"])


def _events_table(pings: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
    columns = ["events", "events_inside", "events_anywhere"]
    traced = pings[pings["tracer"] != ""].astype({"place": str, "tracer": str})
    group = ["flows", "place", "tracer"]
    grouped = traced.astype(dict.fromkeys(columns, "float64")).groupby(group)
    table = grouped[columns].mean()
    totals = recorded.groupby(group)[["recorded", "lost"]].sum()
    table["recorded"] = totals["recorded"] / grouped.size()
    table["lost"] = totals.groupby(["flows", "tracer"])["lost"].transform("sum").round().astype(int)
    return EVENTS.frame(table.reset_index())
