"""Temperature scaling (Guo, Pleiss, Sun, Weinberger 2017): one number that makes probabilities honest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from hemascope.errors import DataError

LIMITS = (0.01, 100.0)
"""A temperature beyond them comes from cells that are nearly all wrong, or logits without a scale."""


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities float32 (N, K) of logits (N, K) divided by ``temperature``."""
    return np.asarray(scipy_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1), dtype=np.float32)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The temperature of the least mean negative log-likelihood of labels (N,) under logits (N, K).

    The targets are Platt's (1999): 1 in N + 2 of each is spread over all classes. A few cells that are all named
    rightly would otherwise ask for a temperature of 0, and every cell to come would be called certain. Raises DataError
    without cells, for logits that are not finite, and for a label outside 0 to K - 1.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise DataError(f"a temperature takes logits (N, K) and N labels, N at least 1; found {logits.shape}")
    if not np.isfinite(logits).all():
        raise DataError("a temperature takes finite logits; leave unreadable images out")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(f"labels must lie in 0 to {logits.shape[1] - 1}, found {labels.min()} to {labels.max()}")
    n, classes = logits.shape
    targets = np.full(logits.shape, 1 / (n + 2) / classes)
    targets[np.arange(n), labels] += 1 - 1 / (n + 2)

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum(axis=1).mean())

    low, high = np.log(LIMITS)
    # The loss is convex in 1 / temperature, so it has one dip in the logarithm as well.
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(best.x))
