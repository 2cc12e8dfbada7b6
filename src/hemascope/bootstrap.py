"""Resampling behind every interval: counts, means by class, percentiles, and what to do when nothing varies.

All intervals are 95 % percentile intervals of the case bootstrap (Efron and Tibshirani, 1993): N cases are drawn
from the N at hand with replacement, and the metric is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hemascope.results import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TAIL = 0.025
"""What a 95 % interval leaves out on each side."""

GROUPS = 5000
"""Classes with more cases than this are resampled in this many random groups of cases."""

CHUNK = 4_000_000
"""Most numbers held at once while resampling: 32 MB of float64."""

_EQUAL = 1e-9


def resample_counts(counts: Ints, resamples: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Resampled counts of C kinds of cases, int64 (chunk, C) at a time, ``resamples`` rows in all.

    Drawing N cases with replacement and counting kinds is one multinomial draw, so this is the exact case
    bootstrap of anything that depends on the counts alone, at a price that does not grow with N.
    """
    total = int(counts.sum())
    filled = np.flatnonzero(counts)
    rows = max(1, CHUNK // max(1, counts.size))
    for start in range(0, resamples, rows):
        drawn = np.zeros((min(rows, resamples - start), counts.size), dtype=np.int64)
        if total:
            drawn[:, filled] = rng.multinomial(total, counts[filled] / total, size=len(drawn))
        yield drawn


def resample_weights(draws: Ints, cases: int, rng: np.random.Generator) -> Ints:
    """How often each of ``cases`` cases is drawn: int64 (B, cases), row b holding ``draws[b]`` draws."""
    rows = np.repeat(np.arange(len(draws), dtype=np.int64) * cases, draws)
    drawn = rng.integers(0, cases, size=rows.size, dtype=np.int64)
    return np.bincount(rows + drawn, minlength=len(draws) * cases).reshape(len(draws), cases).astype(np.int64)


def resample_class_means(
    values: Floats, labels: Ints, classes: int, resamples: int, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """Class sizes and means by class in each resample: int64 (B, K) and float64 (B, K, C) for values (N, C).

    The class sizes are drawn first (multinomial), then the cases within each class: together the case
    bootstrap. A class of more than GROUPS cases is cut at random into GROUPS groups of equal size (give or take
    one case), and groups are drawn instead. The variance stays unbiased, and a few extreme cases still come and go
    one by one; the width of the interval errs by about sqrt(1 / (2 GROUPS)), 1 %, below the 3 % that a thousand
    resamples leave to chance. The mean of a class with no draw is 0.
    """
    sizes = np.bincount(labels, minlength=classes).astype(np.int64)
    drawn_sizes = np.concatenate(list(resample_counts(sizes, resamples, rng)))
    means = np.zeros((resamples, classes, values.shape[1]))
    for k in np.flatnonzero(sizes):
        members = values[labels == k]
        groups = min(len(members), GROUPS)
        starts = np.arange(groups) * len(members) // groups
        held = np.diff(starts, append=len(members)).astype(np.float64)
        if groups < len(members):
            members = np.add.reduceat(members[rng.permutation(len(members))], starts, axis=0)
        # Rounding to at least one group: a class that was drawn at all must have a mean.
        draws = np.maximum(np.rint(drawn_sizes[:, k] * (groups / sizes[k])), drawn_sizes[:, k] > 0).astype(np.int64)
        rows = max(1, CHUNK // groups)
        for start in range(0, resamples, rows):
            part = draws[start : start + rows]
            weights = resample_weights(part, groups, rng).astype(np.float64)
            # Divided by the cases drawn, not the groups: groups of two and of three must not count alike.
            means[start : start + rows, k] = (weights @ members) / np.maximum(weights @ held, 1.0)[:, None]
    return drawn_sizes, means


def percentile_interval(samples: Floats) -> tuple[Floats, Floats]:
    """The 2.5 % and 97.5 % percentiles over axis 0 of (B,) or (B, C), without NaN; NaN where all are NaN."""
    columns = samples.reshape(len(samples), -1)
    limits = np.full((2, columns.shape[1]), np.nan)
    for c, column in enumerate(columns.T):
        defined = column[~np.isnan(column)]
        if defined.size:
            limits[:, c] = np.percentile(defined, [100 * TAIL, 100 * (1 - TAIL)])
    return limits[0].reshape(samples.shape[1:]), limits[1].reshape(samples.shape[1:])


def lowest_rates(counts: Ints) -> Floats:
    """The success rates (C,) with the lowest mean under which all of ``counts`` (C,) trials still succeed at 2.5 %.

    With one count n this is the Clopper-Pearson limit 0.025 ** (1 / n). With several the limit holds for all
    together, not for each: minimise the sum of r under sum(n log r) >= log 0.025. The problem is convex; its
    solution is r = min(1, s n) with one scale s, found by bisection. A rate with no trial can be anything: 0.
    """
    tried = counts[counts > 0].astype(np.float64)
    rates = np.zeros(counts.shape)
    if not tried.size:
        return rates
    low, high = np.log(TAIL) / tried.min() - np.log(tried.max()), -np.log(tried.min())
    for _ in range(100):
        middle = (low + high) / 2
        likelihood = (tried * np.minimum(0.0, middle + np.log(tried))).sum()
        low, high = (middle, high) if likelihood < np.log(TAIL) else (low, middle)
    rates[counts > 0] = np.minimum(1.0, np.exp(high) * tried)
    return rates


def extreme_limits(rates: Floats, counts: Ints) -> tuple[float, float]:
    """Limits of the mean of ``rates`` (C,), each 0 or 1 in all of ``counts`` (C,) trials, that are not a point."""
    lower, upper = rates.astype(np.float64).copy(), rates.astype(np.float64).copy()
    perfect, hopeless = rates >= 1.0 - _EQUAL, rates <= _EQUAL
    lower[perfect] = lowest_rates(counts[perfect])
    upper[hopeless] = 1.0 - lowest_rates(counts[hopeless])
    return float(lower.mean()), float(upper.mean())


def estimate(
    value: float, samples: Floats, n: int, *, rates: Floats | None = None, counts: Ints | None = None
) -> Estimate:
    """``value`` with the percentile interval of its resamples (B,), widened where needed to hold the value.

    A resample of a perfect score is perfect again, so the bootstrap would claim certainty after five cells as after
    five thousand. Where all resamples agree and ``value`` is a mean of ``rates`` (C,) over ``counts`` (C,) cases, all 0
    or 1, the exact binomial limit (see ``lowest_rates``) is given instead; otherwise no interval.
    """
    if np.isnan(value):
        return Estimate(value=None, n=n)
    bottom, top = percentile_interval(samples)
    low, high = min(float(bottom), value), max(float(top), value)
    if np.isnan(bottom):
        return Estimate(value=value, n=n)
    if high - low < _EQUAL:
        if rates is None or counts is None or not rates.size:
            return Estimate(value=value, n=n)
        low, high = extreme_limits(rates, counts)
        low, high = min(low, value), max(high, value)
        if high - low < _EQUAL:
            return Estimate(value=value, n=n)
    return Estimate(value=value, low=low, high=high, n=n)
