"""From predicted labels under many corruptions to balanced errors with intervals (numpy only).

Measures as in MedMNIST-C (Di Salvo, Doerrich, Ledig 2024): the error is 1 - balanced accuracy; BE of a corruption is
its mean error over the severities divided by the baseline's, rBE the same after subtracting each one's clean error;
bBE and rBE are means over the corruptions. Cells are resampled once for all conditions together, so that intervals of
means and differences count that the same cells are behind all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.bootstrap import estimate, resample_class_means
from hemascope.results import Estimate
from hemascope.stress_results import Baseline

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """Balanced accuracies of C conditions, and of B resamples of the cells.

    value    float64 (C,)
    samples  float64 (B, C)
    recall   float64 (K, C), NaN for a class without cells
    counts   int64 (K,) cells of each class
    """

    value: Floats
    samples: Floats
    recall: Floats
    recall_samples: Floats
    counts: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Cells behind all of it."""
        return int(self.counts.sum())

    def balanced_accuracy(self, condition: int) -> Estimate:
        """With its interval; where no cell is wrong the exact binomial one."""
        present = self.counts > 0
        return estimate(
            float(self.value[condition]),
            self.samples[:, condition],
            self.n,
            rates=self.recall[present, condition],
            counts=self.counts[present],
        )

    def class_recall(self, condition: int) -> list[Estimate]:
        """Of each class."""
        return [
            estimate(
                float(self.recall[k, condition]),
                self.recall_samples[:, k, condition],
                int(self.counts[k]),
                rates=self.recall[k : k + 1, condition],
                counts=self.counts[k : k + 1],
            )
            for k in range(len(self.counts))
        ]

    def mean(self, conditions: Sequence[int]) -> Estimate:
        """The mean balanced accuracy over some conditions."""
        return estimate(
            float(self.value[list(conditions)].mean()), self.samples[:, list(conditions)].mean(axis=1), self.n
        )


def resample(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int, *, resamples: int, seed: int
) -> Resampled:
    """Balanced accuracy of predicted labels int64 (C, N) against ``labels`` (N,), and of ``resamples`` resamples."""
    correct = (predicted == labels[None]).T.astype(np.float64)
    counts = np.bincount(labels, minlength=classes).astype(np.int64)
    recall = np.full((classes, correct.shape[1]), np.nan)
    for k in np.flatnonzero(counts):
        recall[k] = correct[labels == k].mean(axis=0)
    sizes, means = resample_class_means(correct, labels, classes, resamples, np.random.default_rng(seed))
    means = np.where((sizes > 0)[:, :, None], means, np.nan)
    return Resampled(np.nanmean(recall, axis=0), np.nanmean(means, axis=1), recall, means, counts)


def accuracy_estimate(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> Estimate:
    """Share of cells named rightly, with Wilson's 95 % interval (1927)."""
    n, right = len(labels), int((predicted == labels).sum())
    z = 1.959964
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return Estimate(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


@dataclass(frozen=True)
class RelativeErrors:
    """BE and rBE of one corruption with their samples (B,), NaN where they are not defined."""

    be: float
    rbe: float
    be_samples: Floats
    rbe_samples: Floats


def relative_errors(
    own: Resampled,
    clean: int,
    severities: Sequence[int],
    name: str,
    baseline: Baseline,
    paired: tuple[Resampled, int, Sequence[int]] | None = None,
) -> RelativeErrors:
    """BE and rBE of the corruption whose conditions are ``severities``.

    paired  the baseline on the same cells and resamples, with its columns: its chance counts too then. Otherwise only
            its saved numbers are used, as if they were exact

    A denominator that is not above zero leaves the figure undefined: a baseline that a corruption does not hurt cannot
    say how much another model is hurt.
    """
    columns = list(severities)
    error, error_samples = 1 - own.value[columns].mean(), 1 - own.samples[:, columns].mean(axis=1)
    above = own.value[clean] - own.value[columns].mean()
    above_samples = own.samples[:, clean] - own.samples[:, columns].mean(axis=1)
    if paired is not None:
        other, other_clean, other_columns = paired[0], paired[1], list(paired[2])
        base = 1 - other.value[other_columns].mean()
        base_samples: Floats | float = 1 - other.samples[:, other_columns].mean(axis=1)
        base_above = other.value[other_clean] - other.value[other_columns].mean()
        base_above_samples: Floats | float = other.samples[:, other_clean] - other.samples[:, other_columns].mean(
            axis=1
        )
    else:
        base = base_samples = baseline.errors[name]
        base_above = base_above_samples = baseline.errors[name] - baseline.clean_error
    return RelativeErrors(
        _over(error, base),
        _over(above, base_above),
        _over_samples(error_samples, base_samples),
        _over_samples(above_samples, base_above_samples),
    )


def _over(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _over_samples(part: Floats, whole: Floats | float) -> Floats:
    whole = np.broadcast_to(np.asarray(whole, dtype=np.float64), part.shape)
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def mean_relative(found: Sequence[RelativeErrors], n: int) -> dict[str, Estimate]:
    """bBE and rBE: means over the corruptions for which they are defined."""
    means = {}
    for title, value, samples in (("bBE", "be", "be_samples"), ("rBE", "rbe", "rbe_samples")):
        kept = [one for one in found if not np.isnan(getattr(one, value))]
        if kept:
            mean = float(np.mean([getattr(one, value) for one in kept]))
            drawn = np.array([getattr(one, samples) for one in kept])
            defined = (~np.isnan(drawn)).sum(axis=0)
            total = np.nansum(drawn, axis=0)
            sampled = np.divide(total, defined, out=np.full(total.shape, np.nan), where=defined > 0)
            means[title] = estimate(mean, sampled, n)
    return means


def by_group(
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    members: Mapping[str, NDArray[np.bool_]],
    classes: int,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Balanced accuracy of each group of cells, ``members`` bool (N,); a group without cells is left out."""
    found = {}
    for name, mine in members.items():
        if mine.any():
            found[name] = resample(predicted[None, mine], labels[mine], classes, resamples=resamples, seed=seed)
    return {name: one.balanced_accuracy(0) for name, one in found.items()}
