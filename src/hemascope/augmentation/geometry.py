"""Moving pixels: shifts, turns, shears, zooms, perspective, and smooth warps.

Every operation is one inverse map, applied once with bilinear interpolation. Where the image is continued beyond its
border it is padded by exactly what the map reaches, so a small turn costs little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from hemascope.augmentation.fill import PADDING, Image, chosen_fill, flat_colour

_Matrix = NDArray[np.float64]
_FARTHEST = 3.0
"""Sides beyond the border up to which an image is continued; what lies farther, towards a horizon, is black."""
_FLAT = 1e-8
"""Perspective below this, a pixel, moves nothing: the map is affine, and Pillow is quicker with those."""


def moved(image: Image, matrix: _Matrix, fill: str, rng: np.random.Generator) -> Image:
    """The image under an inverse map.

    matrix  float (3, 3): output to input coordinates, homogeneous, in pixels from the image's centre
    """
    height, width = image.shape[:2]
    matrix = _shift(width / 2, height / 2) @ matrix @ _shift(-width / 2, -height / 2)
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    reached = matrix @ corners
    # A corner behind the horizon of a strong perspective has no place; it counts as far away.
    reached = reached[:2] / np.maximum(reached[2], 1e-2)
    fill = chosen_fill(fill, rng)
    colour: tuple[int, int, int] | None = None
    if fill in PADDING:
        far = _FARTHEST * max(height, width)
        left, top = np.ceil(np.clip(-reached.min(axis=1), 0, far)).astype(int) + 1
        right, bottom = np.ceil(np.clip(reached.max(axis=1) - [width, height], 0, far)).astype(int) + 1
        mode: str = PADDING[fill]
        source = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode=mode)  # type: ignore[call-overload]
        matrix = _shift(float(left), float(top)) @ matrix
    else:
        source, colour = image, flat_colour(fill, image)
    matrix = matrix / matrix[2, 2]
    flat = bool(np.abs(matrix[2, :2]).max() < _FLAT)
    kind = Pillow.Transform.AFFINE if flat else Pillow.Transform.PERSPECTIVE
    numbers = matrix.ravel()[: 6 if flat else 8].tolist()
    picture = Pillow.fromarray(source)
    result = np.asarray(
        picture.transform((width, height), kind, numbers, Pillow.Resampling.BILINEAR, fillcolor=colour), dtype=np.uint8
    )
    if fill == "noise":
        inside = np.asarray(
            Pillow.new("L", (width, height), 255).transform((width, height), kind, numbers, fillcolor=0)
        )
        result = np.where(inside[:, :, None] > 0, result, rng.integers(0, 256, image.shape, dtype=np.uint8))
    return result


def _shift(x: float, y: float) -> _Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> _Matrix:
    return np.array([[a, b, c], [d, e, f], [0, 0, 1]], dtype=np.float64)


def mirror(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Left to right, top to bottom, or both."""
    kind = int(rng.integers(3))
    return image[:, ::-1] if kind == 0 else image[::-1] if kind == 1 else image[::-1, ::-1]


def quarter_turn(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """By 90, 180 or 270 degrees; an oblong image by 180."""
    turns = int(rng.integers(1, 4)) if image.shape[0] == image.shape[1] else 2
    return np.rot90(image, turns)


def translate_x(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """To the right by a share of the width."""
    return moved(image, _affine(1, 0, -strength * image.shape[1], 0, 1, 0), fill, rng)


def translate_y(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Down by a share of the height."""
    return moved(image, _affine(1, 0, 0, 0, 1, -strength * image.shape[0]), fill, rng)


def rotate(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """By degrees about the centre."""
    sine, cosine = np.sin(np.deg2rad(strength)), np.cos(np.deg2rad(strength))
    return moved(image, _affine(cosine, sine, 0, -sine, cosine, 0), fill, rng)


def shear_x(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Rows slide past each other: by ``strength`` pixels for each row."""
    return moved(image, _affine(1, strength, 0, 0, 1, 0), fill, rng)


def shear_y(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Columns slide past each other."""
    return moved(image, _affine(1, 0, 0, strength, 1, 0), fill, rng)


def zoom(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Larger by a factor, about the centre."""
    return moved(image, _affine(1 / strength, 0, 0, 0, 1 / strength, 0), fill, rng)


def aspect(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Wider and lower by the square root of the factor each, so that the area stays."""
    stretch = strength**0.5
    return moved(image, _affine(1 / stretch, 0, 0, 0, stretch, 0), fill, rng)


def perspective(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Each corner moves by up to a share of the side, along either axis."""
    height, width = image.shape[:2]
    square = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    corners = square + rng.uniform(-strength, strength, (4, 2)) * [width, height]
    rows, values = [], []
    for (x, y), (u, v) in zip(square, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solution = np.linalg.solve(np.array(rows), np.array(values))
    return moved(image, np.append(solution, 1).reshape(3, 3), fill, rng)


def warp(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """A smooth random displacement of a few waves across the image (elastic deformation, Simard et al. 2003)."""
    height, width = image.shape[:2]
    fill = chosen_fill(fill, rng)
    shift = [smooth_field(rng, (height, width), int(rng.integers(3, 7))) * strength * max(height, width) for _ in "xy"]
    reach = int(np.ceil(strength * max(height, width))) + 2
    # A fourth channel makes a pixel one machine word, so that looking up neighbours moves words and not bytes.
    source = np.zeros((height + 2 * reach, width + 2 * reach, 4), dtype=np.uint8)
    if fill in PADDING:
        mode: str = PADDING[fill]
        source[:, :, :3] = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode=mode)  # type: ignore[call-overload]
    else:
        source[:, :, :3] = flat_colour(fill, image)
        source[reach:-reach, reach:-reach, :3] = image
    words, stride = source.view(np.uint32).ravel(), source.shape[1]
    rows, columns = np.mgrid[:height, :width].astype(np.float32) + reach
    y, x = rows + shift[0], columns + shift[1]
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    down, right = (y - top)[:, :, None], (x - left)[:, :, None]
    corner = top * stride + left

    def neighbour(step: int) -> Image:
        found: Image = words.take(corner + step).view(np.uint8).reshape(height, width, 4)[:, :, :3]
        return found

    upper = neighbour(0) * (1 - right) + neighbour(1) * right
    lower = neighbour(stride) * (1 - right) + neighbour(stride + 1) * right
    result: Image = (upper * (1 - down) + lower * down + 0.5).astype(np.uint8)
    return result


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], waves: int) -> NDArray[np.float32]:
    """A random surface without edges, float32 of ``shape`` in -1 to 1: a coarse grid, interpolated."""
    coarse = Pillow.fromarray(rng.uniform(-1, 1, (waves, waves)).astype(np.float32))
    surface = np.asarray(coarse.resize((shape[1], shape[0]), Pillow.Resampling.BICUBIC), dtype=np.float32)
    return np.clip(surface, -1, 1)
