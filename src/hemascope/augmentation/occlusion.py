"""Parts of the image covered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hemascope.augmentation.fill import Image, chosen_fill, covering


def _box(image: Image, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A box that may reach over the border, as its centre lies anywhere."""
    y, x = int(rng.integers(image.shape[0])), int(rng.integers(image.shape[1]))
    return (
        slice(max(0, y - height // 2), max(1, y - height // 2 + height)),
        slice(max(0, x - width // 2), max(1, x - width // 2 + width)),
    )


def _covered(
    image: Image, where: tuple[slice, slice] | NDArray[np.bool_], fill: str, rng: np.random.Generator
) -> Image:
    """``where`` is a box or a mask (H, W)."""
    result = image.copy()
    result[where] = np.broadcast_to(covering(chosen_fill(fill, rng), image, rng), image.shape)[where]
    return result


def cutout(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """A square of a share of the side (DeVries and Taylor 2017)."""
    side = round(strength * max(image.shape[:2]))
    return _covered(image, _box(image, side, side, rng), fill, rng) if side else image


def random_erasing(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """A rectangle of a share of the area, up to three times as long as wide (Zhong et al. 2020)."""
    ratio = np.exp(rng.uniform(-np.log(3), np.log(3)))
    area = strength * image.shape[0] * image.shape[1]
    height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    return _covered(image, _box(image, height, width, rng), fill, rng) if height and width else image


def grid_mask(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """A grid of squares, each a share of its cell wide, at a random angle (Chen et al. 2020)."""
    side = max(image.shape[:2])
    period, angle = rng.uniform(0.15, 0.5) * side, rng.uniform(0, np.pi / 2)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    along = (x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, period)) % period
    across = (y * np.cos(angle) - x * np.sin(angle) + rng.uniform(0, period)) % period
    return _covered(image, (along < strength * period) & (across < strength * period), fill, rng)


def stripes(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Parallel bars at a random angle that cover a share of the image."""
    side = max(image.shape[:2])
    period, angle = rng.uniform(0.15, 0.6) * side, rng.uniform(0, np.pi)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    along = (x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, period)) % period
    return _covered(image, along < strength * period, fill, rng)
