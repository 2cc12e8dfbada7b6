"""Brightness, contrast and tone: each is one table of 256 entries, or one a channel, looked up by numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from hemascope.augmentation.fill import Image

_LEVELS = np.arange(256, dtype=np.float64)


def mapped(image: Image, table: NDArray[np.float64]) -> Image:
    """Each value looked up in ``table``, float (256,) for all channels or (3, 256) for each; rounded and clipped."""
    entries = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    if entries.size == 256:
        return entries.reshape(256).take(image)  # three times as fast as channel by channel
    result = np.empty_like(image)
    for channel in range(3):
        np.take(entries[channel], image[:, :, channel], out=result[:, :, channel])
    return result


def grey_mean(image: Image) -> float:
    """Mean luma, 0 to 255 (ITU-R BT.601 weights, as Pillow's)."""
    red, green, blue = (image[:, :, channel].mean() for channel in range(3))
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


def brightness(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Times a factor."""
    return mapped(image, _LEVELS * strength)


def offset(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Plus grey levels."""
    return mapped(image, _LEVELS + strength)


def gamma(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """To the power of an exponent, in 0 to 1."""
    return mapped(image, 255 * (_LEVELS / 255) ** strength)


def contrast(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Away from the mean luma by a factor."""
    mean = grey_mean(image)
    return mapped(image, mean + (_LEVELS - mean) * strength)


def autocontrast(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Each channel stretched to the full range, ``strength`` per cent cut off at each end."""
    return np.asarray(ImageOps.autocontrast(Pillow.fromarray(image), cutoff=strength))


def solarise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Values from a grey level on are inverted."""
    return mapped(image, np.where(strength > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarise_add(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Grey levels are added, then values from the middle on are inverted."""
    raised = np.clip(_LEVELS + strength, 0, 255)
    return mapped(image, np.where(raised < 128, raised, 255 - raised))


def posterise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Only the highest bits are kept; a fraction of a bit counts as none."""
    step = 2 ** (8 - int(strength))
    return mapped(image, _LEVELS // step * step)


def equalise(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Each channel's histogram made flat, mixed in by a share."""
    flat = np.asarray(ImageOps.equalize(Pillow.fromarray(image)))
    return flat if strength >= 1 else blended(image, flat, strength)


def invert(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """The negative, mixed in by a share."""
    return mapped(image, (1 - strength) * _LEVELS + strength * (255 - _LEVELS))


def blended(first: Image, second: Image, share: float) -> Image:
    """``first`` with ``share`` of ``second``."""
    return np.asarray(Pillow.blend(Pillow.fromarray(first), Pillow.fromarray(second), share))
