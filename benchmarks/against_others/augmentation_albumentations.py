"""albumentations: its transforms, called as its users call them, on arrays. Runs in an environment of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from against_others import augmentation_strengths as strengths

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for its newest version otherwise

import albumentations as A  # noqa: N812
import cv2

Image = NDArray[np.uint8]
PACKAGES = ("albumentations", "opencv-python-headless", "numpy")
_ONE = (1.0, 1.0)


def _jitter(**changed: tuple[float, float]) -> A.ColorJitter:
    """One of its four changes; a factor of 1 (for hue: 0) is passed over by albumentations."""
    nothing = {"brightness": _ONE, "contrast": _ONE, "saturation": _ONE, "hue": (0.0, 0.0)}
    return A.ColorJitter(**(nothing | changed), p=1)


def _policy_operations(*, wide: bool) -> list[A.BasicTransform]:
    """The fourteen operations of RandAugment(2, 9) or of TrivialAugmentWide. A sign drawn is a range from - to +."""
    shear = math.degrees(math.atan(0.99 if wide else 0.09))
    shift = 0.143 if wide else 0.136
    turn = 135.0 if wide else 9.0
    factor = (0.01, 1.99) if wide else (0.73, 1.27)
    return [
        A.NoOp(p=1),
        A.Affine(shear={"x": (-shear, shear), "y": (0, 0)}, p=1),
        A.Affine(shear={"x": (0, 0), "y": (-shear, shear)}, p=1),
        A.Affine(translate_percent={"x": (-shift, shift), "y": (0, 0)}, p=1),
        A.Affine(translate_percent={"x": (0, 0), "y": (-shift, shift)}, p=1),
        A.Rotate((-turn, turn), p=1),
        _jitter(brightness=factor),
        _jitter(saturation=factor),
        _jitter(contrast=factor),
        A.Sharpen((0.0, 0.99) if wide else (0.27, 0.27), _ONE, p=1),
        A.Posterize((2, 7) if wide else 7, p=1),
        A.Solarize((0.0, 1.0) if wide else (179 / 255, 179 / 255), p=1),
        A.AutoContrast(cutoff=0, method="pil", p=1),
        A.Equalize(mode="pil", p=1),
    ]


def functions(size: int, seed: int) -> Mapping[str, Callable[[Image], Image]]:
    """What it has. RandAugment and TrivialAugment are put together from its operations, as it has neither."""
    cv2.setNumThreads(1)
    degrees = math.degrees(math.atan(strengths.SHEAR))
    sigma = strengths.SIGMA * size
    length = 2 * round(strengths.LENGTH * size / 2) + 1
    hole, ratio = (strengths.HOLE, strengths.HOLE), (1 / 3, 3.0)
    transforms: dict[str, Any] = {
        "nothing": A.NoOp(p=1),
        "rotate_reflect": A.Rotate((strengths.DEGREES,) * 2, border_mode=cv2.BORDER_REFLECT, p=1),
        "rotate": A.Rotate((strengths.DEGREES,) * 2, p=1),
        "translate": A.Affine(translate_percent={"x": (strengths.SHIFT,) * 2, "y": (0, 0)}, p=1),
        "shear": A.Affine(shear={"x": (degrees, degrees), "y": (0, 0)}, p=1),
        "zoom": A.Affine(scale=(strengths.ZOOM,) * 2, p=1),
        "brightness": _jitter(brightness=(strengths.FACTOR,) * 2),
        "contrast": _jitter(contrast=(strengths.FACTOR,) * 2),
        "saturation": _jitter(saturation=(strengths.SATURATION,) * 2),
        "hue": _jitter(hue=(strengths.HUE,) * 2),
        "solarise": A.Solarize((strengths.THRESHOLD / 255,) * 2, p=1),
        "posterise": A.Posterize(strengths.BITS, p=1),
        "equalise": A.Equalize(mode="pil", p=1),
        "autocontrast": A.AutoContrast(cutoff=0, method="pil", p=1),
        "gaussian_blur": A.GaussianBlur(0, (sigma, sigma), p=1),
        "motion_blur": A.MotionBlur((length, length), allow_shifted=False, p=1),
        "jpeg": A.ImageCompression("jpeg", (strengths.QUALITY,) * 2, p=1),
        "gaussian_noise": A.GaussNoise((strengths.NOISE / 255,) * 2, p=1),
        "cutout": A.CoarseDropout((1, 1), hole, hole, 0, p=1),
        "random_erasing": A.Erasing((strengths.AREA,) * 2, ratio, 0, p=1),
        "grid_mask": A.GridDropout(strengths.GRID, random_offset=True, p=1),
        "randaugment": A.Compose([A.SomeOf(_policy_operations(wide=False), 2, replace=True, p=1)], seed=seed),
        "trivialaugment": A.Compose([A.OneOf(_policy_operations(wide=True), p=1)], seed=seed),
    }
    return {name: _called(transform) for name, transform in transforms.items()}


def _called(transform: Any) -> Callable[[Image], Image]:
    return lambda image: transform(image=image)["image"]


def native(image: Image) -> Image:
    """uint8 (H, W, 3) is what it takes."""
    return image


def array(image: Image) -> Image:
    return image
