"""What moves into view when an image is moved, and what covers a part of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

PADDING = {"reflect": "symmetric", "edge": "edge", "wrap": "wrap"}
"""Fills that continue the image, by numpy's names."""

_ANY = ("reflect", "edge", "wrap", "black", "grey", "white", "ground", "noise")


def chosen_fill(fill: str, rng: np.random.Generator) -> str:
    """``fill`` itself, or one drawn where it is ``any``."""
    return _ANY[int(rng.integers(len(_ANY)))] if fill == "any" else fill


def ground_colour(image: Image) -> tuple[int, int, int]:
    """The colour of the ground: the median of the image's outermost pixels, where a centred cell seldom reaches."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    red, green, blue = np.median(rim, axis=0)
    return int(red), int(green), int(blue)


def flat_colour(fill: str, image: Image) -> tuple[int, int, int]:
    """The one colour of a fill that has one; a fill that continues the image stands for its ground here."""
    levels = {"black": 0, "grey": 128, "white": 255}
    if fill in levels:
        return (levels[fill],) * 3
    return ground_colour(image)


def covering(fill: str, image: Image, rng: np.random.Generator) -> Image:
    """What lies on covered parts, uint8 of the image's shape (or broadcasting to it)."""
    if fill == "noise":
        return rng.integers(0, 256, image.shape, dtype=np.uint8)
    if fill == "wrap":  # another part of the same image
        return np.roll(image, (image.shape[0] // 2, image.shape[1] // 2), axis=(0, 1))
    if fill == "edge":  # the image's mean colour
        mean: NDArray[np.float64] = image.reshape(-1, 3).mean(axis=0)
        return mean.astype(np.uint8)
    return np.array(flat_colour(fill, image), dtype=np.uint8)
