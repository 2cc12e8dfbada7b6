"""Spoilt copies of cells: what the checks of quality must find.

Each fault is drawn over a range, from what an eye just notices to what nobody would keep; the ranges were set before
any check was run on them. An image is spoilt as it was stored, before it is prepared.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Fault = Callable[[Pixels, np.random.Generator], Pixels]

DARK = (0.1, 0.4)
BRIGHT = (0.05, 0.3)
BLUR = (3.0, 8.0)
FLAT = (0.03, 0.1)
SMALL, LARGE = (0.2, 0.5), (2.0, 3.0)
ASPECT = (0.3, 0.6)
PATCH = 1 / 8
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Spoilt:
    """One spoilt copy.

    source  index of the image it was made from
    fault   what was done, one of FAULTS
    pixels  uint8 (H, W, 3), or (H, W) for a file of one channel
    """

    source: int
    fault: str
    pixels: Pixels

    def file_bytes(self) -> bytes:
        """It as a JPEG file, as the cells are."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


def blank(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Black, white or the image's mean colour, with noise of a deviation of 0 to 2: a shutter closed, a lost field."""
    colour = (np.zeros(3), np.full(3, 255.0), pixels.mean((0, 1)))[int(rng.integers(3))]
    noise = rng.normal(0, rng.uniform(0, 2), pixels.shape)
    return np.clip(np.rint(colour + noise), 0, 255).astype(np.uint8)


def dark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """All values times 0.1 to 0.4: the lamp turned down."""
    return np.rint(pixels * rng.uniform(*DARK)).astype(np.uint8)


def bright(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """What is missing to white times 0.05 to 0.3: over-exposed, or stained far too little."""
    return (255 - np.rint((255 - pixels.astype(np.float64)) * rng.uniform(*BRIGHT))).astype(np.uint8)


def blurred(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A Gaussian of a deviation of 3 to 8 pixels: out of focus."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR))))


def low_information(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Hardly anything to see: contrast of 3 to 10 % about the mean, or the plainest patch, enlarged eight times."""
    if rng.integers(2):
        mean = pixels.mean((0, 1))
        return np.clip(np.rint(mean + (pixels - mean) * rng.uniform(*FLAT)), 0, 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    side = max(8, round(min(height, width) * PATCH))
    corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    top, left = min(corners, key=lambda at: float(pixels[at[0] : at[0] + side, at[1] : at[1] + side].std()))
    patch = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(patch.resize((width, height), Image.Resampling.BICUBIC))


def odd_size(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """The side times 0.2 to 0.5, or 2 to 3: a thumbnail, or a scan at another magnification."""
    factor = rng.uniform(*(SMALL if rng.integers(2) else LARGE))
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def odd_aspect(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """One side cut to 0.3 to 0.6 about the centre: a cell at the rim of the field."""
    axis = int(rng.integers(2))
    side = pixels.shape[axis]
    kept = round(side * rng.uniform(*ASPECT))
    start = (side - kept) // 2
    return np.ascontiguousarray(pixels.take(range(start, start + kept), axis=axis))


def greyscale(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Luminance only, one channel in the file."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def greyscale_rgb(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Luminance only, saved with three equal channels: nothing in the file's header tells."""
    return np.repeat(greyscale(pixels, rng)[:, :, None], 3, axis=2)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (blank, dark, bright, blurred, low_information, odd_size, odd_aspect, greyscale, greyscale_rgb)
}


def plant_quality(
    original: Callable[[int], Pixels], candidates: Sequence[int] | NDArray[np.intp], count: int, seed: int
) -> list[Spoilt]:
    """``count`` spoilt copies for each of FAULTS, each of a different image.

    original    gives the stored pixels of the image with this index, uint8 (H, W, 3)
    candidates  indices of the images that may be copied; at least ``count`` for each fault
    """
    rng = np.random.default_rng(seed)
    needed = count * len(FAULTS)
    chosen = rng.permutation(np.asarray(candidates))[:needed].tolist()
    if len(chosen) < needed:
        raise ValueError(f"{count} copies for each of {len(FAULTS)} faults need {needed} images, found {len(chosen)}")
    names = [name for name in FAULTS for _ in range(count)]
    return [
        Spoilt(source, name, FAULTS[name](original(source), rng)) for source, name in zip(chosen, names, strict=True)
    ]
