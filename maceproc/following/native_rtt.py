"""The RTT that this host's own ping would have printed, untraced: `native_rtt_ns`.

`bare_metal_rtt_ns` of a container's ping differs from the RTT of the same ping from the host by

* the **host's part**: a native ping passes the host's netfilter, routing and NAT before its first
  event; the container's ping pays them inside the crossing, which was taken out;
* **tracing outside** the crossings: what the events outside of them took stays in;
* the **wire**: its two ends, the driver and the first reception, are in this machine too, and run
  from warmer caches after a forwarded packet than after a native one.

All three are told by native pings, traced and untraced, of the same rounds. With n the native
traced, u the native untraced and c the container's traced pings, of medians by round:

    host's part     = (tx stack + outer queue + delivery + residual) of n - of c
    tracing outside = RTT of n - RTT of u
    wire            = wire of n - of c
    native RTT      = bare-metal RTT of c + host's part - tracing outside + wire

The sum is exact in a round, and noisy: the RTTs of n and u hold all that network and machine do. So
the mean over the rounds is not taken as it is, but with what is known beforehand, each with
its uncertainty (a normal prior, A. Gelman et al., "Bayesian Data Analysis", chapter 3): tracing
costs the number of its events times what an event costs, and the wires of two pings on the same way
are alike. What is measured well overrules that; what is measured badly is drawn towards it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from maceproc import statistics
from maceproc.calibration import Measured
from maceproc.following.perturbation import CORRECTED, NATIVE, NATIVE_RAW, UNTRACED, Series
from maceproc.statistics import Estimate

Values = npt.NDArray[np.float64]

TERMS = ("host's part", "tracing outside", "wire")
SIGNS = np.array([1.0, -1.0, 1.0])  # of the terms in the native RTT

OFF_THE_WIRE = ("tx_stack_ns", "outer_queue_ns", "delivery_ns", "residual_ns")

# What an event costs outside of crossings, mean and standard deviation [ns], by whether the CPUs
# are kept awake; measured in the lab: docs/native-rtt.md.
EVENT_COST_NS = {True: (450.0, 250.0), False: (1050.0, 400.0)}
# How unlike the terms of two recordings are beyond what their rounds tell, as a share of the host's
# own path, and how unlike the wires beside natives are before anything is measured.
DRIFT_SHARE = np.array([0.03, 0.02, 0.02])
WIRE_SHARE = 0.07
# Rounds in which somebody else took the CPUs stand out by far: they count less, as in the estimate
# of a multivariate t distribution with so many degrees of freedom. With few rounds all count alike.
FREEDOM, ROUNDS_TO_WEIGH = 4.0, 8


BLOCKS = 5  # that each run is cut into where rounds are too few to tell their own spread


@dataclass(frozen=True)
class Rounds:
    """Medians by round [ns], of the rounds that have all arms but the container's untraced one.

    Of fewer than `ROUNDS_TO_RESAMPLE` rounds, a row is a fifth of one: they tell how the pings
    differ, and nothing of drift from one round to the next.

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
        What of a native traced ping's RTT is neither crossing nor wire, median of all.
    numbers
        The round of each row.
    weights
        How much each row counts: less, where it is far from the others.
    """

    terms: Values
    corrected: Values
    native: Values
    overhead: Values
    own_path_ns: float
    numbers: npt.NDArray[np.int64]
    weights: Values

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
        names = ("terms", "corrected", "native", "overhead", "numbers", "weights")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})


def rounds_of(rtts: pd.DataFrame) -> Rounds:
    """Return the medians of every round of RTTS that has natives, traced and untraced."""
    off = rtts.assign(off_ns=rtts[list(OFF_THE_WIRE)].sum(axis=1, min_count=len(OFF_THE_WIRE)))
    off["row"] = off["round"] * BLOCKS
    if off["round"].nunique() < statistics.ROUNDS_TO_RESAMPLE:
        off["row"] += _fifths(off)
    matched = off[off["status"].isin(["corrected", "native"])]

    def medians(arm: str, column: str, rows: pd.DataFrame = matched) -> pd.Series[float]:
        values = Series("", arm, column).of(rows)["value_ns"]
        return values.groupby(rows["row"].loc[values.index]).median()

    container, native = CORRECTED.arm, NATIVE_RAW.arm
    untraced = medians(NATIVE.arm, "rtt_ns", off)
    table = pd.DataFrame(
        {
            "corrected": medians(container, "bare_metal_rtt_ns"),
            "host": medians(native, "off_ns") - medians(container, "off_ns"),
            "tracing": medians(native, "rtt_ns") - untraced,
            "wire": medians(native, "wire_rtt_ns") - medians(container, "wire_rtt_ns"),
            "native": untraced,
            "overhead": medians(UNTRACED.arm, "rtt_ns", off) - untraced,
        },
        dtype="float64",
    )
    table = table.dropna(subset=["corrected", "host", "tracing", "wire", "native"])
    path = Series("", native, "off_ns").of(matched)["value_ns"]
    terms = table[["host", "tracing", "wire"]].to_numpy()
    left = (table["corrected"] - table["native"]).to_numpy()
    return Rounds(
        terms,
        table["corrected"].to_numpy(),
        table["native"].to_numpy(),
        table["overhead"].to_numpy(),
        float(path.median()) if len(path) else math.nan,
        table.index.to_numpy(np.int64) // BLOCKS,
        weights_of(np.column_stack([terms, left])),
    )


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
    scatter = np.cov(rows, rowvar=False)
    for _ in range(50):
        inverse = np.linalg.pinv(scatter, hermitian=True)
        apart = rows - centre
        distance = np.einsum("ij,jk,ik->i", apart, inverse, apart)
        weights = (FREEDOM + columns) / (FREEDOM + distance)
        centre = weights @ rows / weights.sum()
        scatter = (weights * (rows - centre).T) @ (rows - centre) / n
    return weights


def mean_and_covariance(rows: Values, weights: Values) -> tuple[Values, Values]:
    """Return the weighted mean of rows, and the covariance of that mean: at least two rows."""
    n = len(rows)
    shares = weights / weights.sum()
    mean = shares @ rows
    apart = rows - mean
    return mean, (shares**2 * apart.T) @ apart * n / (n - 1)


def _fifths(rows: pd.DataFrame) -> pd.Series[int]:
    """Return which fifth of its run each ping is in, 0 to 4, in the order of the table."""
    runs = rows.groupby(["round", "arm"], observed=True)["seq"]
    return runs.cumcount() * BLOCKS // runs.transform("size")


def corrected_by_round(rtts: pd.DataFrame) -> Values:
    """Return the median `bare_metal_rtt_ns` [ns] of every round, natives or not."""
    medians = CORRECTED.of(rtts).groupby("round")["value_ns"].median()
    return np.asarray(medians.to_numpy(np.float64))


def measure(
    rounds: Rounds, events: float, made_utc_ns: int = 0, capture: str = "", address: str = ""
) -> Measured:
    """Return what the natives of one capture told, from two rows of `Rounds` on.

    `events` is the mean number of events on a native traced ping's path, wire included.
    """
    mean, covariance = mean_and_covariance(rounds.terms, rounds.weights)
    known = ~np.isnan(rounds.overhead)
    return Measured(
        terms_ns=mean.tolist(),
        covariance_ns2=covariance.tolist(),
        rounds=len(rounds.terms),
        events=events,
        own_path_ns=rounds.own_path_ns,
        overhead_ns=float(np.mean(rounds.overhead[known])) if known.any() else None,
        made_utc_ns=made_utc_ns,
        capture=capture,
        address=address,
    )


@dataclass(frozen=True)
class Correction:
    """What to add to a bare-metal RTT, and how well that is known.

    Attributes
    ----------
    terms_ns
        `TERMS`, as estimated, shape (3,).
    covariance_ns2
        Their uncertainty in another capture, shape (3, 3).
    rounds
        Rounds it rests on.
    weights
        How much of each measured term went into the estimate, shape (3, 3); of several captures,
        that of the last.
    """

    terms_ns: Values
    covariance_ns2: Values
    rounds: int
    weights: Values

    @property
    def shift_ns(self) -> float:
        """What to add."""
        return float(SIGNS @ self.terms_ns)

    @property
    def variance_ns2(self) -> float:
        """The variance of `shift_ns`."""
        return float(SIGNS @ self.covariance_ns2 @ SIGNS)


def estimate(measured: Sequence[Measured], *, awake: bool, elsewhere: bool = True) -> Correction:
    """Combine what captures measured with what is known beforehand.

    Each capture tells the terms with the uncertainty of its rounds and, `elsewhere`, with what
    differs from one recording to the next; so does the capture that is to be corrected.
    """
    last = measured[-1]
    drift = np.diag((DRIFT_SHARE * last.own_path_ns) ** 2) if elsewhere else np.zeros((3, 3))
    mean, prior = prior_of(last.events, last.own_path_ns, awake=awake)
    covariance = prior
    weights = np.zeros((3, 3))
    for one in measured:
        # With few rounds the spread itself is known badly: Student's t has this variance.
        wider = (one.rounds - 1) / max(one.rounds - 3, 1)
        spread = np.array(one.covariance_ns2) * wider + drift
        weights = covariance @ np.linalg.inv(covariance + spread)
        mean = mean + weights @ (np.array(one.terms_ns) - mean)
        covariance = covariance - weights @ covariance
    return Correction(mean, covariance + drift, sum(m.rounds for m in measured), weights)


def prior_of(events: float, own_path_ns: float, *, awake: bool) -> tuple[Values, Values]:
    """Return what is known of the terms beforehand: mean and covariance [ns, ns^2]."""
    cost_ns, deviation_ns = EVENT_COST_NS[awake]
    mean = np.array([0.0, events * cost_ns, 0.0])
    deviations = np.array([10 * own_path_ns, events * deviation_ns, WIRE_SHARE * own_path_ns])
    return mean, np.diag(deviations**2)


def add_native_rtt(rtts: pd.DataFrame, correction: Correction | None) -> pd.DataFrame:
    """Return RTTS with `native_rtt_ns`: of every corrected ping; unknown without a correction."""
    if correction is None:
        return rtts.assign(native_rtt_ns=pd.array([pd.NA] * len(rtts), dtype="Int64"))
    return rtts.assign(native_rtt_ns=rtts["bare_metal_rtt_ns"] + round(correction.shift_ns))


def left_by_another(rounds: Rounds, correction: Correction) -> Estimate:
    """Judge a correction by the natives of these rounds, which must not have made it."""
    return _interval(rounds.left, rounds.weights, correction.shift_ns, correction.variance_ns2)


def left_across_rounds(rounds: Rounds, events: float, *, awake: bool) -> Estimate:
    """Judge how well a capture calibrates itself: fit on half of its rounds, judge on the others.

    Pairs of rounds are kept together: one is the other's reverse. With fewer than four rounds there
    is nothing to judge with.
    """
    if rounds.count < 4:
        return statistics.NOTHING
    fit = (rounds.numbers - 1) // 2 % 2 == 0
    if min(fit.sum(), (~fit).sum()) < 2:  # rounds are missing
        fit = np.arange(len(fit)) % 2 == 0
    measured = measure(rounds.only(fit), events)
    correction = estimate([measured], awake=awake, elsewhere=False)
    return left_by_another(rounds.only(~fit), correction)


def median_of_self(rounds: Rounds, measured: Measured, *, awake: bool) -> Estimate:
    """Return the native RTT's median where the capture calibrates itself, with its interval.

    The same rounds make the corrected RTTs and the correction: their errors are taken jointly.
    """
    correction = estimate([measured], awake=awake, elsewhere=False)
    _, prior = prior_of(measured.events, measured.own_path_ns, awake=awake)
    # The estimate is fixed + weights @ mean of the rounds' terms.
    values = rounds.corrected + rounds.terms @ correction.weights.T @ SIGNS
    fixed = SIGNS @ (correction.terms_ns - correction.weights @ np.array(measured.terms_ns))
    rest = SIGNS @ (np.eye(len(TERMS)) - correction.weights)
    return _interval(values, rounds.weights, float(fixed), float(rest @ prior @ rest))


def median_by_another(corrected: Values, correction: Correction) -> Estimate:
    """Return the native RTT's median by another capture's correction, with its interval."""
    weights = np.ones(len(corrected))
    return _interval(corrected, weights, correction.shift_ns, correction.variance_ns2)


def mean_of(values: Values, rounds: Rounds) -> Estimate:
    """Return the mean of one value per row of `rounds`, with its interval; nan is left out."""
    known = ~np.isnan(values)
    found = _interval(values[known], rounds.weights[known], 0.0, 0.0)
    return found._replace(rounds=rounds.count, resampled=rounds.unit)


def _interval(values: Values, weights: Values, shift: float, variance: float) -> Estimate:
    """Return the mean of rounds, plus something else that has a variance of its own."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        mean = float(values.mean()) + shift if n else math.nan
        return Estimate(mean, math.nan, math.nan, n, "nothing", math.nan)
    found, covariance = mean_and_covariance(values[:, None], weights)
    mean, own = float(found[0]) + shift, float(covariance[0, 0])
    # Welch and Satterthwaite: only the rounds' variance is an estimate.
    freedom = (n - 1) * ((own + variance) / own) ** 2 if own else 1e6
    error = math.sqrt(own + variance)
    reach, one_sided = (
        float(t.ppf(level, freedom)) * error
        for level in ((1 + statistics.CONFIDENCE) / 2, statistics.CONFIDENCE)
    )
    return Estimate(mean, mean - reach, mean + reach, n, "rounds", abs(mean) + one_sided)
