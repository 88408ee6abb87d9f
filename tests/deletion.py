"""Deletes events from real captures, and holds every corrected ping to what it was with all.

    python -m tests.deletion --trials 10000 captures/idle.dat captures/loaded.dat

Losing events may take corrections away; it must never change one. Whoever changes how packets are
followed or matched runs this for a while; the tests run a few trials of every kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture_files import Capture, open_capture
from maceproc.following.follow import EVENTS_USED, follow_pings
from maceproc.schema import LOST, Trace
from maceproc.tracedat import read_events

Events = Mapping[str, pd.DataFrame]
Random = np.random.Generator

# What must not change.
VALUES = ["outbound_ns", "inbound_ns", "wire_rtt_ns", "bare_metal_rtt_ns", "outer_queue_ns"]
VALUES += ["tx_stack_ns", "delivery_ns", "residual_ns", "kernel_rtt_ns"]
ANSWERED = ("corrected", "native")


def single_events(rng: Random, events: Events) -> Events:
    """Delete 0.1 to 50 % of all events."""
    share = 10 ** rng.uniform(-3, np.log10(0.5))
    return {name: rows[rng.random(len(rows)) >= share] for name, rows in events.items()}


def one_cpu(rng: Random, events: Events) -> Events:
    """Delete a whole CPU."""
    cpus = sorted({cpu for rows in events.values() for cpu in rows["cpu"].unique()})
    cpu = rng.choice(cpus)
    return {name: rows[rows["cpu"] != cpu] for name, rows in events.items()}


def windows(rng: Random, events: Events) -> Events:
    """Delete all events of some windows of time, of one CPU or of all."""
    present = [rows for rows in events.values() if len(rows)]
    first = min(rows["time_ns"].min() for rows in present)
    last = max(rows["time_ns"].max() for rows in present)
    starts = rng.uniform(first, last, rng.integers(1, 40))
    length = (last - first) * 10 ** rng.uniform(-5, -1)
    cpu = rng.choice([None, *present[0]["cpu"].unique()])

    def inside(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        times = rows["time_ns"].to_numpy()[:, np.newaxis]
        hit = ((times >= starts) & (times < starts + length)).any(axis=1)
        return hit & (True if cpu is None else (rows["cpu"] == cpu).to_numpy())

    return {name: rows[~inside(rows)] for name, rows in events.items()}


def types(rng: Random, events: Events) -> Events:
    """Delete one or two types of events, or part of them."""
    chosen = rng.choice(list(events), size=rng.integers(1, 3), replace=False)
    share = rng.choice([1, 0.5, 0.1])
    return {
        name: rows[rng.random(len(rows)) >= share] if name in chosen else rows
        for name, rows in events.items()
    }


def one_device(rng: Random, events: Events) -> Events:
    """Delete one type of event of one device."""
    named = [name for name, rows in events.items() if "name" in rows and len(rows)]
    event = rng.choice(named)
    device = rng.choice(events[event]["name"].unique())
    return {
        name: rows[rows["name"] != device] if name == event else rows
        for name, rows in events.items()
    }


WAYS: tuple[Callable[[Random, Events], Events], ...] = (
    single_events,
    one_cpu,
    windows,
    types,
    one_device,
)


def gaps(before: Events, after: Events) -> pd.DataFrame:
    """Return LOST as the ring buffers would tell it: each CPU's gaps, and what was around them."""
    columns = ["time_ns", "cpu"]
    whole = pd.concat([rows[columns].assign(event=name) for name, rows in before.items()])
    left = pd.concat([rows[columns].assign(event=name) for name, rows in after.items()])
    whole = whole.set_index("event", append=True).sort_values("time_ns", kind="stable")
    kept = whole.index.isin(left.set_index("event", append=True).index)
    found = []
    for cpu in whole["cpu"].unique():
        own = (whole["cpu"] == cpu).to_numpy()
        times, here = whole["time_ns"].to_numpy()[own], kept[own]
        place = np.cumsum(here)  # how many were kept up to here: the gap's number
        ends = {0: None} | dict(zip(place[here], times[here], strict=True))
        found += [
            ("", cpu, ends[gap], ends.get(gap + 1), int(count))
            for gap, count in zip(*np.unique(place[~here], return_counts=True), strict=True)
        ]
    return LOST.from_rows(found)


@dataclass(frozen=True)
class Subject:
    """A capture with all its events, and what becomes of its pings with them."""

    capture: Capture
    trace: Trace
    rtts: pd.DataFrame

    @classmethod
    def of(cls, path: Path) -> Subject:
        capture = open_capture(path)
        trace = read_events(path, events=EVENTS_USED)
        return cls(capture, trace, follow_pings(capture, trace).rtts)

    def without(self, seed: int) -> tuple[str, pd.DataFrame]:
        """Follow the pings again without the events that a trial deletes."""
        rng = np.random.default_rng(seed)
        delete = WAYS[seed % len(WAYS)]
        events = delete(rng, self.trace.events)
        followed = follow_pings(self.capture, replace(self.trace, events=events))
        return delete.__name__, followed.rtts


def changed(subject: Subject, rtts: pd.DataFrame) -> pd.DataFrame:
    """Return the pings still answered with another value than with all events.

    A value may be missing, but not the corrected RTT of one that is called corrected.
    """
    answered = rtts["status"].isin(ANSWERED)
    before, after = subject.rtts[VALUES], rtts[VALUES]
    other = (before != after).fillna(False) | (before.isna() & after.notna())
    without = (rtts["status"] == "corrected") & rtts["bare_metal_rtt_ns"].isna()
    return rtts[answered & (other.any(axis=1) | without)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="+", type=Path)
    parser.add_argument("--trials", type=int, default=1000, help="of each capture")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    for path in options.captures:
        subject = Subject.of(path)
        whole = int(subject.rtts["status"].isin(ANSWERED).sum())
        kept = differ = 0
        for seed in range(options.seed, options.seed + options.trials):
            way, rtts = subject.without(seed)
            kept += int(rtts["status"].isin(ANSWERED).sum())
            if len(rows := changed(subject, rtts)):
                differ += len(rows)
                print(f"{path} --seed {seed} {way}:\n{rows.to_string()}", flush=True)
        print(
            f"{path}: {options.trials} trials, {kept} of {whole * options.trials} pings still "
            f"answered, {differ} with another value",
            flush=True,
        )
        wrong += differ
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
