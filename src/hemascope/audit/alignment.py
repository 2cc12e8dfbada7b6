"""Do two pictures show the same pixels? Lay one on the other to a fraction of a pixel and compare their fine structure.

Any two cells are alike in the large: a round dark nucleus on pale ground. Copies, and only they, agree in chromatin,
granules and noise. So the images are band-passed, laid on each other by Gauss-Newton steps (Lucas, Kanade 1981), and
compared after each small neighbourhood has been brought to the same contrast, which makes a nuclear edge count no more
than the texture beside it, and takes brightness and stain out as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_DAMPING = 1e-3
_LARGEST_STEP = 0.06
_ZOOM_RANGE = (0.5, 1.3)
_LEAST_SHARED = 0.35
"""Of the moving image's area; below, agreement says little."""
_NEIGHBOURHOOD = 4 / 64
_FLOOR = 4.0
"""Squared grey levels added to the local variance: structure below two grey levels counts less."""
_FAINT = 0.25
"""Squared grey levels: images with less structure than this cannot be compared."""


class Placement(NamedTuple):
    """Where P moving images lie under their references: reference place u shows moving place ``scale * u + shift``.

    scale        float32 (P,)
    shift        float32 (P, 2), share of the side, (row, column)
    correlation  float32 (P,) of the band-passed images where they overlap, -1 to 1
    """

    scale: Floats
    shift: Floats
    correlation: Floats


def refine(reference: Floats, moving: Floats, scale: Floats, shift: Floats, steps: int) -> Placement:
    """The best placement near ``scale`` (P,) and ``shift`` (P, 2): a few Gauss-Newton steps, the best one kept.

    Images are luminance, float32 (P, n, n).
    """
    side = reference.shape[1]
    fine, coarse = _gauss(side, 0.7), _gauss(side, 2.5)
    slope = _slope(side)
    smooth = np.concatenate([fine, coarse, fine @ slope, coarse @ slope])
    target = _band(reference, fine, coarse)
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    now = Placement(scale.astype(np.float32), shift.astype(np.float32), np.full(len(scale), -1, dtype=np.float32))
    best = now
    for step in range(steps + 1):
        rows, row_inside = _sampling(side, now.scale, now.shift[:, 0])
        columns, column_inside = _sampling(side, now.scale, now.shift[:, 1])
        inside = (row_inside[:, :, None] & column_inside[:, None, :]).astype(np.float32)
        # Band-pass and interpolation are one linear map along each axis, so they are multiplied first.
        down = ((smooth @ rows) @ moving).reshape(len(scale), 4, side, side)
        across = (smooth @ columns).transpose(0, 2, 1)
        seen = _difference(down[:, 0], down[:, 1], across[:, :, : 2 * side])
        expected, _ = _standardised(target, inside)
        found, deviation = _standardised(seen, inside)
        area = inside.sum(axis=(1, 2))
        correlation = (expected * found).sum(axis=(1, 2)) / np.maximum(area, 1)
        correlation = np.where(area < _LEAST_SHARED * side * side, np.float32(-1), correlation)
        better = correlation > best.correlation
        best = Placement(
            np.where(better, now.scale, best.scale),
            np.where(better[:, None], now.shift, best.shift),
            np.where(better, correlation, best.correlation),
        )
        if step == steps:
            break
        per_shift = np.float32(1) / (now.scale * deviation)[:, None, None]
        by_row = _difference(down[:, 2], down[:, 3], across[:, :, : 2 * side]) * per_shift
        by_column = _difference(down[:, 0], down[:, 1], across[:, :, 2 * side :]) * per_shift
        change = _solve((by_row * place[:, None] + by_column * place, by_row, by_column), expected - found, inside)
        now = Placement(
            np.clip(now.scale + change[:, 0], *_ZOOM_RANGE),
            np.clip(now.shift + change[:, 1:], -0.5, 0.5),
            now.correlation,
        )
    return best


def shared_area(placement: Placement) -> Floats:
    """Share of the reference that the moving image covers: float32 (P,)."""
    half = placement.scale[:, None] / 2
    low, high = np.maximum(placement.shift - half, -0.5), np.minimum(placement.shift + half, 0.5)
    covered = np.maximum(high - low, 0) / placement.scale[:, None]
    return np.asarray(covered.prod(axis=1), dtype=np.float32)


def agreement(reference: Floats, moving: Floats, placement: Placement) -> Floats:
    """Correlation of locally normalised fine structure where the images overlap: float32 (P,), at most 1.

    Images are luminance, float32 (P, n, n). Copies come near 1, different cells stay far below whatever their shape.
    0 where either image has no structure to compare.
    """
    side = reference.shape[1]
    rows, row_inside = _sampling(side, placement.scale, placement.shift[:, 0])
    columns, column_inside = _sampling(side, placement.scale, placement.shift[:, 1])
    inside = (row_inside[:, :, None] & column_inside[:, None, :]).astype(np.float32)
    laid = rows @ moving @ columns.transpose(0, 2, 1)
    fine, coarse = _gauss(side, 0.7), _gauss(side, 2.5)
    around = _gauss(side, _NEIGHBOURHOOD * side)
    structures, faint = [], np.zeros(len(reference), dtype=bool)
    for image in (reference, np.asarray(laid, dtype=np.float32)):
        band = _band(image, fine, coarse)
        faint |= (band * band * inside).sum(axis=(1, 2)) < _FAINT * inside.sum(axis=(1, 2))
        local = np.asarray(band / np.sqrt(around @ (band * band) @ around.T + _FLOOR), dtype=np.float32)
        structures.append(_standardised(local, inside)[0])
    area = np.maximum(inside.sum(axis=(1, 2)), 1)
    found = (structures[0] * structures[1]).sum(axis=(1, 2)) / area
    return np.where(faint, 0, found).astype(np.float32)


def _band(images: Floats, fine: Floats, coarse: Floats) -> Floats:
    """Fine minus coarse smoothing, along both axes."""
    return np.asarray(fine @ images @ fine.T - coarse @ images @ coarse.T, dtype=np.float32)


def _difference(fine: Floats, coarse: Floats, across: Floats) -> Floats:
    """Fine minus coarse, each (P, n, n), taken along the columns as well by ``across`` (P, n, 2 n)."""
    side = fine.shape[1]
    return np.asarray(fine @ across[:, :, :side] - coarse @ across[:, :, side:], dtype=np.float32)


def _solve(slopes: tuple[Floats, Floats, Floats], residual: Floats, inside: Floats) -> Floats:
    """Damped normal equations for scale and shift: float32 (P, 3), bounded."""
    pairs = len(residual)
    jacobian = np.stack([(slope * inside).reshape(pairs, -1) for slope in slopes], axis=1)
    square = jacobian @ jacobian.transpose(0, 2, 1)
    trace = np.trace(square, axis1=1, axis2=2)[:, None, None]
    square = square + (_DAMPING * trace / 3 + 1e-6) * np.eye(3, dtype=np.float32)
    change = np.linalg.solve(square, jacobian @ residual.reshape(pairs, -1, 1))[:, :, 0]
    return np.asarray(np.clip(change, -_LARGEST_STEP, _LARGEST_STEP), dtype=np.float32)


def _standardised(images: Floats, inside: Floats) -> tuple[Floats, Floats]:
    """Mean 0 and deviation 1 over the inside, 0 outside; and the deviations (P,)."""
    area = np.maximum(inside.sum(axis=(1, 2)), 1)
    mean = (images * inside).sum(axis=(1, 2)) / area
    centred = (images - mean[:, None, None]) * inside
    deviation = np.sqrt((centred * centred).sum(axis=(1, 2)) / area) + np.float32(1e-4)
    return centred / deviation[:, None, None], deviation


def _sampling(side: int, scale: Floats, shift: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Matrices (P, n, n) of linear interpolation at ``scale * u + shift``, and which places lie inside (P, n)."""
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    position = (scale[:, None] * place + shift[:, None] + np.float32(0.5)) * side - np.float32(0.5)
    inside = (position >= -0.5) & (position <= side - 0.5)
    distance = np.clip(position, 0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(distance), dtype=np.float32), inside


def _gauss(side: int, sigma: float) -> Floats:
    """Smoothing along one axis as a matrix, its rows summing to 1 at the border as well."""
    at = np.arange(side)
    weight = np.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)


def _slope(side: int) -> Floats:
    """Central differences along one axis as a matrix, per side of the image."""
    matrix = np.zeros((side, side))
    at = np.arange(side)
    after, before = np.minimum(at + 1, side - 1), np.maximum(at - 1, 0)
    matrix[at, after] += side / (after - before)
    matrix[at, before] -= side / (after - before)
    return matrix.astype(np.float32)
