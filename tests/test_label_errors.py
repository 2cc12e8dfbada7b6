"""Label errors: out-of-fold probabilities, confident learning, and what is not judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.metrics import average_precision_score

from hemascope.audit.label_errors import check_label_errors, confident_errors, label_score
from hemascope.audit.material import Material
from hemascope.audit.measure import measure_prepared
from hemascope.audit.out_of_fold import out_of_fold_probabilities
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.embeddings import Embeddings, Level

NAMES = ("basophil", "monocyte", "neutrophil", "platelet")


def material_of(labels: np.ndarray, vectors: np.ndarray, hashes: list[str] | None = None) -> Material:
    count = len(labels)
    cells = CellDataset(
        images=np.zeros((count, 8, 8, 3), np.uint8),
        labels=labels.astype(np.int64),
        class_names=NAMES,
        ids=[f"{i}.png" for i in range(count)],
        content_hash=hashes or [f"{i:032x}" for i in range(count)],
    )
    embeddings = Embeddings(vectors.astype(np.float16), [Level("final", 0, vectors.shape[1])], "made")
    return Material(cells, measure_prepared(cells), embeddings)


def made(count: int = 600, seed: int = 0, *, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(4, size=count)
    centres = rng.normal(0, apart / np.sqrt(2), (4, 20))
    return truth, centres[truth] + rng.normal(0, 1, (count, 20))


def test_planted_flips_rank_first_and_get_their_true_class() -> None:
    """Of 5 % flipped labels nearly all rank before the rest, and the class suggested is the true one."""
    truth, vectors = made()
    rng = np.random.default_rng(1)
    flipped = rng.choice(600, 30, replace=False)
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + rng.integers(1, 4, 30)) % 4
    result = check_label_errors(material_of(labels, vectors))
    is_flipped = np.isin(np.arange(600), flipped)
    assert result.scores is not None
    assert average_precision_score(is_flipped, -result.scores) > 0.95
    relabelled = {int(f.id.split(".")[0]): f.new_label for f in result.findings if f.suggestion == "relabel"}
    hits = [row for row in relabelled if row in set(flipped.tolist())]
    assert len(hits) >= 25
    assert all(relabelled[row] == NAMES[truth[row]] for row in hits)
    assert 0.03 < result.summary["estimated_share_of_errors"] < 0.08
    assert "by a model that never saw it" in result.findings[0].why


def test_right_labels_are_left_alone() -> None:
    """Well separated classes with right labels give no finding."""
    truth, vectors = made(apart=6.0)
    result = check_label_errors(material_of(truth, vectors))
    assert result.passed
    assert result.scores is not None and result.scores.min() > 0.5


def test_a_copy_cannot_vouch_for_a_wrong_label() -> None:
    """Ten copies of one picture under one wrong label lie in one fold, so each is judged by others alone."""
    truth, vectors = made(400, apart=5.0)
    labels, hashes = truth.copy(), [f"{i:032x}" for i in range(400)]
    vectors[:10] = vectors[0]
    truth[:10] = truth[0]
    labels[:10] = (truth[0] + 1) % 4
    hashes[:10] = ["c" * 32] * 10
    together = out_of_fold_probabilities(vectors, labels, hashes, seed=0)
    assert (together[:10].argmax(1) == truth[0]).all()


def test_confident_learning_counts_by_hand() -> None:
    """Thresholds, the joint and the off-diagonal images of a small case worked out by hand."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.8, 0.1, 0.1, 0.2, 0.9])
    joint, wrong = confident_errors(np.stack([first, 1 - first], axis=1), labels)
    # Thresholds 0.6 for both classes; images 2 and 5 are confidently of the other class, 4 of 6 on the diagonal.
    np.testing.assert_array_equal(wrong, [False, False, True, False, False, True])
    np.testing.assert_allclose(joint, np.array([[2, 1], [1, 2]]) / 6)


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
    assert result.summary["classes_left_out"] == ["platelet"]
    assert result.summary["classes"] == ["basophil", "monocyte"]


def test_ignored_images_teach_nothing() -> None:
    """Images marked as no cells get no score and no finding."""
    truth, vectors = made(300)
    ignore = np.zeros(300, dtype=bool)
    ignore[:20] = True
    result = check_label_errors(material_of(truth, vectors), ignore=ignore)
    assert result.scores is not None and np.isnan(result.scores[:20]).all()


def test_one_class_is_not_applicable() -> None:
    """With one class there is nothing to confuse: a reason, not a pass."""
    _, vectors = made(100)
    result = check_label_errors(material_of(np.zeros(100), vectors))
    assert "two classes" in result.not_applicable
    assert not result.passed


def test_a_network_that_saw_the_labels_is_warned_of() -> None:
    """Embeddings that may remember the labels say so in the summary."""
    truth, vectors = made(200)
    material = material_of(truth, vectors)
    assert "warning" in check_label_errors(material, trained_on_these=True).summary
    assert "warning" not in check_label_errors(replace(material, seed=3)).summary
