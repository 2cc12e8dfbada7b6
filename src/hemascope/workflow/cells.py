"""What a job is given as its cells: a path, or cells already prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import CellDataset
from hemascope.config import Preparation, RunConfig
from hemascope.data.load import load
from hemascope.errors import DataError
from hemascope.progress import Progress

Data = str | Path | CellDataset


def cells_of(
    data: Data,
    config: RunConfig,
    *,
    format: str | None,
    class_names: Sequence[str] | None,
    progress: Progress,
) -> CellDataset:
    """The cells of ``data``, prepared as the config says."""
    wanted = config.data.preparation
    if isinstance(data, CellDataset):
        height, width = data.images.shape[1:3]
        if (height, width) != (wanted.size, wanted.size) or data.preparation not in ("", wanted.describe()):
            raise DataError(
                f"the settings ask for cells prepared as {wanted.describe()}; these are {height} × {width}, "
                f"prepared as {data.preparation or 'nobody said'}. Load them with preparation=config.data.preparation."
            )
        return data
    return load(
        data,
        format=format,
        preparation=config.data.preparation,
        class_names=class_names,
        label_pattern=config.data.label_pattern,
        max_unreadable=config.data.max_unreadable,
        progress=progress,
    )


SAMPLED = 500
"""Cells that say in what light a set was taken; their mean hardly moves with more."""


def sampled(cells: CellDataset, rows: np.ndarray) -> np.ndarray:
    """At most SAMPLED images of these rows, evenly spread: uint8 (n, S, S, 3)."""
    step = max(1, -(-len(rows) // SAMPLED))
    return np.stack([cells.images[row] for row in rows[::step]])


def prepared_for(config: RunConfig, preparation: Preparation) -> RunConfig:
    """``config`` with the preparation a model takes its images in."""
    return config.model_copy(update={"data": config.data.model_copy(update={"preparation": preparation})})


def spread(labels: NDArray[np.int64], seed: int) -> NDArray[np.intp]:
    """All places of ``labels`` (n,) in an order drawn by ``seed``: one of each label first, then a second of each."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.zeros(len(labels), dtype=np.intp)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels[order] == label)
        rank[mine] = np.arange(len(mine))
    return order[np.argsort(rank, kind="stable")]


class Rows:
    """Some rows of a large array of images, without copying them: index with a number or a slice."""

    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, H, W, 3)."""
        return (len(self.rows), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """That of the images."""
        return self.images.dtype

    def __getitem__(self, index: int | slice) -> np.ndarray:
        chosen: np.ndarray = self.images[self.rows[index]]
        return chosen
