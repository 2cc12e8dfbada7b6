"""Nearest neighbours and principal components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hemascope import neighbours
from hemascope.errors import DataError, UsageError
from hemascope.neighbours import nearest, reduce


def _clustered(n: int, d: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(20, d))[rng.integers(0, 20, n)] * 2 + rng.normal(size=(n, d))).astype(np.float32)


def _true(vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All distances in double precision; equal ones by row number."""
    wide = vectors.astype(np.float64)
    squared = np.array([np.square(wide - row).sum(axis=1) for row in wide])
    np.fill_diagonal(squared, np.inf)
    rows = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, rows, axis=1), rows


def test_small_sets_get_the_exact_answer() -> None:
    """Distances and rows equal those of all pairs in double precision."""
    vectors = _clustered(700)
    distances, rows = nearest(vectors, 7)
    true_distances, true_rows = _true(vectors, 7)
    assert (distances.dtype, rows.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(rows, true_rows)
    np.testing.assert_allclose(distances, true_distances, rtol=1e-5)


def test_a_large_common_part_does_not_drown_small_distances() -> None:
    """Vectors far from the origin, where |a|^2 - 2ab + |b|^2 in float32 has no digits left, are still told apart."""
    vectors = _clustered(300) + np.float32(3000)
    distances, _ = nearest(vectors, 3)
    np.testing.assert_allclose(distances, _true(vectors, 3)[0], rtol=1e-3)


def test_lists_find_nearly_all_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inverted file returns 99 of 100 true neighbours, with their true distances, reading 16 of 31 lists."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 0)
    monkeypatch.setattr(neighbours, "LISTS_READ", 16)
    vectors = _clustered(2000, d=8)
    distances, rows = nearest(vectors, 5)
    true_distances, true_rows = _true(vectors, 5)
    found = np.mean([len(np.intersect1d(a, b)) / 5 for a, b in zip(rows, true_rows, strict=True)])
    assert found >= 0.99
    same = rows == true_rows
    np.testing.assert_allclose(distances[same], true_distances[same], rtol=1e-4)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert not (rows == np.arange(2000)[:, None]).any()


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_exact_copies_come_first_and_never_the_row_itself(monkeypatch: pytest.MonkeyPatch, exact_up_to: int) -> None:
    """Of 500 copies each finds k others at distance 0, the lowest rows, not itself; a lone pair finds each other."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", exact_up_to)
    vectors = _clustered(2000)
    copies = np.arange(1000, 1500)
    vectors[copies] = vectors[7]
    vectors[1900] = vectors[3]
    distances, rows = nearest(vectors, 10)
    assert not (rows == np.arange(2000)[:, None]).any()
    assert (distances[copies] == 0).all()
    assert rows[1400].tolist() == [7, *range(1000, 1009)]
    assert rows[1002].tolist() == [7, 1000, 1001, *range(1003, 1010)]
    assert (rows[3, 0], rows[1900, 0], distances[3, 0]) == (1900, 3, 0)
    assert distances[3, 1] > 0


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_copies_of_a_neighbour_are_all_listed(monkeypatch: pytest.MonkeyPatch, exact_up_to: int) -> None:
    """A row next to a vector that is there three times has all three among its neighbours."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", exact_up_to)
    vectors = _clustered(1000)
    vectors[[10, 500, 900]] = vectors[42] + np.float32(1e-3)
    assert nearest(vectors, 4)[1][42, :3].tolist() == [10, 500, 900]


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_too_few_others_are_padded(monkeypatch: pytest.MonkeyPatch, exact_up_to: int) -> None:
    """Where there are fewer than k others the rest is -1 at infinite distance; also for one vector, and for none."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", exact_up_to)
    vectors = np.array([[0.0], [1.0], [1.0], [3.0]], dtype=np.float32)
    distances, rows = nearest(vectors, 5)
    assert rows.tolist() == [[1, 2, 3, -1, -1], [2, 0, 3, -1, -1], [1, 0, 3, -1, -1], [1, 2, 0, -1, -1]]
    assert distances[0].tolist() == [1, 1, 9, np.inf, np.inf]
    assert nearest(vectors[:1], 2)[1].tolist() == [[-1, -1]]
    assert nearest(vectors[:0], 2)[0].shape == (0, 2)


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_queries_may_find_themselves(monkeypatch: pytest.MonkeyPatch, exact_up_to: int) -> None:
    """With queries nothing is left out: a query equal to a vector finds it at distance 0."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", exact_up_to)
    vectors = _clustered(900)
    distances, rows = nearest(vectors, 2, queries=vectors[100:130])
    assert rows[:, 0].tolist() == list(range(100, 130))
    assert (distances[:, 0] == 0).all()


def test_equal_calls_give_equal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inverted file is the same for the same seed; another seed makes other lists, and so misses others."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 0)
    monkeypatch.setattr(neighbours, "LISTS_READ", 2)
    vectors = _clustered(2000)
    first, again = nearest(vectors, 20, seed=3), nearest(vectors, 20, seed=3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (nearest(vectors, 20, seed=4)[1] != first[1]).any()


@pytest.mark.parametrize("exact_up_to", [0, 10_000])
def test_every_layout_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exact_up_to: int) -> None:
    """float16, a memory map, Fortran order and a slice of columns are read as what they hold."""
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", exact_up_to)
    half = _clustered(800).astype(np.float16)
    np.save(tmp_path / "half.npy", half)
    wide = np.full((800, 40), np.nan, dtype=np.float32)
    wide[:, 5:37:2] = half
    expected = nearest(half.astype(np.float32), 4)
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")
    for vectors in (half, mapped, np.asfortranarray(half.astype(np.float64)), wide[:, 5:37:2]):
        distances, rows = nearest(vectors, 4)
        np.testing.assert_array_equal(rows, expected[1])
        np.testing.assert_allclose(distances, expected[0], rtol=1e-5)


def test_work_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows give what one block gives."""
    vectors = _clustered(500)
    whole, reduced = nearest(vectors, 3), reduce(vectors, 4)
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 4096)
    parts = nearest(vectors, 3)
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_allclose(reduce(vectors, 4), reduced, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e16])
def test_values_that_are_not_finite_are_refused_by_row(bad: float) -> None:
    """NaN, infinity and what overflows when squared name the row, in vectors, in queries and when reducing."""
    vectors = _clustered(50)
    spoilt = vectors.copy()
    spoilt[31, 2] = bad
    for call in (lambda: nearest(spoilt, 1), lambda: nearest(vectors, 1, queries=spoilt), lambda: reduce(spoilt, 2)):
        with pytest.raises(DataError, match="row 31"):
            call()


def test_wrong_shapes_are_refused() -> None:
    """One dimension, whole numbers, other widths and k = 0 are each told in a sentence."""
    vectors = _clustered(10)
    with pytest.raises(DataError, match=r"\(N, d\), found float32 \(16,\)"):
        nearest(vectors[0], 1)
    with pytest.raises(DataError, match="floating"):
        nearest(vectors.astype(np.int64), 1)
    with pytest.raises(DataError, match="queries have 8 dimensions and vectors 16"):
        nearest(vectors, 1, queries=vectors[:, :8])
    with pytest.raises(UsageError, match="at least 1"):
        nearest(vectors, 0)
    with pytest.raises(UsageError, match="at least 1"):
        reduce(vectors, 0)
    with pytest.raises(DataError, match="no vectors"):
        reduce(vectors[:0], 2)


def test_reducing_keeps_distances_that_lie_in_few_dimensions() -> None:
    """Vectors of rank 3 in 40 dimensions keep their distances in 3; the order of components is by variance."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 40)) + 5
    reduced = reduce(vectors.astype(np.float32), 3)
    assert reduced.shape == (400, 3)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(nearest(reduced, 3)[0], nearest(vectors, 3)[0], rtol=1e-3)
    assert (np.diff(reduced.std(axis=0)) <= 0).all()
    np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-4)


def test_reducing_is_fixed_by_the_seed_and_whitens_on_request(tmp_path: Path) -> None:
    """A float16 memory map gives the same components twice; whitened they deviate by 1, rounding is left out."""
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(600, 5)) * [9, 5, 3, 2, 1] @ rng.normal(size=(5, 30))).astype(np.float16)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    np.testing.assert_array_equal(reduce(mapped, 5, seed=2, sample=300), reduce(vectors, 5, seed=2, sample=300))
    assert reduce(vectors.astype(np.float64), 20, whiten=True).std(axis=0) == pytest.approx(1, abs=0.01)
    exact = rng.normal(size=(600, 5)) @ rng.normal(size=(5, 30))
    assert reduce(exact, 20, whiten=True).shape == (600, 5)


def test_reducing_few_or_equal_vectors_gives_what_there_is() -> None:
    """Never more components than rows or dimensions; equal rows have one, of zeros."""
    rng = np.random.default_rng(0)
    assert reduce(rng.normal(size=(3, 10)), 8).shape == (3, 3)
    assert reduce(rng.normal(size=(30, 2)), 8).shape == (30, 2)
    for equal in (np.ones((9, 4)), np.ones((1, 4))):
        assert reduce(equal, 2, whiten=True).tolist() == [[0.0]] * len(equal)
