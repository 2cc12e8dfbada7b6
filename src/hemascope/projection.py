"""Maps of embeddings for the eye, and the numbers that stand beside them so that the eye is not the judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hemascope.errors import DataError, UsageError
from hemascope.neighbours import nearest, reduce
from hemascope.progress import SILENT, Progress

FEWEST = 5
"""Points below which there is nothing to lay out."""
COMPONENTS = 50
EARLY_ROUNDS, ROUNDS = 250, 500
"""Of gradient descent, with and without exaggerated attraction: openTSNE's own."""
ROUNDS_A_REPORT = 25

SILHOUETTE_SAMPLE = 5000
"""The silhouette takes all pairs of so many."""
VOTERS = 15

FEWEST_OF_A_CLASS = 30
MUST_SHARE = 0.5


def project(
    vectors: NDArray[np.floating], *, seed: int = 0, perplexity: float = 30, progress: Progress = SILENT
) -> NDArray[np.float32]:
    """A t-SNE map: float32 (M, 2), centred. vectors floating (M, D), in memory or memory-mapped.

    The first ``COMPONENTS`` principal components, the exact nearest neighbours in them (approximate beyond
    ``neighbours.EXACT_UP_TO``), started from the first two components scaled to a deviation of 0.0001, which keeps the
    large arrangement true (van der Maaten, Hinton 2008; Kobak, Berens 2019; Poličar et al. 2024, openTSNE). perplexity
    is lowered to a third of the other points where there are few. The same vectors and seed give the same map on the
    same machine. Raises DataError for fewer than 5 points or values that are not
    finite, UsageError for a perplexity below 1.
    """
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    if perplexity < 1:
        raise UsageError(f"the perplexity must be at least 1, found {perplexity}")
    if len(vectors) < FEWEST:
        raise DataError(f"a map needs at least {FEWEST} points, found {len(vectors)}")
    perplexity = min(perplexity, (len(vectors) - 1) / 3)
    reduced = reduce(vectors, COMPONENTS, seed=seed)
    squared, rows = nearest(reduced, min(len(reduced) - 1, int(3 * perplexity)), seed=seed)
    affinities = PerplexityBasedNN(
        perplexity=perplexity, knn_index=PrecomputedNeighbors(rows, np.sqrt(squared.astype(np.float64)))
    )
    with progress.task("Drawing the map", EARLY_ROUNDS + ROUNDS, "rounds") as advance:

        def report(_round: int, _error: float, _embedding: Any) -> None:
            advance(ROUNDS_A_REPORT)

        tsne = TSNE(
            early_exaggeration_iter=EARLY_ROUNDS,
            n_iter=ROUNDS,
            callbacks=report,
            callbacks_every_iters=ROUNDS_A_REPORT,
            n_jobs=faiss.omp_get_max_threads(),  # the same map for any number
            random_state=seed,
        )
        found = tsne.fit(affinities=affinities, initialization=_start(reduced, seed))
    position = np.asarray(found, dtype=np.float64)
    centred: NDArray[np.float32] = (position - position.mean(axis=0)).astype(np.float32)
    return centred


def _start(reduced: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """The first two components, small, and shaken a little so that copies do not start on one spot."""
    start = np.zeros((len(reduced), 2))
    start[:, : reduced.shape[1]] = reduced[:, :2]
    start /= max(float(start[:, 0].std()), 1e-30)
    shake = np.random.default_rng(seed).normal(0, 0.01, start.shape)
    scaled: NDArray[np.float64] = 1e-4 * (start + shake)
    return scaled


@dataclass(frozen=True)
class Separation:
    """How far apart classes lie in the embedding space; None where fewer than two classes are labelled.

    silhouette    -1 to 1, the mean over cells of how much nearer the own class is than the nearest other
    knn_accuracy  0 to 1, balanced accuracy of naming each cell by its ``k`` nearest others
    k             how many voted
    """

    silhouette: float | None
    knn_accuracy: float | None
    k: int


def separation(
    vectors: NDArray[np.floating], labels: NDArray[np.int64], *, k: int = VOTERS, seed: int = 0
) -> Separation:
    """Silhouette (Rousseeuw 1987) and leave-one-out k-NN accuracy of labelled rows, both by cosine distance.

    vectors (M, D) floating, labels int64 (M,), -1 is left out. Cosine, because the length of a vector follows contrast
    and stain rather than class, and differs before and after training. The silhouette is taken on at most
    ``SILHOUETTE_SAMPLE`` rows drawn by ``seed``, the k-NN vote on all; equal votes go to the more similar cells. A
    class of one cell counts: its silhouette is 0 and its vote cannot be won. Raises DataError for shapes that do not
    fit or values that are not finite.
    """
    from sklearn.metrics import balanced_accuracy_score, silhouette_score

    if vectors.ndim != 2 or labels.shape != (len(vectors),):
        raise DataError(f"vectors (M, D) need labels (M,), found {vectors.shape} and {labels.shape}")
    rows = np.flatnonzero(labels >= 0)
    classes, own = np.unique(labels[rows], return_inverse=True)
    if len(classes) < 2:
        return Separation(None, None, 0)
    unit = _unit(vectors[rows])
    k = min(k, len(rows) - 1)
    squared, near = nearest(unit, k, seed=seed)
    similar = 1 - squared / 2  # of unit vectors: the cosine
    at = np.arange(len(rows))[:, None] * len(classes) + own[near]
    votes = np.bincount(at.ravel(), (1 + 1e-3 * similar).ravel(), len(rows) * len(classes))
    named = votes.reshape(len(rows), len(classes)).argmax(axis=1)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:SILHOUETTE_SAMPLE])
    seen = len(np.unique(own[drawn]))
    possible = 2 <= seen < len(drawn)
    return Separation(
        silhouette=float(silhouette_score(unit[drawn], own[drawn], metric="cosine")) if possible else None,
        knn_accuracy=float(balanced_accuracy_score(own, named)),
        k=k,
    )


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length one; a row of zeros stays."""
    values = np.array(vectors, dtype=np.float32)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return values


def choose_rows(
    labels: NDArray[np.int64], count: int = 5000, *, seed: int = 0, must: ArrayLike = ()
) -> NDArray[np.int64]:
    """Which of N cells to draw: rising row numbers, int64 (at most ``count``,); all N where they fit.

    Drawn by ``seed`` in proportion to the classes (-1 counts as one), but of each at least ``FEWEST_OF_A_CLASS`` or all
    it has, as far as half the room goes round. ``must`` are rows wanted in any case, such as findings, most wanted
    first; they take up to ``MUST_SHARE`` of the count. Raises UsageError for a count below 1 or rows that are not
    there.
    """
    if count < 1:
        raise UsageError(f"the number of points must be at least 1, found {count}")
    wanted = np.asarray(must, dtype=np.int64).ravel()
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(labels)):
        raise UsageError(f"rows must lie in 0 to {len(labels) - 1}, found {wanted.min()} to {wanted.max()}")
    if len(labels) <= count:
        return np.arange(len(labels))
    first = np.sort(np.unique(wanted, return_index=True)[1])
    taken = wanted[first][: int(MUST_SHARE * count)]
    free = np.ones(len(labels), dtype=bool)
    free[taken] = False
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(free))
    rows = rows[np.argsort(labels[rows], kind="stable")]  # class by class, shuffled within each
    _, start, sizes = np.unique(labels[rows], return_index=True, return_counts=True)
    quota = _quotas(sizes, count - len(taken))
    chosen = [rows[a : a + n] for a, n in zip(start, quota, strict=True)]
    return np.sort(np.concatenate([taken, *chosen]))


def _quotas(sizes: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """How many of each class: a fair floor, the rest in proportion by largest remainders. Sums to ``room``."""
    least = np.minimum(sizes, min(FEWEST_OF_A_CLASS, room // (2 * len(sizes))))
    rest, left = sizes - least, room - int(least.sum())
    exact = left * rest / rest.sum()
    more = np.floor(exact).astype(np.int64)
    more[np.argsort(more - exact, kind="stable")[: left - int(more.sum())]] += 1
    quotas: NDArray[np.int64] = least + more
    return quotas
