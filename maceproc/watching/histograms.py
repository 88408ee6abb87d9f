"""Histograms of durations in little memory: buckets that grow by a fixed factor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST_NS = 100.0
GROWTH = 1.05
BUCKETS = 480  # from 100 ns to about 25 minutes; the last one has no end

_LOG_GROWTH = np.log(GROWTH)


def bucket_of(durations_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of each duration; the first bucket also holds shorter durations."""
    grown = np.log(np.maximum(durations_ns, FIRST_NS) / FIRST_NS) / _LOG_GROWTH
    return np.minimum(grown.astype(np.int64), BUCKETS - 1)


class RecentHistogram:
    """The durations of about the last minute, for percentiles.

    The durations are kept in two halves. When the newer half is old enough, the older one is
    forgotten. Percentiles are exact within half a bucket: 2.5 %.
    """

    def __init__(self) -> None:
        self._halves = np.zeros((2, BUCKETS), np.uint32)

    def add(self, durations_ns: NDArray[np.int64]) -> None:
        """Count durations [ns]."""
        self._halves[0] += np.bincount(bucket_of(durations_ns), minlength=BUCKETS).astype(np.uint32)

    def age(self) -> None:
        """Forget the older half."""
        self._halves[1] = self._halves[0]
        self._halves[0] = 0

    def percentiles(self, shares: tuple[float, ...]) -> list[float]:
        """Return the durations [ns] below which these shares lie; NaN when there are none."""
        cumulated = np.cumsum(self._halves.sum(axis=0, dtype=np.int64))
        total = int(cumulated[-1])
        if not total:
            return [float("nan")] * len(shares)
        ranks = [max(1, int(np.ceil(share * total))) for share in shares]
        places = np.searchsorted(cumulated, ranks)
        return [float(FIRST_NS * GROWTH ** (place + 0.5)) for place in places]


class CumulativeHistogram:
    """All durations since the beginning, in the few buckets that Prometheus is given."""

    # From a microsecond to ten seconds: what a container adds, and RTTs across the world.
    BOUNDS_NS = np.array(
        [step * 10**power for power in range(3, 10) for step in (1, 2, 5)] + [10**10], np.int64
    )

    def __init__(self) -> None:
        self.counts = np.zeros(len(self.BOUNDS_NS) + 1, np.int64)
        self.sum_ns = 0

    def add(self, durations_ns: NDArray[np.int64]) -> None:
        """Count durations [ns]."""
        places = np.searchsorted(self.BOUNDS_NS, durations_ns)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.sum_ns += int(durations_ns.sum())
