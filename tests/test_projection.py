"""Maps, the numbers beside them, and which cells are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from hemascope.errors import DataError, UsageError
from hemascope.neighbours import nearest
from hemascope.progress import Advance, SilentProgress
from hemascope.projection import choose_rows, project, separation


def _classes(n: int, apart: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """n vectors of three classes whose centres lie ``apart`` on three axes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    vectors = rng.normal(size=(n, 20))
    vectors[np.arange(n), labels] += apart
    return vectors.astype(np.float32), labels


class _Counting(SilentProgress):
    """Remembers how far the work said it had come."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.total = 0

    @contextmanager
    def task(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        self.total = total
        yield self.seen.append


def test_a_map_keeps_classes_together_and_tells_how_far_it_is() -> None:
    """In a map of three far classes a point's nearest is of its class; progress adds up to its total in many steps."""
    vectors, labels = _classes(90, apart=12)
    progress = _Counting()
    position = project(vectors, progress=progress)
    assert (position.shape, position.dtype) == ((90, 2), np.float32)
    near = nearest(position, 1)[1][:, 0]
    assert (labels[near] == labels).mean() > 0.99
    assert sum(progress.seen) == progress.total
    assert len(progress.seen) >= 20


def test_a_map_is_fixed_by_its_seed() -> None:
    """The same vectors and seed give the same map, to the last bit; another seed shakes it."""
    vectors, _ = _classes(40, apart=3)
    first = project(vectors, seed=1)
    np.testing.assert_array_equal(first, project(vectors, seed=1))
    assert (first != project(vectors, seed=2)).any()


@pytest.mark.parametrize("count", [5, 6, 20])
def test_small_maps_lower_the_perplexity(count: int) -> None:
    """Fewer points than the perplexity asks for still give finite, different places."""
    position = project(_classes(count, apart=3)[0].astype(np.float16))
    assert np.isfinite(position).all()
    assert len(np.unique(position.round(6), axis=0)) == count


def test_odd_vectors_are_drawn_too() -> None:
    """Equal vectors, vectors of one dimension and many copies of one give a finite map."""
    rng = np.random.default_rng(0)
    copied = rng.normal(size=(40, 8))
    copied[:30] = copied[0]
    for vectors in (np.ones((10, 4)), rng.normal(size=(12, 1)), copied):
        assert np.isfinite(project(vectors)).all()


def test_what_cannot_be_drawn_is_refused() -> None:
    """Four points, NaN and a perplexity below 1 are each told in a sentence."""
    vectors = np.eye(8)
    with pytest.raises(DataError, match="at least 5 points, found 4"):
        project(vectors[:4])
    with pytest.raises(DataError, match="finite"):
        project(np.where(vectors == 1, np.nan, 0))
    with pytest.raises(UsageError, match="perplexity"):
        project(vectors, perplexity=0.5)


def test_separation_rises_with_the_distance_of_classes() -> None:
    """Shuffled classes score about chance, far classes near one, and what lies between, between."""
    none, some, far = (separation(*_classes(600, apart)) for apart in (0, 3, 20))
    assert none.silhouette is not None and some.silhouette is not None and far.silhouette is not None
    assert none.knn_accuracy is not None and some.knn_accuracy is not None and far.knn_accuracy is not None
    assert abs(none.silhouette) < 0.02 < some.silhouette < 0.8 < far.silhouette
    assert none.knn_accuracy == pytest.approx(1 / 3, abs=0.07)
    assert none.knn_accuracy < some.knn_accuracy < far.knn_accuracy == 1
    assert far.k == 15


def test_separation_equals_what_scikit_learn_says() -> None:
    """Silhouette and k-NN accuracy agree with scikit-learn's, cell by cell left out."""
    from sklearn.metrics import balanced_accuracy_score, silhouette_score
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    vectors, labels = _classes(60, apart=2)
    found = separation(vectors, labels, k=1)
    voting = KNeighborsClassifier(1, metric="cosine")
    named = cross_val_predict(voting, vectors, labels, cv=LeaveOneOut())
    assert found.knn_accuracy == pytest.approx(balanced_accuracy_score(labels, named))
    assert found.silhouette == pytest.approx(silhouette_score(vectors, labels, metric="cosine"), abs=1e-5)


def test_separation_counts_every_class_the_same() -> None:
    """A rare class that is always missed costs its full share, however large the others are."""
    vectors, labels = _classes(900, apart=20)
    labels[np.flatnonzero(labels == 0)[:5]] = 3
    accuracy = separation(vectors, labels).knn_accuracy
    assert accuracy == pytest.approx(0.75, abs=0.01)


def test_separation_leaves_out_unlabelled_and_needs_two_classes() -> None:
    """Unlabelled rows change nothing; with one class, or none, there are no numbers."""
    vectors, labels = _classes(200, apart=3)
    rng = np.random.default_rng(1)
    more = np.concatenate([vectors, rng.normal(size=(50, 20)).astype(np.float32)])
    assert separation(more, np.concatenate([labels, np.full(50, -1)])) == separation(vectors, labels)
    for few in (np.zeros(200, dtype=np.int64), np.full(200, -1)):
        found = separation(vectors, few)
        assert (found.silhouette, found.knn_accuracy) == (None, None)
    with pytest.raises(DataError, match="labels"):
        separation(vectors, labels[:-1])


def test_drawn_rows_follow_the_classes_but_leave_out_none() -> None:
    """Large classes are drawn in proportion, small ones keep a floor or all they have."""
    labels = np.array([0] * 8000 + [1] * 4000 + [2] * 40 + [3] * 3 + [-1] * 500)
    rows = choose_rows(labels, 1000, seed=5)
    assert (len(rows), rows.dtype) == (1000, np.int64)
    assert (np.diff(rows) > 0).all()
    drawn = {int(name): int((labels[rows] == name).sum()) for name in np.unique(labels)}
    assert drawn[3] == 3
    assert drawn[2] >= 30
    assert drawn[0] / drawn[1] == pytest.approx(2, abs=0.15)
    np.testing.assert_array_equal(rows, choose_rows(labels, 1000, seed=5))
    assert (rows != choose_rows(labels, 1000, seed=6)).any()


def test_rows_wanted_in_any_case_are_drawn_up_to_a_share() -> None:
    """Findings are all drawn where they fit in half the points; of too many, the first named."""
    labels = np.repeat([0, 1], 500)
    wanted = np.arange(999, 979, -1)
    assert np.isin(wanted, choose_rows(labels, 100, must=wanted)).all()
    many = np.arange(999, 599, -1)
    rows = choose_rows(labels, 100, must=np.concatenate([many, many]))
    assert len(np.unique(rows)) == 100
    assert np.isin(many[:50], rows).all()
    assert (labels[rows] == 0).any()


def test_everything_is_drawn_where_it_fits_and_bad_requests_are_refused() -> None:
    """Few cells are all drawn; a count of 0 and rows that are not there are told."""
    labels = np.array([0, 1, -1])
    assert choose_rows(labels, 3).tolist() == [0, 1, 2]
    assert len(choose_rows(np.arange(300), 10)) == 10
    with pytest.raises(UsageError, match="at least 1"):
        choose_rows(labels, 0)
    with pytest.raises(UsageError, match="0 to 2"):
        choose_rows(labels, 2, must=[3])
