"""What lies on a real slide: blots of stain, dust and fibres, air bubbles under the cover glass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter

from hemascope.augmentation.fill import Image
from hemascope.augmentation.geometry import smooth_field


def _shaded(image: Image, cover: NDArray[np.float32], colour: NDArray[np.float32]) -> Image:
    """``colour`` (3,) laid over the image, ``cover`` (H, W) in 0 to 1."""
    alpha = cover[:, :, None]
    return (image * (1 - alpha) + colour * alpha + 0.5).clip(0, 255).astype(np.uint8)


def stain_deposit(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Blots of precipitated dye, violet to nearly black, of uneven outline."""
    height, width = image.shape[:2]
    side, count = max(height, width), round(strength)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cover = np.zeros((height, width), dtype=np.float32)
    ragged = smooth_field(rng, (height, width), 12) * np.float32(rng.uniform(0.15, 0.5))
    for _ in range(count):
        radius = side * np.float32(np.exp(rng.uniform(np.log(0.02), np.log(0.16))))
        centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
        distance = np.hypot(y - np.float32(centre_y), (x - np.float32(centre_x)) * np.float32(rng.uniform(0.6, 1.6)))
        inside = 1 + ragged - distance / radius
        np.maximum(cover, np.clip(inside * np.float32(rng.uniform(2, 8)), 0, 1), out=cover)
    colour = rng.uniform([15, 5, 45], [125, 85, 165]).astype(np.float32)
    return _shaded(image, cover * np.float32(rng.uniform(0.6, 1.0)), colour)


def dust(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Dark or bright specks and thin bent fibres, a little out of focus."""
    height, width = image.shape[:2]
    side = max(height, width)
    picture = Pillow.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    for _ in range(round(strength)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if rng.random() < 0.6:
            radius = side * rng.uniform(0.004, 0.025)
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        else:
            bends = np.cumsum(rng.normal(0, 0.5, 5)) + rng.uniform(0, 2 * np.pi)
            steps = np.cumsum(np.stack([np.cos(bends), np.sin(bends)], axis=1), axis=0) * side * rng.uniform(0.02, 0.12)
            points = [(x, y), *((x + dx, y + dy) for dx, dy in steps.tolist())]
            draw.line(points, fill=255, width=max(1, round(side * rng.uniform(0.004, 0.02))), joint="curve")
    soft = picture.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.0, 0.01)))
    cover: NDArray[np.float32] = (
        np.asarray(soft, dtype=np.float32) / np.float32(255) * np.float32(rng.uniform(0.5, 1.0))
    )
    bright = rng.random() < 0.25
    colour = rng.uniform(200, 255, 3) if bright else rng.uniform(0, 110, 3)
    return _shaded(image, cover, colour.astype(np.float32))


def bubbles(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    """Round bubbles: a dark rim, a bright crescent, and a paler or darker inside."""
    height, width = image.shape[:2]
    side = max(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    result = image.astype(np.float32)
    for _ in range(round(strength)):
        radius = np.float32(side * np.exp(rng.uniform(np.log(0.03), np.log(0.25))))
        dy, dx = y - np.float32(rng.uniform(0, height)), x - np.float32(rng.uniform(0, width))
        distance = np.hypot(dy, dx) / radius
        thickness = np.float32(rng.uniform(0.06, 0.2))
        rim = np.clip(1 - np.abs(distance - 1) / thickness, 0, 1)
        inside = np.clip((1 - distance) / thickness, 0, 1)
        angle = rng.uniform(0, 2 * np.pi)
        towards = (dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))) / radius
        crescent = np.clip(1 - np.abs(distance - 0.8) / (2 * thickness), 0, 1) * np.clip(towards, 0, 1)
        light = 1 + np.float32(rng.uniform(-0.15, 0.3)) * inside - np.float32(rng.uniform(0.25, 0.7)) * rim
        result = result * light[:, :, None] + np.float32(rng.uniform(20, 90)) * crescent[:, :, None]
    return (result + 0.5).clip(0, 255).astype(np.uint8)
