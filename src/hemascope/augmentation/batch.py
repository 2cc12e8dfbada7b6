"""What training images go through, a batch at a time and reproducibly.

Mirroring and quarter turns move pixels of the whole batch at once. The policy is walked image by image. All draws
depend on the stage's seed and the image's position in the stage alone, so neither the number of worker processes nor
the batch an image falls into changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hemascope.augmentation.walk import augmented
from hemascope.config import AugmentationConfig


def position_generator(seed: int, position: int, stream: int = 0) -> np.random.Generator:
    """A generator that depends on its arguments alone.

    Philox (Salmon et al. 2011) is made for this: position and stream are the counter it starts from.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=(int(position) << 64) + (stream << 192)))


def position_draws(seed: int, positions: Sequence[int], count: int) -> NDArray[np.float64]:
    """Uniform numbers in 0 to 1, (len(positions), count): each row depends on ``seed`` and its position alone."""
    draws = np.empty((len(positions), count))
    for row, position in zip(draws, positions, strict=True):
        position_generator(seed, position).random(out=row)
    return draws


def mirror_and_turn(
    images: NDArray[np.uint8], config: AugmentationConfig, draws: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Mirror and turn each image of uint8 (B, S, S, 3) by its ``draws`` (B, 3); the input is left as it was.

    Both together draw one of the eight symmetries of the square, each equally likely.
    """
    if not (config.flips or config.quarter_turns):
        return images
    draw = draws.T < 0.5
    result = images.copy()
    if config.flips:
        result[draw[0]] = result[draw[0]][:, :, ::-1]
        result[draw[1]] = result[draw[1]][:, ::-1]
    elif config.quarter_turns:
        both = draw[0]
        result[both] = result[both][:, ::-1, ::-1]
    if config.quarter_turns:
        turned = result[draw[2]].transpose(0, 2, 1, 3)
        # A transposition is a mirrored quarter turn: without flips, undo the mirroring.
        result[draw[2]] = turned if config.flips else turned[:, :, ::-1]
    return result


class Augmentation:
    """Applies an AugmentationConfig to batches."""

    def __init__(self, config: AugmentationConfig, seed: int) -> None:
        """``seed`` is the stage's own."""
        self.config = config
        self.seed = seed
        self._policy = config.effective_policy()

    @property
    def image_by_image(self) -> bool:
        """Whether there is work for each image alone, slow enough to be worth a worker process."""
        return bool(self._policy.steps)

    def __call__(self, images: NDArray[np.uint8], positions: Sequence[int]) -> NDArray[np.uint8]:
        """uint8 (B, S, S, 3) to augmented images of the same shape; the input is left as it was.

        ``positions`` (B,) say which draw of the stage each image is; a position gives the same result in any batch.
        """
        batch = mirror_and_turn(images, self.config, position_draws(self.seed, positions, 3))
        if not self.image_by_image:
            return batch
        result = np.empty_like(batch)
        for place, position in enumerate(positions):
            result[place] = augmented(batch[place], self._policy, position_generator(self.seed, position, 1))
        return result
