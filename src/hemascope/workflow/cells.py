"""What a job is given as its cells: a path, or cells already prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hemascope.cells import CellDataset
from hemascope.config import RunConfig
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
