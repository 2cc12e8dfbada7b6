"""Noise of a camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hemascope.augmentation.fill import Image


def _levels(values: NDArray[np.float32]) -> Image:
    return (values + 0.5).clip(0, 255).astype(np.uint8)


def gaussian_noise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Normal noise, each channel of each pixel its own."""
    return _levels(image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(strength))


def grey_noise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Normal noise, the same in the three channels; now and then coarse, several pixels wide."""
    height, width = image.shape[:2]
    grain = int(rng.choice([1, 1, 2, 3, 4]))
    field = rng.standard_normal((-(-height // grain), -(-width // grain), 1), dtype=np.float32)
    wide = field.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
    return _levels(image + wide * np.float32(strength))


def speckle_noise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Normal noise in proportion to the value."""
    return _levels(image * (1 + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(strength)))


def shot_noise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Photons counted: Poisson noise, in its normal approximation, of ``strength`` photons a grey level."""
    deviation = np.sqrt(np.arange(256, dtype=np.float32) / np.float32(strength))
    return _levels(image + rng.standard_normal(image.shape, dtype=np.float32) * deviation[image])


def salt_and_pepper(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """A share of the pixels black or white."""
    height, width = image.shape[:2]
    draw = rng.random((height, width), dtype=np.float32)
    result = image.copy()
    result[draw < strength / 2] = 0
    result[(draw >= strength / 2) & (draw < strength)] = 255
    return result
