"""Which of many proposed pairs are copies: registered, laid on each other, compared. In threads and blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.alignment import Placement, agreement, refine, shared_area
from hemascope.audit.registration import GRID, Hypotheses, Registration, luminance, turned
from hemascope.data.parallel import ordered_map
from hemascope.progress import SILENT, Progress

Floats = NDArray[np.float32]

BAND_GATE = 0.6
"""Pairs go on to be laid on each other from this correlation of the band on. Planted copies have 0.65 and more."""
PLACED_GATE = 0.85
"""And to be compared finely from this correlation at 32 pixels on. Planted copies have 0.96 and more."""

_TRIED = 4
"""Hypotheses laid on each other, a pair."""
_FINE = 64
"""Side in pixels of the fine comparison: copies at half the size still hold so much."""
_BLOCK = 128
"""Pairs at a time in a thread: about 60 MB."""


@dataclass(frozen=True)
class Verified:
    """What the pixels say of P pairs.

    agreement  float32 (P,), correlation of fine structure, 0 to 1; 0 where a coarser stage ruled the pair out
    turn       int64 (P,), the dihedral turn (``registration.turned``) that lays left on right
    scale      float32 (P,), side of the smaller field as a share of the larger; 1 where they show equally much
    shared     float32 (P,), share of the smaller field that the other image shows too
    """

    agreement: Floats
    turn: NDArray[np.int64]
    scale: Floats
    shared: Floats


def verify(
    images: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64], *, progress: Progress = SILENT
) -> Verified:
    """Compare images ``left`` with images ``right``, pair by pair: rows of uint8 (N, S, S, 3).

    Found are copies under any of the eight dihedral turns, scales of 1/1.5 to 1.5, shifts of up to 19 % of the side,
    and any gain and offset of brightness, coarser resolution and JPEG artefacts on top. Pairs next to one another that
    share a left image are cheaper. About 1 ms a pair and core; memory does not grow with P.
    """
    registration = Registration()
    result = Verified(
        np.zeros(len(left), np.float32),
        np.zeros(len(left), np.int64),
        np.ones(len(left), np.float32),
        np.zeros(len(left), np.float32),
    )

    def block(rows: slice) -> tuple[slice, Verified]:
        return rows, _verify_block(registration, images, left[rows], right[rows])

    blocks: Iterator[slice] = (slice(start, start + _BLOCK) for start in range(0, len(left), _BLOCK))
    with progress.task("comparing candidate pairs", len(left), "pairs") as advance:
        for rows, found in ordered_map(block, blocks, chunk=1):
            result.agreement[rows] = found.agreement
            result.turn[rows] = found.turn
            result.scale[rows] = found.scale
            result.shared[rows] = found.shared
            advance(len(found.agreement))
    return result


def _verify_block(
    registration: Registration, images: NDArray[np.uint8], left: NDArray[np.int64], right: NDArray[np.int64]
) -> Verified:
    rows, position = np.unique(np.concatenate([left, right]), return_inverse=True)
    pixels = np.asarray(images[rows])
    one, other = position[: len(left)], position[len(left) :]
    coefficients = registration.coefficients(pixels)
    proposed = registration.search(coefficients[one], coefficients[other], _TRIED)
    result = Verified(
        np.zeros(len(left), np.float32),
        np.zeros(len(left), np.int64),
        np.ones(len(left), np.float32),
        np.zeros(len(left), np.float32),
    )
    possible = np.flatnonzero(proposed.correlation[:, 0] >= BAND_GATE)
    if not len(possible):
        return result
    small = luminance(pixels, GRID)
    turn, on_right, placed = _best_placement(small[one[possible]], small[other[possible]], proposed.of(possible))
    near = placed.correlation >= PLACED_GATE
    possible, turn, on_right = possible[near], turn[near], on_right[near]
    if not len(possible):
        return result
    fine = luminance(pixels, _FINE)
    reference, moving = _oriented(fine[one[possible]], fine[other[possible]], turn, on_right)
    final = refine(reference, moving, placed.scale[near], placed.shift[near], 3)
    result.agreement[possible] = np.clip(agreement(reference, moving, final), 0, 1)
    result.turn[possible] = turn
    result.scale[possible] = np.minimum(final.scale, 1 / final.scale)
    covered = shared_area(final)
    result.shared[possible] = np.minimum(1, covered)
    return result


def _best_placement(
    left: Floats, right: Floats, proposed: Hypotheses
) -> tuple[NDArray[np.int64], NDArray[np.bool_], Placement]:
    """Of each pair's hypotheses the one that fits best after a few steps: turn, whether right is the reference, where.

    The reference is the image that shows less of the scene, so that it lies inside the other.
    """
    pairs = len(left)
    turn = np.zeros(pairs, dtype=np.int64)
    on_right = np.ones(pairs, dtype=bool)
    best = Placement(np.ones(pairs, np.float32), np.zeros((pairs, 2), np.float32), np.full(pairs, -1, dtype=np.float32))
    for index in range(proposed.turn.shape[1]):
        onto_right = proposed.zoom_right[:, index] == 1
        reference, moving = _oriented(left, right, proposed.turn[:, index], onto_right)
        zoom = proposed.zoom_left[:, index] * proposed.zoom_right[:, index]
        sign = np.where(onto_right, np.float32(-1), np.float32(1))
        shift = (sign / zoom)[:, None] * proposed.shift[:, index]
        placed = refine(reference, moving, np.float32(1) / zoom, shift, 3)
        better = placed.correlation > best.correlation
        turn[better], on_right[better] = proposed.turn[better, index], onto_right[better]
        best = Placement(
            np.where(better, placed.scale, best.scale),
            np.where(better[:, None], placed.shift, best.shift),
            np.where(better, placed.correlation, best.correlation),
        )
    return turn, on_right, best


def _oriented(
    left: Floats, right: Floats, turn: NDArray[np.int64], on_right: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Left turned, and which of the two is the reference and which moves."""
    upright = np.empty_like(left)
    for number in range(8):
        chosen = turn == number
        upright[chosen] = turned(left[chosen], number)
    which = on_right[:, None, None]
    return np.where(which, right, upright), np.where(which, upright, right)
