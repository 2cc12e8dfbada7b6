"""What a step holds in memory and computes, as numbers: ``footprint`` finds them, ``estimate`` reckons with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pass:
    """What images cost on their way through the network, forward and, where something learns, backward.

    fixed        int64 (moments,), bytes alive at each moment of the pass that do not grow with the number of images:
                 gradients, weights in half precision
    per_image    int64 (moments,), bytes alive at that moment for each image
    moved_fixed  bytes that operations read and write, whatever the number of images
    moved_image  the same for each image
    operations   how many there are in a pass
    flops        floating-point operations of one image; a multiplication with its addition counts as 2
    """

    fixed: NDArray[np.int64]
    per_image: NDArray[np.int64]
    moved_fixed: int
    moved_image: int
    operations: int
    flops: int

    def bytes(self, images: int) -> int:
        """At the peak of a pass of ``images`` at once, without the weights and with the gradients.

        Which moment is the peak depends on the number of images: many are heaviest in the middle, few at the end.
        """
        return int((self.fixed + images * self.per_image).max())

    def moved(self, images: int) -> int:
        """Bytes read and written in a pass of ``images`` at once."""
        return self.moved_fixed + images * self.moved_image


@dataclass(frozen=True)
class StageCosts:
    """What a stage works with.

    parameters  of the whole network, in numbers
    trainable   of them, those that learn
    network     of what the stage trains, which an average of the weights is kept of
    learning    forward and backward; of a stage on saved features, through the head alone
    looking     forward through the whole network, as for validation and for features
    """

    parameters: int
    trainable: int
    network: int
    learning: Pass
    looking: Pass
