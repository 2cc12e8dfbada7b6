"""Metrics against scikit-learn, and intervals against what they promise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from hemascope import bootstrap, metrics
from hemascope.errors import DataError

Cells = tuple[NDArray[np.float32], NDArray[np.int64]]


def cells(n: int, classes: int, seed: int = 0, skill: float = 1.5, decimals: int | None = None) -> Cells:
    """Random labels and softmax probabilities that know something; few decimals make ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), labels] += skill
    if decimals is not None:
        scores = np.round(scores, decimals)
    probs = np.exp(scores)
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32), labels


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 2**31))
def test_confusion_metrics_agree_with_scikit_learn(n: int, classes: int, seed: int) -> None:
    """Every confusion-based metric equals scikit-learn's, absent and never-predicted classes included."""
    probs, labels = cells(n, classes, seed)
    predicted = probs.argmax(1)
    confusion = metrics.confusion_matrix(labels, predicted, classes)
    everything = list(range(classes))
    assert (confusion == sk.confusion_matrix(labels, predicted, labels=everything)).all()
    assert metrics.accuracy(confusion) == pytest.approx(sk.accuracy_score(labels, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about predictions of classes without cases
        assert metrics.balanced_accuracy(confusion) == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    ours = metrics.precision_recall_f1(confusion)
    theirs = sk.precision_recall_fscore_support(labels, predicted, labels=everything, zero_division=np.nan)
    macro = sk.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    for values, expected, mean in zip(ours, theirs[:3], macro[:3], strict=True):
        np.testing.assert_allclose(values, expected)
        assert metrics.macro_average(values, confusion) == pytest.approx(mean)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 2**31), st.sampled_from([0, 1, None]))
def test_auroc_and_log_loss_agree_with_scikit_learn(n: int, classes: int, seed: int, decimals: int | None) -> None:
    """AUROC with and without ties and log loss equal scikit-learn's; a class without both sides is NaN."""
    probs, labels = cells(n, classes, seed, decimals=decimals)
    auroc = metrics.auroc_one_vs_rest(probs, labels)
    for k in range(classes):
        positive = labels == k
        if positive.all() or not positive.any():
            assert np.isnan(auroc[k])
        else:
            assert auroc[k] == pytest.approx(sk.roc_auc_score(positive, probs[:, k]), abs=1e-12)
    exact = probs / probs.sum(1, keepdims=True, dtype=np.float64)
    assert metrics.log_loss(probs, labels) == pytest.approx(
        sk.log_loss(labels, exact, labels=list(range(classes))), abs=1e-5
    )


def test_metrics_broadcast_over_stacks() -> None:
    """A stack of confusion matrices gives the same numbers as each matrix alone."""
    stack = np.random.default_rng(0).integers(0, 4, (7, 3, 3))
    precision, _, f1 = metrics.precision_recall_f1(stack)
    for i, one in enumerate(stack):
        assert metrics.accuracy(stack)[i] == metrics.accuracy(one)
        assert metrics.balanced_accuracy(stack)[i] == metrics.balanced_accuracy(one)
        np.testing.assert_array_equal(precision[i], metrics.precision_recall_f1(one)[0])
        assert metrics.macro_average(f1, stack)[i] == metrics.macro_average(f1[i], one)


def test_a_certain_mistake_costs_a_finite_log_loss() -> None:
    """A probability of zero for the true class is raised to float32's epsilon, as scikit-learn does."""
    probs = np.array([[1.0, 0.0]], dtype=np.float32)
    assert metrics.log_loss(probs, np.array([1])) == pytest.approx(-np.log(np.finfo(np.float32).eps))
    assert metrics.log_loss(probs, np.array([0])) == 0.0


@pytest.mark.parametrize("exact", [True, False])
def test_resampled_auroc_is_the_auroc_of_the_resample(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resampled AUROC equals scikit-learn's weighted one: exactly, or within the bound of the projection."""
    probs, labels = cells(300, 3, seed=4, decimals=1)
    weights: list[NDArray[np.int64]] = []
    original = bootstrap.resample_weights

    def spy(draws: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        weights.append(original(draws, n, rng))
        return weights[-1]

    monkeypatch.setattr(metrics, "resample_weights", spy)
    monkeypatch.setattr(bootstrap, "resample_weights", spy)
    resample = metrics._exact_auroc if exact else metrics._projected_auroc
    placements = metrics._placements(probs, labels)
    samples = resample(probs, labels, placements, 20, np.random.default_rng(1))
    if exact:
        drawn = weights[0]
    else:  # one call a class, over its own cases
        drawn = np.zeros((20, 300), dtype=np.int64)
        for k in range(3):
            drawn[:, labels == k] = weights[k]
    expected = np.array(
        [[sk.roc_auc_score(labels == k, probs[:, k], sample_weight=row) for k in range(3)] for row in drawn]
    )
    if exact:
        np.testing.assert_allclose(samples, expected, atol=1e-12)
    else:
        # What the projection leaves out varies by at most A (1 - A) / (positives * negatives).
        area, positives = metrics.auroc_one_vs_rest(probs, labels), np.bincount(labels)
        left_out = np.sqrt(area * (1 - area) / (positives * (300 - positives)))
        assert (np.sqrt(((samples - expected) ** 2).mean(0)) < left_out).all()
        assert (left_out < 0.15 * expected.std(0)).all()


def test_the_projection_has_the_spread_of_the_exact_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projection and random groups, used for large N, give the exact interval's width within a few percent."""
    probs, labels = cells(3000, 3, seed=2)
    placements = metrics._placements(probs, labels)
    exact = metrics._exact_auroc(probs, labels, placements, 4000, np.random.default_rng(0))
    monkeypatch.setattr(bootstrap, "GROUPS", 600)
    projected = metrics._projected_auroc(probs, labels, placements, 4000, np.random.default_rng(1))
    # 4000 resamples leave 1.6 % of chance in the ratio of two spreads; 600 groups add 2.9 %.
    np.testing.assert_allclose(projected.std(0) / exact.std(0), 1.0, atol=0.1)
    np.testing.assert_allclose(projected.mean(1).std() / exact.mean(1).std(), 1.0, atol=0.1)
    np.testing.assert_allclose(projected.mean(0), exact.mean(0), atol=3e-4)


def test_large_sets_take_the_projection_and_agree_with_the_exact_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crossing EXACT_AUROC changes the interval's ends by less than a tenth of its width, and no value."""
    probs, labels = cells(2000, 4, seed=6)
    exact = metrics.bootstrap_estimates(probs, labels, resamples=3000).metrics["macro_auroc"]
    monkeypatch.setattr(metrics, "EXACT_AUROC", 100)
    projected = metrics.bootstrap_estimates(probs, labels, resamples=3000).metrics["macro_auroc"]
    assert exact.value == projected.value
    assert exact.low is not None and exact.high is not None
    width = exact.high - exact.low
    assert projected.low == pytest.approx(exact.low, abs=width / 10)
    assert projected.high == pytest.approx(exact.high, abs=width / 10)


def test_resampling_counts_equals_resampling_cases() -> None:
    """The multinomial shortcut has the mean and spread of accuracy under case resampling, p and p(1-p)/n."""
    counts = np.array([30, 0, 10])
    drawn = np.concatenate(list(bootstrap.resample_counts(counts, 20_000, np.random.default_rng(0))))
    assert (drawn.sum(1) == 40).all() and (drawn[:, 1] == 0).all()
    share = drawn[:, 0] / 40
    assert share.mean() == pytest.approx(0.75, abs=0.003)
    assert share.var() == pytest.approx(0.75 * 0.25 / 40, rel=0.05)


def test_class_means_have_the_variance_of_the_case_bootstrap() -> None:
    """The overall mean rebuilt from class sizes and means varies as sigma squared over N, in groups or not."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [200, 12_000])
    values = rng.exponential(size=(len(labels), 1)) + labels[:, None]
    sizes, means = bootstrap.resample_class_means(values, labels, 2, 4000, rng)
    assert (sizes.sum(1) == len(labels)).all()
    overall = (sizes * means[:, :, 0]).sum(1) / len(labels)
    assert overall.mean() == pytest.approx(values.mean(), abs=1e-3)
    assert overall.var() == pytest.approx(values.var() / len(labels), rel=0.12)


@pytest.mark.parametrize(("classes", "n"), [(2, 400), (5, 400)])
def test_balanced_accuracy_interval_covers_the_truth(classes: int, n: int) -> None:
    """The 95 % interval of balanced accuracy holds the true value in 92 to 97.5 of 100 simulated test sets."""
    rng = np.random.default_rng(11)
    recalls = np.linspace(0.75, 0.95, classes)
    truth, covered, trials = recalls.mean(), 0, 600
    for trial in range(trials):
        labels = rng.integers(0, classes, n)
        right = rng.random(n) < recalls[labels]
        predicted = np.where(right, labels, (labels + 1) % classes)
        counts = metrics.confusion_matrix(labels, predicted, classes).ravel()
        drawn = np.concatenate(list(bootstrap.resample_counts(counts, 400, np.random.default_rng(trial))))
        low, high = bootstrap.percentile_interval(metrics.balanced_accuracy(drawn.reshape(-1, classes, classes)))
        covered += bool(low <= truth <= high)
    assert 0.92 <= covered / trials <= 0.975


def test_a_perfect_score_is_not_certainty() -> None:
    """Twenty right of twenty have the Clopper-Pearson lower limit 0.832, not an interval without width."""
    labels = np.repeat([0, 1], 10)
    measured = metrics.bootstrap_estimates(np.eye(2, dtype=np.float32)[labels], labels, resamples=200)
    accuracy = measured.metrics["accuracy"]
    assert (accuracy.value, accuracy.high) == (1.0, 1.0)
    assert accuracy.low == pytest.approx(0.025 ** (1 / 20))
    recall = measured.per_class[0]["recall"]
    assert recall.low == pytest.approx(0.025 ** (1 / 10)) and recall.n == 10
    for name in ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auroc"):
        assert measured.metrics[name].low == pytest.approx(0.025 ** (1 / 20)), name
    assert measured.per_class[1]["auroc"].low == pytest.approx(0.025 ** (1 / 10))
    # Log loss has no upper limit that any number of cells could give.
    assert measured.metrics["log_loss"].value == 0.0
    assert measured.metrics["log_loss"].low is None


def test_all_wrong_is_not_certainty_either() -> None:
    """No right answer in ten has the Clopper-Pearson upper limit 0.308."""
    labels = np.repeat([0, 1], 5)
    measured = metrics.bootstrap_estimates(np.eye(2, dtype=np.float32)[1 - labels], labels, resamples=200)
    assert measured.metrics["accuracy"].low == 0.0
    assert measured.metrics["accuracy"].high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_the_joint_limit_is_the_lowest_mean_that_is_still_plausible() -> None:
    """The joint limit meets its constraint exactly, and a fine search over two classes finds no lower mean."""
    counts = np.array([7, 40])
    rates = bootstrap.lowest_rates(counts)
    assert (counts * np.log(rates)).sum() == pytest.approx(np.log(0.025))
    first = np.linspace(0.025 ** (1 / 7), 1.0, 100_001)
    second = np.exp((np.log(0.025) - 7 * np.log(first)) / 40)
    assert rates.mean() == pytest.approx(((first + second) / 2)[second <= 1].min(), abs=1e-6)
    assert bootstrap.lowest_rates(np.array([0])).tolist() == [0.0]


def test_absent_and_never_predicted_classes_have_no_value() -> None:
    """A class without cases has no recall or AUROC, one never predicted no precision; macro means stay defined."""
    probs = np.array([[0.9, 0.1, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0], [0.2, 0.1, 0.7, 0.0]], dtype=np.float32)
    measured = metrics.bootstrap_estimates(probs, np.array([0, 1, 0]), resamples=100)
    assert measured.per_class[1]["precision"].value is None and measured.per_class[1]["recall"].value == 0.0
    assert measured.per_class[2]["recall"].value is None and measured.per_class[2]["auroc"].value is None
    assert measured.per_class[3]["f1"].value is None and measured.per_class[3]["f1"].n == 0
    assert measured.metrics["balanced_accuracy"].value == pytest.approx(0.25)  # classes 0 and 1: 1/2 and 0
    assert measured.metrics["macro_recall"].value == pytest.approx(0.5 / 3)  # class 2 was predicted: counts as 0


def test_the_edges_nothing_one_cell_one_class() -> None:
    """No cell gives no value; one cell, or cells of one class, give values and never a warning or a crash."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = metrics.bootstrap_estimates(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), resamples=100)
        one = metrics.bootstrap_estimates(*cells(1, 3), resamples=100)
        probs, _ = cells(30, 3)
        alike = metrics.bootstrap_estimates(probs, np.zeros(30, np.int64), resamples=100)
    assert all(value.value is None and value.n == 0 for value in nothing.metrics.values())
    assert one.metrics["macro_auroc"].value is None and one.metrics["log_loss"].value is not None
    assert alike.metrics["macro_auroc"].value is None and alike.metrics["accuracy"].low is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**31), st.floats(-3, 6))
def test_every_interval_holds_its_value(n: int, classes: int, seed: int, skill: float) -> None:
    """low <= value <= high always, and limits of shares stay within 0 and 1."""
    measured = metrics.bootstrap_estimates(*cells(n, classes, seed, skill), resamples=100)
    pairs = [*measured.metrics.items(), *(item for one in measured.per_class for item in one.items())]
    for name, value in pairs:
        if value.low is not None:
            assert value.value is not None and value.high is not None
            assert value.low <= value.value <= value.high
            assert name == "log_loss" or (value.low >= 0 and value.high <= 1)


def test_the_seed_decides_the_interval() -> None:
    """The same seed gives the same numbers, another seed others."""
    probs, labels = cells(200, 3)
    first, again, other = (metrics.bootstrap_estimates(probs, labels, resamples=200, seed=s) for s in (5, 5, 6))
    assert first.metrics == again.metrics and first.per_class == again.per_class
    assert first.metrics != other.metrics


def test_bad_arguments_are_refused_in_a_sentence() -> None:
    """NaN probabilities, labels out of range and shapes that do not fit raise DataError, not a wrong number."""
    probs, labels = cells(5, 3)
    with pytest.raises(DataError, match="finite"):
        metrics.bootstrap_estimates(np.full_like(probs, np.nan), labels)
    with pytest.raises(DataError, match="labels must lie in 0 to 2, found -1"):
        metrics.bootstrap_estimates(probs, np.array([-1, 0, 0, 0, 0]))
    with pytest.raises(DataError, match="shape"):
        metrics.bootstrap_estimates(probs, labels[:4])
