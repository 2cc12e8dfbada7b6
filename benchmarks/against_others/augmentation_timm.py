"""timm's augmentations: functions of Pillow images; its random erasing works on the tensor that comes after them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from against_others import augmentation_strengths as strengths
from hemascope.torchvision_compat import import_torchvision

import_torchvision()

import torch  # noqa: E402
from PIL import Image as Pillow  # noqa: E402
from timm.data import auto_augment as timm_operations  # noqa: E402
from timm.data.random_erasing import RandomErasing  # noqa: E402

PACKAGES = ("timm", "torch", "pillow")


def functions(size: int, seed: int) -> Mapping[str, Callable[[Any], Any]]:
    """What it has. Its RandAugment draws from fifteen operations and its AugMix from thirteen, not our fourteen and
    nine; shears are about the upper left corner, not the centre."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    black = {"fillcolor": (0, 0, 0), "resample": Pillow.Resampling.BILINEAR}
    options = {
        "img_mean": (0, 0, 0),
        "interpolation": Pillow.Resampling.BILINEAR,
        "translate_const": round(0.45 * size),
    }

    def erasing(area: float, aspect: float) -> Callable[[Pillow.Image], torch.Tensor]:
        erase = RandomErasing(1.0, area, area, aspect, 1 / aspect, mode="const", device="cpu")
        cached: dict[int, torch.Tensor] = {}

        def erased(image: Pillow.Image) -> torch.Tensor:
            # timm erases tensors in place: making them is not what is measured, the copy is.
            tensor = cached.get(id(image))
            if tensor is None:
                tensor = cached[id(image)] = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
            return erase(tensor.clone())

        return erased

    return {
        "nothing": lambda image: image,
        "rotate": lambda image: timm_operations.rotate(image, strengths.DEGREES, **black),
        "translate": lambda image: timm_operations.translate_x_abs(image, -strengths.SHIFT * size, **black),
        "shear": lambda image: timm_operations.shear_x(image, strengths.SHEAR, **black),
        "brightness": lambda image: timm_operations.brightness(image, strengths.FACTOR),
        "contrast": lambda image: timm_operations.contrast(image, strengths.FACTOR),
        "saturation": lambda image: timm_operations.color(image, strengths.SATURATION),
        "solarise": lambda image: timm_operations.solarize(image, strengths.THRESHOLD),
        "posterise": lambda image: timm_operations.posterize(image, strengths.BITS),
        "equalise": timm_operations.equalize,
        "autocontrast": timm_operations.auto_contrast,
        "gaussian_blur": lambda image: timm_operations.gaussian_blur(image, strengths.SIGMA * size),
        "cutout": erasing(strengths.HOLE**2, 1.0),
        "random_erasing": erasing(strengths.AREA, 1 / 3),
        "randaugment": timm_operations.rand_augment_transform("rand-m9-n2-p1", options),
        "augmix": timm_operations.augment_and_mix_transform("augmix-m3-w3", options),
    }


def native(image: NDArray[np.uint8]) -> Pillow.Image:
    return Pillow.fromarray(image)


def array(image: Any) -> NDArray[np.uint8]:
    """Of either type."""
    if isinstance(image, torch.Tensor):
        return image.permute(1, 2, 0).numpy()
    return np.asarray(image)
