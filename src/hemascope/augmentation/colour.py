"""Colour: saturation, hue, and what happens to the three channels apart."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import ImageEnhance

from hemascope.augmentation.fill import Image
from hemascope.augmentation.tone import mapped

_LEVELS = np.arange(256, dtype=np.float64)


def saturation(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Away from grey by a factor; 0 is grey."""
    return np.asarray(ImageEnhance.Color(Pillow.fromarray(image)).enhance(strength))


def saturation_offset(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Saturation of HSV plus a share of its range."""
    hue_band, saturation_band, value = Pillow.fromarray(image).convert("HSV").split()
    raised = saturation_band.point(np.clip(np.rint(_LEVELS + 255 * strength), 0, 255).astype(int).tolist())
    return np.asarray(Pillow.merge("HSV", (hue_band, raised, value)).convert("RGB"))


def hue(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Every hue turned by a share of the colour circle."""
    hue_band, saturation_band, value = Pillow.fromarray(image).convert("HSV").split()
    turned = hue_band.point(((np.arange(256) + round(256 * strength)) % 256).tolist())
    return np.asarray(Pillow.merge("HSV", (turned, saturation_band, value)).convert("RGB"))


def channel_shift(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Each channel plus its own number of grey levels, at most ``strength`` either way."""
    return mapped(image, _LEVELS + rng.uniform(-strength, strength, (3, 1)))


def channel_gain(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Each channel times its own factor, at most ``strength`` from 1."""
    return mapped(image, _LEVELS * (1 + rng.uniform(-strength, strength, (3, 1))))


def channel_swap(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """The channels in another order."""
    orders = ([0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    return np.ascontiguousarray(image[:, :, orders[int(rng.integers(len(orders)))]])


def white_balance(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Warmer (more red, less blue) or, below 0, colder, as a lamp of another temperature."""
    gains = np.array([[1 + strength], [1 + 0.25 * strength], [1 - strength]])
    return mapped(image, _LEVELS * gains)
