"""Calibration cells as training's augmentation damages them: what the expected accuracy of a model is fitted on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hemascope.augmentation import Augmentation
from hemascope.config import AugmentationConfig

POLICIES = ("affine", "augmix", "microscope", "randaugment", "robust", "trivialaugment", "winners")
"""From mild to heavy. The corruptions of the stress and trust tests are other code and take no part here."""

ROUNDS = (1, 2)
"""A policy is gone through once, and twice for damage beyond what training shows."""


def damaged_sets(images: NDArray[np.uint8], seed: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """A name and the cells, uint8 (N, S, S, 3), under each of POLICIES, once and twice."""
    for name in POLICIES:
        augmentation = Augmentation(AugmentationConfig(policy=name), seed)
        seen = images
        for times in ROUNDS:
            seen = augmentation(seen, range(times * len(images), (times + 1) * len(images)))
            yield f"{name} {times}", seen
