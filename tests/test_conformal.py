"""Prediction sets: the cuts are those of the papers, and the coverage is what was promised."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hemascope.errors import DataError
from hemascope.uncertainty.binomial import clopper_pearson, proportion
from hemascope.uncertainty.conformal import (
    ConformalCuts,
    fit_conformal,
    measure_coverage,
    nonconformity_scores,
    prediction_sets,
)

METHODS = ("lac", "aps", "raps")


def cells(n: int, classes: int = 5, seed: int = 0, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float64 (n, classes) and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (n, classes))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    labels = (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return probs, labels


class Fixed:
    """What MAPIE takes for a fitted classifier: it gives back the probabilities it is handed as features."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)

    def fit(self, x: Any, y: Any) -> Fixed:
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x).argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def by_mapie(method: str, level: float, calibration: Any, probs: np.ndarray) -> np.ndarray:
    """The sets of another's code, bool (N, K)."""
    classification = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, Fixed, BaseEstimator):
        def __init__(self, classes: int = 5) -> None:
            self.classes = classes
            self.classes_ = np.arange(classes)

    class Unmoved(np.random.RandomState):
        """MAPIE randomises the scores of APS; ours are not, which is its method with a draw of 0."""

        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
            return np.zeros(size)

    conformal = classification.SplitConformalClassifier(
        Given(probs.shape[1]), confidence_level=level, conformity_score=method, prefit=True, random_state=Unmoved(0)
    )
    conformal.conformalize(*calibration)
    options = {} if method == "lac" else {"conformity_score_params": {"include_last_label": False}}
    return np.asarray(conformal.predict_set(probs, **options)[1][:, :, 0], dtype=bool)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_sets_are_those_of_mapie(method: Any, level: float) -> None:
    """For 400 calibration and 300 new cells every set is the one that MAPIE's own code gives."""
    calibration, new = cells(400, seed=1), cells(300, seed=2)[0]
    cuts = fit_conformal(*calibration, method=method, level=level)
    ours = prediction_sets(new, cuts, never_empty=method == "aps")  # MAPIE fills the empty sets of APS, not of LAC
    theirs = by_mapie(method, level, calibration, new)
    np.testing.assert_array_equal(ours, theirs)


def test_lac_is_one_minus_the_probability() -> None:
    """By hand: nine calibration cells at a level of 0.8 have the eighth smallest score as their cut."""
    probs = np.array([[1 - k / 10, k / 10] for k in range(1, 10)])
    cuts = fit_conformal(probs, np.zeros(9, int), method="lac", level=0.8)
    assert cuts.cuts == pytest.approx((0.8,))
    assert prediction_sets(np.array([[0.2, 0.8], [0.19, 0.81]]), cuts).tolist() == [[True, True], [False, True]]


def test_aps_sums_down_to_the_class_and_raps_adds_its_penalty() -> None:
    """Scores of a cell with 0.5, 0.3, 0.2: cumulated sums in order; RAPS adds 0.1 from the second class on."""
    probs = np.array([[0.3, 0.5, 0.2]])
    np.testing.assert_allclose(nonconformity_scores(probs, "aps"), [[0.8, 0.5, 1.0]])
    np.testing.assert_allclose(nonconformity_scores(probs, "raps", free=1, penalty=0.1), [[0.9, 0.5, 1.2]])


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_promise_is_kept_on_average(method: Any, by_class: bool) -> None:
    """Over 200 draws of 200 calibration and 200 new cells, mean coverage is at least 0.9, by class if promised."""
    hits, class_hits = [], []
    for seed in range(200):
        probs, labels = cells(400, seed=seed)
        cuts = fit_conformal(probs[:200], labels[:200], method=method, level=0.9, by_class=by_class)
        hit = prediction_sets(probs[200:], cuts, never_empty=False)[np.arange(200), labels[200:]]
        hits.append(hit.mean())
        class_hits.append(hit[labels[200:] == 0].mean())
    assert np.mean(hits) >= 0.895
    if method == "lac":
        assert np.mean(hits) <= 0.92  # not more than promised either: LAC's scores have no ties here
    if by_class:
        assert np.mean(class_hits) >= 0.89


@given(seed=st.integers(0, 10_000), method=st.sampled_from(METHODS), by_class=st.booleans())
@settings(max_examples=40, deadline=None)
def test_more_is_promised_with_larger_sets(seed: int, method: Any, by_class: bool) -> None:
    """A set at a higher level holds all of the set at a lower one, whatever the cells."""
    probs, labels = cells(60, seed=seed)
    sets = [
        prediction_sets(
            probs, fit_conformal(probs, labels, method=method, level=level, by_class=by_class), never_empty=False
        )
        for level in (0.5, 0.8, 0.95, 0.99)
    ]
    for small, large in pairwise(sets):
        assert (large | ~small).all()


def test_too_few_cells_put_the_class_into_every_set() -> None:
    """Eight cells have no cut at 90 %: it is None, survives JSON, and every set is full; with nine there is one."""
    probs, labels = cells(9, seed=3)
    few = fit_conformal(probs[:8], labels[:8], method="lac", level=0.9)
    assert few.cuts == (None,)
    again = ConformalCuts.model_validate_json(few.model_dump_json())
    assert again == few and prediction_sets(probs, again).all()
    assert fit_conformal(probs, labels, method="lac", level=0.9).cuts[0] is not None


def test_a_class_without_calibration_cells_is_never_ruled_out() -> None:
    """By class, the class that no calibration cell has is in every set; the others have cuts of their own."""
    probs, labels = cells(400, seed=4)
    keep = labels != 2
    cuts = fit_conformal(probs[keep], labels[keep], method="lac", level=0.9, by_class=True)
    assert cuts.cuts[2] is None and cuts.counts[2] == 0
    assert all(cut is not None for k, cut in enumerate(cuts.cuts) if k != 2)
    assert prediction_sets(probs, cuts)[:, 2].all()


def test_empty_sets_are_filled_only_if_asked() -> None:
    """A cell doubtful of every class has an empty LAC set; never_empty puts in the most probable class alone."""
    cuts = ConformalCuts(method="lac", level=0.5, by_class=False, cuts=(0.1,), counts=(99,))
    doubtful = np.array([[0.4, 0.35, 0.25]])
    assert not prediction_sets(doubtful, cuts, never_empty=False).any()
    assert prediction_sets(doubtful, cuts).tolist() == [[True, False, False]]


def test_coverage_is_counted_with_exact_intervals() -> None:
    """Share, sizes and classes are those counted by hand; the interval is scipy's exact one."""
    cuts = ConformalCuts(method="lac", level=0.9, by_class=False, cuts=(0.5,), counts=(100,))
    sets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool)
    found = measure_coverage(sets, np.array([0, 1, 0, 1]), cuts, condition="clean", title="as they are")
    assert (found.coverage.value, found.n, found.sizes) == (0.5, 4, [1, 2, 1])
    exact = binomtest(2, 4).proportion_ci(method="exact")
    assert (found.coverage.low, found.coverage.high) == pytest.approx((exact.low, exact.high))
    assert [one.value for one in found.class_coverage] == [0.5, 0.5]
    assert found.class_expected == [None, None]
    assert found.mean_size.value == 1.0


@pytest.mark.parametrize("by_class", [False, True])
def test_what_is_expected_of_coverage_holds_for_95_of_100_draws(by_class: bool) -> None:
    """Of 300 draws, coverage lies within ``expected`` in about 95 %, and below it in about 2.5 %."""
    inside = below = 0
    for seed in range(300):
        probs, labels = cells(500, seed=seed, classes=3)
        cuts = fit_conformal(probs[:250], labels[:250], method="lac", level=0.9, by_class=by_class)
        sets = prediction_sets(probs[250:], cuts, never_empty=False)
        found = measure_coverage(sets, labels[250:], cuts, condition="clean", title="")
        value = found.coverage.value
        assert value is not None
        inside += found.expected[0] - 1e-9 <= value <= found.expected[1] + 1e-9
        below += value < found.expected[0] - 1e-9
    assert 0.91 <= inside / 300 <= 0.99
    assert below / 300 <= 0.06


def test_a_broken_promise_is_said() -> None:
    """Cuts fitted on easy cells do not hold for hard ones: kept is false, for all cells and for each class."""
    probs, labels = cells(500, seed=5)
    rng = np.random.default_rng(0)
    for by_class in (False, True):
        cuts = fit_conformal(probs, labels, method="lac", level=0.95, by_class=by_class)
        wrong = rng.integers(0, 5, 500)
        found = measure_coverage(
            prediction_sets(probs, cuts, never_empty=False), wrong, cuts, condition="other", title=""
        )
        assert not found.kept


@pytest.mark.parametrize(
    ("probs", "labels"),
    [
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.full((1, 2), 0.5), np.array([2])),
        (np.full((1, 2), 0.5), np.array([-1])),
        (np.array([[np.nan, 1.0]]), np.array([0])),
        (np.full((2, 2), 0.5), np.array([0])),
    ],
)
def test_what_no_cut_can_be_fitted_on_is_refused(probs: np.ndarray, labels: np.ndarray) -> None:
    """No cells, labels out of range, NaN and shapes that do not fit are DataErrors."""
    with pytest.raises(DataError):
        fit_conformal(probs, labels, method="lac", level=0.9)


def test_one_class_and_ties_are_no_special_case() -> None:
    """With one class the set is it; with all scores alike every cell is covered."""
    one = fit_conformal(np.ones((50, 1)), np.zeros(50, int), method="aps", level=0.9)
    assert prediction_sets(np.ones((3, 1)), one).all()
    tied = fit_conformal(np.full((50, 2), 0.5), np.zeros(50, int), method="lac", level=0.9)
    assert prediction_sets(np.full((3, 2), 0.5), tied).all()


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (1, 1), (999, 1000)])
def test_intervals_are_clopper_and_pearsons(successes: int, n: int) -> None:
    """As scipy's exact interval, ends included."""
    exact = binomtest(successes, n).proportion_ci(method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((exact.low, exact.high))


def test_nothing_is_known_of_no_cells() -> None:
    """0 of 0 has no value and the widest interval."""
    assert proportion(0, 0).value is None
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert math.isclose(proportion(1, 4).value or 0, 0.25)
