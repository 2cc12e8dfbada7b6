"""Exact intervals of a proportion (Clopper and Pearson 1934)."""

from __future__ import annotations

from hemascope.results import Estimate


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the true proportion with probability of at least ``level``, whatever it is.

    Of nothing (n = 0) nothing is known: 0 to 1.
    """
    from scipy.stats import beta  # half a second, which prediction need not wait for

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def proportion(successes: int, n: int) -> Estimate:
    """``successes`` of ``n`` with its exact 95 % interval; no value where n is 0."""
    if n == 0:
        return Estimate(value=None, n=0)
    low, high = clopper_pearson(successes, n)
    return Estimate(value=successes / n, low=low, high=high, n=n)
