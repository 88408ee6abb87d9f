"""A run of several targets, matched as one: fping and oping send to all of them in turn.

One task makes all send calls. The program goes through its targets in the order in which they were
named, again and again: the call of the k-th request to the t-th of n targets is call ``k * n + t``.
So the pings of all targets together are numbered by their calls, and then compared with the packets
like those of one target. A wrong order of the targets shows as a wrong number does: the lines are
printed in another order than the replies came, or the printed RTTs do not agree with the packets.

Where the lines do not say in what order they were printed (``fping -C -q`` prints all results at
the end), the RTTs alone must clearly speak against any two targets having been exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from maceproc.capture import Run
from maceproc.following.doubts import CLEAR
from maceproc.following.matching import Matches, exchanged_agreement
from maceproc.following.positions import Indices
from maceproc.pings import PingOutput

Part = tuple[PingOutput, pd.DataFrame]
"""What a run printed about one target, and that target's rows of PINGS."""

IN_TURN = frozenset({"fping", "oping"})
"""Programs that send to all of their targets in turn."""


@dataclass(frozen=True)
class Joined:
    """The pings of all targets of a run, as those of one.

    Attributes
    ----------
    pings
        PINGS in the order of their lines; `seq` is the number of the send call, from 0.
    printed
        What the run printed, with the counts of all targets.
    target
        By ping: the place of its target in the order of sending.
    ordered
        Whether the order of the rows is that in which the lines were printed.
    """

    pings: pd.DataFrame
    printed: PingOutput
    target: Indices
    ordered: bool


def join_targets(run: Run, parts: Sequence[Part]) -> Joined | str:
    """Join what a run printed about each of its targets; return why it cannot be joined, if so."""
    parts = _in_order_of_sending(run, parts)
    outputs = [printed for printed, _ in parts]
    if not {printed.flavour for printed in outputs} <= IN_TURN:
        return "several pings ran at once, each in a process of its own"
    if any(printed.first_seq is None for printed in outputs):
        return "from where it counts is not known"
    sent = [printed.sent for printed in outputs]
    known = [count for count in sent if count is not None]
    if known and (len(known) < len(sent) or not _in_turn(known)):
        counts = ", ".join("?" if count is None else str(count) for count in sent)
        return f"it did not send to all of them in turn: {counts} requests are counted"
    tables, places = [], []
    for number, (printed, rows) in enumerate(parts):
        call = (rows["seq"] - printed.first_seq) * len(parts) + number
        tables.append(rows.assign(seq=call))
        places += _places(printed, len(rows))
    pings = pd.concat(tables)
    place = np.array(places, dtype=np.int64)
    target = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
    ordered = bool((place >= 0)[(pings["status"] == "replied").to_numpy()].all())
    key = np.where(place >= 0, place, np.iinfo(np.int64).max) if ordered else pings["seq"]
    order = np.lexsort((pings["seq"].to_numpy(), key))
    received = [printed.received for printed in outputs]
    joint = replace(
        outputs[0],
        sent=sum(known) if known else None,
        received=None if None in received else sum(filter(None, received)),
        first_seq=0,
    )
    return Joined(pings.iloc[order], joint, target[order], ordered)


def order_is_told(joined: Joined, matches: Matches) -> bool:
    """Tell whether any two targets that were exchanged would show.

    Where the lines are in the order in which they were printed, an exchange shows in that order or
    in the RTTs. Otherwise the RTTs must agree with the packets clearly less when two targets are
    exchanged.
    """
    if joined.ordered:
        return True
    count = int(joined.target.max(initial=0)) + 1
    call = joined.pings["seq"].to_numpy()
    for one, other in combinations(range(count), 2):
        step = np.where(joined.target == one, other - one, 0)
        step = np.where(joined.target == other, one - other, step)
        if exchanged_agreement(joined.pings, matches, call + step) < CLEAR:
            return False
    return True


def _in_order_of_sending(run: Run, parts: Sequence[Part]) -> list[Part]:
    """Return the parts as the command line names them; else in the order of their lines."""
    words = {word: place for place, word in enumerate(run.argv)}
    names = [_names(printed.target) for printed, _ in parts]
    if all(any(name in words for name in both) for both in names):
        found = [min(words[name] for name in both if name in words) for both in names]
        return [parts[place] for place in np.argsort(found, kind="stable")]
    return sorted(parts, key=lambda part: min(_places(part[0], 0), default=-1))


def _names(target: str) -> tuple[str, ...]:
    """Return what a target may be called on the command line: ``name (address)`` has two."""
    name, _, address = target.partition(" (")
    return tuple(filter(None, (target, name, address.rstrip(")"))))


def _in_turn(sent: Sequence[int]) -> bool:
    """Tell whether so many requests to each target can have been sent in turn."""
    return max(sent) - min(sent) <= 1 and list(sent) == sorted(sent, reverse=True)


def _places(printed: PingOutput, count: int) -> list[int]:
    """Return where the line of every row stands in the text; -1 where no line of its own does."""
    places = [int(row.get("place", -1)) for row in printed.answers]
    return places + [-1] * (count - len(places))
