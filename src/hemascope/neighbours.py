"""Nearest neighbours of many vectors, and fewer dimensions to look for them in. No torch, no N x N matrix.

Up to ``EXACT_UP_TO`` vectors all distances are computed. Beyond, an inverted file (Sivic, Zisserman 2003; Douze et al.
2024, "The Faiss library") looks only where neighbours can be: the vectors are cut into lists of about
``POINTS_PER_LIST`` by k-means, and a query reads the ``LISTS_READ`` lists nearest to it. The number of lists grows with
the vectors, so k-means and finding the lists would be quadratic if done plainly. Both are done on two levels instead:
about the square root of the number of lists first, and the lists within each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from hemascope.errors import DataError, UsageError
from hemascope.progress import SILENT, Progress

EXACT_UP_TO = 20_000
POINTS_PER_LIST = 64
LISTS_READ = 64
"""About 4,000 vectors a query. Of 54,740 cell embeddings in 128 dimensions this found 99.8 % of the ten nearest."""
CELLS_READ = 16
"""First-level cells read to find those lists."""
SAMPLE_PER_LIST = 16
"""k-means sees so many vectors for each list it makes, a quarter of all."""
ROUNDS = 10
"""Of k-means."""

LARGEST = 1e15
"""Beyond it squared distances would leave float32."""

_BLOCK_BYTES = 32 << 20
_SPARE = 8
"""Distances by matrix product are rounded; so many candidates more are taken, then measured exactly and sorted."""

Vectors: TypeAlias = NDArray[np.floating]
Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]


def nearest(
    vectors: Vectors,
    k: int,
    *,
    queries: Vectors | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Found:
    """The k nearest of ``vectors`` to each query: squared Euclidean distances, rising, and row numbers.

    vectors  (N, d) of any floating type and memory layout, or a memory map; read in blocks, never copied as a whole
             except into the index: 4 bytes a value, 2 where they are float16
    queries  (M, d); None asks for each of ``vectors`` the nearest others: a row never holds itself, also not where
             there are exact copies of it, and those come first
    seed     of the sample k-means is trained on, beyond EXACT_UP_TO vectors

    Returns float32 (M, k) and int64 (M, k); equal distances by row number. Where there are fewer than k, distances end
    in inf and rows in -1. Up to EXACT_UP_TO distinct vectors the answer is exact, beyond approximate, with exact copies
    always found; equal calls give equal answers either way. Raises DataError for shapes that do not fit or values that
    are not finite (or beyond 1e15), UsageError for k below 1.
    """
    if k < 1:
        raise UsageError(f"the number of neighbours must be at least 1, found {k}")
    _check(vectors, "vectors")
    if queries is not None:
        _check(queries, "queries")
        if queries.shape[1] != vectors.shape[1]:
            raise DataError(f"queries have {queries.shape[1]} dimensions and vectors {vectors.shape[1]}")
    asked = vectors if queries is None else queries
    distances = np.full((len(asked), k), np.inf, dtype=np.float32)
    rows = np.full((len(asked), k), -1, dtype=np.int64)
    if not len(vectors) or not len(asked):
        return distances, rows
    copies = _copies(vectors)  # thousands of them would fill one list, or leave no room for each other
    few = len(copies.first) <= EXACT_UP_TO
    index = _Exact(vectors[copies.first]) if few else _Lists(vectors, copies.first, seed, progress)
    order = copies.spread_order(index.order()) if queries is None else np.arange(len(asked))
    with progress.task("Finding neighbours", len(asked), "vectors") as advance:
        for part in _blocks(asked):
            at = order[part]
            block = _float32(asked[at])
            if queries is None:
                distances[at], rows[at] = _without_self(*copies.spread(*index.search(block, k + 1)), at)
            else:
                distances[at], rows[at] = copies.spread(*index.search(block, k))
            advance(len(block))
    return distances, rows


class _Exact:
    """All distances. Vectors are centred first, so that a large common part does not drown small distances.

    By numpy's matrix product: the one faiss brings does not know every processor and can be four times as slow.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.base = np.array(vectors, dtype=np.float32, order="C")
        self.mean = self.base.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.base -= self.mean
        self.squares = np.square(self.base).sum(axis=1)

    def order(self) -> NDArray[np.int64]:
        return np.arange(len(self.base))

    def search(self, block: NDArray[np.float32], k: int) -> Found:
        taken = min(k + _SPARE, len(self.base))
        distances = np.full((len(block), max(k, taken)), np.inf, dtype=np.float32)
        rows = np.full(distances.shape, -1, dtype=np.int64)
        for part in _blocks(self.base.T, len(block)):
            queries = block[part] - self.mean
            order = self.squares - 2 * (queries @ self.base.T)  # of the distances, less what all of a query share
            near = np.argpartition(order, taken - 1, axis=1)[:, :taken]
            rows[part, :taken] = near
            for column in range(taken):
                distances[part, column] = np.square(queries - self.base[near[:, column]]).sum(axis=1)
        distances, rows = _sorted(distances, rows)
        return distances[:, :k], rows[:, :k]


class _Lists:
    """An inverted file of ``vectors[rows]``; what it finds are places in ``rows``."""

    def __init__(self, vectors: Vectors, rows: NDArray[np.int64], seed: int, progress: Progress) -> None:
        self.index = _inverted_file(vectors, rows, seed, progress)

    def order(self) -> NDArray[np.int64]:
        """List by list: queries that read the same lists one after another find them in the processor's cache."""
        lists = self.index.invlists
        filled = [i for i in range(self.index.nlist) if lists.list_size(i)]
        return np.concatenate([faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)) for i in filled])

    def search(self, block: NDArray[np.float32], k: int) -> Found:
        return _sorted(*self.index.search(block, k))


class _Copies(NamedTuple):
    """N rows as U distinct ones: ``members[start[u] : start[u] + times[u]]`` are the rows equal to row ``first[u]``."""

    first: NDArray[np.int64]
    start: NDArray[np.int64]
    times: NDArray[np.int64]
    members: NDArray[np.int64]

    def spread(self, distances: NDArray[np.float32], found: NDArray[np.int64]) -> Found:
        """Neighbours (B, k) among distinct rows as neighbours (B, k) among all: each as often as it has copies."""
        if len(self.first) == len(self.members):
            return distances, found
        k = found.shape[1]
        take = np.where(found < 0, k, self.times[found])
        before = np.cumsum(take, axis=1) - take
        take = np.clip(k - before, 0, take)  # every row sums to k now
        which = np.repeat(np.arange(found.size), take.ravel())
        within = np.tile(np.arange(k), len(found)) - before.ravel()[which]
        distinct = found.ravel()[which]
        within[distinct < 0] = 0
        rows = np.where(distinct < 0, -1, self.members[self.start[distinct] + within])
        return _sorted(distances.ravel()[which].reshape(-1, k), rows.reshape(-1, k))

    def spread_order(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """An order of the U distinct rows as one of all N, copies side by side."""
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        ordered: NDArray[np.int64] = self.members[np.argsort(np.repeat(rank, self.times), kind="stable")]
        return ordered


def _copies(vectors: Vectors) -> _Copies:
    """Groups of equal rows, by a 64-bit sum of their bits with fixed odd factors; equal sums are then compared."""
    n, d = vectors.shape
    factors = np.random.default_rng(0).integers(0, 2**63, d, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    sums = np.empty(n, dtype=np.uint64)
    for part in _blocks(vectors):
        words = (_float32(vectors[part]) + np.float32(0)).view(np.uint32)  # + 0 makes -0 and 0 the same bits
        sums[part] = words.astype(np.uint64) @ factors
    order = np.argsort(sums, kind="stable")
    new = np.ones(n, dtype=bool)
    new[1:] = sums[order[1:]] != sums[order[:-1]]
    again = np.flatnonzero(~new)
    for part in _blocks(vectors, len(again)):
        at = again[part]
        new[at] = (_float32(vectors[order[at]]) != _float32(vectors[order[at - 1]])).any(axis=1)
    representative = np.empty(n, dtype=np.int64)
    representative[order] = order[new][np.cumsum(new) - 1]
    members = np.argsort(representative, kind="stable")
    first, start, times = np.unique(representative[members], return_index=True, return_counts=True)
    return _Copies(first, start, times, members)


def _inverted_file(vectors: Vectors, rows: NDArray[np.int64], seed: int, progress: Progress) -> Any:
    """The index of ``vectors[rows]``; what it finds are places in ``rows``."""
    d = vectors.shape[1]
    lists = max(1, round(len(rows) / POINTS_PER_LIST))
    quantizer = _two_levels(vectors, rows, lists, seed, progress)
    if vectors.dtype == np.float16:  # kept as they are, nothing is lost
        half = faiss.ScalarQuantizer.QT_fp16
        index: Any = faiss.IndexIVFScalarQuantizer(quantizer, d, quantizer.ntotal, half, faiss.METRIC_L2, False)
        index.train(np.zeros((1, d), dtype=np.float32))
    else:
        index = faiss.IndexIVFFlat(quantizer, d, quantizer.ntotal)
    index.nprobe = LISTS_READ
    with progress.task("Indexing vectors", len(rows), "vectors") as advance:
        for part in _blocks(vectors, len(rows)):
            index.add(_float32(vectors[rows[part]]))
            advance(part.stop - part.start)
    return index


def _two_levels(
    vectors: Vectors, rows: NDArray[np.int64], lists: int, seed: int, progress: Progress
) -> faiss.IndexIVFFlat:
    """About ``lists`` centroids that can be searched in far fewer than ``lists`` steps."""
    d = vectors.shape[1]
    size = min(len(rows), SAMPLE_PER_LIST * lists)
    drawn = np.sort(np.random.default_rng(seed).choice(len(rows), size, replace=False))
    sample = _float32(vectors[rows[drawn]])
    cells = max(1, round(lists**0.5))
    with progress.task("Grouping vectors", cells + 1, "groups") as advance:
        top = faiss.IndexFlatL2(d)
        top.add(_kmeans(sample, cells, seed))
        cell = top.search(sample, 1)[1].ravel()
        advance(1)
        order = np.argsort(cell, kind="stable")
        bounds = np.searchsorted(cell[order], np.arange(cells + 1))
        centroids = []
        for start, stop in pairwise(bounds):
            if stop > start:  # as many lists as it has points for
                share = max(1, round((stop - start) * lists / size))
                centroids.append(_kmeans(sample[order[start:stop]], share, seed))
            advance(1)
    quantizer = faiss.IndexIVFFlat(top, d, cells)
    quantizer.add(np.concatenate(centroids))
    quantizer.nprobe = CELLS_READ
    return quantizer


def _kmeans(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    if count == 1:
        mean: NDArray[np.float32] = points.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return mean
    kmeans = faiss.Kmeans(
        points.shape[1],
        count,
        niter=ROUNDS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    kmeans.train(points)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def reduce(
    vectors: Vectors,
    dimensions: int = 128,
    *,
    whiten: bool = False,
    sample: int = 20_000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> NDArray[np.float32]:
    """The vectors' ``dimensions`` principal components, centred: float32 (N, d), in time linear in N.

    vectors  (N, D), float16 or float32, may be a memory map; converted in blocks
    whiten   divide each component by its standard deviation, so that all weigh the same in a distance
    sample   the components are found on so many rows, drawn by ``seed``, by randomised projection (Halko, Martinsson,
             Tropp 2011); the sample is in memory twice as float32. All rows are then projected

    d is smaller than asked for where D or the rows drawn are fewer and, with ``whiten``, where components hold nothing
    but rounding; it is 1, all zero, where the rows drawn are equal. Signs are fixed: the largest weight of a component
    is positive. Raises DataError for no rows or values that are not finite, UsageError for dimensions below 1.
    """
    from sklearn.decomposition import PCA

    if dimensions < 1:
        raise UsageError(f"dimensions must be at least 1, found {dimensions}")
    _check(vectors, "vectors")
    if len(vectors) == 0:
        raise DataError("there are no vectors to reduce")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:sample])
    seen = _float32(vectors[drawn])
    if (seen == seen[0]).all():  # of one point there are no components
        return np.zeros((len(vectors), 1), dtype=np.float32)
    pca = PCA(min(dimensions, *seen.shape), svd_solver="randomized", random_state=seed % 2**32).fit(seen)
    deviation = np.sqrt(pca.explained_variance_)
    kept = int((deviation > 1e-4 * deviation[0]).sum()) if whiten else len(deviation)
    weights = pca.components_[:kept].T / (deviation[:kept] if whiten else 1)
    weights, mean = np.ascontiguousarray(weights, dtype=np.float32), pca.mean_.astype(np.float32)
    reduced = np.empty((len(vectors), kept), dtype=np.float32)
    with progress.task("Reducing vectors", len(vectors), "vectors") as advance:
        for part in _blocks(vectors):
            reduced[part] = (_float32(vectors[part]) - mean) @ weights
            advance(part.stop - part.start)
    return reduced


def _without_self(distances: NDArray[np.float32], rows: NDArray[np.int64], own: NDArray[np.int64]) -> Found:
    """(B, k + 1) neighbours without the row's own number, or, where many copies left no room for it, the last."""
    is_self = rows == own[:, None]
    is_self[:, -1] |= ~is_self.any(axis=1)
    shape = (len(rows), rows.shape[1] - 1)
    return distances[~is_self].reshape(shape), rows[~is_self].reshape(shape)


def _sorted(distances: NDArray[np.float32], rows: NDArray[np.int64]) -> Found:
    """Rising distances, equal ones by row number; what was not found last."""
    distances = np.where(rows < 0, np.float32(np.inf), distances)
    order = np.lexsort((rows, distances), axis=1)
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _check(vectors: Vectors, name: str) -> None:
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind != "f":
        raise DataError(f"{name} must be floating numbers (N, d), found {vectors.dtype} {vectors.shape}")
    largest = min(LARGEST, float(np.finfo(vectors.dtype).max))
    for part in _blocks(vectors):
        good = (np.abs(vectors[part]) <= largest).all(axis=1)  # false for NaN as well
        if not good.all():
            raise DataError(
                f"{name} must be finite and no larger than {LARGEST:g}; row {part.start + int(good.argmin())} is not"
            )


def _blocks(vectors: Vectors, rows: int | None = None) -> Iterator[slice]:
    """Slices of all rows (or of ``rows`` of them) that take a bounded number of bytes as float32."""
    total = len(vectors) if rows is None else rows
    step = max(1, _BLOCK_BYTES // (4 * vectors.shape[1]))
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _float32(block: Vectors) -> NDArray[np.float32]:
    return np.ascontiguousarray(block, dtype=np.float32)
