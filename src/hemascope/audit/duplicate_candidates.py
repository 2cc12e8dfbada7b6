"""Which pairs of images could be copies: nearest neighbours in a space that hardly notices how copies are edited.

The plain features of a network move with every crop and JPEG artefact. How they move can be measured without any
label: some of the images are edited, embedded again, and the directions in which their vectors moved are shrunk, as
within-class directions are in linear discriminant analysis (Fisher 1936; Hatch, Stolcke 2006 for the same step in
speaker recognition).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import eigh

from hemascope.audit.material import Material
from hemascope.neighbours import nearest
from hemascope.progress import SILENT, Progress

SAMPLE = 400
EDITS = 3
"""Images edited to learn the space, and edited copies of each."""
DIMENSIONS = 128
_SHRINKAGE = 0.03
_BLOCK = 4096
_EDITED_AT_ONCE = 240


@dataclass(frozen=True)
class Candidates:
    """P pairs of rows worth comparing.

    left, right  int64 (P,), left < right, sorted by left; every pair once
    distance     float32 (P,), squared, between vectors of length 1: 0 to 4
    how          they were found, in words
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distance: NDArray[np.float32]
    how: str


def find_candidates(
    material: Material, rows: NDArray[np.int64], neighbours: int, *, progress: Progress = SILENT
) -> Candidates:
    """Each of ``rows`` with its ``neighbours`` nearest others among them; every pair once."""
    vectors, how = _invariant_vectors(material, rows, progress)
    distance, found = nearest(vectors, neighbours, seed=material.seed, progress=progress)
    one = np.repeat(np.arange(len(rows)), found.shape[1])
    other = found.ravel()
    there = other >= 0
    one, other = one[there], other[there]
    # Keys in int64 suffice up to three thousand million rows.
    key, first = np.unique(np.minimum(one, other) * len(rows) + np.maximum(one, other), return_index=True)
    one, other = rows[key // max(len(rows), 1)], rows[key % max(len(rows), 1)]
    return Candidates(
        np.minimum(one, other),
        np.maximum(one, other),
        distance.ravel()[there][first],
        f"the {neighbours} nearest others of each, by {how}",
    )


def edited_copy(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One image (S, S, 3) as it could have come back: cropped, coarser, saved as JPEG, turned, brighter, restained."""
    side = image.shape[0]
    field = side * float(rng.choice([1.0, 0.85, rng.uniform(0.85, 1), *rng.uniform(0.65, 0.85, 2)]))
    left, top = rng.uniform(0, side - field, 2) if field >= 0.85 * side else ((side - field) / 2, (side - field) / 2)
    coarse = max(4, int(rng.choice([side, round(side * rng.uniform(0.5, 1))])))
    picture = Image.fromarray(image).resize(
        (coarse, coarse), Image.Resampling.BICUBIC, box=(left, top, left + field, top + field)
    )
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=int(rng.integers(50, 91)))
        picture = Image.open(buffer).convert("RGB")
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
    turn = int(rng.integers(8))
    pixels = np.rot90(pixels, turn % 4)
    if turn >= 4:
        pixels = pixels[:, ::-1]
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)
    return np.clip(np.rint(pixels * gain), 0, 255).astype(np.uint8)


def _invariant_vectors(
    material: Material, rows: NDArray[np.int64], progress: Progress
) -> tuple[NDArray[np.float16], str]:
    """Vectors of length 1, float16 (len(rows), d), and what they are, in words."""
    columns = _columns(material)
    vectors = material.embeddings.vectors
    mean, deviation = _moments(vectors, rows, columns)

    def standardised(block: NDArray[np.float16]) -> NDArray[np.float64]:
        return (block[:, columns].astype(np.float64) - mean) / deviation

    total = np.zeros((columns.stop - columns.start,) * 2)
    for start in range(0, len(rows), _BLOCK):
        block = standardised(vectors[rows[start : start + _BLOCK]])
        total += block.T @ block
    total /= max(len(rows), 1)
    if material.embedder is None:
        moved, how = np.eye(len(total)), "standardised features (no network to learn from edited copies with)"
    else:
        moved = _movement(material, rows, standardised, progress)
        how = f"features made insensitive to edits, learnt from {min(SAMPLE, len(rows)) * EDITS:,} edited copies"
    moved = moved + (_SHRINKAGE * np.trace(moved) / len(moved) + 1e-9) * np.eye(len(moved))
    kept = min(DIMENSIONS, len(total))
    _, directions = eigh(total, moved, subset_by_index=[len(total) - kept, len(total) - 1])
    result = np.empty((len(rows), kept), dtype=np.float16)
    for start in range(0, len(rows), _BLOCK):
        block = standardised(vectors[rows[start : start + _BLOCK]]) @ directions
        length = np.linalg.norm(block, axis=1, keepdims=True)
        result[start : start + _BLOCK] = block / np.maximum(length, 1e-12)
    return result, how


def _columns(material: Material) -> slice:
    """The stages two to four of the network: fine enough to tell cells apart, coarse enough to bear a crop.

    On real cells they find more planted copies than later stages, which see the kind of cell and not the cell.
    """
    stages = [level for level in material.embeddings.levels if level.name != "final"]
    chosen = stages[1:4] or stages or list(material.embeddings.levels)
    return slice(chosen[0].start, chosen[-1].stop)


def _moments(
    vectors: NDArray[np.float16], rows: NDArray[np.int64], columns: slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each column, block by block."""
    width = columns.stop - columns.start
    total, squares = np.zeros(width), np.zeros(width)
    for start in range(0, len(rows), _BLOCK):
        block = vectors[rows[start : start + _BLOCK]][:, columns].astype(np.float64)
        total += block.sum(axis=0)
        squares += (block * block).sum(axis=0)
    mean = total / max(len(rows), 1)
    variance = np.maximum(squares / max(len(rows), 1) - mean * mean, 0)
    return mean, np.sqrt(variance) + 1e-6


def _movement(
    material: Material, rows: NDArray[np.int64], standardised: object, progress: Progress
) -> NDArray[np.float64]:
    """Mean outer product of how standardised vectors move when images are edited: float64 (d, d)."""
    assert callable(standardised) and material.embedder is not None
    rng = np.random.default_rng([material.seed, 0x6E64])
    sources = np.repeat(rng.permutation(rows)[:SAMPLE], EDITS)
    total = 0.0
    with progress.task("learning how copies differ", len(sources), "images") as advance:
        for start in range(0, len(sources), _EDITED_AT_ONCE):
            chosen = sources[start : start + _EDITED_AT_ONCE]
            edited = np.stack([edited_copy(np.asarray(material.cells.images[row]), rng) for row in chosen.tolist()])
            change = standardised(material.embedder(edited)) - standardised(material.embeddings.vectors[chosen])
            total = total + change.T @ change
            advance(len(chosen))
    return np.asarray(total / len(sources))
