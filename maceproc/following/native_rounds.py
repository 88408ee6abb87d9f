"""The medians of native and container's pings in each round, from which native RTTs are estimated.

There is a row per round; where rounds are few, a row per fifth of a round. The first ping of a run
is left out of the medians: it finds all caches cold, above all for the host's netfilter rules, and
its host's part is several times that of the other pings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc import statistics
from maceproc.following.perturbation import values_of
from maceproc.series import CORRECTED, NATIVE, NATIVE_RAW, UNTRACED, Series
from maceproc.statistics import Values

TERMS = ("host's part", "tracing outside", "wire")
SIGNS = np.array([1.0, -1.0, 1.0])  # of the terms in the native RTT

OFF_THE_WIRE = ("tx_stack_ns", "outer_queue_ns", "delivery_ns", "residual_ns")

# Rounds in which other programs took the CPUs lie far from the others. They get less weight, as in
# the estimate of a multivariate t distribution with this many degrees of freedom. With few rounds
# all have equal weight.
FREEDOM, ROUNDS_TO_WEIGH = 4.0, 8
WARM_PINGS = 2  # the least number of pings of a run besides its first one
LEAST_PATH_NS = 1000.0  # the least time of a host's own code, where the clocks show less
BLOCKS = 5  # parts of each run, where rounds are too few to estimate their own spread


@dataclass(frozen=True)
class Rounds:
    """Medians by round [ns], of the rounds that have all arms but the container's untraced one.

    With fewer than `ROUNDS_TO_RESAMPLE` rounds, a row is a fifth of a round: such rows show how the
    pings vary, but not how the machine drifts from one round to the next.

    Attributes
    ----------
    terms
        `TERMS`, shape (rows, 3).
    corrected
        `bare_metal_rtt_ns` of the container's traced pings.
    native
        RTT of the native untraced pings.
    overhead
        Container - native, both untraced; nan where the container's untraced pings are missing.
    own_path_ns
        Median over the native traced pings of the part of the RTT that is not the wire.
    numbers
        The round of each row.
    weights
        How much each row counts: less, where it is far from the others.
    container_path_ns
        Median over the container's traced pings of the part of the RTT that is neither crossing nor
        wire.
    first
        How much larger the host's part of the first pings is than that of the others; nan where
        there is none.
    """

    terms: Values
    corrected: Values
    native: Values
    overhead: Values
    own_path_ns: float
    numbers: npt.NDArray[np.int64]
    weights: Values
    first: Values
    container_path_ns: float = math.nan

    @property
    def left(self) -> Values:
        """Corrected minus native."""
        return self.corrected - self.native

    @property
    def count(self) -> int:
        """The number of rounds."""
        return len(np.unique(self.numbers))

    @property
    def unit(self) -> str:
        """What a row is: ``rounds``, or ``pings`` of a part of one."""
        return "rounds" if len(self.numbers) == self.count else "pings"

    def only(self, chosen: npt.NDArray[np.bool_]) -> Rounds:
        """Return some of the rows."""
        names = ("terms", "corrected", "native", "overhead", "numbers", "weights", "first")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})


def rounds_of(rtts: pd.DataFrame) -> Rounds:
    """Return the medians of every round of RTTS that has natives, traced and untraced."""
    off = rtts.assign(off_ns=off_the_wire(rtts))
    off["row"] = off["round"] * BLOCKS
    if off["round"].nunique() < statistics.ROUNDS_TO_RESAMPLE:
        off["row"] += _fifths(off)
    first = first_of_run(off)
    warm = off[~first]
    table = _medians(warm)
    table["first"] = _host_part(off[first]) - table["host"]
    table = table.dropna(subset=["corrected", "host", "tracing", "wire", "native"])
    path = values_of(_matched(warm), Series("", NATIVE_RAW.arm, "off_ns", ""))["value_ns"]
    terms = table[["host", "tracing", "wire"]].to_numpy()
    left = (table["corrected"] - table["native"]).to_numpy()
    return Rounds(
        terms,
        table["corrected"].to_numpy(),
        table["native"].to_numpy(),
        table["overhead"].to_numpy(),
        max(float(path.median()), LEAST_PATH_NS) if len(path) else math.nan,
        table.index.to_numpy(np.int64) // BLOCKS,
        weights_of(np.column_stack([terms, left])),
        table["first"].to_numpy(),
        container_path(rtts),
    )


def off_the_wire(rtts: pd.DataFrame) -> pd.Series[float]:
    """Return the part of each ping's RTT that is neither crossing nor wire [ns].

    Where the tracer in the kernel told its packets, send call and delivery are in the residual.
    """
    parts = rtts[list(OFF_THE_WIRE)].astype("Int64")
    by_identity = (rtts["matched_by"] == "identity").fillna(False).astype(bool)
    unseen = parts[["tx_stack_ns", "delivery_ns"]].isna().all(axis=1) & by_identity
    parts.loc[unseen, ["tx_stack_ns", "delivery_ns"]] = 0
    return parts.sum(axis=1, min_count=len(OFF_THE_WIRE))


def container_path(rtts: pd.DataFrame) -> float:
    """Return the median part of a container's corrected RTT that is neither crossing nor wire [ns].

    The same code of this machine runs in that time in every capture. So this time shows how warm
    the machine's caches are, also in a capture without native pings.
    """
    corrected = rtts[(rtts["status"] == "corrected") & ~first_of_run(rtts)]
    path_ns = off_the_wire(corrected).dropna()
    return max(float(path_ns.median()), LEAST_PATH_NS) if len(path_ns) else math.nan


def first_of_run(rtts: pd.DataFrame) -> pd.Series[bool]:
    """Tell which pings are the first of their run; none if that leaves too few pings of a run."""
    runs = rtts.groupby(["round", "arm"], observed=True)["seq"]
    if (runs.transform("size") <= WARM_PINGS).any():
        return pd.Series(False, index=rtts.index)
    return rtts["seq"] == runs.transform("min")


def _medians(off: pd.DataFrame) -> pd.DataFrame:
    """Return the terms and what they belong to, by row."""
    container, native = CORRECTED.arm, NATIVE_RAW.arm
    matched = _matched(off)
    untraced = _median(off, NATIVE.arm, "rtt_ns")
    wire = [_median(matched, arm, "wire_rtt_ns") for arm in (native, container)]
    return pd.DataFrame(
        {
            "corrected": _median(matched, container, "bare_metal_rtt_ns"),
            "host": _host_part(off),
            "tracing": _median(matched, native, "rtt_ns") - untraced,
            "wire": wire[0] - wire[1],
            "native": untraced,
            "overhead": _median(off, UNTRACED.arm, "rtt_ns") - untraced,
        },
        dtype="float64",
    )


def _matched(off: pd.DataFrame) -> pd.DataFrame:
    return off[off["status"].isin(["corrected", "native"])]


def _host_part(off: pd.DataFrame) -> pd.Series[float]:
    native, container = (
        _median(_matched(off), arm, "off_ns") for arm in (NATIVE_RAW.arm, CORRECTED.arm)
    )
    return native - container


def _median(off: pd.DataFrame, arm: str, column: str) -> pd.Series[float]:
    """Return the median of a column in an arm, by row."""
    values = values_of(off, Series("", arm, column, ""))["value_ns"]
    return values.groupby(off["row"].loc[values.index]).median()


def _fifths(rows: pd.DataFrame) -> pd.Series[int]:
    """Return which fifth of its run each ping is in, 0 to 4, in the order of the table."""
    runs = rows.groupby(["round", "arm"], observed=True)["seq"]
    return runs.cumcount() * BLOCKS // runs.transform("size")


def corrected_by_round(rtts: pd.DataFrame) -> Values:
    """Return the median `bare_metal_rtt_ns` [ns] of every round, natives or not."""
    warm = rtts[~first_of_run(rtts)]
    medians = values_of(warm, CORRECTED).groupby("round")["value_ns"].median()
    return np.asarray(medians.to_numpy(np.float64))


def weights_of(rows: Values) -> Values:
    """Return how much each row counts, by how far it is from the others: shape (rows, columns).

    The weights of the maximum likelihood estimate of a multivariate t distribution: K. L. Lange,
    R. J. A. Little, J. M. G. Taylor, "Robust statistical modeling using the t distribution", JASA
    84, 1989.
    """
    n, columns = rows.shape
    weights = np.ones(n)
    if n < ROUNDS_TO_WEIGH:
        return weights
    centre = np.median(rows, axis=0)
    scatter = np.atleast_2d(np.cov(rows, rowvar=False))
    for _ in range(50):
        inverse = np.linalg.pinv(scatter, hermitian=True)
        apart = rows - centre
        distance = np.einsum("ij,jk,ik->i", apart, inverse, apart)
        weights = (FREEDOM + columns) / (FREEDOM + distance)
        centre = weights @ rows / weights.sum()
        scatter = (weights * (rows - centre).T) @ (rows - centre) / n
    return weights


def mean_and_covariance(rows: Values, weights: Values) -> tuple[Values, Values]:
    """Return the weighted mean of at least two rows, and the covariance of that mean."""
    n = len(rows)
    shares = weights / weights.sum()
    mean = shares @ rows
    apart = rows - mean
    return mean, (shares**2 * apart.T) @ apart * n / (n - 1)
