"""The functions behind the names of ``policies.OPERATIONS``.

Each takes an image uint8 (H, W, 3), a strength in the operation's unit, a random generator and a fill, and returns a
new image of the same shape and type; the one given is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hemascope.augmentation import colour, geometry, noise, occlusion, optics, slide, stain, tone
from hemascope.augmentation.fill import Image

Function = Callable[[Image, float, np.random.Generator, str], Image]


def _identity(image: Image, strength: float, rng: np.random.Generator, fill: str) -> Image:
    return image


FUNCTIONS: Mapping[str, Function] = {
    "identity": _identity,
    "mirror": geometry.mirror,
    "quarter_turn": geometry.quarter_turn,
    "translate_x": geometry.translate_x,
    "translate_y": geometry.translate_y,
    "rotate": geometry.rotate,
    "shear_x": geometry.shear_x,
    "shear_y": geometry.shear_y,
    "zoom": geometry.zoom,
    "aspect": geometry.aspect,
    "perspective": geometry.perspective,
    "warp": geometry.warp,
    "cutout": occlusion.cutout,
    "random_erasing": occlusion.random_erasing,
    "grid_mask": occlusion.grid_mask,
    "stripes": occlusion.stripes,
    "pixelate": optics.pixelate,
    "downscale": optics.downscale,
    "jpeg": optics.jpeg,
    "webp": optics.webp,
    "gaussian_blur": optics.gaussian_blur,
    "defocus_blur": optics.defocus_blur,
    "motion_blur": optics.motion_blur,
    "median_blur": optics.median_blur,
    "sharpness": optics.sharpness,
    "gaussian_noise": noise.gaussian_noise,
    "grey_noise": noise.grey_noise,
    "speckle_noise": noise.speckle_noise,
    "shot_noise": noise.shot_noise,
    "salt_and_pepper": noise.salt_and_pepper,
    "brightness": tone.brightness,
    "offset": tone.offset,
    "gamma": tone.gamma,
    "contrast": tone.contrast,
    "autocontrast": tone.autocontrast,
    "solarise": tone.solarise,
    "solarise_add": tone.solarise_add,
    "posterise": tone.posterise,
    "equalise": tone.equalise,
    "invert": tone.invert,
    "saturation": colour.saturation,
    "saturation_offset": colour.saturation_offset,
    "hue": colour.hue,
    "channel_shift": colour.channel_shift,
    "channel_gain": colour.channel_gain,
    "channel_swap": colour.channel_swap,
    "white_balance": colour.white_balance,
    "stain_density": stain.stain_density,
    "stain_channels": stain.stain_channels,
    "stain_hed": stain.stain_hed,
    "vignette": optics.vignette,
    "light_gradient": optics.light_gradient,
    "shading": optics.shading,
    "stain_deposit": slide.stain_deposit,
    "dust": slide.dust,
    "bubbles": slide.bubbles,
}
