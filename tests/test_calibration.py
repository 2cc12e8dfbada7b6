"""Calibration measures: what confidence says against what comes true."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from hemascope.errors import DataError
from hemascope.uncertainty.calibration import measure_calibration


def cells(n: int, classes: int = 3, seed: int = 0, honest: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them; dishonest ones are too sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    if not honest:
        probs = probs**3 / (probs**3).sum(axis=1, keepdims=True)
    return probs.astype(np.float32), labels


def slow_ece(confidence: np.ndarray, right: np.ndarray, edges: np.ndarray) -> float:
    """The definition, a bin at a time; bins are (low, high]."""
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return total


def test_ece_is_the_sum_over_bins() -> None:
    """As a loop over 15 bins of equal width gives, and for each class with its own probability."""
    probs, labels = cells(700, seed=1)
    found = measure_calibration(probs, labels, resamples=100)
    edges = np.linspace(0, 1, 16)
    confidence, right = probs.max(axis=1).astype(float), probs.argmax(axis=1) == labels
    assert found.ece.value == pytest.approx(slow_ece(confidence, right, edges), abs=1e-6)
    for k, one in enumerate(found.class_ece):
        assert one.value == pytest.approx(slow_ece(probs[:, k].astype(float), labels == k, edges), abs=1e-6)


def test_adaptive_bins_hold_equally_many_cells() -> None:
    """As a loop over 15 groups of the sorted cells gives."""
    probs, labels = cells(600, seed=2)
    confidence, right = probs.max(axis=1).astype(float), probs.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    expected = sum(len(part) / 600 * abs(confidence[part].mean() - right[part].mean()) for part in np.split(order, 15))
    assert measure_calibration(probs, labels, resamples=100).adaptive_ece.value == pytest.approx(expected, abs=1e-6)


def test_brier_and_nll_are_scikit_learns() -> None:
    """The multi-class Brier score is the sum of the classes' own; the log loss is scikit-learn's."""
    probs, labels = cells(400, seed=3)
    found = measure_calibration(probs, labels, resamples=100)
    brier = sum(brier_score_loss(labels == k, probs[:, k]) for k in range(3))
    assert found.brier.value == pytest.approx(brier, rel=1e-5)
    assert found.nll.value == pytest.approx(log_loss(labels, probs.astype(np.float64)), rel=1e-5)


def test_each_class_has_every_measure() -> None:
    """As one class against the rest, or the cells of the class alone; a class without cells has no log loss."""
    probs, labels = cells(600, seed=5)
    labels[labels == 2] = 0
    found = measure_calibration(probs, labels, resamples=100)
    for k in range(3):
        one, mine = probs[:, k].astype(float), labels == k
        order = np.argsort(one, kind="stable")
        gap = sum(len(part) / 600 * abs(one[part].mean() - mine[part].mean()) for part in np.split(order, 15))
        assert found.class_adaptive_ece[k].value == pytest.approx(gap, abs=1e-6)
        assert found.class_brier[k].value == pytest.approx(np.square(one - mine).mean(), rel=1e-5)
        assert found.class_nll[k].n == mine.sum()
        if mine.any():
            loss = found.class_nll[k]
            assert loss.value == pytest.approx(-np.log(one[mine]).mean(), rel=1e-5)
            assert loss.low is not None and loss.high is not None and loss.low < loss.value < loss.high
    assert found.class_nll[2].value is None
    assert sum(one.value or 0 for one in found.class_brier) == pytest.approx(found.brier.value or 0)


def test_honest_probabilities_beat_those_too_sure() -> None:
    """Every measure is smaller for honest probabilities, and the intervals of ECE do not meet."""
    honest, sure = (measure_calibration(*cells(4000, seed=4, honest=h), resamples=200) for h in (True, False))
    assert honest.ece.high is not None and sure.ece.low is not None
    assert honest.ece.high < sure.ece.low
    assert (honest.brier.value or 0) < (sure.brier.value or 0)
    assert (honest.nll.value or 0) < (sure.nll.value or 0)


def test_the_interval_reaches_towards_0_for_honest_probabilities() -> None:
    """In 30 draws of honest probabilities the lower end of ECE is below 0.02 in nearly all: its bias is taken off."""
    lows = [measure_calibration(*cells(1000, seed=seed), resamples=200).ece.low for seed in range(30)]
    assert np.mean([low is not None and low < 0.02 for low in lows]) >= 0.9


def test_bins_count_cells_and_what_was_right() -> None:
    """Two cells at 0.95, one right: the last bin holds them with its exact interval, the others are empty."""
    probs = np.array([[0.95, 0.05], [0.95, 0.05]], dtype=np.float32)
    found = measure_calibration(probs, np.array([0, 1]), bins=10, resamples=100)
    last = found.bins[-1]
    assert (last.accuracy.n, last.accuracy.value) == (2, 0.5)
    assert last.confidence == pytest.approx(0.95)
    assert all(one.accuracy.n == 0 and one.confidence is None for one in found.bins[:-1])


def test_the_same_seed_gives_the_same_intervals() -> None:
    """Twice alike, and another seed differs."""
    data = cells(300, seed=6)
    first, again, other = (measure_calibration(*data, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.ece != other.ece


def test_probabilities_of_0_and_1_are_no_special_case() -> None:
    """Certain and right costs nothing; certain and wrong costs a finite log loss and a Brier score of 2."""
    right = measure_calibration(np.eye(2, dtype=np.float32), np.array([0, 1]), resamples=100)
    wrong = measure_calibration(np.eye(2, dtype=np.float32), np.array([1, 0]), resamples=100)
    assert (right.ece.value, right.brier.value) == (0, 0)
    assert wrong.ece.value == pytest.approx(1) and wrong.brier.value == pytest.approx(2)
    assert np.isfinite(wrong.nll.value or np.inf)


@pytest.mark.parametrize(
    ("probs", "labels"),
    [
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.full((1, 2), np.nan), np.zeros(1, int)),
        (np.full((1, 2), 0.5), np.array([-1])),
        (np.full((1, 2), 0.5), np.array([2])),
        (np.full((2, 2), 0.5), np.array([0])),
    ],
)
def test_what_cannot_be_measured_is_refused(probs: np.ndarray, labels: np.ndarray) -> None:
    """No cells, NaN, labels out of range and shapes that do not fit are DataErrors."""
    with pytest.raises(DataError):
        measure_calibration(probs, labels)
