"""Maps that need no layer: integrated gradients, and random masks. Both compare with an empty field."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hemascope.explain.target import margin
from hemascope.models.classifier import Classifier

STEPS = 8
"""Pictures between the empty field and the cell."""

SMOOTHING = 4 / 96
"""Deviation of the smoothing, as a share of the side: single pixels' gradients are noise."""

MASKS = 160
CELLS = 7
"""RISE's random masks, of CELLS x CELLS places, half of them open."""

_BATCH = 80
_RING = 5 / 96
_QUANTILE = 0.75


def empty_field(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture of the ground alone, uint8 (S, S, 3): what is left where no cell is.

    The border's 75 % quantile in each channel: ground is paler than red cells that reach into the border. blood8 gives
    the class it named there a probability of one in eight, whereas a blur of a twelfth of the side leaves it half.
    """
    width = max(1, round(len(image) * _RING))
    ring = np.ones(image.shape[:2], dtype=bool)
    ring[width:-width, width:-width] = False
    ground = np.quantile(image[ring], _QUANTILE, axis=0).round().astype(np.uint8)
    return np.broadcast_to(ground, image.shape).copy()


def integrated_gradients(
    classifier: Classifier, image: NDArray[np.uint8], target: int, *, steps: int = STEPS
) -> NDArray[np.float32]:
    """Size of the integrated gradients of the class's margin, smoothed: float32 (S, S), 0 to 1.

    It shows which stain the network is given, and not why it named this class: the map hardly changes for another class
    or another head (docs/explain.md). From the empty field to the cell in ``steps`` (Sundararajan, Taly, Yan 2017).
    Their size and not their sign: a place whose pixels speak against the class in one channel and for it in another was
    looked at.
    """
    base = torch.from_numpy(empty_field(image)).to(classifier.mean.device, torch.float32).permute(2, 0, 1)
    whole = torch.from_numpy(np.array(image)).to(base).permute(2, 0, 1)
    shares = (torch.arange(steps, device=base.device, dtype=torch.float32) + 0.5) / steps
    with torch.enable_grad():
        path = (base + (whole - base) * shares[:, None, None, None]).requires_grad_(True)
        score = margin(classifier(path), target).sum()
        (gradient,) = torch.autograd.grad(score, path)
    found = (gradient.mean(dim=0) * (whole - base)).sum(dim=0).abs().cpu().numpy()
    return _scaled(ndimage.gaussian_filter(found, SMOOTHING * len(image)))


def rise(
    classifier: Classifier, image: NDArray[np.uint8], target: int, *, masks: int = MASKS, seed: int = 0
) -> NDArray[np.float32]:
    """How much more the class's margin is where a place is open: float32 (S, S), 0 to 1 (Petsiuk, Das, Saenko 2018).

    Nothing of the network is used but its answer, at the price of ``masks`` passes.
    """
    side = len(image)
    open_ = random_masks(side, masks, seed)
    base = empty_field(image).astype(np.float32)
    scores = []
    for start in range(0, masks, _BATCH):
        part = open_[start : start + _BATCH, :, :, None]
        seen = (image * part + base * (1 - part)).round().astype(np.uint8)
        pixels = torch.from_numpy(seen).permute(0, 3, 1, 2).to(classifier.mean.device)
        with torch.inference_mode():
            scores.append(margin(classifier(pixels), target).cpu().numpy())
    score = np.concatenate(scores)
    found = np.tensordot(score - score.mean(), open_ - open_.mean(axis=0), axes=1) / masks
    return _scaled(np.maximum(found, 0))


def random_masks(side: int, count: int, seed: int) -> NDArray[np.float32]:
    """Masks float32 (count, side, side), 0 shut to 1 open: half the places of a coarse grid, with soft edges."""
    noise = np.random.default_rng(seed).random((count, CELLS, CELLS))
    coarse = np.stack([ndimage.zoom(one, side / CELLS, order=1, grid_mode=True, mode="nearest") for one in noise])
    coarse = coarse[:, :side, :side]
    shut = (coarse > np.median(coarse, axis=(1, 2), keepdims=True)).astype(np.float32)
    return np.stack([ndimage.gaussian_filter(one, side / 32) for one in shut]).astype(np.float32)


def _scaled(heat: NDArray[np.floating]) -> NDArray[np.float32]:
    """0 to 1; all zero where nothing was found."""
    low, high = float(heat.min()), float(heat.max())
    if not high - low > 1e-12:
        return np.zeros(heat.shape, dtype=np.float32)
    return np.asarray((heat - low) / (high - low), dtype=np.float32)


ATTRIBUTIONS: dict[str, Callable[[Classifier, NDArray[np.uint8], int], NDArray[np.float32]]] = {
    "rise": rise,
    "integrated_gradients": integrated_gradients,
}
