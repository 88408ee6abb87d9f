"""Whether the machine changed while it was measured, and what that can have done."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maceproc.statistics.estimates import Estimate
from maceproc.statistics.resampling import SEED
from maceproc.statistics.samples import Values

# The machine is taken to have changed when chance alone rarely makes as large a change of the
# control (p below `CHANGED_P`). A change by more than `CHANGED_SHARE` of the median needs less
# proof (`LARGE_P`), and with fewer than `FEW_ROUNDS` rounds none: a test has no power there.
CHANGED_P = 0.01
CHANGED_SHARE, LARGE_P, FEW_ROUNDS = 0.2, 0.1, 7


class Drift(NamedTuple):
    """How much a control changed while it was measured.

    Attributes
    ----------
    change_ns
        Mean of the later rounds minus mean of the earlier ones, split where they differ most.
    at
        Number of rounds before that split.
    p
        Probability of as large a difference if the rounds could have come in any order.
    significant
        Whether the machine is taken to have changed.
    """

    change_ns: float
    at: int
    p: float
    significant: bool


def find_drift(control_ns: Values) -> Drift:
    """Look for a change of the machine in a control's medians, one per round in order of time."""
    control_ns = np.asarray(control_ns, dtype=np.float64)
    n = len(control_ns)
    if n < 2:
        return Drift(0.0, 0, 1.0, False)
    largest, before = _largest_change(control_ns)
    change, at = float(largest), int(before)
    orders = np.random.default_rng(SEED).permuted(np.tile(control_ns, (1999, 1)), axis=1)
    as_large = np.abs(_largest_change(orders)[0]) >= abs(change) - 1e-6
    p = float((1 + as_large.sum()) / (1 + len(orders)))
    large = abs(change) > CHANGED_SHARE * float(np.median(control_ns))
    return Drift(change, at, p, p < CHANGED_P or (large and (n < FEW_ROUNDS or p < LARGE_P)))


def _largest_change(values: Values) -> tuple[Values, npt.NDArray[np.intp]]:
    """Return, along the last axis, the largest change of the mean and how many values precede it.

    Changes are compared as t statistics of equal variance: weighted by how many values lie before
    and after them.
    """
    n = values.shape[-1]
    before = np.arange(1, n)
    sums = np.cumsum(values, axis=-1)
    change = (sums[..., -1:] - sums[..., :-1]) / (n - before) - sums[..., :-1] / before
    at = np.argmax(np.abs(change) * np.sqrt(before * (n - before)), axis=-1)
    return np.take_along_axis(change, at[..., None], axis=-1)[..., 0], at + 1


def bias_bound(drift: Drift, mine_at: Values, other_at: Values) -> float:
    """Return the largest bias that a drift can cause in the mean difference of two arms [ns].

    `mine_at` and `other_at` say when the arms ran, round by round, in any unit. A steady drift
    biases the difference in proportion to the mean distance of the arms in time, as a share of the
    whole recording. There is no bias where the order of the arms alternates, and half of the change
    where one arm ran after the other. A sudden change falls between the two arms of one round at
    most; that round's difference is then an outlier, and widens the interval by itself.
    """
    at = np.concatenate([mine_at, other_at])
    span = float(np.ptp(at))
    if not drift.significant or span == 0:
        return 0.0
    apart = abs(float(np.mean(mine_at - other_at))) / span
    return abs(drift.change_ns) * 2 * apart


def refuses(estimate: Estimate, bias_ns: float) -> bool:
    """Tell whether a bias of that size is too large to rely on the estimate.

    That is so when it exceeds half of the estimate and half of the interval's width.
    """
    half_width = (estimate.high_ns - estimate.low_ns) / 2
    return bias_ns > max(abs(estimate.estimate_ns) / 2, half_width)
