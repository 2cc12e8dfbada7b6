"""Pieces that several corruptions are made of: kernels, moved coordinates, smooth surfaces."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.uint8]
"""uint8 (S, S, 3), RGB."""
Surface = NDArray[np.float32]

REFERENCE_SIDE = 224
"""Side in pixels that MedMNIST-C's lengths are meant for; they are scaled by the image's side over this."""


def whole(values: NDArray[np.floating]) -> Pixels:
    """Rounded and clipped to uint8."""
    result: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


def picture(image: Pixels) -> Image.Image:
    """As a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(image))


def convolved(image: Pixels, kernel: NDArray[np.floating]) -> Pixels:
    """Each channel with a kernel that sums to one; the border is mirrored."""
    planes = [
        ndimage.convolve(image[..., c].astype(np.float32), kernel.astype(np.float32), mode="mirror") for c in range(3)
    ]
    return whole(np.stack(planes, axis=-1))


def blurred(image: Pixels, sigma: float) -> Pixels:
    """By a Gaussian of ``sigma`` pixels."""
    return whole(ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="mirror"))


def disc_kernel(radius: float, softness: float) -> NDArray[np.float64]:
    """A disc of ``radius`` pixels, its edge spread over a pixel and smoothed by a Gaussian of ``softness`` pixels."""
    reach = int(np.ceil(radius + 1 + 3 * softness))
    # Sampled finer than a pixel, so that a radius below one still is a disc and not a point.
    fine = 5
    axis = (np.arange((2 * reach + 1) * fine) - ((2 * reach + 1) * fine - 1) / 2) / fine
    disc = (np.hypot(axis[:, None], axis[None]) <= radius).astype(np.float64)
    kernel = disc.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).sum(axis=(1, 3))
    if softness > 0:
        kernel = ndimage.gaussian_filter(kernel, softness)
    return np.asarray(kernel / kernel.sum())


def line_kernel(radius: float, sigma: float, angle: float) -> NDArray[np.float64]:
    """A line through the centre, ``radius`` pixels to either side, weighted by a Gaussian of ``sigma`` pixels."""
    reach = int(np.ceil(radius)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    places = np.linspace(-radius, radius, max(9, int(8 * radius) + 1))
    weights = np.exp(-0.5 * (places / max(sigma, 1e-6)) ** 2)
    rows, columns = reach + places * np.sin(angle), reach + places * np.cos(angle)
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    dr, dc = rows - r, columns - c
    for i, j, share in ((0, 0, (1 - dr) * (1 - dc)), (0, 1, (1 - dr) * dc), (1, 0, dr * (1 - dc)), (1, 1, dr * dc)):
        np.add.at(kernel, (r + i, c + j), weights * share)
    return np.asarray(kernel / kernel.sum())


BORDERS = ("reflect", "nearest", "wrap", "black", "white", "grey")
_MODES = {"reflect": "reflect", "nearest": "nearest", "wrap": "grid-wrap"}
_LEVELS = {"black": 0, "white": 255, "grey": 127}


def warped(image: Pixels, rows: NDArray[np.floating], columns: NDArray[np.floating], border: str) -> Pixels:
    """The image sampled bilinearly at (rows, columns), both of one shape; ``border`` says what lies beyond its edge."""
    mode, level = _MODES.get(border, "constant"), _LEVELS.get(border, 0)
    places = np.stack([rows, columns]).astype(np.float32)
    planes = [
        ndimage.map_coordinates(
            image[..., c].astype(np.float32), places, order=1, mode=mode, cval=level, prefilter=False
        )
        for c in range(3)
    ]
    return whole(np.stack(planes, axis=-1))


def mapped_by(image: Pixels, matrix: NDArray[np.floating], border: str) -> Pixels:
    """The image under the inverse map ``matrix`` (3, 3), in (row, column, 1) about the centre, sides counted as 1."""
    side = image.shape[0]
    axis = (np.arange(side) + 0.5) / side - 0.5
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    points = matrix @ np.stack([rows.ravel(), columns.ravel(), np.ones(side * side)])
    depth = np.maximum(points[2], 0.05)
    r, c = ((points[axis] / depth + 0.5) * side - 0.5 for axis in (0, 1))
    return warped(image, r.reshape(side, side), c.reshape(side, side), border)


def surface(rng: np.random.Generator, side: int, grain: float) -> Surface:
    """A smooth random surface, mean 0 and deviation 1, whose hills are ``grain`` of the side wide."""
    noise = rng.standard_normal((side, side), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, max(0.5, grain * side), mode="wrap")
    return np.asarray((smooth - smooth.mean()) / max(float(smooth.std()), 1e-6), dtype=np.float32)


def distances(side: int, row: float, column: float) -> Surface:
    """Distance of each pixel from a point given in sides, in sides."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.hypot(axis[:, None] - np.float32(row), axis[None] - np.float32(column))


def recoded(image: Pixels, quality: int) -> Pixels:
    """Through JPEG of a quality."""
    buffer = BytesIO()
    picture(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer, formats=["JPEG"]).convert("RGB"))


def resampled(image: Pixels, factor: float, up: Image.Resampling) -> Pixels:
    """Reduced to ``factor`` of the side by box averaging, and enlarged again."""
    side = image.shape[0]
    few = max(1, round(side * factor))
    small = picture(image).resize((few, few), Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), up))


def laid_over(image: Pixels, colour: NDArray[np.floating], cover: NDArray[np.floating]) -> Pixels:
    """``colour`` (3,) over an image or some of its pixels (..., 3), ``cover`` (...) in 0 to 1."""
    alpha = cover[..., None]
    return whole(image * (1 - alpha) + np.asarray(colour, dtype=np.float32) * alpha)
