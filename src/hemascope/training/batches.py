"""Which images make up step number n of a stage, and how they get into memory.

A stage sees one long stream: permutations of the training part, one after the other. Step n takes the positions
n * B to (n + 1) * B of it. So a step is a function of (seed, stage, n) and nothing else: an interrupted stage goes on
at step n with the very images it would have had, whatever the number of processes or workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hemascope.augmentation import Augmentation
from hemascope.training.pixels import channels_first, image_seed, resize_batch


class SampleOrder:
    """The endless stream of training images of one stage.

    labels      int64 (N,) of the training part
    oversample  draw each class equally often, with replacement, instead of permuting
    """

    def __init__(self, labels: NDArray[np.int64], *, seed: int, oversample: bool) -> None:
        self.labels = labels
        self.seed = seed
        self.oversample = oversample
        self._pass = lru_cache(maxsize=2)(self._draw_pass)

    def _draw_pass(self, number: int) -> NDArray[np.int64]:
        generator = np.random.default_rng(image_seed(self.seed, 7, number))
        n = len(self.labels)
        if not self.oversample:
            return generator.permutation(n)
        present, inverse = np.unique(self.labels, return_inverse=True)
        share = 1 / (len(present) * np.bincount(inverse)[inverse])
        return generator.choice(n, size=n, p=share)

    def __call__(self, positions: range) -> NDArray[np.int64]:
        """Indices into the training part for these positions of the stream: int64 (len(positions),)."""
        n = len(self.labels)
        return np.array([self._pass(position // n)[position % n] for position in positions], dtype=np.int64)

    def __getstate__(self) -> dict[str, object]:
        return {"labels": self.labels, "seed": self.seed, "oversample": self.oversample}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(state["labels"], seed=state["seed"], oversample=state["oversample"])  # type: ignore[misc]


@dataclass(frozen=True)
class Batch:
    """One step's share of this process. ``images`` is uint8 (b, 3, S, S), ``labels`` int64 (b,)."""

    images: Tensor
    labels: Tensor
    reading: float
    augmenting: float

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the name is the DataLoader's, which calls it."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


class ImageSteps(Dataset[Batch]):
    """Step number to batch, for this process: read, augment, resize."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        order: SampleOrder,
        *,
        batch_size: int,
        size: int,
        augmentation: Augmentation | None,
        rank: int,
        world_size: int,
    ) -> None:
        """``rows`` are the training part's rows of ``images`` and ``labels``; the rest is as in StageConfig."""
        self.images, self.labels, self.rows, self.order = images, labels, rows, order
        self.batch_size, self.size, self.augmentation = batch_size, size, augmentation
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, step: int) -> Batch:
        start = time.perf_counter()
        positions = range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size)
        rows = self.rows[self.order(positions)]
        pixels = read_rows(self.images, rows)
        read = time.perf_counter()
        if self.augmentation is not None:
            pixels = self.augmentation(pixels, positions)
        images = resize_batch(channels_first(pixels), self.size)
        labels = torch.from_numpy(self.labels[rows])
        return Batch(images, labels, reading=read - start, augmenting=time.perf_counter() - read)


def read_rows(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """These rows of an array or memory map, read in file order, returned in the order asked for."""
    order = np.argsort(rows, kind="stable")
    result = np.empty((len(rows), *images.shape[1:]), dtype=np.uint8)
    for place in order:
        result[place] = images[rows[place]]
    return result


def worker_count(asked: int | None, *, image_by_image: bool, device: str) -> int:
    """Processes that prepare batches.

    With mirroring and turns alone, preparing a batch takes a hundredth of a step on a CPU, and a second process
    would only take the step's cores; with image-by-image work one process keeps it off the step's critical path.
    """
    if asked is not None:
        return asked
    cores = os.cpu_count() or 1
    if device != "cpu":
        return min(8, max(1, cores - 1))
    return max(1, min(4, cores // 2)) if image_by_image and cores > 1 else 0


def _keep(batch: Any) -> Any:
    return batch


def step_batches(steps: ImageSteps, *, start: int, stop: int, workers: int, pin: bool) -> Iterator[Batch]:
    """The batches of steps ``start`` to ``stop``, in order, prepared ahead by ``workers`` processes."""
    if workers == 0:
        yield from (steps[step] for step in range(start, stop))
        return
    loader = DataLoader(
        steps,
        sampler=range(start, stop),
        batch_size=None,
        num_workers=workers,
        collate_fn=_keep,
        pin_memory=pin,
        prefetch_factor=4,
    )
    yield from loader
