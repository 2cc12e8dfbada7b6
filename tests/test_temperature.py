"""Temperature scaling: one number, fitted by likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from hemascope.errors import DataError
from hemascope.uncertainty.temperature import LIMITS, fit_temperature, softmax


def drawn(temperature: float, n: int = 20_000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from the softmax at ``temperature``: that is then the right one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes))
    probs = softmax(logits, temperature)
    labels = (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 7.0])
def test_the_temperature_labels_were_drawn_with_is_found(temperature: float) -> None:
    """From 20,000 cells the fitted temperature lies within 5 % of the true one."""
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_is_more_likely() -> None:
    """On a grid of 400 temperatures none has a smaller negative log-likelihood of Platt's targets than the fitted."""
    logits, labels = drawn(1.7, n=300)
    targets = np.full(logits.shape, 1 / 302 / 4)
    targets[np.arange(300), labels] += 301 / 302

    def nll(t: float) -> float:
        return -float((targets * log_softmax(logits / t, axis=1)).sum(axis=1).mean())

    assert nll(fit_temperature(logits, labels)) <= min(nll(t) for t in np.geomspace(*LIMITS, 400)) + 1e-9


def test_cells_all_right_do_not_make_certain() -> None:
    """After 48 cells all named rightly the model may be surer than before, but not surer than one error in 25."""
    logits = np.eye(3)[np.arange(48) % 3] * 2.0
    probs = softmax(logits, fit_temperature(logits, np.arange(48) % 3))
    assert 0.96 < probs.max(axis=1).mean() < 0.9995
    assert fit_temperature(logits, (np.arange(48) + 1) % 3) == pytest.approx(LIMITS[1], rel=0.01)


def test_probabilities_keep_their_order_and_sum_to_one() -> None:
    """Scaling changes no predicted class; 1 is the plain softmax; huge logits do not overflow."""
    logits, _ = drawn(1.0, n=50)
    for temperature in (0.1, 1.0, 10.0):
        probs = softmax(logits, temperature)
        np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(probs.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(softmax(logits), np.exp(log_softmax(logits, axis=1)), rtol=1e-5)
    assert np.isfinite(softmax(np.array([[1e6, -1e6]]))).all()


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((0, 3)), np.zeros(0, int)),
        (np.zeros((2, 3)), np.zeros(3, int)),
        (np.zeros(3), np.zeros(3, int)),
        (np.full((1, 3), np.nan), np.zeros(1, int)),
        (np.zeros((1, 3)), np.array([-1])),
        (np.zeros((1, 3)), np.array([3])),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits: np.ndarray, labels: np.ndarray) -> None:
    """No cells, shapes that do not fit, NaN, unlabelled cells and classes that are not there are DataErrors."""
    with pytest.raises(DataError):
        fit_temperature(logits, labels)
