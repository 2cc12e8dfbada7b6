"""Embeddings with every column on one scale, made as they are read."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

SAMPLE = 10_000
FAR = 8.0
"""Deviations at which a value is cut off: one odd column must not decide a distance."""


class _Standardised:
    """An (N, D) array whose rows are scaled when they are asked for: a memory map stays on disk."""

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, vectors: NDArray[np.floating], seed: int) -> None:
        rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:SAMPLE])
        sample = np.asarray(vectors[rows], dtype=np.float32)
        self._vectors, self._mean, self._scale = vectors, sample.mean(0), sample.std(0) + 1e-6
        self.shape = vectors.shape

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.clip(
            (np.asarray(self._vectors[rows], dtype=np.float32) - self._mean) / self._scale, -FAR, FAR
        )
        return found


def standardised(vectors: NDArray[np.floating], *, seed: int) -> NDArray[np.float32]:
    """``vectors`` (N, D) less their mean, over their deviation, both of a sample; cut off at 8 deviations.

    Late stages of a network have larger numbers than early ones; without this they alone would decide. The result is
    to be read in blocks of rows: it computes them as they are asked for and holds none.
    """
    return cast("NDArray[np.float32]", _Standardised(vectors, seed))
