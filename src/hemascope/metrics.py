"""Metrics of a classifier, numpy only: from labels and probabilities to values with bootstrap intervals.

Undefined values are NaN inside this file and None in an Estimate. The conventions are scikit-learn's: balanced
accuracy is the mean recall of the classes that occur in the labels; macro means run over the classes that occur
in the labels or in the predictions, and an undefined precision, recall or F1 counts as 0 there (zero_division=0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hemascope.bootstrap import (
    CHUNK,
    Floats,
    Ints,
    estimate,
    resample_class_means,
    resample_counts,
    resample_weights,
)
from hemascope.errors import DataError
from hemascope.results import Estimate

EXACT_AUROC = 20_000
"""Up to this many cases each resample's AUROC is computed as it stands, above by its projection."""

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "macro_auroc",
    "log_loss",
)
CLASS_METRICS = ("precision", "recall", "f1", "auroc")


@dataclass(frozen=True)
class MetricEstimates:
    """What ``bootstrap_estimates`` measures.

    metrics    METRICS, by name
    per_class  K times CLASS_METRICS, by name
    confusion  int64 (K, K), rows true, columns predicted
    """

    metrics: dict[str, Estimate]
    per_class: list[dict[str, Estimate]]
    confusion: Ints


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """Counts int64 (K, K), rows true, columns predicted, of labels and predictions (N,) in 0 to K - 1.

    Raises DataError where a label or a prediction lies outside, or the two differ in length.
    """
    if labels.shape != predicted.shape:
        raise DataError(f"labels and predictions must be equally many, found {labels.shape} and {predicted.shape}")
    for name, values in (("labels", labels), ("predictions", predicted)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise DataError(f"{name} must lie in 0 to {classes - 1}, found {values.min()} to {values.max()}")
    cells = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def accuracy(confusion: Ints) -> Floats:
    """Share of cases on the diagonal: (...) for confusion (..., K, K). NaN without cases."""
    return _ratio(_diagonal(confusion).sum(-1), confusion.sum((-2, -1)))


def balanced_accuracy(confusion: Ints) -> Floats:
    """Mean recall of the classes with cases: (...) for confusion (..., K, K). NaN without cases."""
    recall = _ratio(_diagonal(confusion), confusion.sum(-1))
    present = ~np.isnan(recall)
    return _ratio(np.where(present, recall, 0.0).sum(-1), present.sum(-1))


def precision_recall_f1(confusion: Ints) -> tuple[Floats, Floats, Floats]:
    """Each class against the rest: three arrays (..., K) for confusion (..., K, K).

    Precision is NaN for a class never predicted, recall for a class without cases, F1 for a class with neither.
    """
    hits, support, predicted = _diagonal(confusion), confusion.sum(-1), confusion.sum(-2)
    return _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted)


def macro_average(values: Floats, confusion: Ints) -> Floats:
    """Mean over classes of ``values`` (..., K), as scikit-learn takes it (see the top of this file): (...)."""
    occurs = confusion.sum(-1) + confusion.sum(-2) > 0
    return _ratio(np.where(occurs, np.nan_to_num(values), 0.0).sum(-1), occurs.sum(-1))


def auroc_one_vs_rest(probs: NDArray[np.floating], labels: Ints) -> Floats:
    """Area under the ROC curve of each class against the rest: (K,), exact, a tie counting one half.

    ``probs`` (N, K), ``labels`` (N,). NaN for a class that has no cases, or all of them.
    """
    return _auroc_of(_placements(probs, labels), labels)


def log_losses(probs: NDArray[np.floating], labels: Ints) -> Floats:
    """Minus the natural logarithm of the true class's probability: float64 (N,).

    Probabilities below float32's epsilon (1.2e-7) are raised to it, as scikit-learn does: one certain mistake costs
    15.9 and never infinity.
    """
    true = probs[np.arange(len(labels)), labels].astype(np.float64)
    # Written as 0 - log so that a certain hit costs 0, not -0.
    return np.asarray(0.0 - np.log(np.clip(true, np.finfo(np.float32).eps, 1.0)))


def log_loss(probs: NDArray[np.floating], labels: Ints) -> float:
    """Mean of ``log_losses``. NaN without cases."""
    return float(log_losses(probs, labels).mean()) if len(labels) else float("nan")


def bootstrap_estimates(
    probs: NDArray[np.float32], labels: Ints, *, resamples: int = 1000, seed: int = 0
) -> MetricEstimates:
    """Every metric of N cases with its 95 % interval, by the case bootstrap.

    ``probs`` (N, K), finite; ``labels`` (N,) in 0 to K - 1. The same seed gives the same intervals.

    Confusion-based metrics are resampled exactly, through the multinomial law of the K * K cells. AUROC is
    resampled exactly up to EXACT_AUROC cases; above, through its Hájek projection (see ``_projected_auroc``).
    Resamples in which a class's metric is undefined do not count for that metric. Where no resample differs, as
    after a perfect score, see ``bootstrap.estimate``. ``n`` of an Estimate is the number of cases behind it: for a
    class, the predicted ones (precision), the true ones (recall), either (F1), all (AUROC).
    Raises DataError for shapes that do not fit, NaN, or labels out of range.
    """
    if probs.ndim != 2 or len(probs) != len(labels):
        raise DataError(f"probabilities must have shape ({len(labels)}, classes), found {probs.shape}")
    if not np.isfinite(probs).all():
        raise DataError("probabilities must be finite, found NaN or infinity: leave out unreadable images first")
    labels = np.asarray(labels, dtype=np.int64)
    n, classes = probs.shape
    predicted = probs.argmax(axis=1) if n else np.zeros(0, dtype=np.int64)
    confusion = confusion_matrix(labels, predicted, classes)
    rng = np.random.default_rng(seed)

    value = _confusion_metrics(confusion)
    samples = {name: np.zeros((resamples, *np.shape(measured))) for name, measured in value.items()}
    done = 0
    for drawn in resample_counts(confusion.ravel(), resamples, rng):
        for name, part in _confusion_metrics(drawn.reshape(-1, classes, classes)).items():
            samples[name][done : done + len(drawn)] = part
        done += len(drawn)

    placements = _placements(probs, labels)
    value["auroc"] = _auroc_of(placements, labels)
    resample_auroc = _exact_auroc if n <= EXACT_AUROC else _projected_auroc
    samples["auroc"] = resample_auroc(probs, labels, placements, resamples, rng)
    value["macro_auroc"], samples["macro_auroc"] = _mean_defined(value["auroc"]), _mean_defined(samples["auroc"])

    value["log_loss"] = np.asarray(log_loss(probs, labels))
    drawn_sizes, means = resample_class_means(log_losses(probs, labels)[:, None], labels, classes, resamples, rng)
    samples["log_loss"] = (drawn_sizes * means[:, :, 0]).sum(1) / max(n, 1)

    support, columns = confusion.sum(1), confusion.sum(0)
    behind = {
        "precision": columns,
        "recall": support,
        "f1": support + columns - np.diagonal(confusion),
        # A perfect AUROC is at least this many separate pairs, each of a positive and a negative, in right order.
        "auroc": np.minimum(support, n - support),
    }
    occurs = support + columns > 0
    limits = {f"macro_{name}": (np.nan_to_num(value[name])[occurs], behind[name][occurs]) for name in behind}
    defined = ~np.isnan(value["auroc"])
    limits["macro_auroc"] = value["auroc"][defined], behind["auroc"][defined]
    limits["accuracy"] = np.atleast_1d(value["accuracy"]), np.array([n])
    limits["balanced_accuracy"] = value["recall"][support > 0], support[support > 0]
    metrics = {}
    for name in METRICS:
        rates, counts = limits.get(name, (None, None))
        metrics[name] = estimate(float(value[name]), samples[name], n, rates=rates, counts=counts)
    per_class = [
        {
            name: estimate(
                float(value[name][k]),
                samples[name][:, k],
                n if name == "auroc" else int(behind[name][k]),
                rates=value[name][k : k + 1],
                counts=behind[name][k : k + 1],
            )
            for name in CLASS_METRICS
        }
        for k in range(classes)
    ]
    return MetricEstimates(metrics, per_class, confusion)


def _diagonal(confusion: Ints) -> Ints:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Floats:
    """part / whole, NaN where whole is 0."""
    result = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=result, where=np.asarray(whole) > 0))


def _mean_defined(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def _confusion_metrics(confusion: Ints) -> dict[str, Floats]:
    """All metrics of confusion (..., K, K) that need nothing else, by name."""
    precision, recall, f1 = precision_recall_f1(confusion)
    return {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "macro_precision": macro_average(precision, confusion),
        "macro_recall": macro_average(recall, confusion),
        "macro_f1": macro_average(f1, confusion),
    }


def _placements(probs: NDArray[np.floating], labels: Ints) -> Floats:
    """For each case and class, the share of the other side it is in right order with: float64 (N, K).

    A positive is compared with all negatives, a negative with all positives, a tie counting one half; by midranks
    (Sun and Xu, 2014, a fast form of DeLong et al., 1988). NaN for a class that has no cases, or all of them.
    """
    result = np.full(probs.shape, np.nan)
    for k in range(probs.shape[1]):
        positive = labels == k
        positives, negatives = int(positive.sum()), int((~positive).sum())
        if not positives or not negatives:
            continue
        scores = probs[:, k]
        ranks = rankdata(scores)
        result[positive, k] = (ranks[positive] - rankdata(scores[positive])) / negatives
        result[~positive, k] = 1.0 - (ranks[~positive] - rankdata(scores[~positive])) / positives
    return result


def _auroc_of(placements: Floats, labels: Ints) -> Floats:
    """The AUROC of each class (K,): the mean placement of its own cases."""
    classes = placements.shape[1]
    own = placements[np.arange(len(labels)), labels]
    return _ratio(np.bincount(labels, own, minlength=classes), np.bincount(labels, minlength=classes))


def _exact_auroc(
    probs: NDArray[np.float32], labels: Ints, placements: Floats, resamples: int, rng: np.random.Generator
) -> Floats:
    """The AUROC of each class in each resample: (B, K). Each class is sorted once; a resample only weighs."""
    n, classes = probs.shape
    result = np.full((resamples, classes), np.nan)
    plans = []
    for k in range(classes):
        own = np.flatnonzero(labels == k)
        rest = np.flatnonzero(labels != k)
        if own.size and rest.size:
            rest = rest[np.argsort(probs[rest, k], kind="stable")]
            # How many negatives lie below each positive, and how many not above it: the difference are ties.
            below = np.searchsorted(probs[rest, k], probs[own, k], side="left")
            through = np.searchsorted(probs[rest, k], probs[own, k], side="right")
            plans.append((k, own, rest, below, through))
    rows = max(1, min(64, CHUNK // max(1, n)))
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        # Cases first, so that every step below runs along contiguous memory.
        weights = np.ascontiguousarray(resample_weights(np.full(stop - start, n), n, rng).T.astype(np.int32))
        for k, own, rest, below, through in plans:
            cumulated = np.zeros((len(rest) + 1, stop - start), dtype=np.int32)
            np.cumsum(weights[rest], axis=0, out=cumulated[1:])
            positive = weights[own].astype(np.float64)
            ordered = (positive * (cumulated[below] + cumulated[through])).sum(0)
            result[start:stop, k] = _ratio(ordered, 2.0 * positive.sum(0) * cumulated[-1])
    return result


def _projected_auroc(
    probs: NDArray[np.float32], labels: Ints, placements: Floats, resamples: int, rng: np.random.Generator
) -> Floats:
    """The AUROC of each class in each resample, (B, K), by its Hájek projection, at a price that hardly grows with N.

    AUROC is a two-sample U-statistic: mean placement of the positives, plus that of the negatives, less the
    value itself, up to a term whose variance is smaller by a factor of the larger side's size. Above
    EXACT_AUROC cases that is less than one part in ten thousand.
    """
    n, classes = probs.shape
    value = _auroc_of(placements, labels)
    sizes, means = resample_class_means(np.nan_to_num(placements), labels, classes, resamples, rng)
    sums = means * sizes[:, :, None]
    own = np.diagonal(sums, axis1=1, axis2=2)
    projected = _ratio(own, sizes) + _ratio(sums.sum(1) - own, n - sizes) - value
    return np.asarray(np.clip(projected, 0.0, 1.0))
