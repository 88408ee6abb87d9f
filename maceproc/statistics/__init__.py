"""What may be said about the difference between two arms that ran interleaved in rounds.

The round is what was repeated, so the round is the unit. Each statistic is computed within each
round, and the estimate is its mean over the rounds. The interval comes from resampling the rounds,
with both arms of a round kept together, because the pings of one run resemble their neighbours.
With fewer than `ROUNDS_TO_RESAMPLE` rounds the pings are resampled instead, in blocks; that
interval does not cover the drift from one round to the next.

All values are times [ns]. The functions take arrays and return numbers; none of them knows what a
ping is.
"""

from maceproc.statistics.drift import Drift, bias_bound, find_drift, refuses
from maceproc.statistics.estimates import (
    NOTHING,
    Estimate,
    Ratio,
    difference,
    estimate_rounds,
    location,
    ratio,
)
from maceproc.statistics.independent import brunner_munzel, cliffs_delta, holm, welch
from maceproc.statistics.precision import Precision, precision_needed
from maceproc.statistics.resampling import (
    CONFIDENCE,
    ROUNDS_TO_RESAMPLE,
    block_length,
    effective_size,
)
from maceproc.statistics.samples import (
    DECILES,
    Pair,
    Statistic,
    Values,
    deviation,
    mean,
    median,
    pair_rounds,
)
from maceproc.statistics.shift import Shift, shift_function
from maceproc.statistics.slope import Slope, slope_within_rounds

__all__ = [
    "CONFIDENCE",
    "DECILES",
    "NOTHING",
    "ROUNDS_TO_RESAMPLE",
    "Drift",
    "Estimate",
    "Pair",
    "Precision",
    "Ratio",
    "Shift",
    "Slope",
    "Statistic",
    "Values",
    "bias_bound",
    "block_length",
    "brunner_munzel",
    "cliffs_delta",
    "deviation",
    "difference",
    "effective_size",
    "estimate_rounds",
    "find_drift",
    "holm",
    "location",
    "mean",
    "median",
    "pair_rounds",
    "precision_needed",
    "ratio",
    "refuses",
    "shift_function",
    "slope_within_rounds",
    "welch",
]
