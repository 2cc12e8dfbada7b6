"""The mean over seeds of balanced accuracy, or of a paired difference, with an interval over seeds and cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from hemascope.results import Estimate

Floats = NDArray[np.float64]
LEVEL = 0.95


def over_seeds_and_cells(values: Floats, labels: NDArray[np.int64], *, lowest: float) -> Estimate:
    """Mean over seeds of the mean over classes, with a 95 % interval.

    values  float (S, n): right (1) or wrong (0) of n cells with S seeds, or differences of two such in -1 to 1
    labels  int (n,): the true classes; those without a cell do not count
    lowest  the least possible value, 0 or -1; the largest is 1

    Two things could have come out otherwise: which cells were tested, and what chance did in training. The variance of
    the first is that of a stratified mean of the cells' own means over seeds, of the second that of the seeds' values
    divided by S. Their sum goes with Student's t at Satterthwaite's degrees of freedom (1946), where cells count as
    known exactly and seeds have S - 1. With one seed the interval is over cells alone. A class in which every cell
    gave the same counts as if one more cell in n + 2 had not. Chance in training is partly counted twice, so the
    interval is rather too wide than too narrow.
    """
    seeds, n = values.shape
    classes = np.unique(labels)
    members = [values[:, labels == label] for label in classes]
    per_seed = np.mean([rows.mean(axis=1) for rows in members], axis=0)
    of_cells = sum(_class_variance(rows.mean(axis=0)) for rows in members) / len(classes) ** 2
    of_seeds = float(np.var(per_seed, ddof=1)) / seeds if seeds > 1 else 0.0
    total = of_cells + of_seeds
    freedom = np.inf if of_seeds == 0 else (seeds - 1) * (total / of_seeds) ** 2
    quantile = float(t.ppf(0.5 + LEVEL / 2, freedom)) if np.isfinite(freedom) else float(norm.ppf(0.5 + LEVEL / 2))
    value, reach = float(per_seed.mean()), quantile * float(np.sqrt(total))
    return Estimate(value=value, low=max(lowest, value - reach), high=min(1.0, value + reach), n=n)


def seed_values(values: Floats, labels: NDArray[np.int64]) -> tuple[float, ...]:
    """Each seed's balanced accuracy, or difference: S numbers. ``values`` and ``labels`` as above."""
    means = [values[:, labels == label].mean(axis=1) for label in np.unique(labels)]
    return tuple(float(value) for value in np.mean(means, axis=0))


def _class_variance(means: Floats) -> float:
    """Variance of the mean of one class's cells (n,)."""
    n = len(means)
    observed = float(np.var(means, ddof=1)) / n if n > 1 else 0.0
    if observed > 0:
        return observed
    unseen = 1 / (n + 2)
    return unseen * (1 - unseen) / n
