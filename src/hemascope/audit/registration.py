"""Where could one picture lie in another? The best few turns, scales and shifts of pairs, by Fourier correlation.

Phase-like correlation (Kuglin, Hines 1975) over 8 dihedral turns and 13 scales at once: an image is reduced to the
Fourier coefficients of one band, a turn is then a permutation of them, a shift a phase, and all shifts of all
hypotheses come from one matrix product. What is proposed here is refined and judged in ``alignment``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601."""

GRID = 32
_MIDDLE = 48
_BAND = (3, 10)
"""Cycles a side. Below, the round dark nucleus of every cell agrees with that of every other."""
_POWER = 2.0
"""Coefficients are weighted by frequency to this power, against the fall of a picture's spectrum."""
_SHIFT = 6
"""Largest shift tried, in cells of the grid: 19 % of the side."""
ZOOMS = 1.07 ** np.arange(7, dtype=np.float64)
"""How many times more of the scene one image of a pair may show, per side: 1 to 1.5."""

Floats = NDArray[np.float32]
Complex = NDArray[np.complex64]


class Hypotheses(NamedTuple):
    """T ways each of P pairs could match; arrays are (P, T).

    With u the place in an image, as a share of the side from its centre (row, column), content at u in the left image
    lies in the right one where ``zoom_right * v = turn(zoom_left * u) + shift``. One of the two zooms is 1.

    turn        int64, 0 to 7: quarter turns, and from 4 on mirrored afterwards (``turned``)
    zoom_left   float32, at least 1
    zoom_right  float32, at least 1
    shift       float32 (P, T, 2)
    correlation float32, of the band, -1 to 1
    """

    turn: NDArray[np.int64]
    zoom_left: Floats
    zoom_right: Floats
    shift: Floats
    correlation: Floats

    def of(self, pairs: NDArray[np.int64]) -> Hypotheses:
        """Those of some of the pairs."""
        return Hypotheses(
            self.turn[pairs],
            self.zoom_left[pairs],
            self.zoom_right[pairs],
            self.shift[pairs],
            self.correlation[pairs],
        )


def turned(images: Floats, turn: int) -> Floats:
    """Images (B, S, S) after one of the eight dihedral turns: ``turn % 4`` quarter turns, then mirrored from 4 on."""
    result = np.rot90(images, turn % 4, (1, 2))
    return result[:, :, ::-1] if turn >= 4 else result


def luminance(images: NDArray[np.uint8], side: int) -> Floats:
    """Luminance of RGB images (B, S, S, 3) at another side, antialiased: float32 (B, side, side), 0 to 255."""
    matrix = _resampling(side, images.shape[1])
    return np.asarray(matrix @ (images @ LUMINANCE) @ matrix.T, dtype=np.float32)


class Registration:
    """The fixed matrices of the search, made once. Safe to use from several threads."""

    def __init__(self) -> None:
        top = _BAND[1]
        axis = np.arange(-top, top + 1)
        rows, columns = np.meshgrid(axis, axis, indexing="ij")
        radius = np.hypot(rows, columns)
        # The other half of the plane holds the conjugates.
        chosen = (radius >= _BAND[0]) & (radius <= top) & ((rows > 0) | ((rows == 0) & (columns > 0)))
        self._row, self._column = rows[chosen], columns[chosen]
        self._weight = (radius[chosen] ** _POWER).astype(np.float32)
        place = np.arange(GRID) + 0.5 - GRID / 2
        fourier = np.exp(-2j * np.pi * np.outer(axis, place) / GRID) * np.hanning(GRID + 2)[1:-1]
        self._bases = [(fourier @ _resampling(GRID, _MIDDLE, zoom)).astype(np.complex64) for zoom in ZOOMS]
        self._sources, self._conjugated = _turn_tables(chosen)
        steps = np.arange(-_SHIFT, _SHIFT + 1)
        down, right = np.meshgrid(steps, steps, indexing="ij")
        self._shifts = (np.stack([down.ravel(), right.ravel()], axis=1) / GRID).astype(np.float32)
        phase = 2 * np.pi * (np.outer(self._row, self._shifts[:, 0]) + np.outer(self._column, self._shifts[:, 1]))
        self._phases = np.concatenate([np.cos(phase), -np.sin(phase)]).astype(np.float32)

    def coefficients(self, images: NDArray[np.uint8]) -> Complex:
        """Images uint8 (B, S, S, 3) to the band's coefficients at every zoom: complex64 (B, zooms, K), length 1."""
        grey = luminance(images, _MIDDLE)
        grey = grey - grey.mean(axis=(1, 2), keepdims=True)
        top = _BAND[1]
        result = np.empty((len(images), len(ZOOMS), len(self._weight)), dtype=np.complex64)
        for index, basis in enumerate(self._bases):
            plane = (basis[top:] @ grey) @ basis.T
            result[:, index] = plane[:, self._row, self._column + top] * self._weight
        length = np.linalg.norm(result, axis=2, keepdims=True)
        return np.asarray(result / np.maximum(length, 1e-6), dtype=np.complex64)

    def search(self, left: Complex, right: Complex, count: int) -> Hypotheses:
        """The ``count`` best hypotheses for P pairs of ``coefficients``, each the best shift of its turn and zooms."""
        pairs, zooms, band = left.shape
        scales = 2 * zooms - 1
        product = np.empty((pairs, 8, scales, 2 * band), dtype=np.float32)
        for turn in range(8):
            seen = left[:, :, self._sources[turn]]
            np.conjugate(seen, out=seen, where=~self._conjugated[turn])
            for part, value in (
                (slice(0, zooms), seen * right[:, :1]),
                (slice(zooms, scales), seen[:, :1] * right[:, 1:]),
            ):
                product[:, turn, part, :band] = value.real
                product[:, turn, part, band:] = value.imag
        correlation = product.reshape(-1, 2 * band) @ self._phases
        shift = correlation.argmax(axis=1)
        highest = correlation[np.arange(len(shift)), shift].reshape(pairs, -1)
        order = np.argsort(-highest, axis=1, kind="stable")[:, :count]
        turns, scale = np.divmod(order, scales)
        zoom_left = np.where(scale < zooms, ZOOMS[np.minimum(scale, zooms - 1)], 1)
        zoom_right = np.where(scale < zooms, 1, ZOOMS[np.maximum(scale - zooms + 1, 0)])
        return Hypotheses(
            turns,
            zoom_left.astype(np.float32),
            zoom_right.astype(np.float32),
            self._shifts[np.take_along_axis(shift.reshape(pairs, -1), order, axis=1)],
            np.take_along_axis(highest, order, axis=1),
        )


def _turn_tables(chosen: NDArray[np.bool_]) -> tuple[list[NDArray[np.int64]], list[NDArray[Any]]]:
    """For each turn, which coefficient every coefficient of the turned image is, and whether conjugated."""
    side = len(chosen)
    number = np.full(chosen.shape, -1, dtype=np.int64)
    number[chosen] = np.arange(chosen.sum())
    plane = np.arange(side * side).reshape(1, side, side).astype(np.float32)
    sources, conjugated = [], []
    for turn in range(8):
        row, column = np.divmod(turned(plane, turn)[0][chosen].astype(np.int64), side)
        source = number[row, column]
        opposite = source < 0
        sources.append(np.where(opposite, number[side - 1 - row, side - 1 - column], source))
        conjugated.append(opposite)
    return sources, conjugated


def _resampling(out: int, side: int, zoom: float = 1.0) -> Floats:
    """Rows that resample the middle ``1 / zoom`` of ``side`` samples to ``out`` by a triangle filter: (out, side)."""
    step = side / zoom / out
    centre = side / 2 + (np.arange(out) + 0.5 - out / 2) * step
    weight = np.maximum(0, 1 - np.abs(centre[:, None] - (np.arange(side) + 0.5)) / max(1.0, step))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), dtype=np.float32)
