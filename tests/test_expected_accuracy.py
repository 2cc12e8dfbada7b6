"""The accuracy to be expected without labels: the papers' estimates, and the error they are said to have."""

from __future__ import annotations

import numpy as np
import pytest

from hemascope.errors import BundleError, DataError
from hemascope.uncertainty.expected_accuracy import (
    METHODS,
    estimate_of,
    expected_accuracy,
    fit_expected_accuracy,
    read_expected_accuracy,
)


def cells(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Honest probabilities of ``n`` cells, the less sure the more noise, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = np.eye(4)[rng.integers(0, 4, n)] * 6 / (1 + noise) + rng.normal(0, 1, (n, 4))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 3)
    return probs, labels


DAMAGED = [cells(400, noise, seed) for seed, noise in enumerate((0.2, 0.5, 1, 2, 3, 5), start=1)]


def test_estimates_are_those_of_the_papers() -> None:
    """By hand: four calibration cells, three right, so ATC's line leaves three above; two new cells."""
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1])
    record = read_expected_accuracy(fit_expected_accuracy(probs, labels, [(probs, labels)]))
    new = np.array([[0.95, 0.05], [0.55, 0.45]])
    assert record.accuracy == 0.75
    assert (probs.max(axis=1) >= record.line).sum() == 3
    assert estimate_of(record, new, "average_confidence") == pytest.approx(0.75)
    assert estimate_of(record, new, "atc") == 0.5
    assert estimate_of(record, new, "doc") == pytest.approx(0.75 + 0.75 - 0.75)


def test_the_method_with_the_smallest_error_is_used() -> None:
    """Where confidence is honest it is chosen; where every confidence is too high by a third, it is not."""
    honest = read_expected_accuracy(fit_expected_accuracy(*cells(1000, 0.3), DAMAGED))
    assert honest.errors[honest.method] == min(honest.errors.values())
    assert honest.errors["average_confidence"] < 0.03
    sure = [(probs**4 / (probs**4).sum(axis=1, keepdims=True), labels) for probs, labels in DAMAGED]
    first = cells(1000, 0.3)
    too_sure = read_expected_accuracy(
        fit_expected_accuracy(first[0] ** 4 / (first[0] ** 4).sum(axis=1, keepdims=True), first[1], sure)
    )
    assert too_sure.method != "average_confidence"


@pytest.mark.parametrize("noise", [0.1, 0.8, 1.5, 4])
def test_the_interval_holds_the_accuracy_of_sets_never_seen(noise: float) -> None:
    """On new sets of milder, equal and heavier noise the true accuracy lies within the interval."""
    record = read_expected_accuracy(fit_expected_accuracy(*cells(1000, 0.3), DAMAGED))
    probs, labels = cells(500, noise, seed=77)
    found = expected_accuracy(record, probs)
    truth = (probs.argmax(axis=1) == labels).mean()
    assert found.low is not None and found.high is not None
    assert found.low <= truth <= found.high
    assert found.n == 500


def test_certain_cells_still_have_an_interval() -> None:
    """Ten cells all certain: the interval is no point, and within 0 to 1."""
    record = read_expected_accuracy(fit_expected_accuracy(*cells(1000, 0.3), DAMAGED))
    found = expected_accuracy(record, np.eye(4)[np.zeros(10, int)])
    assert found.low is not None and found.high is not None
    assert 0 <= found.low < found.high <= 1


def test_what_cannot_be_fitted_or_read_is_refused() -> None:
    """No cells, no damaged sets, and a record with a number missing or out of range."""
    probs, labels = cells(10, 1)
    for args in ((probs[:0], labels[:0], DAMAGED), (probs, labels, [])):
        with pytest.raises(DataError):
            fit_expected_accuracy(*args)
    record = fit_expected_accuracy(probs, labels, DAMAGED)
    for change in ({"accuracy": 2}, {"line": float("nan")}, {"method": "guess"}, {"sets": 0}):
        with pytest.raises(BundleError):
            read_expected_accuracy({**record, **change})
    with pytest.raises(DataError):
        estimate_of(read_expected_accuracy(record), probs[:0], METHODS[0])
