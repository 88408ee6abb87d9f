"""How far residuals scatter in a run whose residuals are not near one constant.

The residual (printed RTT minus the time from send call to reply) scatters by several microseconds
where the send call was not recorded: then the way through the stack is part of it, which takes
longer on a slow or busy machine. Such a run is accepted where all of this holds:

* **order**: every reply that came has its line and every line its reply, so that numbers cannot be
  shifted against packets. The text could still be that of another run with as many pings;
* **size**: all residuals are possible, and few lie far from the others;
* **chance**: the printed RTTs vary from ping to ping as those of the packets do. If the same RTTs
  are dealt to the packets at random, the residuals scatter as little only once in `AT_RANDOM`
  times. Another run's RTTs are as good as dealt at random.
"""

from __future__ import annotations

import numpy as np

from maceproc.following.due import OFFSET_RANGE_NS, PRINT_ERROR_NS
from maceproc.following.positions import Bools, Times
from maceproc.units import NS_PER_US

LARGEST_SCATTER_NS = 4 * NS_PER_US
"""The largest median distance of the residuals from their median that is believed.

Measured: 0.6 to 3.1 us in 12 runs of which no send call was recorded, 0.2 to 0.6 us otherwise.
"""

FAR_NS = 10 * NS_PER_US
"""Only one residual in ten may be farther than this from their median."""

AT_RANDOM = 200
"""For each random assignment that scatters as little, this many must scatter more.

Size and chance together: of 2818 times that 7 pings of one run were given 7 RTTs of another run,
most of them of the same machine, none passes; at 50 it would be 6.
"""

FEWEST = 5
"""Fewer pings do not have enough different assignments: 4 pings have 24."""

DEALS = 2000
"""How many random assignments are tried."""

SAMPLE = 256
"""The random assignments use at most this many pings, evenly spaced."""


def scatter_of(rtt_ns: Times, step_ns: Times, kernel_rtt_ns: Times, tested: Bools) -> int | None:
    """Return the scatter of the residuals of a run [ns]; None where the run is not accepted.

    `rtt_ns` are the printed RTTs in steps of `step_ns`, `kernel_rtt_ns` the times from send call
    to reply, all of shape (pings,); `tested` tells which of them to compare. The order of calls
    and replies must have proven before which reply belongs to which call.
    """
    if tested.sum() < FEWEST:
        return None
    residual_ns = (rtt_ns - kernel_rtt_ns)[tested]
    rounding_ns = step_ns[tested] // 2 + PRINT_ERROR_NS
    low, high = OFFSET_RANGE_NS
    if (residual_ns < low - rounding_ns).any():
        return None
    distance_ns = np.abs(residual_ns - np.median(residual_ns))
    scatter_ns = int(np.median(distance_ns))
    if scatter_ns > LARGEST_SCATTER_NS or np.median(residual_ns) > high:
        return None
    if 10 * (distance_ns > FAR_NS + rounding_ns).sum() > len(distance_ns):
        return None
    believed = AT_RANDOM * _share_as_near(rtt_ns[tested], kernel_rtt_ns[tested]) <= 1
    return scatter_ns if believed else None


def _share_as_near(rtt_ns: Times, kernel_rtt_ns: Times) -> float:
    """Return the share of random assignments that scatter as little; the actual one counts too."""
    every = -(-len(rtt_ns) // SAMPLE)
    rtt_ns, kernel_rtt_ns = rtt_ns[::every], kernel_rtt_ns[::every]
    copies = np.tile(kernel_rtt_ns, (DEALS, 1))
    dealt = np.random.default_rng(0).permuted(copies, axis=1)  # the same in every analysis
    scatters = _total_distance(rtt_ns - dealt)
    given = _total_distance((rtt_ns - kernel_rtt_ns)[None])[0]
    return float((1 + (scatters <= given).sum()) / (1 + DEALS))


def _total_distance(residuals_ns: Times) -> Times:
    """Return the sum of the distances from the median, by row."""
    middle = np.median(residuals_ns, axis=1, keepdims=True)
    return np.asarray(np.abs(residuals_ns - middle).sum(axis=1))
