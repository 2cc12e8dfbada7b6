"""Several views of an image at prediction time, whose logits are averaged.

Logits and not probabilities are averaged: the mean then has one temperature, fitted once, and no view's overconfidence
outweighs the others'. Each group adds its views to the image as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hemascope.errors import UsageError
from hemascope.names import suggestion

View = Callable[[Tensor], Tensor]
"""uint8 (B, 3, S, S) to the same shape, uint8 or float32 in 0 to 255."""

NORM = 6
"""Order of the Minkowski mean behind "shades of grey" (Finlayson and Trezzi 2004)."""

LARGEST_GAIN = 2.0
"""A channel is never multiplied by more, nor divided: beyond it the estimate is wrong, not the light."""


def _turned(turns: int, mirrored: bool) -> View:
    def view(images: Tensor) -> Tensor:
        turned = torch.rot90(images, turns, (2, 3))
        return turned.flip(3) if mirrored else turned

    return view


def _moved(zoom: float, right: float, down: float) -> View:
    """Enlarged about the centre, then moved by shares of the side; the border is reflected."""

    def view(images: Tensor) -> Tensor:
        matrix = torch.tensor([[1 / zoom, 0, -2 * right], [0, 1 / zoom, -2 * down]], device=images.device)
        grid = functional.affine_grid(
            matrix.expand(len(images), 2, 3), [len(images), 3, *images.shape[2:]], align_corners=False
        )
        return functional.grid_sample(images.float(), grid, "bilinear", "reflection", align_corners=False)

    return view


def _corrected(wanted: Sequence[float]) -> View:
    """Each image's light made that of the training cells."""
    target = torch.tensor(wanted, dtype=torch.float32)

    def view(images: Tensor) -> Tensor:
        wide = images.float()
        light = (wide / 255).pow(NORM).mean(dim=(2, 3)).pow(1 / NORM) * 255
        gains = (target.to(wide.device) / light.clamp_min(1)).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
        return (wide * gains[:, :, None, None]).clamp_(0, 255)

    return view


def illuminant(images: NDArray[np.uint8]) -> list[float]:
    """The light of a set of images, uint8 (N, H, W, 3): mean over them of each channel's Minkowski mean, 0 to 255."""
    each = [((image / 255.0) ** NORM).mean(axis=(0, 1)) ** (1 / NORM) * 255 for image in images]
    return [round(float(value), 3) for value in np.mean(each, axis=0)]


_FIXED: Mapping[str, tuple[View, ...]] = {
    "flips": (_turned(0, True), _turned(2, False), _turned(2, True)),
    "dihedral": tuple(_turned(turns, mirrored) for mirrored in (False, True) for turns in range(4))[1:],
    "multi_crop": (
        _moved(1.15, 0, 0),
        _moved(0.87, 0, 0),
        *(_moved(1.0, right, down) for right in (-0.06, 0.06) for down in (-0.06, 0.06)),
    ),
}
GROUPS = (*_FIXED, "colour_constancy")
"""Views by name: three mirrorings; the seven other symmetries of a square; nearer, farther and shifted; the light."""


def test_time_views(names: Sequence[str], provenance: Mapping[str, Any]) -> tuple[View, ...]:
    """The views of these groups, without the image as it is.

    provenance  the bundle's, whose ``illuminant`` colour constancy needs

    Raises UsageError for an unknown name, for two groups of which one holds the other, and where the model does not
    say in what light its training cells were.
    """
    views: list[View] = []
    for name in dict.fromkeys(names):
        if name == "colour_constancy":
            views.append(_corrected(_light(provenance.get("illuminant"))))
        elif name in _FIXED:
            views.extend(_FIXED[name])
        else:
            raise UsageError(f"no test-time view is called {name!r}; {suggestion(name, list(GROUPS))}")
    if "flips" in names and "dihedral" in names:
        raise UsageError("dihedral holds the views of flips already: give one of the two.")
    return tuple(views)


def _light(found: object) -> list[float]:
    """The light a bundle's provenance tells: three numbers above 0 and up to 255. Raises UsageError for all else."""
    if isinstance(found, list | tuple) and len(found) == 3:
        light = [value for value in found if isinstance(value, int | float) and 0 < value <= 255]
        if len(light) == 3:
            return [float(value) for value in light]
    raise UsageError(
        "this model does not say in what light its training cells were, which colour_constancy needs. Use another "
        "view, pack the model with --light, or train it again with this version."
    )


test_time_views.__test__ = False  # type: ignore[attr-defined]  # its name must not make pytest call it
