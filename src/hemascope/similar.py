"""The training cells a model sees as most like a new one: a second opinion, with names and distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.errors import UsageError

Floats = NDArray[np.float32]

_BLOCK = 4096


@dataclass(frozen=True)
class Neighbours:
    """The k nearest training cells of N new ones, nearest first.

    rows       int64 (N, k): places among the known cells
    distances  float32 (N, k): 1 minus the cosine of the angle between the features, 0 (the same) to 2
    """

    rows: NDArray[np.int64]
    distances: Floats


@dataclass(frozen=True)
class KnownCells:
    """M training cells in the directions a model's features lie in.

    ids      M names
    labels   int64 (M,), indices into ``class_names``, below 0 for none
    vectors  float32 (M, P), as ``out_of_distribution.Detector.project`` gives them
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    vectors: Floats
    class_names: Sequence[str]

    def nearest(self, vectors: Floats, k: int) -> Neighbours:
        """Of new cells (N, P), projected likewise; fewer than k where no more are known. UsageError for k below 1."""
        if k < 1:
            raise UsageError(f"at least 1 similar cell must be asked for, found {k}")
        known, k = _unit(self.vectors), min(k, len(self.ids))
        rows = np.empty((len(vectors), k), dtype=np.int64)
        distances = np.empty((len(vectors), k), dtype=np.float32)
        for start in range(0, len(vectors), _BLOCK):
            cosines = _unit(vectors[start : start + _BLOCK]) @ known.T
            # Equal cells in the order they are known in, so that the same question has the same answer.
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            rows[start : start + _BLOCK] = order
            distances[start : start + _BLOCK] = 1 - np.take_along_axis(cosines, order, axis=1)
        return Neighbours(rows, np.maximum(distances, 0.0))

    def label(self, row: int) -> str:
        """The class of one known cell, "" where it has none."""
        return self.class_names[self.labels[row]] if self.labels[row] >= 0 else ""


def agreement(known: KnownCells, rows: NDArray[np.int64], named: int) -> int:
    """How many of the neighbours int64 (k,) have the class a new cell was given."""
    return int((known.labels[rows] == named).sum())


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
