"""One foreign picture laid over many cells: a prank, a watermark, dirt on the lens, a time stamp.

A hundred cells under the same picture lie close together, so that nothing seems odd about any of them; but different
cells have no fine structure in common, and these have. Images are compared with their nearest neighbours in the
embedding, pixel by pixel and without their coarse structure. Where groups agree, their mean fine structure is the
picture they share, and every image of the set is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hemascope.neighbours import nearest
from hemascope.progress import SILENT, Progress

NEIGHBOURS = 16
COARSE = 1.0
"""Standard deviation in pixels of the blur that is taken away."""

SEED_AGREEMENT = 0.3
"""Mean correlation with the neighbours from which on an image may start a group. Of 6,000 different real cells none
exceeded 0.18; overlays of one picture at opacity 0.3 to 0.6 had a median of 0.77."""

MEMBER = 0.2
"""Correlation with a group's picture from which on an image belongs to it."""

SMALLEST_GROUP = 8
MOST_GROUPS = 32
LARGEST_SAMPLE = 20_000
"""Images among which groups are looked for: 2 bytes for each pixel of each are held in memory."""

Images = NDArray[np.uint8]


def repeated_picture(
    images: Images, reduced: NDArray[np.float32], rows: NDArray[np.int64], *, seed: int, progress: Progress = SILENT
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """How much fine structure each image shares with a picture that lies over many, and which of these pictures.

    images   uint8 (N, S, S, 3), may be a memory map
    reduced  float32 (M, d), embeddings of ``rows``
    rows     int64 (M,), the images to look at: one of each set of exact copies

    Returns float32 (M,), the largest correlation with any shared picture, 0 where there is none, and int64 (M,), the
    number of that picture, -1 where the correlation is below MEMBER. Groups are looked for among at most
    LARGEST_SAMPLE images; the rest are compared with what was found there.
    """
    found = np.zeros(len(rows), dtype=np.float32)
    group = np.full(len(rows), -1, dtype=np.int64)
    if len(rows) <= SMALLEST_GROUP:
        return found, group
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(rows))[:LARGEST_SAMPLE])
    pictures = _shared_pictures(images, reduced[sample], rows[sample], seed, progress)
    if not len(pictures):
        return found, group
    for block in _blocks(len(rows)):
        agreement = fine_structure(images[rows[block]]) @ pictures.T
        best = agreement.argmax(1)
        found[block] = agreement[np.arange(len(best)), best]
        group[block] = np.where(found[block] >= MEMBER, best, -1)
    return found, group


def fine_structure(images: Images) -> NDArray[np.float32]:
    """uint8 (B, S, S, 3) to float32 (B, S*S): luminance less its blurred self, of mean 0 and length 1."""
    grey = images.astype(np.float32).mean(3)
    fine = (grey - gaussian_filter(grey, (0, COARSE, COARSE))).reshape(len(images), -1)
    fine -= fine.mean(1, keepdims=True)
    unit: NDArray[np.float32] = fine / (np.linalg.norm(fine, axis=1, keepdims=True) + 1e-6)
    return unit


def _shared_pictures(
    images: Images, reduced: NDArray[np.float32], rows: NDArray[np.int64], seed: int, progress: Progress
) -> NDArray[np.float32]:
    """float32 (G, S*S): the fine structure each group has in common, of length 1. The clearest group first."""
    _, neighbours = nearest(reduced, min(NEIGHBOURS, len(rows) - 1), seed=seed)
    every = np.empty((len(rows), images.shape[1] * images.shape[2]), dtype=np.float16)
    agreement = np.empty(len(rows), dtype=np.float32)
    with progress.task("comparing fine structure", 2 * len(rows), "images") as advance:
        for block in _blocks(len(rows), 256):
            every[block] = fine_structure(images[rows[block]])
            advance(block.stop - block.start)
        for row, near in enumerate(neighbours):
            # The mean of the neighbours first: one product instead of sixteen.
            agreement[row] = every[row].astype(np.float32) @ every[near].mean(0, dtype=np.float32)
            if row % 256 == 255:
                advance(256)
        advance(len(rows) % 256)
    seeds = np.flatnonzero(agreement >= SEED_AGREEMENT)
    seeds = seeds[np.argsort(-agreement[seeds], kind="stable")][:4096]
    fine = every[seeds].astype(np.float32)
    left = np.ones(len(seeds), dtype=bool)
    pictures: list[NDArray[np.float32]] = []
    while left.any() and len(pictures) < MOST_GROUPS:
        first = int(np.flatnonzero(left)[0])
        members = left & (fine @ fine[first] >= MEMBER)
        mean = fine[members].mean(0)
        mean /= np.linalg.norm(mean) + 1e-6
        members = left & (fine @ mean >= MEMBER)
        if np.count_nonzero(members) >= SMALLEST_GROUP:
            pictures.append(mean)
        left &= ~members
        left[first] = False
    return np.stack(pictures) if pictures else np.empty((0, 1), np.float32)


def _blocks(count: int, size: int = 1024) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
