"""Several strong layers on one image, as the contest's hidden test is described."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hemascope.corruptions.draws import identities, image_generator
from hemascope.corruptions.layers import LAYERS
from hemascope.errors import UsageError
from hemascope.names import suggestion

STACKS: Mapping[str, tuple[int, int]] = {"stacked_1_2": (1, 2), "stacked_2_4": (2, 4)}
"""Smallest and largest number of layers on an image."""


def stack(
    images: NDArray[np.uint8],
    name: str,
    *,
    seed: int,
    ids: Sequence[str] | None = None,
    without: Container[str] = (),
    only: Container[str] | None = None,
) -> tuple[NDArray[np.uint8], list[tuple[str, ...]]]:
    """``images``, uint8 (N, S, S, 3), each under a few strong layers of different families, in random order.

    A family is drawn first, all alike, then one of its layers, so a family of many layers counts no more than one of
    few.

    ids      N stable names on which alone an image's draws depend; left out: its place
    without  families never drawn
    only     the only families drawn

    Returns the images and, for each, the names of its layers in the order they were laid. Raises UsageError for an
    unknown stack, too few families left, images of another shape or type, or ids that are not N.
    """
    if name not in STACKS:
        raise UsageError(f"no stacked test is called {name!r}; {suggestion(name, list(STACKS))}")
    families: dict[str, list[str]] = {}
    for layer in LAYERS.values():
        if layer.family not in without and (only is None or layer.family in only):
            families.setdefault(layer.family, []).append(layer.name)
    low, high = STACKS[name]
    if len(families) < high:
        raise UsageError(f"{name} needs {high} families of layers, found {len(families)}; leave fewer out")
    result, laid = np.empty(images.shape, dtype=np.uint8), []
    names = list(families)
    for place, identity in enumerate(identities(images, ids)):
        rng = image_generator(seed, name, identity)
        chosen = rng.choice(len(names), int(rng.integers(low, high + 1)), replace=False)
        layers = [families[names[family]][int(rng.integers(len(families[names[family]])))] for family in chosen]
        image = np.asarray(images[place])
        for chosen_layer in layers:
            image = LAYERS[chosen_layer].function(image, rng)
        result[place] = image
        laid.append(tuple(layers))
    return result, laid


def families() -> tuple[str, ...]:
    """The families of layers, in the order of LAYERS."""
    return tuple(dict.fromkeys(layer.family for layer in LAYERS.values()))


def one_layer(
    images: NDArray[np.uint8], family: str, *, seed: int, ids: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """``images``, uint8 (N, S, S, 3), each under one layer of ``family``, all of its layers alike likely.

    ids  as in ``stack``. Raises UsageError for an unknown family, images of another shape or type, or ids not N.
    """
    names = [layer.name for layer in LAYERS.values() if layer.family == family]
    if not names:
        raise UsageError(f"no family of layers is called {family!r}; {suggestion(family, list(families()))}")
    result = np.empty(images.shape, dtype=np.uint8)
    for place, identity in enumerate(identities(images, ids)):
        rng = image_generator(seed, f"one layer of {family}", identity)
        result[place] = LAYERS[names[int(rng.integers(len(names)))]].function(np.asarray(images[place]), rng)
    return result
