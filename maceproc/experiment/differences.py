"""The differences between an experiment's series, and why one may be no evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from maceproc import statistics
from maceproc.experiment.series import DIFFERENCES, SOURCES
from maceproc.experiment.values import SeriesValues
from maceproc.statistics import ROUNDS_TO_RESAMPLE, Estimate, Statistic
from maceproc.units import format_us

STATISTICS: Mapping[str, Statistic] = {
    "median": statistics.median,
    "mean": statistics.mean,
    "sd": statistics.deviation,
}


def _tracers_of(names: Sequence[str], tracers: Sequence[str]) -> Sequence[str]:
    traced = any(SOURCES[name].traced for name in names)
    return tracers if traced else [""]


def series_rows(values: SeriesValues, tracers: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Yield rows of SERIES: every statistic of every series at every level of traffic."""
    for flows in values.levels:
        for name in SOURCES:
            for tracer in _tracers_of([name], tracers):
                samples = list(values.by_round(flows, name, tracer).values())
                samples = [sample for sample in samples if len(sample) > 1]
                rows = values.rows(flows, name, tracer)
                answered = int((rows["rtt_ns"].notna() & (rows["status"] != "duplicate")).sum())
                used = sum(map(len, samples))
                if not used:
                    continue
                effective = sum(map(statistics.effective_size, samples))
                for statistic, function in STATISTICS.items():
                    estimate = statistics.location(samples, function)
                    yield (flows, name, tracer, statistic, used, answered, effective, *estimate)


def comparison_rows(values: SeriesValues, tracers: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Yield rows of COMPARISONS: every difference of medians and of means at every level."""
    for flows in values.levels:
        for name, terms in DIFFERENCES.items():
            for tracer in _tracers_of([series for series, _ in terms], tracers):
                refused = _refusal(values, flows, terms, tracer)
                for statistic in ("median", "mean"):
                    found = contrast(values, flows, terms, tracer, STATISTICS[statistic])
                    if found.rounds:
                        told = refused(found)
                        yield (flows, name, tracer, statistic, *found, told)


def contrast(
    values: SeriesValues,
    flows: int,
    terms: Sequence[tuple[str, int]],
    tracer: str,
    statistic: Statistic = statistics.median,
) -> Estimate:
    """Estimate a signed sum of series, from the rounds that have all of these series."""
    sums = sums_by_round(values, flows, terms, tracer, statistic)
    if len(sums) < ROUNDS_TO_RESAMPLE and len(terms) == 2:
        first, second = (values.by_round(flows, series, tracer) for series, _ in terms)
        return statistics.difference([(first[n], second[n]) for n in sums], statistic)
    return statistics.estimate_rounds(np.array(list(sums.values())))


def sums_by_round(
    values: SeriesValues,
    flows: int,
    terms: Sequence[tuple[str, int]],
    tracer: str,
    statistic: Statistic = statistics.median,
) -> dict[int, float]:
    """Return a signed sum of series [ns] for each round that has all of these series."""
    samples = [(sign, values.by_round(flows, series, tracer)) for series, sign in terms]
    rounds = set.intersection(*(set(by_round) for _, by_round in samples))
    return {
        n: sum(sign * float(statistic(by_round[n])) for sign, by_round in samples)
        for n in sorted(rounds)
    }


def _refusal(
    values: SeriesValues, flows: int, terms: Sequence[tuple[str, int]], tracer: str
) -> Callable[[Estimate], str]:
    """Return a function that says why an estimate is no evidence, or "" where it is.

    An estimate is no evidence when the control drifted, and the arms ran so far apart in time that
    the drift alone can have caused the difference.
    """
    control = terms[-1][0] if not SOURCES[terms[-1][0]].traced else "native untraced"
    medians = {n: np.median(v) for n, v in values.by_round(flows, control).items()}
    starts = pd.DataFrame(
        {series: values.started(flows, series, tracer) for series, _ in terms}
    ).dropna()
    drift = statistics.find_drift(np.array([medians[n] for n in sorted(medians)]))
    if starts.empty or not drift.significant:
        return lambda _: ""
    plus = starts[[series for series, sign in terms if sign > 0]].mean(axis=1)
    minus = starts[[series for series, sign in terms if sign < 0]].mean(axis=1)
    bias_ns = statistics.bias_bound(drift, plus.to_numpy(), minus.to_numpy())
    told = (
        f"{control} changed by {format_us(drift.change_ns, signed=True)} us after round "
        f"{sorted(medians)[drift.at - 1]}: that alone can make {format_us(bias_ns)} us"
    )
    return lambda estimate: told if statistics.refuses(estimate, bias_ns) else ""
