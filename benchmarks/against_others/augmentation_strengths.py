"""What every library is asked to do: operations by hemascope's names, each at one strength that all can have.

Only the standard library: this is read by every worker, whatever its environment holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEGREES = 30.0
SHIFT = 0.1  # of the side
SHEAR = 0.3  # tangent
ZOOM = 0.8
FACTOR = 1.3  # brightness, contrast
SATURATION = 1.5
HUE = 0.1  # of the colour circle
THRESHOLD = 128
BITS = 4
SIGMA = 0.0125  # of the side
LENGTH = 0.09  # of the side
QUALITY = 30
NOISE = 20.0  # grey levels
HOLE = 0.3  # of the side
AREA = 0.1
GRID = 0.4  # of a cell of the grid

Check = Literal["same", "alike", "none"]


@dataclass(frozen=True)
class Asked:
    """One row of the table.

    name    the worker's key
    title   for people
    check   same: both must give nearly the same picture; alike: drawn at random, so only about as much may change
    """

    name: str
    title: str
    check: Check = "same"


OPERATIONS = (
    Asked("nothing", "nothing (the cost of a call)"),
    Asked("rotate_reflect", "rotate 30°, border reflected"),
    Asked("rotate", "rotate 30°, border black"),
    Asked("translate", "translate by a tenth"),
    Asked("shear", "shear by 0.3", "alike"),
    Asked("zoom", "zoom by 0.8"),
    Asked("brightness", "brightness × 1.3"),
    Asked("contrast", "contrast × 1.3"),
    Asked("saturation", "saturation × 1.5"),
    Asked("hue", "hue by a tenth"),
    Asked("solarise", "solarise from 128"),
    Asked("posterise", "posterise to 4 bits"),
    Asked("equalise", "equalise"),
    Asked("autocontrast", "autocontrast"),
    Asked("gaussian_blur", "Gaussian blur, σ 1/80 of the side"),
    Asked("motion_blur", "motion blur, 0.09 of the side", "alike"),
    Asked("jpeg", "JPEG, quality 30"),
    Asked("gaussian_noise", "Gaussian noise, σ 20 of 255", "alike"),
    Asked("cutout", "cutout, 0.3 of the side", "alike"),
    Asked("random_erasing", "random erasing, a tenth of the area", "alike"),
    Asked("grid_mask", "grid mask", "alike"),
)
POLICIES = (
    Asked("randaugment", "RandAugment(2, 9)", "alike"),
    Asked("trivialaugment", "TrivialAugmentWide", "alike"),
    Asked("augmix", "AugMix, severity 3", "alike"),
    Asked("winners", "policy `winners`", "none"),
    Asked("robust", "policy `robust`", "none"),
)
EVERYTHING = OPERATIONS + POLICIES
