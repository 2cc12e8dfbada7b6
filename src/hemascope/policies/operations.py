"""The operations a policy can name: what each does, the unit of its strength, and how far it may go.

A table and nothing else, so that a policy is checked without numpy or pictures. ``hemascope.augmentation`` holds the
functions; a test holds the two together. Lengths are shares of the image's side, so a policy means the same at any
size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal[
    "geometry",
    "occlusion",
    "resolution",
    "compression",
    "blur",
    "noise",
    "brightness",
    "contrast",
    "tone",
    "colour",
    "stain",
    "illumination",
    "deposit",
    "bubble",
]
FAMILIES: tuple[Family, ...] = get_args(Family)
"""Kinds of damage. A stress test names the same ones, so that a report can tell which a model was trained on."""


@dataclass(frozen=True)
class OperationSpec:
    """One operation.

    family    one of FAMILIES
    unit      what its strength counts, in words; empty where it has none
    low       smallest strength allowed
    high      largest strength allowed
    usual     the range drawn from where a policy gives none
    fills     whether something moves into view or is covered, so that ``fill`` means something
    """

    name: str
    family: str
    unit: str = ""
    low: float = 0.0
    high: float = 1.0
    usual: tuple[float, float] = (0.0, 1.0)
    fills: bool = False


def _table(specs: Iterable[OperationSpec]) -> dict[str, OperationSpec]:
    return {spec.name: spec for spec in specs}


OPERATIONS = _table(
    [
        OperationSpec("identity", "geometry"),
        OperationSpec("mirror", "geometry"),
        OperationSpec("quarter_turn", "geometry"),
        OperationSpec("translate_x", "geometry", "share of the side", -1, 1, (-0.2, 0.2), fills=True),
        OperationSpec("translate_y", "geometry", "share of the side", -1, 1, (-0.2, 0.2), fills=True),
        OperationSpec("rotate", "geometry", "degrees", -180, 180, (-180, 180), fills=True),
        OperationSpec("shear_x", "geometry", "tangent of the angle", -2, 2, (-0.5, 0.5), fills=True),
        OperationSpec("shear_y", "geometry", "tangent of the angle", -2, 2, (-0.5, 0.5), fills=True),
        OperationSpec("zoom", "geometry", "factor", 0.2, 5, (0.7, 1.4), fills=True),
        OperationSpec("aspect", "geometry", "width over height, factor", 0.3, 3, (0.7, 1.4), fills=True),
        OperationSpec("perspective", "geometry", "share of the side a corner moves", 0, 0.45, (0.0, 0.25), fills=True),
        OperationSpec("warp", "geometry", "share of the side a point moves", 0, 0.3, (0.0, 0.06), fills=True),
        OperationSpec("cutout", "occlusion", "share of the side", 0, 0.8, (0.1, 0.35), fills=True),
        OperationSpec("random_erasing", "occlusion", "share of the area", 0, 0.6, (0.02, 0.2), fills=True),
        OperationSpec("grid_mask", "occlusion", "share of a cell of the grid", 0, 0.8, (0.2, 0.5), fills=True),
        OperationSpec("stripes", "occlusion", "share covered", 0, 0.6, (0.05, 0.3), fills=True),
        OperationSpec("pixelate", "resolution", "share of the pixels a side", 0.05, 1, (0.2, 0.7)),
        OperationSpec("downscale", "resolution", "share of the pixels a side", 0.05, 1, (0.2, 0.8)),
        OperationSpec("jpeg", "compression", "quality", 1, 95, (5, 60)),
        OperationSpec("webp", "compression", "quality", 1, 95, (1, 50)),
        OperationSpec("gaussian_blur", "blur", "standard deviation, share of the side", 0, 0.1, (0.004, 0.025)),
        OperationSpec("defocus_blur", "blur", "radius, share of the side", 0, 0.1, (0.005, 0.035)),
        OperationSpec("motion_blur", "blur", "length, share of the side", 0, 0.4, (0.02, 0.15)),
        OperationSpec("median_blur", "blur", "width, share of the side", 0, 0.12, (0.03, 0.06)),
        OperationSpec("sharpness", "blur", "factor", 0, 10, (0.0, 4.0)),
        OperationSpec("gaussian_noise", "noise", "standard deviation, grey levels", 0, 120, (4, 45)),
        OperationSpec("grey_noise", "noise", "standard deviation, grey levels", 0, 120, (4, 45)),
        OperationSpec("speckle_noise", "noise", "relative standard deviation", 0, 1, (0.03, 0.3)),
        OperationSpec("shot_noise", "noise", "photons a grey level", 0.01, 10, (0.03, 0.6)),
        OperationSpec("salt_and_pepper", "noise", "share of the pixels", 0, 0.5, (0.005, 0.12)),
        OperationSpec("brightness", "brightness", "factor", 0, 5, (0.4, 1.7)),
        OperationSpec("offset", "brightness", "grey levels added", -200, 200, (-80, 80)),
        OperationSpec("gamma", "brightness", "exponent", 0.1, 10, (0.4, 2.5)),
        OperationSpec("contrast", "contrast", "factor", 0, 5, (0.3, 1.8)),
        OperationSpec("autocontrast", "contrast", "per cent cut at each end", 0, 40, (0, 10)),
        OperationSpec("solarise", "tone", "grey level from which is inverted", 0, 256, (60, 240)),
        OperationSpec("solarise_add", "tone", "grey levels added before", 0, 255, (0, 150)),
        OperationSpec("posterise", "tone", "bits kept", 1, 8, (2, 5)),
        OperationSpec("equalise", "tone", "share mixed in", 0, 1, (0.5, 1.0)),
        OperationSpec("invert", "tone", "share mixed in", 0, 1, (1.0, 1.0)),
        OperationSpec("saturation", "colour", "factor", 0, 5, (0.0, 2.2)),
        OperationSpec("saturation_offset", "colour", "added to saturation in 0 to 1", -1, 1, (-0.2, 0.3)),
        OperationSpec("hue", "colour", "share of the colour circle", -0.5, 0.5, (-0.12, 0.12)),
        OperationSpec("channel_shift", "colour", "largest shift, grey levels", 0, 255, (10, 70)),
        OperationSpec("channel_gain", "colour", "largest relative change", 0, 0.95, (0.05, 0.45)),
        OperationSpec("channel_swap", "colour"),
        OperationSpec("white_balance", "colour", "relative change, blue to yellow", -0.9, 0.9, (-0.35, 0.35)),
        OperationSpec("stain_density", "stain", "largest natural logarithm of the factor", 0, 2, (0.05, 0.6)),
        OperationSpec("stain_channels", "stain", "largest natural logarithm of the factors", 0, 2, (0.05, 0.5)),
        OperationSpec("stain_hed", "stain", "largest relative change of each stain", 0, 2, (0.05, 0.6)),
        OperationSpec("vignette", "illumination", "darkening in the corners", 0, 1, (0.2, 0.8)),
        OperationSpec("light_gradient", "illumination", "relative change side to side", 0, 1, (0.2, 0.8)),
        OperationSpec("shading", "illumination", "relative change", 0, 1, (0.15, 0.6)),
        OperationSpec("stain_deposit", "deposit", "blots", 0, 12, (1, 5)),
        OperationSpec("dust", "deposit", "specks and fibres", 0, 30, (1, 10)),
        OperationSpec("bubbles", "bubble", "bubbles", 0, 30, (1, 8)),
    ]
)
"""Every operation by its name."""
