"""The corruptions of MedMNIST-C for blood cells at five severities (Di Salvo, Doerrich, Ledig 2024).

Parameters are the paper's, meant for pictures of 224 pixels; lengths are scaled with the side of the image, and a
length below a pixel stays a fraction. The code is our own, written from what each corruption means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from hemascope.corruptions.draws import identities, image_generator
from hemascope.corruptions.pixels import (
    REFERENCE_SIDE,
    Pixels,
    convolved,
    disc_kernel,
    line_kernel,
    picture,
    recoded,
    resampled,
)
from hemascope.corruptions.slide_marks import air_bubbles, blots
from hemascope.errors import UsageError
from hemascope.names import suggestion

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One corruption: ``parameters`` are those of severity 1 to 5, in the paper's units; ``family`` as a policy's."""

    name: str
    title: str
    family: str
    parameters: tuple[Any, ...]


_LIST = (
    Corruption("pixelate", "fewer pixels", "resolution", (0.6, 0.5, 0.4, 0.3, 0.25)),
    Corruption("jpeg", "JPEG compression", "compression", (50, 30, 15, 10, 7)),
    Corruption("defocus_blur", "out of focus", "blur", ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1))),
    Corruption("motion_blur", "moved", "blur", ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9))),
    Corruption("brightness_up", "brighter", "brightness", (1.1, 1.2, 1.3, 1.35, 1.4)),
    Corruption("brightness_down", "darker", "brightness", (0.9, 0.8, 0.7, 0.6, 0.5)),
    Corruption("contrast_up", "more contrast", "contrast", (1.1, 1.15, 1.2, 1.25, 1.3)),
    Corruption("contrast_down", "less contrast", "contrast", (0.9, 0.8, 0.7, 0.6, 0.5)),
    Corruption("saturate", "more saturated", "colour", (0.05, 0.10, 0.15, 0.17, 0.20)),
    Corruption("stain_deposit", "blots of stain", "deposit", (1, 2, 3, 3, 3)),
    Corruption("bubble", "air bubbles", "bubble", ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12))),
)
CORRUPTIONS: Mapping[str, Corruption] = {corruption.name: corruption for corruption in _LIST}
"""The eleven, in the paper's order."""


def _pixelate(image: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    return resampled(image, factor, Image.Resampling.BOX)


def _jpeg(image: Pixels, quality: int, rng: np.random.Generator) -> Pixels:
    return recoded(image, quality)


def _defocus(image: Pixels, lens: tuple[float, float], rng: np.random.Generator) -> Pixels:
    scale = image.shape[0] / REFERENCE_SIDE
    return convolved(image, disc_kernel(lens[0] * scale, lens[1] * scale))


def _motion(image: Pixels, path: tuple[float, float], rng: np.random.Generator) -> Pixels:
    scale = image.shape[0] / REFERENCE_SIDE
    return convolved(image, line_kernel(path[0] * scale, path[1] * scale, rng.uniform(0, np.pi)))


def _brightness(image: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    return np.asarray(ImageEnhance.Brightness(picture(image)).enhance(factor))


def _contrast(image: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    return np.asarray(ImageEnhance.Contrast(picture(image)).enhance(factor))


def _saturate(image: Pixels, added: float, rng: np.random.Generator) -> Pixels:
    """S of HSV plus ``added``, in exact arithmetic: value and hue stay, so only the smaller channels move."""
    rgb = image.astype(np.float64) / 255
    high, low = rgb.max(axis=-1, keepdims=True), rgb.min(axis=-1, keepdims=True)
    span = high - low
    saturation = np.divide(span, high, out=np.zeros_like(span), where=high > 0)
    wanted = np.clip(saturation + added, 0, 1)
    # A grey pixel has no hue; HSV calls it red.
    hue = np.divide(high - rgb, span, out=np.broadcast_to([0.0, 1.0, 1.0], rgb.shape).copy(), where=span > 0)
    result: Pixels = np.rint(255 * (high - hue * wanted * high)).astype(np.uint8)
    return result


def _stain_deposit(image: Pixels, count: int, rng: np.random.Generator) -> Pixels:
    return blots(image, count, rng)


def _bubble(image: Pixels, bubbles: tuple[int, int], rng: np.random.Generator) -> Pixels:
    return air_bubbles(image, bubbles[0], bubbles[1] / REFERENCE_SIDE, rng)


_FUNCTIONS: Mapping[str, Callable[[Pixels, Any, np.random.Generator], Pixels]] = {
    "pixelate": _pixelate,
    "jpeg": _jpeg,
    "defocus_blur": _defocus,
    "motion_blur": _motion,
    "brightness_up": _brightness,
    "brightness_down": _brightness,
    "contrast_up": _contrast,
    "contrast_down": _contrast,
    "saturate": _saturate,
    "stain_deposit": _stain_deposit,
    "bubble": _bubble,
}


def corrupt(
    images: NDArray[np.uint8], name: str, severity: int, *, seed: int, ids: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """``images``, uint8 (N, S, S, 3), each corrupted; a new array of the same shape.

    seed  of the test
    ids   N stable names; an image's draws depend on its own alone, so neither batch nor order changes them. Left out:
          its place in ``images``

    Raises UsageError for an unknown name or severity, images of another shape or type, or ids that are not N.
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"no corruption is called {name!r}; {suggestion(name, list(CORRUPTIONS))}")
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be 1 to 5, found {severity}")
    parameter, function = CORRUPTIONS[name].parameters[severity - 1], _FUNCTIONS[name]
    result = np.empty(images.shape, dtype=np.uint8)
    for place, identity in enumerate(identities(images, ids)):
        rng = image_generator(seed, f"{name} {severity}", identity)
        result[place] = function(np.asarray(images[place]), parameter, rng)
    return result


def severity_strip(image: Pixels, name: str, seed: int) -> Pixels:
    """The image clean and at severity 1 to 5 side by side: uint8 (S, 6 S, 3)."""
    row = [image, *(corrupt(image[None], name, severity, seed=seed)[0] for severity in SEVERITIES)]
    return np.concatenate(row, axis=1)
