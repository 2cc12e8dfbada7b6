"""Two models on the same cells."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score

from hemascope.errors import DataError
from hemascope.evaluation import compare
from hemascope.results import Comparison, Predictions

NAMES = ("x", "y", "z")


def model(labels: NDArray[np.int64], skill: float, seed: int, names: tuple[str, ...] = NAMES) -> Predictions:
    """A model that knows the labels as well as ``skill`` says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), len(names))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += skill
    probs = np.exp(logits)
    probs /= probs.sum(1, keepdims=True)
    return Predictions([f"{i}.png" for i in range(len(labels))], names, logits, probs, labels)


def pair(first: Predictions, second: Predictions, resamples: int = 400) -> Comparison:
    return compare(first, second, first_name="first", second_name="second", resamples=resamples)


def labels_of(n: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).choice(3, n, p=[0.6, 0.3, 0.1])


def test_differences_are_second_minus_first() -> None:
    """Values are scikit-learn's, the difference is theirs, and a clearly better model has an interval above zero."""
    labels = labels_of(500)
    first, second = model(labels, 1.0, 1), model(labels, 2.5, 2)
    result = pair(first, second)
    for name, score in (
        ("accuracy", lambda p: float((p == labels).mean())),
        ("balanced_accuracy", lambda p: balanced_accuracy_score(labels, p)),
        ("macro_f1", lambda p: f1_score(labels, p, average="macro")),
    ):
        one, two = score(first.predicted), score(second.predicted)
        assert result.first_metrics[name].value == pytest.approx(one)
        assert result.second_metrics[name].value == pytest.approx(two)
        difference = result.difference[name]
        assert difference.value == pytest.approx(two - one)
        assert difference.low is not None and difference.low > 0
    assert result.difference["log_loss"].high is not None and result.difference["log_loss"].high < 0
    assert result.n == 500 and result.p_value < 1e-6


def test_the_bootstrap_is_paired() -> None:
    """The interval equals that of a plain paired case bootstrap, and is narrower than one with unpaired cells."""
    labels = labels_of(300)
    first = model(labels, 1.5, 1)
    nudged = first.probs.copy()
    nudged[:, 2] *= 1.3  # nearly the same model
    nudged /= nudged.sum(1, keepdims=True)
    second = Predictions(first.ids, NAMES, first.logits, nudged, labels)
    difference = pair(first, second, 4000).difference["balanced_accuracy"]
    rng = np.random.default_rng(9)
    paired, unpaired = [], []
    for _ in range(1500):
        rows, others = rng.integers(0, 300, (2, 300))
        recall = [
            np.mean([(model_.predicted[r][labels[r] == k] == k).mean() for k in range(3)])
            for model_, r in ((first, rows), (second, rows), (second, others))
        ]
        paired.append(recall[1] - recall[0])
        unpaired.append(recall[2] - recall[0])
    low, high = np.percentile(paired, [2.5, 97.5])
    assert difference.low == pytest.approx(low, abs=0.005) and difference.high == pytest.approx(high, abs=0.005)
    apart = np.percentile(unpaired, [2.5, 97.5])
    assert difference.high - difference.low < 0.7 * (apart[1] - apart[0])  # type: ignore[operator]


def test_mcnemar_counts_and_p_value() -> None:
    """The four counts add up to n, and p is the exact two-sided binomial of the discordant cells."""
    labels = labels_of(120)
    first, second = model(labels, 1.0, 3), model(labels, 1.6, 4)
    result = pair(first, second)
    right = first.predicted == labels, second.predicted == labels
    assert result.only_first_correct == (right[0] & ~right[1]).sum()
    assert result.only_second_correct == (right[1] & ~right[0]).sum()
    assert result.both_correct == (right[0] & right[1]).sum()
    total = result.only_first_correct + result.only_second_correct + result.both_correct + result.neither_correct
    assert total == result.n == 120
    discordant = result.only_first_correct + result.only_second_correct
    assert result.p_value == pytest.approx(binomtest(result.only_first_correct, discordant, 0.5).pvalue)


def test_two_models_that_agree_are_not_proved_equal() -> None:
    """Identical models differ by 0 with p = 1 and an interval as wide as so few cells leave open."""
    one = model(np.repeat([0, 1, 2], 10), 1.0, 5)
    result = pair(one, one)
    accuracy = result.difference["accuracy"]
    assert result.p_value == 1.0 and accuracy.value == 0.0
    assert accuracy.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert accuracy.low == pytest.approx(-(1 - 0.025 ** (1 / 30)))
    assert result.difference["log_loss"].value == 0.0 and result.difference["log_loss"].low is None


def test_cells_are_matched_by_id_and_classes_by_name() -> None:
    """Another order of rows and of classes changes nothing; cells of one side only are left out."""
    labels = labels_of(80)
    first, second = model(labels, 1.0, 6), model(labels, 2.0, 7)
    rows, columns = np.random.default_rng(0).permutation(80)[:70], [2, 0, 1]
    assert second.labels is not None
    shuffled = Predictions(
        [second.ids[i] for i in rows],
        tuple(NAMES[k] for k in columns),
        second.logits[rows][:, columns],
        second.probs[rows][:, columns],
        np.array([columns.index(k) for k in labels[rows]]),
    )
    kept = np.sort(rows)
    result = pair(first, shuffled)
    assert result.n == 70
    assert result.first_metrics["accuracy"].value == pytest.approx((first.predicted == labels)[kept].mean())
    assert result.second_metrics["accuracy"].value == pytest.approx((second.predicted == labels)[kept].mean())


def test_unreadable_and_unlabelled_cells_are_left_out() -> None:
    """A cell that either side could not read, or that has no label, is not compared."""
    labels = labels_of(20)
    first, second = model(labels.copy(), 1.0, 6), model(labels.copy(), 2.0, 7)
    assert second.labels is not None
    second.labels[3] = -1
    broken = Predictions(first.ids, NAMES, first.logits, first.probs, first.labels, ["gone"] + [""] * 19)
    assert pair(broken, second).n == 18


def test_what_cannot_be_compared_is_said() -> None:
    """Other classes, no shared cell, contradicting labels, double ids and missing labels raise DataError."""
    labels = labels_of(20)
    first = model(labels, 1.0, 1)
    with pytest.raises(DataError, match="the classes differ"):
        pair(first, model(labels, 1.0, 1, ("x", "y", "w")))
    elsewhere = Predictions([f"b/{i}" for i in range(7)], NAMES, first.logits[:7], first.probs[:7], labels[:7])
    with pytest.raises(DataError, match="no scored cell in common: 20 and 7 cells"):
        pair(first, elsewhere)
    relabelled = Predictions(first.ids, NAMES, first.logits, first.probs, (labels + (np.arange(20) < 4)) % 3)
    with pytest.raises(DataError, match=r"4 of 20 shared cells have different true labels, 0\.png"):
        pair(first, relabelled)
    double = Predictions(["a"] * 20, NAMES, first.logits, first.probs, labels)
    with pytest.raises(DataError, match="two predictions for a"):
        pair(double, first)
    with pytest.raises(DataError, match="no true labels"):
        pair(first, Predictions(first.ids, NAMES, first.logits, first.probs))


def test_one_shared_cell_and_the_seed() -> None:
    """A single cell compares without a crash, and the same seed gives the same comparison."""
    labels = labels_of(50)
    first, second = model(labels, 1.0, 1), model(labels, 1.2, 2)
    one = Predictions(second.ids[:1], NAMES, second.logits[:1], second.probs[:1], labels[:1])
    assert pair(first, one).n == 1
    assert pair(first, second) == pair(first, second)
