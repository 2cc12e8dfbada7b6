"""How far stated confidence lies from what comes true, numpy only, with bootstrap intervals over the cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hemascope.bootstrap import CHUNK, TAIL, Floats, Ints, estimate, resample_weights
from hemascope.errors import DataError
from hemascope.metrics import log_losses
from hemascope.results import Estimate
from hemascope.trust_results import CalibrationMetrics, ReliabilityBin
from hemascope.uncertainty.binomial import proportion

BINS = 15


def measure_calibration(
    probs: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = BINS, resamples: int = 1000, seed: int = 0
) -> CalibrationMetrics:
    """Every measure of ``CalibrationMetrics`` for probabilities (N, K) and labels (N,).

    bins  of confidence: equally wide for ``ece`` and ``class_ece``, of equally many cells for the adaptive ones

    A calibration error is biased upwards, the more the fewer cells: of perfectly honest probabilities it is not 0. A
    resample adds as much again, so the interval is the basic one (Davison and Hinkley 1997), which takes that off; it
    is widened to hold the value. The edges of ``adaptive_ece`` are those of the cells at hand in every resample.
    Raises DataError without cells, for NaN, and for labels outside 0 to K - 1.
    """
    probs, labels = np.asarray(probs), np.asarray(labels)
    if probs.ndim != 2 or len(probs) != len(labels) or not len(labels):
        raise DataError(f"calibration takes probabilities (N, K) and N labels, N at least 1; found {probs.shape}")
    if not np.isfinite(probs).all():
        raise DataError("calibration takes finite probabilities; leave unreadable images out")
    return _measured(probs.astype(np.float64), labels.astype(np.int64), bins, resamples, seed)


def _measured(probs: Floats, labels: Ints, bins: int, resamples: int, seed: int) -> CalibrationMetrics:
    n, classes = probs.shape
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must lie in 0 to {classes - 1}, found {labels.min()} to {labels.max()}")
    if bins < 1:
        raise DataError(f"there must be at least 1 bin, found {bins}")
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    place = _equal_width(confidence, bins)
    truth = np.eye(classes)[labels]
    away = probs - truth
    gaps = [
        _Gaps(confidence - right, place, bins),
        _Gaps(confidence - right, _equal_mass(confidence, bins), bins),
        *(_Gaps(away[:, k], _equal_width(probs[:, k], bins), bins) for k in range(classes)),
        *(_Gaps(away[:, k], _equal_mass(probs[:, k], bins), bins) for k in range(classes)),
    ]
    squares, losses = np.square(away), log_losses(probs, labels)
    # Of all cells: Brier score, log loss, the Brier score of each class. Then sums and sizes of each class.
    columns = np.column_stack([squares.sum(axis=1), losses, squares, losses[:, None] * truth, truth])
    rng = np.random.default_rng(seed)
    errors, drawn = np.empty((resamples, len(gaps))), np.empty((resamples, columns.shape[1]))
    rows = max(1, min(64, CHUNK // n))
    for start in range(0, resamples, rows):
        part = slice(start, min(start + rows, resamples))
        weights = resample_weights(np.full(part.stop - part.start, n), n, rng).astype(np.float64)
        errors[part] = np.stack([one.of(weights) for one in gaps], axis=1)
        drawn[part] = weights @ columns / n
    found = [_basic(float(one.of(np.ones((1, n)))[0]), errors[:, k], n) for k, one in enumerate(gaps)]
    means = [estimate(float(columns[:, k].mean()), drawn[:, k], n) for k in range(2 + classes)]
    sums, sizes = slice(2 + classes, 2 + 2 * classes), slice(2 + 2 * classes, None)
    value = _of_class(columns[:, sums].sum(axis=0), columns[:, sizes].sum(axis=0))
    drawn_values = _of_class(drawn[:, sums], drawn[:, sizes])
    size = np.bincount(labels, minlength=classes).tolist()
    return CalibrationMetrics(
        n=n,
        ece=found[0],
        adaptive_ece=found[1],
        brier=means[0],
        nll=means[1],
        class_ece=found[2 : 2 + classes],
        class_adaptive_ece=found[2 + classes :],
        class_brier=means[2:],
        class_nll=[estimate(float(value[k]), drawn_values[:, k], size[k]) for k in range(classes)],
        bins=[_bin(k, bins, confidence[place == k], right[place == k]) for k in range(bins)],
    )


def _of_class(sums: Floats, sizes: Floats) -> Floats:
    """Means from sums and sizes (…, K); NaN where a class has no cell."""
    return np.asarray(np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=sizes > 0))


class _Gaps:
    """The sum over bins of |sum of confidence - number right| / N, for any weights of the cells."""

    def __init__(self, gap: Floats, place: NDArray[np.int64], bins: int) -> None:
        self._by_bin = csr_array((gap, (np.arange(len(gap)), place)), shape=(len(gap), bins))

    def of(self, weights: Floats) -> Floats:
        """float64 (B,) of weights (B, N), each row summing to N."""
        return np.asarray(np.abs(weights @ self._by_bin).sum(axis=1) / weights.shape[1])


def _equal_width(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each confidence, (low, high]; 0 is in the first."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _equal_mass(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each confidence, of about N / bins cells; equal ones lie together."""
    ordered = np.sort(confidence)
    return np.asarray(np.searchsorted(ordered, confidence, side="left") * bins // len(confidence), dtype=np.int64)


def _basic(value: float, samples: Floats, n: int) -> Estimate:
    low, high = np.quantile(samples, [TAIL, 1 - TAIL])
    return Estimate(value=value, low=max(0.0, min(value, 2 * value - high)), high=max(value, 2 * value - low), n=n)


def _bin(number: int, bins: int, confidence: Floats, right: NDArray[np.bool_]) -> ReliabilityBin:
    return ReliabilityBin(
        low=number / bins,
        high=(number + 1) / bins,
        confidence=float(confidence.mean()) if len(confidence) else None,
        accuracy=proportion(int(right.sum()), len(right)),
    )
