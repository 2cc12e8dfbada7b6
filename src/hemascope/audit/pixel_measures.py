"""What is measured of one image's pixels: brightness, sharpness, detail, colour, border, stain, scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96
"""Longer side, in pixels, at which every image is measured, so that sizes compare."""

BORDER = 0.06
"""Share of each side that counts as border."""

COLUMNS: Mapping[str, slice] = {
    "brightness": slice(0, 1),
    "darkest": slice(1, 2),
    "brightest": slice(2, 3),
    "contrast": slice(3, 4),
    "sharpness": slice(4, 5),
    "entropy": slice(5, 6),
    "colour": slice(6, 9),
    "border": slice(9, 15),
    "stain": slice(15, 17),
    "foreground": slice(17, 18),
}
"""Where each of ``Measures``' numbers lies in the row that ``measure_pixels`` gives."""

WIDTH = 18

_FAINT = 1.0
"""Variance of the luminance (levels squared) added below the line of the sharpness: flat images divide by no zero."""

_LEVELS = np.arange(256, dtype=np.float64)
_DENSITY = -np.log10((_LEVELS + 1) / 256)

# Optical densities of haematoxylin and eosin in R, G, B (Ruifrok and Johnston 2001, "Quantification of histochemical
# staining by color deconvolution"); the third dye is what is orthogonal to both.
_DYES = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
_DYES /= np.linalg.norm(_DYES, axis=1, keepdims=True)
_REST = np.cross(_DYES[0], _DYES[1])
_UNMIX = np.linalg.inv(np.vstack([_DYES, _REST / np.linalg.norm(_REST)]))[:, :2]


def measure_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers of one image, uint8 (H, W, 3): float32 (WIDTH,), laid out as COLUMNS says.

    The image is first brought to a longer side of SIDE pixels, keeping its shape, so that noise and sharpness mean the
    same whatever the camera's resolution. Everything but sharpness and border then comes from its histograms.
    """
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(3, round(width * scale)), max(3, round(height * scale))
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    grey = image.convert("L")
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256) / (size[0] * size[1])
    levels = np.array(grey.histogram(), dtype=np.float64) / (size[0] * size[1])
    mean = float(levels @ _LEVELS)
    variance = max(float(levels @ _LEVELS**2) - mean**2, 0.0)
    below = np.cumsum(levels)
    found = np.empty(WIDTH, dtype=np.float32)
    found[0] = mean
    found[1] = np.searchsorted(below, 0.01)
    found[2] = min(int(np.searchsorted(below, 0.99)), 255)
    found[3] = variance**0.5
    found[4] = _laplacian_variance(np.asarray(grey, dtype=np.float32)) / (variance + _FAINT)
    found[5] = _entropy(levels)
    found[6:9] = counts @ _LEVELS
    found[9:15] = _border(np.asarray(image))
    found[15:17] = (counts @ _DENSITY) @ _UNMIX
    found[17] = below[_otsu(levels, below)]
    return found


def _laplacian_variance(grey: NDArray[np.float32]) -> float:
    edges = 4 * grey[1:-1, 1:-1]
    edges -= grey[:-2, 1:-1]
    edges -= grey[2:, 1:-1]
    edges -= grey[1:-1, :-2]
    edges -= grey[1:-1, 2:]
    return float(edges.var())


def _entropy(levels: NDArray[np.float64]) -> float:
    """Bits of a histogram of 256 levels once made 64."""
    share = levels.reshape(64, 4).sum(1)
    share = share[share > 0]
    return max(float(-(share * np.log2(share)).sum()), 0.0)


def _border(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and deviation of R, G, B in the outer frame: float32 (6,)."""
    height, width = image.shape[:2]
    y, x = max(1, round(height * BORDER)), max(1, round(width * BORDER))
    strips = (image[:y], image[-y:], image[y:-y, :x], image[y:-y, -x:])
    frame = np.concatenate([strip.reshape(-1, 3) for strip in strips]).astype(np.float32)
    return np.concatenate([frame.mean(0), frame.std(0)])


def _otsu(levels: NDArray[np.float64], below: NDArray[np.float64]) -> int:
    """The last level of the dark class (Otsu 1979, "A threshold selection method from gray-level histograms")."""
    first = np.cumsum(levels * _LEVELS)
    spread = below * (1 - below)
    between = np.zeros(256)
    np.divide((first[-1] * below - first) ** 2, spread, out=between, where=spread > 1e-9)
    return int(between.argmax())
