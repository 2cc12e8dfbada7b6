"""From dyes on a slide to pixels: stain vectors, illumination, focus, sensor noise, compression.

Absorption is computed in optical density (natural logarithm), where dyes add up (Beer-Lambert); the idea of moving
stain vectors to imitate other laboratories follows Ruifrok and Johnston (2001) and Tellez et al. (2018).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]

FIELD = 21.6
"""Side of the field of view in micrometres: a red cell of 7.5 micrometres spans about a third of it."""

STAINS: Floats = np.array(
    [
        [1.30, 2.20, 0.44],  # azure B on DNA: purple
        [0.62, 0.58, 0.15],  # azure B on RNA: blue
        [0.21, 0.66, 0.50],  # eosin: orange-red
        [0.23, 0.33, 0.24],  # haemoglobin: grey-pink
    ],
    dtype=np.float32,
)
"""Optical density (4, 3) of one unit of each dye in red, green and blue."""

_CREAM = np.array([256.0, 231.0, 204.0])
_BLUISH = np.array([228.0, 230.0, 243.0])


@dataclass(frozen=True)
class Slide:
    """How one slide was stained and photographed. Drawn once an image, shared by all that lies on it.

    stains       float32 (4, 3), optical density of one unit of each dye on this slide
    light        float32 (3,), grey levels of empty plasma
    gradient     float32 (3,), change of the light across the field: along x, along y, towards the corners
    focus        standard deviation of the blur in micrometres; negative: the camera sharpened by as much
    noise        standard deviation of the sensor noise in grey levels
    quality      of the JPEG the camera's software wrote
    """

    stains: Floats
    light: Floats
    gradient: Floats
    focus: float
    noise: float
    quality: int


def draw_slide(rng: np.random.Generator) -> Slide:
    """The staining and the optics of one image."""
    # Mostly one laboratory, like most collections, with a tail of others.
    other = float(rng.random()) ** 4 if rng.random() < 0.5 else 0.0
    strength = np.exp(rng.normal(0.0, [[0.1], [0.2], [0.16], [0.12]]))
    hue = np.exp(rng.normal(0.0, 0.05, (4, 3)))
    light = _CREAM + other * (_BLUISH - _CREAM) + rng.normal(0.0, [3.0, 3.0, 5.0]) + rng.normal(0.0, 3.0)
    return Slide(
        stains=(STAINS * strength * hue).astype(np.float32),
        light=light.astype(np.float32),
        gradient=rng.normal([0.0, 0.0, -0.02], [0.015, 0.015, 0.012]).astype(np.float32),
        focus=float(rng.normal(0.0, 0.06)) + 0.02,
        noise=float(rng.uniform(0.8, 3.0)),
        quality=int(rng.integers(82, 97)),
    )


def develop(density: Floats, slide: Slide, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photograph of a slide: optical density float32 (3, S, S) to RGB uint8 (S, S, 3)."""
    size = density.shape[1]
    across = np.linspace(-1, 1, size, dtype=np.float32)
    x, y, corner = slide.gradient
    lamp = 1 + x * across[None, :] + y * across[:, None] + corner * (across[None, :] ** 2 + across[:, None] ** 2) / 2
    picture = np.exp(-density)
    picture *= slide.light[:, None, None]
    picture *= lamp
    image = Image.fromarray(np.ascontiguousarray(_to_bytes(picture).transpose(1, 2, 0)))
    blur = abs(slide.focus) * size / FIELD
    if slide.focus > 0 and blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    elif slide.focus < 0:
        image = image.filter(ImageFilter.UnsharpMask(radius=max(blur, 0.5), percent=80, threshold=0))
    # Noise of brightness alone: what is left of a sensor's colour noise once the camera has subsampled the colours.
    grain = np.asarray(image) + slide.noise * rng.standard_normal((size, size, 1), dtype=np.float32)
    file = io.BytesIO()
    Image.fromarray(_to_bytes(grain)).save(file, "JPEG", quality=slide.quality)
    return np.array(Image.open(file))


def _to_bytes(picture: Floats) -> NDArray[np.uint8]:
    picture += 0.5
    np.maximum(picture, 0, out=picture)
    np.minimum(picture, 255, out=picture)
    return picture.astype(np.uint8)
