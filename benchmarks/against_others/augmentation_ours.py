"""hemascope's side of the comparison of augmentations: arrays in, arrays out, as training uses them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from against_others import augmentation_strengths as strengths
from hemascope.augmentation import augmented, position_generator
from hemascope.policies import Policy

Image = NDArray[np.uint8]
PACKAGES = ("hemascope", "numpy", "pillow", "scipy")


def native(image: Image) -> Image:
    """uint8 (H, W, 3) is what it takes."""
    return image


def array(image: Image) -> Image:
    return image


def functions(size: int, seed: int) -> Mapping[str, Callable[[Image], Image]]:
    """An operation is a policy of one step, walked: the draws are paid for. ``size`` says nothing to it."""
    generator = np.random.default_rng(seed)
    positions = itertools.count()

    def operation(name: str, strength: float | tuple[float, float], fill: str = "black") -> Callable[[Image], Image]:
        step = {"operation": name, "strength": strength, "fill": fill}
        policy = Policy.model_validate({"steps": [step]})
        return lambda image: augmented(image, policy, generator)

    def policy(name: str) -> Callable[[Image], Image]:
        # Each image has a generator of its own, as in training.
        found = Policy.model_validate(name)
        return lambda image: augmented(image, found, position_generator(seed, next(positions), 1))

    return {
        "nothing": operation("identity", 0),
        # The others turn the other way round for a positive angle.
        "rotate_reflect": operation("rotate", -strengths.DEGREES, "reflect"),
        "rotate": operation("rotate", -strengths.DEGREES),
        "translate": operation("translate_x", strengths.SHIFT),
        "shear": operation("shear_x", strengths.SHEAR),
        "zoom": operation("zoom", strengths.ZOOM),
        "brightness": operation("brightness", strengths.FACTOR),
        "contrast": operation("contrast", strengths.FACTOR),
        "saturation": operation("saturation", strengths.SATURATION),
        "hue": operation("hue", strengths.HUE),
        "solarise": operation("solarise", strengths.THRESHOLD),
        "posterise": operation("posterise", strengths.BITS),
        "equalise": operation("equalise", 1),
        "autocontrast": operation("autocontrast", 0),
        "gaussian_blur": operation("gaussian_blur", strengths.SIGMA),
        "motion_blur": operation("motion_blur", strengths.LENGTH),
        "jpeg": operation("jpeg", strengths.QUALITY),
        "gaussian_noise": operation("gaussian_noise", strengths.NOISE),
        "cutout": operation("cutout", strengths.HOLE),
        "random_erasing": operation("random_erasing", strengths.AREA),
        "grid_mask": operation("grid_mask", strengths.GRID),
        **{asked.name: policy(asked.name) for asked in strengths.POLICIES},
    }
