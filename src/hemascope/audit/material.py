"""What the checks look at: the cells, measures of the original images, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import CellDataset
from hemascope.embeddings import Embedder, Embeddings
from hemascope.errors import DataError


@dataclass(frozen=True)
class Measures:
    """Measured on the N original images before preparation; row i belongs to cell i.

    format, mode     N names as Pillow gives them; "array" and the number type for rows of arrays
    file_bytes       int64 (N,), 0 for rows of arrays
    file_hash        N hex digests of the file's bytes, "" for rows of arrays
    size             int32 (N, 2), height and width in pixels, as stored
    brightness       float32 (N,), mean luminance (ITU-R BT.601), 0 to 255
    darkest, brightest  float32 (N,), percentiles 1 and 99 of the luminance
    contrast         float32 (N,), standard deviation of the luminance
    sharpness        float32 (N,), variance of the Laplacian of the luminance over its variance, at a side of 96 pixels
    entropy          float32 (N,), bits of the luminance histogram of 64 levels
    colour           float32 (N, 3), mean R, G, B
    border           float32 (N, 6), mean and deviation of R, G, B in the outer 6 % of the image
    stain            float32 (N, 2), mean optical density of haematoxylin- and eosin-like dyes (Ruifrok, Johnston 2001)
    foreground       float32 (N,), share of the image darker than its background (Otsu): a measure of scale
    metadata         N short texts of what else the file says (JPEG quantisation, software, density), "" for none
    """

    format: Sequence[str]
    mode: Sequence[str]
    file_bytes: NDArray[np.int64]
    file_hash: Sequence[str]
    size: NDArray[np.int32]
    brightness: NDArray[np.float32]
    darkest: NDArray[np.float32]
    brightest: NDArray[np.float32]
    contrast: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    entropy: NDArray[np.float32]
    colour: NDArray[np.float32]
    border: NDArray[np.float32]
    stain: NDArray[np.float32]
    foreground: NDArray[np.float32]
    metadata: Sequence[str]

    def __post_init__(self) -> None:
        lengths = {name: len(value) for name, value in vars(self).items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"measures must have one entry for each image, found {lengths}")

    def __len__(self) -> int:
        return len(self.file_bytes)


@dataclass(frozen=True)
class Material:
    """What every check is given. N cells, D dimensions of embedding.

    cells       prepared images, labels, ids, splits, groups; what was unreadable
    measures    of the originals
    embeddings  of the prepared images
    embedder    what made them, for checks that make pictures of their own; None where nothing can be embedded
    seed        for whatever a check draws
    """

    cells: CellDataset
    measures: Measures
    embeddings: Embeddings
    embedder: Embedder | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {len(self.cells), len(self.measures), len(self.embeddings)}
        if len(counts) > 1:
            raise DataError(
                f"cells, measures and embeddings must agree in number, found {len(self.cells)}, {len(self.measures)} "
                f"and {len(self.embeddings)}"
            )
