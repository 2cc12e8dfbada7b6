"""Edited copies of cells, as they get into data sets by accident: the faults that the duplicate check must find.

An image is edited as it was stored, before it is prepared: saved as JPEG, resized, turned, cropped, made brighter or
darker, or two of these one after the other. The stain shift is not among the pairs: it is planted on request, apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Edit = Callable[[Pixels, np.random.Generator], Pixels]

JPEG_QUALITY = (50, 90)
RESIZE = (0.5, 1.5)
CROP = 0.85
BRIGHTNESS = 0.2
STAIN = 0.2


@dataclass(frozen=True)
class Planted:
    """One edited copy.

    source  index of the image it was made from
    kind    what was done, such as "jpeg" or "crop + turn"
    pixels  uint8 (H, W, 3)
    """

    source: int
    kind: str
    pixels: Pixels


def jpeg(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Saved once as JPEG of quality 50 to 90, colour at half the resolution as most programs do."""
    buffer = io.BytesIO()
    quality = int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resize(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """To 0.5 to 1.5 times the side, by one of three filters."""
    factor = rng.uniform(*RESIZE)
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    chosen = filters[int(rng.integers(len(filters)))]
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), chosen))


def turn(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """One of the seven quarter turns and mirror images that change something."""
    index = int(rng.integers(1, 8))
    turned = np.rot90(pixels, index % 4)
    return np.ascontiguousarray(turned[:, ::-1] if index >= 4 else turned)


def crop(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """85 % of the side, from anywhere in the image."""
    height, width = (round(side * CROP) for side in pixels.shape[:2])
    top = int(rng.integers(pixels.shape[0] - height + 1))
    left = int(rng.integers(pixels.shape[1] - width + 1))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def brightness(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """All values times 0.8 to 1.2; what passes 255 is lost, as it is in a picture program."""
    factor = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)
    return np.clip(np.rint(pixels * factor), 0, 255).astype(np.uint8)


def stain(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Optical density of each channel times 0.8 to 1.2: another strength of the dyes."""
    factor = rng.uniform(1 - STAIN, 1 + STAIN, 3)
    density = -np.log((pixels.astype(np.float64) + 1) / 256)
    return np.clip(np.rint(256 * np.exp(-density * factor) - 1), 0, 255).astype(np.uint8)


EDITS: dict[str, Edit] = {"jpeg": jpeg, "resize": resize, "turn": turn, "crop": crop, "brightness": brightness}
KINDS: tuple[tuple[str, ...], ...] = (*((name,) for name in EDITS), *combinations(EDITS, 2))
"""The five edits and their ten pairs; the two of a pair come in either order."""


def plant_duplicates(
    original: Callable[[int], Pixels],
    candidates: Sequence[int] | NDArray[np.intp],
    count: int,
    seed: int,
    *,
    kinds: Sequence[tuple[str, ...]] = KINDS,
) -> list[Planted]:
    """``count`` edited copies of as many different images, every kind about equally often.

    original    gives the stored pixels of the image with this index
    candidates  indices of the images that may be copied; at least ``count``
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.asarray(candidates))[:count]
    if len(chosen) < count:
        raise ValueError(f"{count} copies of different images need as many images, found {len(chosen)}")
    edits = EDITS | {"stain": stain}
    planted = []
    for number, source in enumerate(chosen.tolist()):
        kind = kinds[number % len(kinds)]
        pixels = original(source)
        for name in rng.permutation(kind).tolist():
            pixels = edits[name](pixels, rng)
        planted.append(Planted(source, " + ".join(kind), pixels))
    return planted
