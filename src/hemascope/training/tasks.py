"""What a stage trains on: images through the whole network, or saved features through the head alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemascope.augmentation import Augmentation
from hemascope.cells import CellDataset
from hemascope.config import RunConfig, StageConfig
from hemascope.models.classifier import Classifier
from hemascope.models.inference import inference_copy
from hemascope.progress import Advance, Progress
from hemascope.runtime import Runtime, autocast, gather_rows
from hemascope.training.batches import ImageSteps, SampleOrder, read_rows, step_batches, worker_count
from hemascope.training.feature_cache import feature_key, kept_or_computed
from hemascope.training.pixels import channels_first, image_seed, resize_batch
from hemascope.training.price import Price, Stopwatch


@dataclass(frozen=True)
class Parts:
    """The cells and the rows of them that training may read: int64 (n,) each."""

    cells: CellDataset
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    @property
    def train_labels(self) -> NDArray[np.int64]:
        """int64 (n,), in the order of ``train``."""
        return self.cells.labels[self.train]


class Task(Protocol):
    """A stage's inputs, in the form its network takes them."""

    network: nn.Module

    def batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and int64 labels of these steps for this process, on the device."""
        ...

    def validation_logits(self, network: nn.Module) -> Tensor:
        """float32 (n_validation, K) on the CPU, in row order; the same in every process."""
        ...


def _forward_rows(
    module: nn.Module, parts: Parts, rows: NDArray[np.int64], size: int, runtime: Runtime, batch_size: int
) -> Iterator[Tensor]:
    for start in range(0, len(rows), batch_size):
        pixels = read_rows(parts.cells.images, rows[start : start + batch_size])
        images = resize_batch(channels_first(pixels), size).to(runtime.device)
        with torch.inference_mode(), autocast(runtime):
            logits = module(images).float().cpu()
        yield logits  # outside the block: a generator must not leave its consumer in inference mode


class ImageTask:
    """Every step sees freshly augmented images."""

    def __init__(
        self,
        model: Classifier,
        parts: Parts,
        stage: StageConfig,
        config: RunConfig,
        seed: int,
        runtime: Runtime,
        price: Price,
        watch: Stopwatch,
    ) -> None:
        """``seed`` is the stage's own."""
        self.network: nn.Module = model
        self.parts, self.stage, self.runtime, self.price, self.watch = parts, stage, runtime, price, watch
        self.size = stage.size or config.data.preparation.size
        self.learns_backbone = stage.trainable != "head"
        self.batch_size = config.evaluation.batch_size
        augmentation = Augmentation(config.augmentation, seed) if stage.augment else None
        self.workers = worker_count(
            config.runtime.workers,
            image_by_image=augmentation is not None and augmentation.image_by_image,
            device=runtime.device,
        )
        self.steps = ImageSteps(
            parts.cells.images,
            parts.cells.labels,
            parts.train,
            SampleOrder(parts.train_labels, seed=seed, oversample=stage.oversample),
            batch_size=stage.batch_size,
            size=self.size,
            augmentation=augmentation,
            rank=runtime.rank,
            world_size=runtime.world_size,
        )

    def batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as uint8 (b, 3, S, S), channels last, and labels."""
        device = self.runtime.device
        pin = device.startswith("cuda")
        for batch in step_batches(self.steps, start=start, stop=stop, workers=self.workers, pin=pin):
            self.watch.add("reading", batch.reading)
            self.watch.add("augmenting", batch.augmenting)
            self.price.add(len(batch.labels) * self.runtime.world_size, self.size, backward=self.learns_backbone)
            yield batch.images.to(device, non_blocking=pin), batch.labels.to(device, non_blocking=pin)

    def validation_logits(self, network: nn.Module) -> Tensor:
        """Clean validation images at the stage's size."""
        rows = self.parts.validation
        self.price.add_validation(len(rows), self.size)
        mine = rows[self.runtime.rank :: self.runtime.world_size]
        network = inference_copy(cast(Classifier, network), self.size)
        return _in_row_order(
            list(_forward_rows(network, self.parts, mine, self.size, self.runtime, self.batch_size)),
            len(rows),
            self.runtime,
        )


class FeatureTask:
    """The frozen backbone sees ``views`` versions of each image once; the head trains on what it said.

    View 0 is the image as it is, the others are augmented. A step draws a view for each of its images.
    """

    def __init__(
        self,
        model: Classifier,
        parts: Parts,
        stage: StageConfig,
        config: RunConfig,
        seed: int,
        runtime: Runtime,
        price: Price,
        watch: Stopwatch,
        progress: Progress,
    ) -> None:
        """Computes the features at once: that is where this stage's time goes."""
        self.network: nn.Module = model.head
        self.stage, self.seed, self.runtime = stage, seed, runtime
        size = stage.size or config.data.preparation.size
        self.labels = torch.from_numpy(parts.train_labels)
        self.order = SampleOrder(parts.train_labels, seed=seed, oversample=stage.oversample)
        n, batch = len(parts.train), config.evaluation.batch_size
        augmentation = Augmentation(config.augmentation, seed)
        seen = _Unaugmented(model, parts, size, runtime, batch)
        with (
            progress.task("features of the frozen backbone", n * stage.views + len(parts.validation), "images") as done,
            watch.measure("features"),
        ):
            views = [seen.features(parts.train, done)]
            price.add(n, size, backward=False)
            for view in range(1, stage.views):
                mine = np.arange(n)[runtime.rank :: runtime.world_size]
                rows = []
                for start in range(0, len(mine), batch):
                    places = mine[start : start + batch]
                    pixels = read_rows(parts.cells.images, parts.train[places])
                    if stage.augment:
                        pixels = augmentation(pixels, [view * n + int(place) for place in places])
                    rows.append(seen.forward(channels_first(pixels)))
                    done(len(places) * runtime.world_size)
                views.append(_in_row_order(rows, n, runtime))
                price.add(n, size, backward=False)
            self.features = torch.stack(views)
            self.validation = seen.features(parts.validation, done)
        price.add_validation(len(parts.validation), size)

    def batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features as float32 (b, D) and labels."""
        device, size = self.runtime.device, self.stage.batch_size
        for step in range(start, stop):
            places = self.order(range(step * size, (step + 1) * size))
            view = np.random.default_rng(image_seed(self.seed, 5, step)).integers(0, len(self.features), len(places))
            mine = slice(self.runtime.rank, None, self.runtime.world_size)
            chosen, drawn = torch.from_numpy(places[mine]), torch.from_numpy(view[mine])
            yield self.features[drawn, chosen].to(device), self.labels[chosen].to(device)

    def validation_logits(self, network: nn.Module) -> Tensor:
        """The head on the saved features of the clean validation images."""
        network.eval()
        with torch.inference_mode(), autocast(self.runtime):
            logits: Tensor = network(self.validation.to(self.runtime.device)).float().cpu()
        return logits


class _Unaugmented:
    """Features of cells as they are: kept for the next run that starts from the same backbone and the same cells."""

    def __init__(self, model: Classifier, parts: Parts, size: int, runtime: Runtime, batch_size: int) -> None:
        self.model, self.parts, self.size, self.runtime, self.batch_size = model, parts, size, runtime, batch_size

    @cached_property
    def _backbone(self) -> nn.Module:
        return fast_features(self.model, self.size)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 (B, 3, S, S) to features float32 (B, D) on the CPU."""
        with torch.inference_mode(), autocast(self.runtime):
            found: Tensor = self._backbone(resize_batch(images, self.size).to(self.runtime.device)).float().cpu()
        return found.clone()  # outside the block: a tensor made in inference mode cannot be trained on

    def features(self, rows: NDArray[np.int64], done: Advance) -> Tensor:
        """float32 (n, D) of these rows, in their order; the same in every process. ``done`` hears of each batch."""

        def compute() -> Tensor:
            mine = rows[self.runtime.rank :: self.runtime.world_size]
            found = []
            for start in range(0, len(mine), self.batch_size):
                pixels = read_rows(self.parts.cells.images, mine[start : start + self.batch_size])
                found.append(self.forward(channels_first(pixels)))
                done(len(pixels) * self.runtime.world_size)
            return _in_row_order(found, len(rows), self.runtime)

        if self.runtime.world_size > 1:
            return compute()  # each process has some of the rows, and none may wait for what another has found
        net = self.model.backbone
        normalised = [self.model.mean, self.model.std]
        key = feature_key(net, self.parts.cells, rows, self.size, self.runtime, normalised)
        return kept_or_computed(key, (len(rows), net.num_features), compute)


class _Features(nn.Module):
    """A classifier up to its pooled features: images uint8 (B, 3, S, S) to (B, D)."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


def fast_features(model: Classifier, size: int) -> nn.Module:
    """The frozen backbone as fast as this machine runs it; the model itself is left as it was."""
    return _Features(inference_copy(model, size)).eval()


def _in_row_order(pieces: list[Tensor], n: int, runtime: Runtime) -> Tensor:
    """Join this process's rows with the others', undoing the ``rank::world_size`` deal: (n, ...)."""
    mine = torch.cat(pieces)
    if runtime.world_size == 1:
        return mine
    dealt = gather_rows(mine.to(runtime.device)).cpu()  # nccl exchanges what lies on the device
    places = np.concatenate([np.arange(n)[rank :: runtime.world_size] for rank in range(runtime.world_size)])
    result = torch.empty_like(dealt)
    result[torch.from_numpy(places)] = dealt
    return result
