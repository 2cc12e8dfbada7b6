"""Images on their way into the network: seeds, memory order, size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemascope.torchvision_compat import import_torchvision


def image_seed(*parts: int) -> int:
    """One 63-bit seed from a few whole numbers; neighbouring numbers give unrelated seeds."""
    state: int = np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]
    return int(state) & (2**63 - 1)


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, S, S, 3) to a uint8 tensor (B, 3, S, S), channels last in memory, unchanged."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def resize_batch(images: Tensor, size: int) -> Tensor:
    """Batch uint8 (B, 3, H, W) to ``size`` pixels a side, bilinear and antialiased; unchanged where it fits."""
    if images.shape[-1] == size:
        return images
    import_torchvision()
    from torchvision.transforms import v2

    resized: Tensor = v2.functional.resize(images, [size, size], antialias=True)
    return resized
