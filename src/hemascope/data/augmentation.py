"""What training images go through: torchvision's transforms, put together from an AugmentationConfig.

Two kinds of work. Geometry is drawn for each image and applied to a whole batch at once: mirroring and quarter turns
by moving pixels, the rest by one interpolation, because torchvision's image-by-image affine transform with a reflected
border took ten times as long. Everything else is torchvision's, image by image, on small uint8 tensors. All seeds
depend on the run, the stage and the position in the stage alone, so the number of worker processes changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hemascope.config import AugmentationConfig
from hemascope.torchvision_compat import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Sequence


def image_seed(*parts: int) -> int:
    """One 63-bit seed from a few whole numbers; neighbouring numbers give unrelated seeds."""
    state: int = np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]
    return int(state) & (2**63 - 1)


def position_draws(seed: int, positions: Sequence[int], count: int) -> NDArray[np.float64]:
    """Uniform numbers in 0 to 1, (len(positions), count): each row depends on ``seed`` and its position alone.

    Philox (Salmon et al. 2011) is a generator made for this: the position is the counter it starts from.
    """
    draws = np.empty((len(positions), count))
    for row, position in zip(draws, positions, strict=True):
        np.random.Generator(np.random.Philox(key=seed, counter=int(position) << 64)).random(out=row)
    return draws


def image_transform(config: AugmentationConfig) -> nn.Module | None:
    """The image-by-image part, for uint8 tensors (3, S, S), or None where nothing of it is asked for."""
    import_torchvision()
    from torchvision.transforms import InterpolationMode, v2

    steps: list[nn.Module] = []
    fill = config.fill if config.fill is not None else 0
    if config.randaugment:
        steps.append(
            v2.RandAugment(
                num_ops=config.randaugment,
                magnitude=config.randaugment_magnitude,
                interpolation=InterpolationMode.BILINEAR,
                fill=fill,
            )
        )
    if config.brightness or config.contrast or config.saturation or config.hue:
        steps.append(
            v2.ColorJitter(
                brightness=config.brightness, contrast=config.contrast, saturation=config.saturation, hue=config.hue
            )
        )
    if config.occlusion:
        steps.append(v2.RandomErasing(p=config.occlusion, scale=(0.02, 0.2), value=fill))
    return v2.Compose(steps) if steps else None


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


def random_affine(images: Tensor, config: AugmentationConfig, draws: NDArray[np.float64]) -> Tensor:
    """Shift, turn, scale and shear each image of uint8 (B, 3, S, S) by its ``draws`` (B, 6), bilinearly.

    Turns, sizes and shears are about the centre. What moves into view is the reflected border, or grey ``fill``.
    """
    if not (config.translation or config.rotation or config.scale or config.shear):
        return images
    draw = 2 * draws.T - 1
    angle, shear_x, shear_y = np.deg2rad(draw[0] * config.rotation), *np.tan(np.deg2rad(draw[1:3] * config.shear))
    zoom = 1 / (1 + draw[3] * config.scale)
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    # Output to input coordinates, both from -1 to 1, so a shift by the whole side is 2.
    shift_x, shift_y = 2 * config.translation * draw[4:6]
    first = np.stack([cosine - sine * shear_y, cosine * shear_x - sine, shift_x], axis=1)
    second = np.stack([sine + cosine * shear_y, sine * shear_x + cosine, shift_y], axis=1)
    matrices = torch.from_numpy(np.stack([first, second], axis=1).astype(np.float32))
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    offset = config.fill or 0
    mode = "reflection" if config.fill is None else "zeros"  # zeros about the offset: the fill
    moved = functional.grid_sample(images.float() - offset, grid, "bilinear", mode, align_corners=False)
    return (moved + offset).round_().clamp_(0, 255).to(torch.uint8)


class Augmentation:
    """Applies an AugmentationConfig to batches, reproducibly."""

    def __init__(self, config: AugmentationConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._transform = image_transform(config)

    @property
    def image_by_image(self) -> bool:
        """Whether there is work for each image alone, slow enough to be worth a worker process."""
        return self._transform is not None

    def __call__(self, images: NDArray[np.uint8], positions: Sequence[int]) -> Tensor:
        """uint8 (B, S, S, 3) to an augmented uint8 tensor (B, 3, S, S), channels last in memory.

        ``positions`` (B,) say which draw of the stage each image is; a position gives the same result in any batch.
        The global random state of torch is left as it was.
        """
        draws = position_draws(self.seed, positions, 9)
        batch = mirror_and_turn(images, self.config, draws[:, :3])
        tensor = random_affine(unaugmented(batch), self.config, draws[:, 3:])
        if self._transform is None:
            return tensor.contiguous(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            changed = []
            for image, position in zip(tensor, positions, strict=True):
                torch.default_generator.manual_seed(image_seed(self.seed, 2, int(position)))
                changed.append(self._transform(image))
        return torch.stack(changed).contiguous(memory_format=torch.channels_last)


def unaugmented(images: NDArray[np.uint8]) -> Tensor:
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
