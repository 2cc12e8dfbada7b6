"""How unlike the set's own pictures a picture is, and how like pictures that are known not to belong.

A linear separation, in a space of a few hundred directions of the embedding, between the set's own images and the
exposures made from them (``exposures.py``). No image is scored by a model that has seen it.

The set's own images are not all good: with 6 % of them overlaid, a separation that takes them all as good learns to
accept overlays (average precision 0.79 instead of 0.99 here). So the first rounds are too stiff to remember single
pictures (shrunken covariance), and each round leaves out what the one before found suspicious.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

FOLDS = 2
SAMPLE = 3000
"""Own images a model is fitted on, at most."""

ROUNDS: tuple[tuple[int, float | None], ...] = ((256, 0.5), (256, 0.3), (512, None), (512, None))
"""Directions, and the share by which the covariance is shrunk; None for the last two, logistic regressions."""

SUSPICIOUS = 3.0
"""Left out of the next round: beyond the median by so many spreads of the better half of the scores."""

_PENALTY = 1e-3
"""Inverse strength of the last round's ridge penalty."""

_FAR = 8.0
"""Standardised features are cut off here: a picture of nothing the network knows is far away in some of them."""

Vectors = NDArray[np.floating]
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class _Space:
    """Standardised by the set's own images, then the leading directions of them and the exposures together."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    axes: PCA

    def __call__(self, vectors: Vectors) -> NDArray[np.float32]:
        standard = np.clip((np.asarray(vectors, np.float32) - self.mean) / self.scale, -_FAR, _FAR)
        reduced: NDArray[np.float32] = self.axes.transform(standard).astype(np.float32)
        return reduced


def unlikeness(own: Vectors, exposures: Vectors, *, seed: int) -> NDArray[np.float64]:
    """Float (N,): above 0 more like the exposures, below 0 more like the set's own images.

    own        (N, D), any N at least 20, a memory map is read in blocks
    exposures  (M, D)
    """
    rng = np.random.default_rng(seed)
    count = len(own)
    fold = rng.permutation(count) % FOLDS
    samples = [np.sort(rng.permutation(np.flatnonzero(fold != part))[:SAMPLE]) for part in range(FOLDS)]
    drawn = np.unique(np.concatenate(samples))
    place = {int(row): index for index, row in enumerate(drawn)}
    inside = [np.array([place[int(row)] for row in sample]) for sample in samples]
    picked = np.asarray(own[drawn], dtype=np.float32)
    bad = np.asarray(exposures, dtype=np.float32)
    good = np.ones(len(drawn), dtype=bool)
    for number, (directions, shrinkage) in enumerate(ROUNDS):
        space = _space(picked, bad, directions, seed)
        inner, outer = space(picked), space(bad)
        scorers = [_fitted(inner[rows[good[rows]]], outer, shrinkage) for rows in inside]
        if number == len(ROUNDS) - 1:
            break
        held_out = np.empty(len(drawn))
        for part, scorer in enumerate(scorers):
            mine = fold[drawn] == part
            held_out[mine] = scorer(inner[mine])
        good = held_out < beyond(held_out, SUSPICIOUS)
    result = np.empty(count)
    for block in _blocks(count):
        reduced = space(own[block])
        for part, scorer in enumerate(scorers):
            mine = fold[block] == part
            if mine.any():
                result[block][mine] = scorer(reduced[mine])
    return result


def beyond(scores: NDArray[np.floating], spreads: float) -> float:
    """The line so many spreads above the median; the spread is that of the lower half, which faults do not reach.

    Spread: from the median to the quantile that lies one standard deviation below it in a normal distribution.
    """
    median = float(np.median(scores))
    return median + spreads * (median - float(np.quantile(scores, 0.1587)))


def _space(own: NDArray[np.float32], exposures: NDArray[np.float32], directions: int, seed: int) -> _Space:
    mean, scale = own.mean(0), own.std(0) + 1e-6
    together = np.clip((np.concatenate([own, exposures]) - mean) / scale, -_FAR, _FAR)
    most = min(directions, *together.shape)
    axes = PCA(most, svd_solver="randomized", random_state=seed).fit(together)
    return _Space(mean, scale, axes)


def _fitted(good: NDArray[np.float32], bad: NDArray[np.float32], shrinkage: float | None) -> Scorer:
    features = np.concatenate([good, bad])
    is_bad = np.repeat([0, 1], [len(good), len(bad)])
    if shrinkage is None:
        model = LogisticRegression(C=_PENALTY, solver="newton-cholesky", max_iter=500)
    else:
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    scorer: Scorer = model.fit(features, is_bad).decision_function
    return scorer


def _blocks(count: int, size: int = 8192) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
