"""torchvision's transforms v2, on uint8 tensors and on Pillow images.

Operations are its functionals, the least it can cost; places that must be drawn, and whole policies, its transforms.
Images are in the library's own type before the clock starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from against_others import augmentation_strengths as strengths
from hemascope.torchvision_compat import import_torchvision

import_torchvision()

import torch  # noqa: E402
from PIL import Image as Pillow  # noqa: E402
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402, N812

PACKAGES = ("torch", "torchvision", "pillow")
_BILINEAR = v2.InterpolationMode.BILINEAR


def functions(size: int, seed: int) -> Mapping[str, Callable[[Any], Any]]:
    """The same for both types; a worker leaves out what raises for its own."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(seed)

    def affine(shift: float = 0.0, scale: float = 1.0, shear: float = 0.0) -> Callable[[Any], Any]:
        return lambda image: F.affine(image, 0.0, [shift, 0.0], scale, [shear, 0.0], _BILINEAR, fill=[0.0])

    sigma = strengths.SIGMA * size
    width = 2 * math.ceil(3 * sigma) + 1
    return {
        "nothing": v2.Identity(),
        "rotate": lambda image: F.rotate(image, strengths.DEGREES, _BILINEAR, fill=[0.0]),
        "translate": affine(shift=strengths.SHIFT * size),
        "shear": affine(shear=math.degrees(math.atan(strengths.SHEAR))),
        "zoom": affine(scale=strengths.ZOOM),
        "brightness": lambda image: F.adjust_brightness(image, strengths.FACTOR),
        "contrast": lambda image: F.adjust_contrast(image, strengths.FACTOR),
        "saturation": lambda image: F.adjust_saturation(image, strengths.SATURATION),
        "hue": lambda image: F.adjust_hue(image, strengths.HUE),
        "solarise": lambda image: F.solarize(image, strengths.THRESHOLD),
        "posterise": lambda image: F.posterize(image, strengths.BITS),
        "equalise": F.equalize,
        "autocontrast": F.autocontrast,
        "gaussian_blur": lambda image: F.gaussian_blur(image, [width, width], [sigma, sigma]),
        "jpeg": lambda image: F.jpeg(image, strengths.QUALITY),
        "gaussian_noise": lambda image: F.gaussian_noise(image, 0.0, strengths.NOISE / 255),
        "cutout": v2.RandomErasing(1.0, (strengths.HOLE**2, strengths.HOLE**2), (1.0, 1.0), 0),
        "random_erasing": v2.RandomErasing(1.0, (strengths.AREA, strengths.AREA), (1 / 3, 3.0), 0),
        "randaugment": v2.RandAugment(2, 9, interpolation=_BILINEAR, fill=0),
        "trivialaugment": v2.TrivialAugmentWide(interpolation=_BILINEAR, fill=0),
        "augmix": v2.AugMix(severity=3, all_ops=False, interpolation=_BILINEAR, fill=0),
    }


def tensor_native(image: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def pillow_native(image: NDArray[np.uint8]) -> Pillow.Image:
    return Pillow.fromarray(image)


def array(image: Any) -> NDArray[np.uint8]:
    """Of either type."""
    if isinstance(image, torch.Tensor):
        return image.permute(1, 2, 0).numpy()
    return np.asarray(image)
