"""Label errors: out-of-fold probabilities, confident learning, and what is not judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import average_precision_score

from hemascope.audit import label_errors, out_of_fold
from hemascope.audit.label_errors import check_label_errors, confident_joint, label_score, noise_matrix
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.audit.out_of_fold import FOLDS, out_of_fold_probabilities
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.embeddings import Embeddings, Level
from hemascope.errors import DataError
from hemascope.findings import CheckResult

NAMES = ("basophil", "monocyte", "neutrophil", "platelet")


def material_of(labels: np.ndarray, vectors: np.ndarray, hashes: list[str] | None = None, **more: Any) -> Material:
    count = len(labels)
    cells = CellDataset(
        images=np.zeros((count, 4, 4, 3), np.uint8),
        labels=labels.astype(np.int64),
        class_names=NAMES,
        ids=[f"{i}.png" for i in range(count)],
        content_hash=hashes or [f"{i:032x}" for i in range(count)],
        **more,
    )
    embeddings = Embeddings(vectors.astype(np.float16), [Level("final", 0, vectors.shape[1])], "made")
    return Material(cells, measure_prepared(cells), embeddings)


def made(count: int = 600, seed: int = 0, *, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """True classes and vectors of four Gaussian clouds; ``apart`` in deviations, about."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=count)
    centres = rng.normal(0, apart / np.sqrt(2), (4, 20))
    return truth, centres[truth] + rng.normal(0, 1, (count, 20))


def flipped(truth: np.ndarray, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels with ``count`` of them wrong, and which: bool."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(truth), count, replace=False)
    labels = truth.copy()
    labels[chosen] = (truth[chosen] + rng.integers(1, 4, count)) % 4
    return labels, labels != truth


def found(result: CheckResult) -> set[int]:
    return {int(finding.id.split(".")[0]) for finding in result.findings}


def test_planted_flips_rank_first_and_get_their_true_class() -> None:
    """Of 5 % flipped labels nearly all rank before the rest, and the class suggested is the true one."""
    truth, vectors = made()
    labels, wrong = flipped(truth, 30)
    result = check_label_errors(material_of(labels, vectors))
    assert result.scores is not None
    assert average_precision_score(wrong, -result.scores) > 0.95
    relabelled = {int(f.id.split(".")[0]): f.new_label for f in result.findings if f.suggestion == "relabel"}
    hits = [row for row in relabelled if wrong[row]]
    assert len(hits) >= 20
    assert all(relabelled[row] == NAMES[truth[row]] for row in hits)
    assert 0.03 < result.summary["estimated_share_of_errors"] < 0.08
    worst = result.findings[0]
    assert worst.why.startswith(f"Labelled {worst.label}; ") and "by a model that never saw it" in worst.why


def test_right_labels_are_left_alone() -> None:
    """Well separated classes with right labels give no finding."""
    truth, vectors = made(apart=6.0)
    result = check_label_errors(material_of(truth, vectors))
    assert result.passed and result.cut == 0
    assert result.scores is not None and result.scores.min() > 0.5
    assert result.summary["out_of_fold_balanced_accuracy"] == 1


def test_findings_are_the_scores_at_or_below_the_cut() -> None:
    """The convention of every check: the findings are exactly the scores up to the cut, worst first."""
    truth, vectors = made(apart=2.0)
    labels, _ = flipped(truth, 40)
    result = check_label_errors(material_of(labels, vectors))
    assert result.scores is not None and result.cut is not None and 0 < result.cut < 0.5
    assert found(result) == set(np.flatnonzero(result.scores <= result.cut).tolist())
    assert [f.score for f in result.findings] == sorted(f.score for f in result.findings)
    assert {f.suggestion for f in result.findings} == {"relabel", "review"}


def test_the_same_seed_gives_the_same_scores() -> None:
    """Two runs agree to the last bit."""
    truth, vectors = made(200)
    first, second = (check_label_errors(material_of(truth, vectors)) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize("bound_by", ["pixels", "group"])
def test_a_copy_cannot_vouch_for_a_wrong_label(bound_by: str) -> None:
    """Forty images of one picture, or one patient, under one wrong label far from all else: found where they are bound
    together, missed where nothing says that they are."""
    rng = np.random.default_rng(3)
    truth, vectors = made(400, apart=4.0)
    truth[:40] = 0
    vectors[:40] = vectors[truth == 0][-1] + 6 * rng.normal(0, 1, 20)
    labels = truth.copy()
    labels[:40] = 1
    hashes = [f"{i:032x}" for i in range(400)]
    copies = set(range(40))
    assert not copies & found(check_label_errors(material_of(labels, vectors, hashes)))
    if bound_by == "pixels":
        bound = material_of(labels, vectors, ["c" * 32] * 40 + hashes[40:])
    else:
        bound = material_of(labels, vectors, hashes, groups=np.array(["patient"] * 40 + [""] * 360))
    result = check_label_errors(bound)
    assert result.scores is not None and result.scores[:40].max() < 0.5


def test_copies_teach_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is there thirty times at a thirtieth of the weight changes nothing for the others."""
    monkeypatch.setattr(out_of_fold, "standardised", lambda vectors, seed: np.asarray(vectors, np.float32))
    labels, vectors = made(200, apart=1.0)
    vectors[0] *= 4
    fold = np.arange(200) % FOLDS
    once = out_of_fold_probabilities(vectors, labels, fold, seed=0)
    rows = np.concatenate([np.arange(200), np.zeros(29, np.int64)])
    weights = np.where(rows == 0, 1 / 30, 1.0)
    often = out_of_fold_probabilities(vectors[rows], labels[rows], fold[rows], seed=0, weights=weights)
    np.testing.assert_allclose(often.probabilities[:200], once.probabilities, atol=1e-4)


def test_equal_pictures_share_one_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four equal pictures teaches a quarter, all others one; pictures of unknown hash are equal to none."""
    seen: dict[str, Any] = {}

    def watched(*given: Any, **named: Any) -> Any:
        seen.update(named)
        return out_of_fold_probabilities(*given, **named)

    monkeypatch.setattr(label_errors, "out_of_fold_probabilities", watched)
    truth, vectors = made(200)
    hashes = ["c" * 32] * 4 + [""] * 3 + [f"{i:032x}" for i in range(193)]
    check_label_errors(material_of(truth, vectors, hashes))
    np.testing.assert_allclose(seen["weights"], [0.25] * 4 + [1] * 196)


def test_the_models_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second round, the scores of each fold are those of scikit-learn's discriminant analysis on the others,
    up to the temperature."""
    monkeypatch.setattr(out_of_fold, "DOUBTED", 1e-300)
    monkeypatch.setattr(out_of_fold, "standardised", lambda vectors, seed: np.asarray(vectors, np.float32))
    labels, vectors = made(300, apart=1.5)
    fold = np.arange(300) % FOLDS
    told = out_of_fold_probabilities(vectors, labels, fold, seed=0)
    expected = np.empty((300, 4))
    for part in range(FOLDS):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=told.shrinkage)
        model.fit(vectors[fold != part], labels[fold != part])
        expected[fold == part] = model.decision_function(vectors[fold == part])
    ours = np.log(told.probabilities.astype(np.float64))
    one, other = (values[:, 1:] - values[:, :1] for values in (ours, expected))
    temperature = np.vdot(other, one) / np.vdot(one, one)
    np.testing.assert_allclose(one * temperature, other, atol=1e-3)
    assert told.doubted == 0


def test_the_second_round_forgets_no_class() -> None:
    """A class whose labels are nearly all doubted keeps its images, so that it can still be named."""
    truth, vectors = made(400, apart=5.0)
    labels = truth.copy()
    labels[truth == 3] = 2
    labels[np.flatnonzero(truth == 2)[:8]] = 3
    result = check_label_errors(material_of(labels, vectors))
    assert result.scores is not None and np.isfinite(result.scores).all()
    assert set(result.summary["classes"]) == set(NAMES)


def test_a_bounded_sample_teaches_and_all_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more images than a model is fitted on, every image still gets a score, and rare classes teach."""
    monkeypatch.setattr(out_of_fold, "LARGEST_FIT", 400)
    monkeypatch.setattr(out_of_fold, "_FEWEST_DRAWN", 30)
    truth, vectors = made(3000, apart=4.0)
    rare = np.flatnonzero(truth == 3)[30:]
    truth, vectors = np.delete(truth, rare), np.delete(vectors, rare, axis=0)
    labels, wrong = flipped(truth, 60)
    result = check_label_errors(material_of(labels, vectors))
    assert result.scores is not None and np.isfinite(result.scores).all()
    assert average_precision_score(wrong, -result.scores) > 0.95


def test_a_sample_with_more_of_a_rare_class_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare classes are drawn more often than others, yet where vectors say nothing a class is as likely as it is
    frequent."""
    monkeypatch.setattr(out_of_fold, "LARGEST_FIT", 800)
    monkeypatch.setattr(out_of_fold, "_FEWEST_DRAWN", 60)
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(2, size=2940), np.full(60, 2)])
    told = out_of_fold_probabilities(rng.normal(0, 1, (3000, 5)), labels, np.arange(3000) % FOLDS, seed=0)
    assert 0.01 < told.probabilities[:, 2].mean() < 0.03


def test_confident_learning_counts_by_hand() -> None:
    """Thresholds, joint and noise of a small case worked out by hand."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.8, 0.1, 0.1, 0.2, 0.9])
    joint = confident_joint(np.stack([first, 1 - first], axis=1), labels)
    # Thresholds 0.6 for both classes; images 2 and 5 are confidently of the other class, 4 of 6 on the diagonal.
    np.testing.assert_allclose(joint, np.array([[2, 1], [1, 2]]) / 6)
    # Of the true class, which is the column, a row each says what its images are labelled.
    np.testing.assert_allclose(noise_matrix(np.array([[0.4, 0.1], [0.0, 0.5]])), [[1, 0], [1 / 6, 5 / 6]])


def test_the_score_is_a_half_where_two_classes_are_alike() -> None:
    """The score compares the given label with the likeliest other one."""
    probabilities = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(label_score(probabilities, np.array([0, 0, 0])), [0.5, 0.9, 0.0])


def test_unlabelled_images_and_rare_classes_are_not_judged() -> None:
    """Unlabelled images get no score, a class of three is named as left out."""
    truth, vectors = made(300)
    truth = truth % 2
    truth[:5] = UNLABELLED
    truth[5:8] = 3
    result = check_label_errors(material_of(truth, vectors))
    assert result.scores is not None
    assert np.isnan(result.scores[:8]).all() and not np.isnan(result.scores[8:]).any()
    assert result.summary["classes_left_out"] == {"platelet": "3 of 5 images"}
    assert result.summary["classes"] == ["basophil", "monocyte"]


def test_a_class_of_one_group_is_not_judged() -> None:
    """Where all images of a class are one patient's, no other image can speak for it: left out and named."""
    truth, vectors = made(300)
    groups = np.where(truth == 2, "patient", "")
    result = check_label_errors(material_of(truth, vectors, groups=groups))
    assert result.scores is not None and np.isnan(result.scores[truth == 2]).all()
    assert "one group" in result.summary["classes_left_out"]["neutrophil"]


def test_ignored_images_teach_nothing() -> None:
    """Images marked as no cells get no score; a class they make rare is left out, the others are judged."""
    truth, vectors = made(300)
    ignore = np.zeros(300, dtype=bool)
    ignore[np.flatnonzero(truth == 1)[3:]] = True
    result = check_label_errors(material_of(truth, vectors), ignore=ignore)
    assert result.scores is not None
    np.testing.assert_array_equal(np.isnan(result.scores), truth == 1)
    assert list(result.summary["classes_left_out"]) == ["monocyte"]
    with pytest.raises(DataError, match="ignore must be bool"):
        check_label_errors(material_of(truth, vectors), ignore=np.zeros(3, dtype=bool))


@pytest.mark.parametrize("label", [0, UNLABELLED])
def test_fewer_than_two_classes_is_not_applicable(label: int) -> None:
    """With one class, or none, there is nothing to confuse: a reason, not a pass."""
    _, vectors = made(100)
    result = check_label_errors(material_of(np.full(100, label), vectors))
    assert "two classes" in result.not_applicable and not result.passed


def test_no_images_at_all() -> None:
    """An empty set is not applicable, not an error."""
    assert check_label_errors(material_of(np.empty(0), np.empty((0, 20)))).not_applicable


def test_vectors_that_say_nothing_find_nothing() -> None:
    """Where all embeddings are equal no label can be doubted with reason."""
    result = check_label_errors(material_of(np.arange(200) % 4, np.ones((200, 8))))
    assert not result.findings


def test_a_network_that_saw_the_labels_is_warned_of() -> None:
    """Embeddings that may remember the labels say so in the summary."""
    truth, vectors = made(200)
    material = material_of(truth, vectors)
    assert "remember" in check_label_errors(material, trained_on_these=True).summary["warning"]
    assert "warning" not in check_label_errors(material).summary
