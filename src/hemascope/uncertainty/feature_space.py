"""Where features of training cells lie: a few directions, what is left outside of them, and normal laws within.

The length of what a few directions leave out needs no further directions: it is the difference of two squared norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

Floats = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.floating[Any]]

_RANK = 1e-10
"""Directions with less than this share of the strongest one's variance are rounding."""


@dataclass(frozen=True)
class Directions:
    """P directions of features of D columns.

    centre  float32 (D,): where they start
    basis   (P, D): orthonormal rows
    spread  float32 (D,): what columns are divided by first, or None
    """

    centre: Floats
    basis: Floats
    spread: Floats | None = None

    @classmethod
    def restored(cls, centre: Numbers, basis: Numbers, spread: Numbers | None = None) -> Directions:
        """From a basis rounded to float16: made orthonormal again, as near to it as can be (Löwdin 1950).

        Without it the difference of two squared norms would hold the rounding, which is more than many a residual.
        """
        rough = np.asarray(basis, dtype=np.float64)
        values, vectors = np.linalg.eigh(rough @ rough.T)
        right = (vectors / np.sqrt(np.maximum(values, 1e-6))) @ vectors.T @ rough
        return cls(
            np.asarray(centre, dtype=np.float32),
            right.astype(np.float32),
            None if spread is None else np.asarray(spread, dtype=np.float32),
        )

    def project(self, features: Numbers) -> tuple[Floats, Floats]:
        """Features (N, D) to coordinates (N, P) and lengths of what is outside the directions (N,)."""
        centred = np.asarray(features, dtype=np.float32) - self.centre
        if self.spread is not None:
            centred = centred / self.spread
        vectors = centred @ self.basis.T
        left = np.square(centred).sum(axis=1) - np.square(vectors).sum(axis=1)
        return np.asarray(vectors), np.sqrt(np.maximum(0.0, left, dtype=np.float32))

    @property
    def outside_dimensions(self) -> int:
        """How many dimensions the directions leave out."""
        return int(self.basis.shape[1] - self.basis.shape[0])


@dataclass(frozen=True)
class NormalLaws:
    """One normal law for each class, all of one covariance, and an even one for what is outside the directions.

    means             float32 (classes, P)
    whitening         float32 (P, P): ``x @ whitening`` has the identity as covariance
    outside_variance  of one dimension outside, 0 where there is none

    The covariance of a probabilistic principal component analysis (Tipping and Bishop 1999).
    """

    means: Floats
    whitening: Floats
    outside_variance: float

    def distances(self, vectors: Floats, outside: Floats) -> Floats:
        """Squared Mahalanobis distance to the nearest mean, float32 (N,), of what ``Directions.project`` gives."""
        white, means = vectors @ self.whitening, self.means @ self.whitening
        nearest = np.stack([np.square(white - mean).sum(axis=1) for mean in means]).min(axis=0)
        if self.outside_variance > 0:
            nearest = nearest + np.square(outside) / np.float32(self.outside_variance)
        return np.asarray(nearest, dtype=np.float32)


def principal_directions(centred: Floats, most: int) -> NDArray[np.float16]:
    """At most ``most`` principal directions of (N, D) about 0: orthonormal rows (P, D), strongest first.

    Fewer where N or the rank is less, at least one. float16, which is 0.05 % off and half the size; signs are such
    that the largest entry is positive, so that they do not depend on the machine.
    """
    if len(centred) >= centred.shape[1]:
        strength, columns = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        rows, strength = columns.T[::-1], strength[::-1]
    else:
        _, singular, rows = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        strength = np.square(singular)
    rank = max(1, int((strength > strength[0] * _RANK).sum()))
    rows = rows[: min(most, rank)]
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    return np.asarray((rows * np.where(largest < 0, -1.0, 1.0)[:, None]).astype(np.float16))


def fit_normal_laws(
    vectors: Floats, labels: NDArray[np.integer[Any]], outside: Floats, outside_dimensions: int
) -> NormalLaws:
    """The laws of training cells.

    vectors   (N, P) of training cells, with labels (N,); those below 0 are left out
    outside   (C,) of cells the network has not learnt from: outside, learnt cells lie closer than others

    The covariance is shrunk as far as the number of cells asks for (Ledoit and Wolf 2004).
    """
    known = labels >= 0
    vectors, labels = vectors[known], labels[known]
    present, places = np.unique(labels, return_inverse=True)
    means = np.stack([vectors[places == k].mean(axis=0, dtype=np.float64) for k in range(len(present))])
    from sklearn.covariance import ledoit_wolf  # a second, which prediction need not wait for

    covariance, _ = ledoit_wolf(vectors - means[places], assume_centered=True)
    size = len(covariance)
    floor = 1e-6 * max(float(np.trace(covariance)) / size, 1e-12)
    factor = np.linalg.cholesky(covariance + floor * np.eye(size))
    whitening = solve_triangular(factor, np.eye(size), lower=True).T
    squares = float(np.square(outside, dtype=np.float64).mean())
    variance = squares / outside_dimensions if outside_dimensions else 0.0
    return NormalLaws(means.astype(np.float32), whitening.astype(np.float32), variance)


def drawn_evenly(labels: NDArray[np.integer[Any]], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """At most ``most`` places in ``labels`` (N,), rising: all, or as many of each class as go, small classes whole."""
    if len(labels) <= most:
        return np.arange(len(labels))
    turns = np.empty(len(labels), dtype=np.int64)
    for name in np.unique(labels):
        own = np.flatnonzero(labels == name)
        turns[own] = rng.permutation(len(own))
    # By turn: first one of each class, then a second of each, until there are enough.
    return np.sort(np.lexsort((rng.permutation(len(labels)), turns))[:most])
