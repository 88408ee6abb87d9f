"""The RTT that this host's own ping would have printed, untraced: `native_rtt_ns`.

`bare_metal_rtt_ns` of a container's ping differs from the RTT of the same ping from the host by

* the **host's part**: a native ping passes the host's netfilter, routing and NAT before its first
  event; the container's ping pays them inside the crossing, which was taken out;
* **tracing outside** the crossings: the time that events outside of the crossings cost is still in
  the bare-metal RTT;
* the **wire**: its two ends, the driver and the first reception, are in this machine too, and run
  from warmer caches after a forwarded packet than after a native one.

Native pings of the same rounds, traced and untraced, tell all three. Let n be the native traced
pings, u the native untraced pings, and c the container's traced pings. With medians by round:

    host's part     = (tx stack + outer queue + delivery + residual) of n - of c
    tracing outside = RTT of n - RTT of u
    wire            = wire of n - of c
    native RTT      = bare-metal RTT of c + host's part - tracing outside + wire

The sum is exact in each round, but noisy: the RTTs of n and u vary with network and machine. So the
mean over the rounds is combined with prior knowledge, each weighted by its uncertainty (a normal
prior, A. Gelman et al., "Bayesian Data Analysis", chapter 3). Two things are known beforehand. The
cost of tracing is the number of events times the cost of one event, and an event costs more where
the machine's own code takes longer, because both run from the same cold caches. And the wires of
two pings on the same path take about the same time, except where the other end of the wire is in
this kernel too: then next to nothing is assumed. A precise measurement outweighs the prior; an
imprecise one is drawn towards it.

All three terms are time in this machine's own code, which takes longer the colder its caches are.
So the measurement of another capture is scaled by the ratio of the times that the container's own
code takes in the two captures.

The host's part of the first ping of a run is larger, because its caches are cold. The additional
time is estimated in the same way, and added to that ping alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.calibration import Measured
from maceproc.following.native_rounds import (
    SIGNS,
    TERMS,
    Rounds,
    first_of_run,
    mean_and_covariance,
    weights_of,
)
from maceproc.statistics import Estimate, Values

# What an event costs outside of crossings: so much, and a share of the host's own path; and the
# standard deviation, as a share of that. Measured in the lab: docs/native-rtt.md.
EVENT_COST_NS, EVENT_COST_SHARE, EVENT_COST_DEVIATION = 250.0, 0.02, 0.35
# How unlike the terms of two recordings are beyond what their rounds tell: so much, and a share of
# the host's own path. How unlike the wires of containers and natives are, before anything is
# measured, as a share of it: of a wire that leads out of this kernel, and of one that does not.
DRIFT_NS, DRIFT_SHARE = 500.0, 0.04
WIRE_SHARE, WIRE_SHARE_WITHIN = 0.07, 0.3
# The same of what first pings have more, beforehand, and from one recording to the next.
FIRST_SHARE, FIRST_DRIFT_SHARE = 0.5, 0.25
MOST_WARMTH = 3.0
LEAST_FIRST = 3  # rounds whose first ping was seen in both places


def measure(
    rounds: Rounds,
    events: float,
    *,
    wire_within: bool = False,
    made_utc_ns: int = 0,
    capture: str = "",
    address: str = "",
) -> Measured:
    """Return what the native pings of one capture measure; needs two rows of `Rounds` or more.

    `events` is the mean number of events on a native traced ping's path, wire included.
    `wire_within` says that the other end of the wire is in this kernel.
    """
    mean, covariance = mean_and_covariance(rounds.terms, rounds.weights)
    known = ~np.isnan(rounds.overhead)
    first = rounds.first[~np.isnan(rounds.first)][:, None]
    first_ns, variance = 0.0, None
    if len(first) >= LEAST_FIRST:
        found, spread = mean_and_covariance(first, weights_of(first))
        first_ns, variance = float(found[0]), float(spread[0, 0])
    return Measured(
        terms_ns=mean.tolist(),
        covariance_ns2=covariance.tolist(),
        rounds=len(rounds.terms),
        events=events,
        wire_within=wire_within,
        own_path_ns=rounds.own_path_ns,
        container_path_ns=None
        if math.isnan(rounds.container_path_ns)
        else rounds.container_path_ns,
        first_ns=first_ns,
        first_variance_ns2=variance,
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
    first_ns
        What to add to the first ping of a run besides.
    """

    terms_ns: Values
    covariance_ns2: Values
    rounds: int
    weights: Values
    first_ns: float = 0.0

    @property
    def shift_ns(self) -> float:
        """What to add."""
        return float(SIGNS @ self.terms_ns)

    @property
    def variance_ns2(self) -> float:
        """The variance of `shift_ns`."""
        return float(SIGNS @ self.covariance_ns2 @ SIGNS)


def estimate(
    measured: Sequence[Measured],
    *,
    elsewhere: bool = True,
    container_path_ns: float = math.nan,
) -> Correction:
    """Combine what captures measured with what is known beforehand.

    Each capture tells the terms with the uncertainty of its rounds. With `elsewhere`, another
    capture is corrected: then the variation from one recording to the next is added, for each
    capture that measured and for the one to be corrected. If `container_path_ns` of the capture to
    be corrected is known, the measurements are scaled to it: see `warmth`.
    """
    measured = [_scaled(one, warmth(one, container_path_ns)) for one in measured]
    last = measured[-1]
    drift = np.eye(len(TERMS)) * _drift_ns2(last.own_path_ns) * elsewhere
    mean, prior = prior_of(last)
    covariance = prior
    weights = np.zeros((3, 3))
    for one in measured:
        # With few rounds the variance itself is uncertain: Student's t has this variance.
        wider = (one.rounds - 1) / max(one.rounds - 3, 1)
        spread = np.array(one.covariance_ns2) * wider + drift
        weights = covariance @ np.linalg.inv(covariance + spread)
        mean = mean + weights @ (np.array(one.terms_ns) - mean)
        covariance = covariance - weights @ covariance
    rounds = sum(one.rounds for one in measured)
    return Correction(mean, covariance + drift, rounds, weights, _first_ns(measured))


def warmth(measured: Measured, container_path_ns: float) -> float:
    """Return the ratio of the time that the machine's own code takes now to that in a measurement.

    Both times are those that the container's pings spent outside of crossings and wire. The ratio
    is limited to `MOST_WARMTH` and its inverse; it is 1 where one of the times is not known.
    """
    if measured.container_path_ns is None or math.isnan(container_path_ns):
        return 1.0
    times = container_path_ns / measured.container_path_ns
    return min(max(times, 1 / MOST_WARMTH), MOST_WARMTH)


def _scaled(measured: Measured, times: float) -> Measured:
    covariance = times**2 * np.array(measured.covariance_ns2)
    first = measured.first_variance_ns2
    return msgspec.structs.replace(
        measured,
        terms_ns=[times * term for term in measured.terms_ns],
        covariance_ns2=covariance.tolist(),
        own_path_ns=times * measured.own_path_ns,
        first_ns=times * measured.first_ns,
        first_variance_ns2=None if first is None else times**2 * first,
    )


def _drift_ns2(own_path_ns: float) -> float:
    """Return the variance of a term between recordings [ns^2]."""
    return DRIFT_NS**2 + (DRIFT_SHARE * own_path_ns) ** 2


def _first_ns(measured: Sequence[Measured]) -> float:
    """Return the additional time of first pings [ns], with a prior of 0 as for the terms."""
    own_path_ns = measured[-1].own_path_ns
    precision, total = (FIRST_SHARE * own_path_ns) ** -2, 0.0
    for one in measured:
        if one.first_variance_ns2 is not None:
            weight = 1 / (one.first_variance_ns2 + (FIRST_DRIFT_SHARE * own_path_ns) ** 2)
            precision, total = precision + weight, total + weight * one.first_ns
    return total / precision


def prior_of(measured: Measured) -> tuple[Values, Values]:
    """Return what is known of the terms before they are measured: mean and covariance [ns, ns^2].

    Only the number of events, the host's own path and where the wire ends are used.
    """
    own_path_ns = measured.own_path_ns
    cost_ns = measured.events * (EVENT_COST_NS + EVENT_COST_SHARE * own_path_ns)
    share = WIRE_SHARE_WITHIN if measured.wire_within else WIRE_SHARE
    deviations = np.array([10 * own_path_ns, EVENT_COST_DEVIATION * cost_ns, share * own_path_ns])
    return np.array([0.0, cost_ns, 0.0]), np.diag(deviations**2)


def add_native_rtt(rtts: pd.DataFrame, correction: Correction | None) -> pd.DataFrame:
    """Return RTTS with `native_rtt_ns`: of every corrected ping; unknown without a correction."""
    if correction is None:
        return rtts.assign(native_rtt_ns=pd.array([pd.NA] * len(rtts), dtype="Int64"))
    shift_ns = correction.shift_ns + correction.first_ns * first_of_run(rtts).astype("float64")
    return rtts.assign(native_rtt_ns=rtts["bare_metal_rtt_ns"] + shift_ns.round().astype("int64"))


def left_by_another(rounds: Rounds, correction: Correction) -> Estimate:
    """Judge a correction by the natives of these rounds, which must not have made it."""
    return _interval(rounds.left, rounds.weights, correction.shift_ns, correction.variance_ns2)


def left_across_rounds(rounds: Rounds, own: Measured) -> Estimate:
    """Judge how well a capture calibrates itself: fit on half of its rounds, judge on the others.

    Two successive rounds are kept in the same half, because the second runs the arms in reverse
    order. `own` is what all rounds measured. How rounds vary is taken from all of them: two or
    three that happen to be alike would promise too much. With fewer than four rounds nothing can be
    judged.
    """
    if rounds.count < 4:
        return statistics.NOTHING
    fit = (rounds.numbers - 1) // 2 % 2 == 0
    if min(fit.sum(), (~fit).sum()) < 2:  # rounds are missing
        fit = np.arange(len(fit)) % 2 == 0
    n, judges = len(fit), rounds.only(~fit)
    half = msgspec.structs.replace(
        own,
        terms_ns=mean_and_covariance(rounds.terms[fit], rounds.weights[fit])[0].tolist(),
        covariance_ns2=(n / fit.sum() * np.array(own.covariance_ns2)).tolist(),
    )
    correction = estimate([half], elsewhere=False)
    _, of_all = mean_and_covariance(rounds.left[:, None], rounds.weights)
    left = float(mean_and_covariance(judges.left[:, None], judges.weights)[0][0])
    own_variance = n / len(judges.left) * float(of_all[0, 0])
    found = _interval_around(left + correction.shift_ns, own_variance, n, correction.variance_ns2)
    return found._replace(rounds=len(judges.left))


def median_of_self(rounds: Rounds, measured: Measured) -> Estimate:
    """Return the native RTT's median where the capture calibrates itself, with its interval.

    The same rounds make the corrected RTTs and the correction: their errors are taken jointly.
    """
    correction = estimate([measured], elsewhere=False)
    _, prior = prior_of(measured)
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
    """Return the mean of rounds plus a shift, which has its own variance, with the interval."""
    n = len(values)
    if n < 2:
        mean = float(values.mean()) + shift if n else math.nan
        return Estimate(mean, math.nan, math.nan, n, "nothing", math.nan)
    found, covariance = mean_and_covariance(values[:, None], weights)
    return _interval_around(float(found[0]) + shift, float(covariance[0, 0]), n, variance)


def _interval_around(mean: float, own: float, n: int, variance: float) -> Estimate:
    """Return the interval of a mean [ns] whose variance is `own`, of n rounds, and `variance`."""
    from scipy.stats import t

    # Degrees of freedom by Welch and Satterthwaite: only the variance of the rounds is estimated.
    freedom = (n - 1) * ((own + variance) / own) ** 2 if own else 1e6
    error = math.sqrt(own + variance)
    reach, one_sided = (
        float(t.ppf(level, freedom)) * error
        for level in ((1 + statistics.CONFIDENCE) / 2, statistics.CONFIDENCE)
    )
    return Estimate(mean, mean - reach, mean + reach, n, "rounds", abs(mean) + one_sided)
