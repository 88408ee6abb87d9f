"""How well the printed RTTs agree with the packets, in the numbering taken and in others.

A numbering that is off by one gives every printed RTT to the packets of another ping. Then the
*residuals* (printed RTT minus the time from send call to reply) scatter as much as RTTs differ from
ping to ping, instead of lying near one constant.

The disagreement of one line with a packet is measured by the negative logarithm of a Cauchy
distribution's density relative to its peak, ``log(1 + (distance / scale) ** 2)``, up to a limit:
so a few pings that were held up do not decide about a run. The difference of two sums of such
disagreements is the logarithm of a likelihood ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from maceproc.following.due import MANY, OFFSET_OF_FEW_NS, OFFSET_RANGE_NS, PRINT_ERROR_NS
from maceproc.following.positions import Bools, Choice, Indices, Times, pick
from maceproc.units import NS_PER_US

Floats = npt.NDArray[np.float64]

SCALE_NS = 0.7 * NS_PER_US
"""Scale of the distance between a printed RTT and its packets, without the rounding.

Measured: half of the residuals are within 0.4 us of the run's median, 95 % within 1.4 us. Where
they scatter more, see `scatter`.
"""

ROUNDING_SCALE = 0.3
"""Scale of the error of rounding to the printed step, as a share of the step."""

MOST = 6.0
"""A line that fits no packet has the disagreement of one that is 20 scales away from a packet."""

SHIFTS = 8
"""The numbering taken is compared with numberings that are shifted by up to this many pings."""

SAMPLE = 256
"""The offset of a numbering is estimated from at most this many lines."""


@dataclass(frozen=True)
class Agreement:
    """The disagreement of every ping's line with the packets, under several numberings.

    Attributes
    ----------
    tested
        By ping: whether its line has an RTT that can be compared. The rest of the arrays have 0
        for the others.
    here
        By ping: the disagreement under the numbering taken.
    offset_ns
        The offset of the send stamps under the numbering taken; None where there is none.
    shift
        For each other numbering: how much greater the number of a line's call is.
    other
        Shape (other numberings, pings): the disagreement under each of them.
    chance
        By ping: the disagreement under a mixture of all other numberings. This is the disagreement
        that a line has with the packets of other pings.
    """

    tested: Bools
    here: Floats
    offset_ns: int | None
    shift: Indices
    other: Floats
    chance: Floats


def agreement_of(
    rtt_ns: Times,
    step_ns: Times,
    send: Choice,
    tested: Bools,
    send_ns: Times,
    seen_ns: Times,
    scale_ns: float = SCALE_NS,
) -> Agreement:
    """Compare the printed RTTs of one run with the packets seen, shape (pings,).

    `send` are the pings' send calls, at `send_ns`; `tested` tells which pings to compare;
    `seen_ns` is when the replies were stamped, in order of time; `scale_ns` is how far residuals
    scatter.
    """
    tested = tested & send.exists
    rows = np.flatnonzero(tested)
    call = send.position[rows]
    lines = _Lines(rtt_ns[rows], step_ns[rows], call, send_ns, seen_ns, scale_ns)
    offset_ns = lines.offset(0)
    here = lines.disagreement(0, offset_ns)
    shifts = [d for d in range(-SHIFTS, SHIFTS + 1) if d and abs(d) < max(len(send_ns), 1)]
    offsets = {d: lines.offset(d) for d in shifts}
    best = min(shifts, key=lambda d: lines.disagreement(d, offsets[d]).sum(), default=0)
    others = [
        (d, lines.disagreement(d, o))
        for d in shifts
        for o in {offsets[d], offset_ns, offsets.get(best)}
    ]
    spread = np.zeros((len(others), len(tested)))
    for row, (_, disagreement) in enumerate(others):
        spread[row, rows] = disagreement
    return Agreement(
        tested,
        _spread(here, rows, len(tested)),
        offset_ns,
        np.array([d for d, _ in others], dtype=np.int64),
        spread,
        _spread(_mixture(lines, others), rows, len(tested)),
    )


def disagreement_of(
    rtt_ns: Times, step_ns: Times, send: Choice, tested: Bools, send_ns: Times, seen_ns: Times
) -> tuple[Bools, Floats]:
    """Return which pings are tested, and their disagreement under the numbering taken alone.

    The parameters are those of `agreement_of`.
    """
    tested = tested & send.exists
    rows = np.flatnonzero(tested)
    call = send.position[rows]
    lines = _Lines(rtt_ns[rows], step_ns[rows], call, send_ns, seen_ns, SCALE_NS)
    return tested, _spread(lines.disagreement(0, lines.offset(0)), rows, len(tested))


@dataclass(frozen=True)
class _Lines:
    """The lines that are compared: printed RTTs, their steps and calls; and what was seen."""

    rtt_ns: Times
    step_ns: Times
    call: Indices
    send_ns: Times
    seen_ns: Times
    scale_ns: float

    def possible(self, shift: int) -> Bools:
        """Tell which lines have a call under a shifted numbering."""
        call = self.call + shift
        return np.asarray((call >= 0) & (call < len(self.send_ns)))

    def at_ns(self, shift: int) -> Times:
        """Return send call plus printed RTT under a shifted numbering."""
        possible = self.possible(shift)
        return np.asarray(pick(self.send_ns, self.call + shift, possible, 0) + self.rtt_ns)

    def disagreement(self, shift: int, offset_ns: int | None) -> Floats:
        """Return every line's disagreement with the nearest packet."""
        if offset_ns is None or not len(self.seen_ns):
            return np.full(len(self.call), MOST)
        found = self._disagreements(shift, np.array([offset_ns]))[0]
        return np.where(self.possible(shift), found, MOST)

    def _disagreements(self, shift: int, offsets_ns: Times) -> Floats:
        """Return the disagreement of every line, where it has a call: shape (offsets, lines)."""
        distance_ns = _to_nearest(self.seen_ns, self.at_ns(shift) - offsets_ns[:, np.newaxis])
        scale_ns = self.scale_ns + ROUNDING_SCALE * self.step_ns
        return np.asarray(np.minimum(np.log1p((distance_ns / scale_ns) ** 2), MOST))

    def offset(self, shift: int) -> int | None:
        """Return the offset that a shifted numbering agrees best with; None where there is none."""
        rows = np.flatnonzero(self.possible(shift))
        rows = rows[:: max(1, -(-len(rows) // SAMPLE))]
        part = replace(
            self, rtt_ns=self.rtt_ns[rows], step_ns=self.step_ns[rows], call=self.call[rows]
        )
        candidates = part._possible_offsets(shift)
        if not len(candidates):
            return None
        totals = part._disagreements(shift, candidates).sum(axis=1)
        return int(candidates[np.argmin(totals)])

    def _possible_offsets(self, shift: int) -> Times:
        at_ns = self.at_ns(shift)
        last = np.searchsorted(self.seen_ns, at_ns + self.step_ns + PRINT_ERROR_NS, "right") - 1
        seen = Choice(last, last >= 0)
        offset_ns = (at_ns - seen.of(self.seen_ns, 0))[seen.exists]
        rounding_ns = (self.step_ns // 2 + PRINT_ERROR_NS)[seen.exists]
        low, high = OFFSET_RANGE_NS if len(at_ns) >= MANY else OFFSET_OF_FEW_NS
        near = (offset_ns >= low - rounding_ns) & (offset_ns <= high + rounding_ns)
        if not near.any():
            return np.zeros(0, dtype=np.int64)
        quantiles = np.quantile(offset_ns[near], np.linspace(0.05, 0.95, 19))
        return np.unique(np.clip(quantiles, low, high)).astype(np.int64)


def _mixture(lines: _Lines, others: list[tuple[int, Floats]]) -> Floats:
    """Return the disagreement under a mixture of the other numberings.

    A line that has no call under any of them gets the disagreement of a line without a packet.
    """
    if not others:
        return np.full(len(lines.call), MOST)
    possible = np.array([lines.possible(d) for d, _ in others])
    density = np.where(possible, np.exp(-np.array([loss for _, loss in others])), 0.0)
    count = possible.sum(axis=0)
    mean = density.sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, -np.log(np.maximum(mean, np.exp(-MOST))), MOST)


def _to_nearest(seen_ns: Times, due_ns: Times) -> Times:
    """Return the distance of every time to the nearest one seen [ns]; some must be seen."""
    after = np.searchsorted(seen_ns, due_ns)
    before_ns = due_ns - seen_ns[np.maximum(after - 1, 0)]
    after_ns = seen_ns[np.minimum(after, len(seen_ns) - 1)] - due_ns
    return np.asarray(np.minimum(np.abs(before_ns), np.abs(after_ns)))


def _spread(values: Floats, rows: Indices, count: int) -> Floats:
    """Return an array of `count` with the values at `rows`, and 0 elsewhere."""
    spread = np.zeros(count)
    spread[rows] = values
    return spread
