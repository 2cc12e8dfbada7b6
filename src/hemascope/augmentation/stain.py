"""Stain, in optical density: OD = -ln(I / I0) is proportional to the amount of dye (Beer and Lambert)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hemascope.augmentation.fill import Image
from hemascope.augmentation.tone import mapped

_DENSITY = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
_RGB_OF_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_RGB_OF_HED /= np.linalg.norm(_RGB_OF_HED, axis=1, keepdims=True)
_HED_OF_RGB = np.linalg.inv(_RGB_OF_HED)
"""Colour vectors of haematoxylin, eosin and DAB in optical density (Ruifrok and Johnston 2001)."""


def _table(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey levels after the density of each channel was multiplied: (len(factors), 256)."""
    density = _DENSITY.astype(np.float64)[None, :] * factors.reshape(-1, 1)
    return 256 * np.exp(-density) - 1


def stain_density(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """More or less dye in all channels alike: density times exp(u), u at most ``strength`` either way."""
    return mapped(image, _table(np.exp(rng.uniform(-strength, strength, 1))))


def stain_channels(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """The density of each channel times its own exp(u), u at most ``strength`` either way."""
    return mapped(image, _table(np.exp(rng.uniform(-strength, strength, 3))))


def stain_hed(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Each of the stains haematoxylin, eosin and DAB scaled and shifted (Tellez et al. 2018).

    Scales by 1 + u, shifts by a tenth of u times the image's mean density, u at most ``strength`` either way. All of
    it is one linear map of the three densities, so the stains are never written out.
    """
    density = _DENSITY[image]
    scale = np.maximum(1 + rng.uniform(-strength, strength, 3), 0)
    shift = rng.uniform(-strength, strength, 3) * 0.1 * float(density.mean())
    linear = (_HED_OF_RGB * scale) @ _RGB_OF_HED
    changed = density.reshape(-1, 3) @ linear.astype(np.float32) + (shift @ _RGB_OF_HED).astype(np.float32)
    levels = 256 * np.exp(-changed) - 1
    result: Image = np.clip(levels + 0.5, 0, 255).astype(np.uint8).reshape(image.shape)
    return result
