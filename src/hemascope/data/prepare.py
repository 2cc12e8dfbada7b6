"""From an image of any size to the square one a network sees. Prediction repeats it exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.config import Preparation

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def prepare(pixels: NDArray[np.uint8], preparation: Preparation) -> NDArray[np.uint8]:
    """Centre square, then resizes: uint8 (H, W, 3) to uint8 (S, S, 3).

    The square's side is ``preparation.crop``, or the shorter side where that is less or no crop is set. Where
    the margin is odd, the square sits half a pixel to the upper left: left = (W - side) // 2, top = (H - side) // 2.
    Pillow's filters widen as they shrink (antialiasing) and no pixel outside the square has any weight.
    """
    height, width = pixels.shape[:2]
    side = min(height, width, preparation.crop or height)
    top, left = (height - side) // 2, (width - side) // 2
    if (height, width) != (side, side):
        pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if all(step.size == side for step in preparation.resizes):
        return pixels
    image = Image.fromarray(pixels)
    for step in preparation.resizes:
        image = image.resize((step.size, step.size), FILTERS[step.filter], reducing_gap=None)
    return np.asarray(image)
