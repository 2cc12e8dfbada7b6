"""How well scores tell foreign images from cells, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from hemascope.errors import DataError
from hemascope.trust_results import DetectionResult
from hemascope.uncertainty.detection import auroc, fpr_at_tpr, measure_detection


def drawn(seed: int, cells: int = 400, images: int = 150, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, cells), rng.normal(shift, 1.5, images)


@pytest.mark.parametrize("rounded", [False, True])
def test_auroc_is_scikit_learns(rounded: bool) -> None:
    """The area agrees with scikit-learn's, ties included."""
    inside, outside = drawn(0)
    if rounded:
        inside, outside = inside.round(), outside.round()
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    assert auroc(inside, outside) == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]), abs=1e-12)


def test_auroc_of_extremes() -> None:
    """All above is 1, all below is 0, all equal is one half, nothing is undefined."""
    low, high = np.zeros(5), np.ones(3)
    assert (auroc(low, high), auroc(high, low), auroc(low, np.zeros(4))) == (1.0, 0.0, 0.5)
    assert np.isnan(auroc(low, np.zeros(0)))
    assert np.isnan(fpr_at_tpr(np.zeros(0), high))


def test_fpr_counts_images_at_or_below_the_cut() -> None:
    """With 20 cells the cut for 95 % is the 19th, and an image exactly there is taken for a cell."""
    inside = np.arange(20.0)
    assert fpr_at_tpr(inside, np.array([17.5, 18.0, 18.5, 30.0])) == 0.5
    assert fpr_at_tpr(inside, np.array([18.5, 19.0, 19.5]), tpr=1.0) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="tpr must lie above 0"):
        fpr_at_tpr(inside, inside, tpr=0.0)


def test_fpr_agrees_with_the_roc_curve() -> None:
    """The share is the best that scikit-learn's curve offers at that many cells, counted from the cells' side."""
    inside, outside = drawn(2, 997, 313)
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    false, true, _ = roc_curve(truth, -np.r_[inside, outside], drop_intermediate=False)
    assert fpr_at_tpr(inside, outside) == pytest.approx(false[true >= 0.95].min())


def measured(inside: np.ndarray, outside: np.ndarray, seed: int = 0, resamples: int = 300) -> DetectionResult:
    return measure_detection(
        {"a": inside, "b": -inside},
        {"a": outside, "b": -outside},
        outside > 2,
        name="x",
        title="X",
        distance="near",
        seed=seed,
        resamples=resamples,
    )


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    """The limits agree with resampling done the slow way, for area and share, up to chance."""
    inside, outside = drawn(3)
    result = measured(inside, outside, resamples=2000)
    rng = np.random.default_rng(9)
    slow = np.array(
        [
            (auroc(a, b), fpr_at_tpr(a, b))
            for a, b in ((rng.choice(inside, len(inside)), rng.choice(outside, len(outside))) for _ in range(2000))
        ]
    )
    for estimate, column in ((result.auroc["a"], slow[:, 0]), (result.fpr95["a"], slow[:, 1])):
        assert estimate.low == pytest.approx(np.percentile(column, 2.5), abs=0.015)
        assert estimate.high == pytest.approx(np.percentile(column, 97.5), abs=0.015)
    assert result.auroc["a"].value == auroc(inside, outside)
    assert result.auroc["b"].value == pytest.approx(1 - auroc(inside, outside))
    assert result.flagged.value == (outside > 2).mean()
    assert result.n == result.auroc["a"].n == len(outside)


def test_ties_are_resampled_alike() -> None:
    """With many equal scores each resample still counts every image at the cut."""
    inside, outside = np.repeat([0.0, 1.0], [97, 3]), np.repeat([0.0, 1.0], [30, 10])
    result = measured(inside, outside)
    assert result.fpr95["a"].value == 0.75
    assert result.fpr95["a"].high == 1.0, "where more than 5 % of the drawn cells are 1, the cut is 1 and all pass"


def test_the_same_seed_gives_the_same_intervals() -> None:
    """Intervals depend on the seed, and on nothing else."""
    inside, outside = drawn(4)
    assert measured(inside, outside) == measured(inside, outside)
    assert measured(inside, outside) != measured(inside, outside, seed=1)


def test_a_perfect_score_claims_no_certainty() -> None:
    """Where all are told apart the area has no interval, and the share taken for cells has the binomial limit."""
    result = measured(np.zeros(50), np.full(20, 5.0))
    assert result.auroc["a"].value == 1.0
    assert result.auroc["a"].low is None
    assert result.fpr95["a"].value == 0.0
    assert result.fpr95["a"].high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert result.flagged.low == pytest.approx(0.025 ** (1 / 20))


def test_nothing_to_measure() -> None:
    """No images: no values, no interval, no failure."""
    result = measured(np.zeros(5), np.zeros(0))
    assert result.auroc["a"].value is None
    assert result.fpr95["a"].value is None
    assert result.flagged.value is None


def test_what_does_not_go_together_is_refused() -> None:
    """Other scores, other lengths, NaN, and marks of other images are said in a sentence."""
    some, traits = np.zeros(4), {"name": "x", "title": "X", "distance": "far"}
    for inside, outside, flagged, sentence in (
        ({"a": some}, {"b": some}, some > 0, "only one of them has 'a'"),
        ({"a": some, "b": some[:2]}, {"a": some, "b": some}, some > 0, "one number for each of the cells"),
        ({"a": some}, {"a": some * np.nan}, some > 0, "'a' of the images holds NaN"),
        ({"a": some}, {"a": some}, np.zeros(3, bool), "flagged must have 4 entries"),
        ({}, {}, some > 0, "one number for each of the cells"),
    ):
        with pytest.raises(DataError, match=sentence):
            measure_detection(inside, outside, flagged, **traits)
