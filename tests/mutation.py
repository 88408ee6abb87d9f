"""Rewrites what ping printed, and holds every corrected ping to its own packets.

    python -m tests.mutation --trials 2000 captures/*.dat

Whatever text is fed, a ping may lose its correction, but no line may be given the packets of
another ping. Whoever changes how numbers and replies are matched runs this for a while; the tests
run a few trials of every kind.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc.capture import Run
from maceproc.capture_files import open_capture
from maceproc.following import rtts
from maceproc.following.follow import EVENTS_USED, Packets, correct_pings, follow_way
from maceproc.following.run_packets import packets_of_run
from maceproc.following.topology import mtu_of, way_of
from maceproc.pings import PingOutput, parse_runs, pings_table
from maceproc.tracedat import read_events

Random = np.random.Generator
Bools = npt.NDArray[np.bool_]
OTHER_RTT_NS = 12_000
"""An RTT that differs by more from that of its own ping is another's."""
ANSWERED = ("corrected", "native")
PACKETS = ["outbound_journey", "inbound_journey", "sent_ns", "wire_rtt_ns"]
NUMBER = re.compile(r"(?<=seq=)\d+")
TIME = re.compile(r"(?<=time=)[\d.]+")
STAMP = re.compile(r"^\[\d+\.\d+\] ")
COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) received")


@dataclass(frozen=True)
class Line:
    """A line about one icmp_seq, and the icmp_seq that it was really printed for.

    `own` is None for a line of another run: no packets of this one are its own.
    """

    text: str
    own: int | None

    @property
    def number(self) -> int:
        found = NUMBER.search(self.text)
        assert found
        return int(found[0])

    def numbered(self, number: int) -> Line:
        return replace(self, text=NUMBER.sub(str(max(0, number)), self.text, count=1))

    @property
    def time_ms(self) -> float:
        found = TIME.search(self.text)
        return float(found[0]) if found else 0.0

    def timed(self, time_ms: float, decimals: int = 3) -> Line:
        """Return the line with another time."""
        return replace(self, text=TIME.sub(f"{max(0, time_ms):.{decimals}f}", self.text))


@dataclass(frozen=True)
class Text:
    """What a ping printed: header, lines, and the rest with the summary."""

    header: str
    lines: tuple[Line, ...]
    rest: str

    @classmethod
    def of(cls, output: str) -> Text:
        header, _, body = output.partition("\n")
        lines = [line for line in body.splitlines() if NUMBER.search(line)]
        rest = [line for line in body.splitlines() if not NUMBER.search(line)]
        own = (Line(line, None) for line in lines)
        return cls(header, tuple(replace(line, own=line.number) for line in own), "\n".join(rest))

    def __str__(self) -> str:
        return "\n".join([self.header, *(line.text for line in self.lines), self.rest, ""])

    @property
    def owners(self) -> list[int | None]:
        """Every line's own icmp_seq.

        Where numbers grow from line to line, exchanging lines and numbering them again gives the
        same text as exchanging their RTTs: then a line's own number is that of its place. Whether
        the RTT is its own is asked apart. A line printed twice pushes the numbers behind it.
        """
        numbers = [line.number for line in self.lines]
        own = [line.own for line in self.lines]
        in_order = sorted(number for number in own if number is not None)
        grow = all(one < other for one, other in pairwise(numbers))
        once = len(set(in_order)) == len(own)  # a foreign line is not in it
        return list(in_order) if grow and once else own

    def own_of(self, seqs: Iterable[int], first_seq: int | None) -> list[int | None]:
        """Return the own icmp_seq of the rows with these numbers.

        Of several lines with one number, the row that can be answered is that of the first. A row
        that no line speaks of is that of the k-th request, however ping counts.
        """
        by_number: dict[int, int | None] = {}
        for line, own in zip(self.lines, self.owners, strict=True):
            by_number.setdefault(line.number, own)
        # The lines say it where the text does not tell from where ping counts.
        steps = {own - number for number, own in by_number.items() if own is not None}
        step = 1 - first_seq if first_seq is not None else steps.pop() if len(steps) == 1 else None
        unspoken = {seq: None if step is None else seq + step for seq in seqs}
        return [by_number.get(seq, unspoken[seq]) for seq in seqs]

    @property
    def is_foreign(self) -> bool:
        """Whether this is another run's text."""
        return any(line.own is None for line in self.lines)

    def with_lines(self, lines: Sequence[Line]) -> Text:
        return replace(self, lines=tuple(lines))


Mutation = Callable[[Random, Text, Sequence[Text]], Text]


def shift(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Shift all numbers."""
    by = int(rng.choice([-2, -1, 1, 1, 2, 3, 10]))
    return text.with_lines([line.numbered(line.number + by) for line in text.lines])


def drop(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Drop some lines."""
    share = rng.choice([0.03, 0.1, 0.4])
    return text.with_lines([line for line in text.lines if rng.random() >= share])


def cut_first(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Cut off the first lines."""
    return text.with_lines(text.lines[int(rng.integers(1, 4)) :])


def cut_last(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Cut off the last lines."""
    return text.with_lines(text.lines[: -int(rng.integers(1, 4))])


def duplicate(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Print a line twice, or twice at another place."""
    lines = list(text.lines)
    for _ in range(int(rng.integers(1, 3))):
        if lines:
            place = int(rng.integers(len(lines)))
            near = rng.random() < 0.7
            lines.insert(place if near else int(rng.integers(len(lines))), lines[place])
    return text.with_lines(lines)


def renumber(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Number the lines one after the other."""
    first = int(rng.choice([0, 1, 1, 1, 2]))
    lines = [line.numbered(first + place) for place, line in enumerate(text.lines)]
    return text.with_lines(lines)


def gap(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Shift the numbers of all lines after one, or of some in the middle."""
    start = int(rng.integers(len(text.lines) + 1))
    end = len(text.lines) if rng.random() < 0.5 else start + int(rng.integers(1, 10))
    by = int(rng.choice([-1, 1, 1, 2, 5]))
    return text.with_lines(
        [
            line.numbered(line.number + by) if start <= place < end else line
            for place, line in enumerate(text.lines)
        ]
    )


def numbers_swapped(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Exchange the numbers of two lines."""
    lines = list(text.lines)
    if len(lines) > 1:
        one = int(rng.integers(len(lines) - 1))
        two = one + 1 if rng.random() < 0.5 else int(rng.integers(len(lines)))
        a, b = lines[one], lines[two]
        lines[one], lines[two] = a.numbered(b.number), b.numbered(a.number)
    return text.with_lines(lines)


def numbers_permuted(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Give the lines each other's numbers."""
    numbers = rng.permutation([line.number for line in text.lines])
    pairs = zip(text.lines, numbers, strict=True)
    return text.with_lines([line.numbered(int(number)) for line, number in pairs])


def lines_swapped(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Print two lines, or all, in another order."""
    lines = list(text.lines)
    if len(lines) > 1 and rng.random() < 0.7:
        one, two = rng.choice(len(lines), 2, replace=False)
        lines[one], lines[two] = lines[two], lines[one]
        return text.with_lines(lines)
    return text.with_lines([lines[place] for place in rng.permutation(len(lines))])


def times_permuted(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Give the lines each other's RTTs."""
    times = rng.permutation([line.time_ms for line in text.lines])
    pairs = zip(text.lines, times, strict=True)
    return text.with_lines([line.timed(float(time)) for line, time in pairs])


def times_changed(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Scale all RTTs, or add a constant to them."""
    factor = float(rng.choice([1, 1, 0.5, 0.9, 1.1, 2, 1000]))
    more = float(rng.choice([0, 0, 0.002, 0.02, -0.02, 1]))
    return text.with_lines([line.timed(line.time_ms * factor + more) for line in text.lines])


def coarse(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Print the RTTs in larger steps; not of another run's text, see `no_times`."""
    if text.is_foreign:
        return text
    decimals = int(rng.choice([0, 1, 2]))
    return text.with_lines([line.timed(line.time_ms, decimals) for line in text.lines])


def no_times(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Print no RTTs, as with a payload that is too short.

    Not of another run's text: if that has as many pings and no RTTs, or RTTs that are all the same
    within their step, it is the text that this run would have printed.
    """
    if text.is_foreign:
        return text
    lines = [replace(line, text=line.text.partition(" time=")[0]) for line in text.lines]
    return text.with_lines(lines)


def other_text(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Take the text of another run, where there is one."""
    if not others:
        return text
    other = others[int(rng.integers(len(others)))]
    return other.with_lines([replace(line, own=None) for line in other.lines])


def other_lines(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Take the lines of another run, from some line on.

    Such a line counts as one of the ping that has its number, with another RTT.
    """
    if text.is_foreign or not others:
        return text
    other = others[int(rng.integers(len(others)))]
    start = int(rng.integers(len(text.lines) + 1))
    foreign = [replace(line, own=line.number) for line in other.lines[start:]]
    return text.with_lines([*text.lines[:start], *foreign])


def header(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Print the header of another ping, or none."""
    headers = (
        "PING 192.0.2.2 (192.0.2.2): 56 data bytes",
        "PING 192.0.2.2 (192.0.2.2) from 10.0.0.2: 56 data bytes",
        "PING 192.0.2.2 (192.0.2.2) 56(84) bytes of data.",
        "PING 192.0.2.2 (192.0.2.2) from 10.0.0.2 eth0: 56(84) bytes of data.",
        "PING 192.0.2.2 (192.0.2.2): 56(84) bytes of data.",
        "",
    )
    return replace(text, header=str(rng.choice(headers)))


def busybox(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Print lines as busybox does, which counts from 0."""
    lines = [
        replace(
            line.numbered(line.number - 1),
            text=re.sub("icmp_seq=", "seq=", STAMP.sub("", line.numbered(line.number - 1).text)),
        )
        for line in text.lines
    ]
    source = " from 10.0.0.2" * (rng.random() < 0.5)
    return replace(
        text.with_lines(lines), header=f"PING 192.0.2.2 (192.0.2.2){source}: 56 data bytes"
    )


def summary(rng: Random, text: Text, others: Sequence[Text]) -> Text:
    """Change the counts of the summary, or cut it off."""
    found = COUNTS.search(text.rest)
    if not found or rng.random() < 0.2:
        return replace(text, rest="")
    sent, received = int(found[1]), int(found[2])
    which = rng.integers(4)
    if which == 0:
        sent += int(rng.choice([-1, 1]))
    elif which == 1:
        received += int(rng.choice([-1, 1]))
    elif which == 2:
        sent = received = len(text.lines)
    else:
        received = len(text.lines)
    counts = f"{sent} packets transmitted, {received} received"
    return replace(text, rest=COUNTS.sub(counts, text.rest))


MUTATIONS: tuple[Mutation, ...] = (
    shift, drop, cut_first, cut_last, duplicate, renumber, gap, numbers_swapped, numbers_permuted,
    lines_swapped, times_permuted, times_changed, coarse, no_times, other_text, other_lines,
    header, busybox, summary,
)  # fmt: skip


def unstamped(text: Text) -> Text:
    """Print no time of printing: without `ping -D`."""
    return text.with_lines([replace(line, text=STAMP.sub("", line.text)) for line in text.lines])


@dataclass(frozen=True)
class Subject:
    """A capture whose packets were followed once, and its texts."""

    packets: Packets
    runs: tuple[Run, ...]
    lost: pd.DataFrame
    mtu: int

    @classmethod
    def of(cls, path: Path, most_runs: int = 1000) -> Subject:
        capture = open_capture(path)
        assert capture.sidecar
        trace = read_events(path, events=EVENTS_USED)
        packets = follow_way(trace, capture.sidecar, way_of(capture.sidecar, "", "", ""))
        runs = tuple(run for run in capture.sidecar.runs if run.traced)[:most_runs]
        return cls(packets, runs, trace.lost, mtu_of(capture.sidecar))

    def correct(self, runs: Sequence[Run]) -> tuple[list[tuple[Run, PingOutput]], pd.DataFrame]:
        """Return what the runs printed, as understood, and their RTTS."""
        printed = list(parse_runs(runs))
        pings = pings_table(printed)
        with patch.object(rtts, "packets_of_run", self._packets_of_run):
            found = correct_pings(pings, printed, self.packets, lost=self.lost, mtu=self.mtu)
        return printed, found

    def _packets_of_run(self, run: Run, printed: PingOutput, *tables: Any, **more: Any) -> Any:
        """Select the packets of a run as the analysis does, once for every length of a packet."""
        key = (*_key(run), printed.payload_bytes)
        if key not in self.known:
            self.known[key] = packets_of_run(run, printed, *tables, **more)
        return self.known[key]

    @cached_property
    def known(self) -> dict[tuple[Any, ...], Any]:
        """The packets of runs that were selected before."""
        return {}

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        return tuple(Text.of(run.output) for run in self.runs)

    @cached_property
    def truth(self) -> dict[tuple[int, str], pd.DataFrame]:
        """The packets of every ping by run and icmp_seq, from the text as it was printed."""
        _, rtts = self.correct(self.runs)
        own = rtts[rtts["status"].isin(ANSWERED)]
        return {_key(run): _rows_of(run, own).set_index("seq") for run in self.runs}

    def mutated(self, seed: int, foreign: Sequence[Text] = ()) -> Trial:
        """Mutate the text of every run, and correct its pings again."""
        rng = np.random.default_rng(seed)
        count = 1 + int(rng.integers(3)) * (rng.random() < 0.6)
        names, kinds = [], [MUTATIONS[seed % len(MUTATIONS)]]
        kinds += [MUTATIONS[int(rng.integers(len(MUTATIONS)))] for _ in range(count - 1)]
        rng.shuffle(kinds)
        kinds.sort(key=lambda kind: kind is not other_text)  # others see then what is foreign
        strip = rng.random() < 0.7
        texts = []
        for number, text in enumerate(self.texts):
            changed = text
            others = [*self.texts[:number], *self.texts[number + 1 :], *foreign]
            for kind in kinds:
                changed = kind(rng, changed, others)
            texts.append(unstamped(changed) if strip else changed)
        names = [kind.__name__ for kind in kinds] + ["unstamped"] * strip
        runs = [
            msgspec.structs.replace(run, output=str(text))
            for run, text in zip(self.runs, texts, strict=True)
        ]
        printed, rtts = self.correct(runs)
        return Trial(" ".join(names), self, texts, printed, rtts)


@dataclass(frozen=True)
class Trial:
    """What became of the pings of a capture with mutated texts."""

    name: str
    subject: Subject
    texts: Sequence[Text]
    printed: Sequence[tuple[Run, PingOutput]]
    rtts: pd.DataFrame

    @property
    def corrected(self) -> int:
        return int(self.rtts["status"].isin(ANSWERED).sum())

    def wrong(self) -> pd.DataFrame:
        """Return the answered pings that have other packets than their own."""
        found = []
        for (run, printed), text in zip(self.printed, self.texts, strict=True):
            rows = _rows_of(run, self.rtts)
            own = text.own_of(rows["seq"], printed.first_seq)
            answered = rows["status"].isin(ANSWERED).to_numpy()
            truth = self.subject.truth[_key(run)].reindex(pd.array(own, dtype="Int64"))
            other = _other_packets(rows, truth)
            if times_changed.__name__ not in self.name:  # then all have other RTTs
                other |= _other_rtts(rows, truth, answered)
            foreign = np.array([number is None for number in own], dtype=np.bool_)
            known = truth["status"].notna().to_numpy()
            bad = answered & (foreign | (known & other))
            found.append(rows[bad].assign(own=pd.array(own, dtype="Int64")[bad]))
        return pd.concat(found)


def _key(run: Run) -> tuple[int, str]:
    return run.round, run.place


def _rows_of(run: Run, rtts: pd.DataFrame) -> pd.DataFrame:
    arm = rtts["arm"] == f"{run.place} traced"
    return rtts[arm & (rtts["round"] == run.round)]


def _other_packets(rows: pd.DataFrame, own: pd.DataFrame) -> Bools:
    """Tell which rows have other packets than their own ping."""
    same = np.full(len(rows), True)
    for name in PACKETS:
        here, there = (table[name].to_numpy(np.int64, na_value=-1) for table in (rows, own))
        same &= here == there
    return ~same


def _other_rtts(rows: pd.DataFrame, own: pd.DataFrame, answered: Bools) -> Bools:
    """Tell which rows have an RTT that is not that of their own ping.

    All of those answered may be larger by the same time: that says nothing of whose they are. The
    lines that are printed in the smallest steps tell that time.
    """
    change_ns = rows["rtt_ns"].to_numpy(np.float64, na_value=np.nan)
    change_ns = change_ns - own["rtt_ns"].to_numpy(np.float64, na_value=np.nan)
    step_ns = rows["rtt_resolution_ns"].to_numpy(np.float64, na_value=0)
    step_ns = step_ns + own["rtt_resolution_ns"].to_numpy(np.float64, na_value=0)
    known = answered & ~np.isnan(change_ns)
    finest = known & (step_ns == step_ns[known].min(initial=np.inf))
    middle_ns = np.median(change_ns[finest]) if finest.any() else 0.0
    return np.asarray(np.abs(change_ns - middle_ns) > step_ns + OTHER_RTT_NS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="+", type=Path)
    parser.add_argument("--trials", type=int, default=200, help="of each capture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="mutate only this capture, by name")
    options = parser.parse_args()
    subjects = {path: Subject.of(path) for path in options.captures}
    wrong = 0
    for path, subject in subjects.items():
        if options.only not in ("", path.stem):
            continue
        foreign = [t for other in subjects.values() if other is not subject for t in other.texts]
        whole = sum(map(len, subject.truth.values()))
        kept, bad = 0, Counter[str]()
        for seed in range(options.seed, options.seed + options.trials):
            trial = subject.mutated(seed, foreign)
            kept += trial.corrected
            if len(rows := trial.wrong()):
                bad[trial.name] += len(rows)
                print(f"{path} --seed {seed} {trial.name}: {len(rows)} wrong", flush=True)
        wrong += bad.total()
        print(
            f"{path}: {options.trials} mutations, {kept} of {whole * options.trials} pings still "
            f"answered, {bad.total()} with packets of another",
            flush=True,
        )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
