"""One batch of every stage, to learn whether a run would work before it is paid for."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hemascope.cells import UNUSED, CellDataset
from hemascope.config import RunConfig, StageConfig
from hemascope.data.splits import Splits, load_splits, make_splits
from hemascope.errors import WeightsError
from hemascope.progress import SILENT, Progress
from hemascope.workflow.cells import Data, cells_of, spread

if TYPE_CHECKING:
    from hemascope.models.classifier import Classifier


@dataclass(frozen=True)
class SmokeStage:
    """What a batch of a stage took.

    images            of the one step of training
    validated         of the validation behind it
    loss, validation  losses, finite: training stops otherwise
    seconds           for features, step, validation and checkpoint together
    peak              bytes of main memory this process has held at most so far; None where the system does not tell
    device_peak       bytes of the GPU's memory held at most in this stage; None without one
    """

    name: str
    images: int
    validated: int
    loss: float
    validation: float
    seconds: float
    peak: int | None
    device_peak: int | None


@dataclass(frozen=True)
class Smoked:
    """What came of a smoke run; that there is one says that every stage passed."""

    backbone: str
    parameters: int
    notes: tuple[str, ...]
    device: str
    precision: str
    threads: int
    seconds: float
    stages: tuple[SmokeStage, ...]


def smoke(
    data: Data,
    config: RunConfig | None = None,
    *,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    splits: str | Path | None = None,
    progress: Progress = SILENT,
) -> Smoked:
    """Go through every stage of ``config`` with one batch of the cells, as ``train`` would: the same loop.

    Of each stage one step is taken, with features before it where it works on them, and a validation on as many cells
    and a checkpoint after it. Nothing is kept: checkpoints go to a temporary folder. Weights may be random for this
    (``model.weights``). Raises what ``train`` raises.
    """
    import torch

    from hemascope.runtime import start_runtime, stop_runtime
    from hemascope.training.loop import fit, start_network

    began = time.perf_counter()
    config = config or RunConfig()
    runtime = start_runtime(config.runtime)
    try:
        cells = cells_of(data, config, format=format, class_names=class_names, progress=progress)
        whole = load_splits(Path(splits), cells) if splits else make_splits(cells, config.data, config.seed)
        try:
            network = start_network(config, len(cells.class_names), runtime)
        except WeightsError as error:
            raise WeightsError(
                f"{error} A smoke run needs no trained weights: --set model.weights=random is enough for it."
            ) from error
        stages = []
        for stage in config.stages:
            cut = one_batch(whole, cells, stage.batch_size, config.seed)
            alone = config.model_copy(update={"stages": (one_step(stage, network, len(cut.indices("train"))),)})
            _forget_device_peak(runtime.device)
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="hemascope-smoke-") as folder:
                fitted = fit(cells, cut, alone, Path(folder), runtime, progress, network=network)
            record = next(one for one in reversed(fitted.history) if one["kind"] == "epoch")
            stages.append(
                SmokeStage(
                    name=stage.name,
                    images=stage.batch_size,
                    validated=len(cut.indices("validation")),
                    loss=float(record["train_loss"]),
                    validation=float(record["validation_loss"]),
                    seconds=time.perf_counter() - started,
                    peak=_process_peak(),
                    device_peak=_device_peak(runtime.device),
                )
            )
    finally:
        stop_runtime()
    return Smoked(
        backbone=config.model.backbone,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        notes=network.notes,
        device=runtime.device,
        precision=runtime.precision,
        threads=torch.get_num_threads(),
        seconds=time.perf_counter() - began,
        stages=tuple(stages),
    )


def one_batch(splits: Splits, cells: CellDataset, size: int, seed: int) -> Splits:
    """``splits`` with ``size`` cells, of as many classes as can be, left to train on and as many to validate on."""
    assignment = np.full_like(splits.assignment, UNUSED)
    for part in ("train", "validation"):
        rows = splits.indices(part)
        assignment[rows[spread(cells.labels[rows], seed)[:size]]] = part
    return replace(splits, assignment=assignment)


def one_step(stage: StageConfig, network: Classifier, cells: int) -> StageConfig:
    """``stage`` cut to a single step of its whole batch, for ``cells`` to train on, and one validation after it.

    One that thaws gradually trains the blocks it would in its last epoch, where it needs most.
    """
    from hemascope.models.backbones import blocks
    from hemascope.training.freezing import trainable_blocks

    trainable = stage.trainable
    if trainable.startswith("gradual"):
        names = [block.name for block in blocks(network.backbone)]
        thawed = trainable_blocks(trainable, names, math.ceil(stage.epochs) - 1)
        trainable = f"last:{len(thawed)}" if thawed else "head"
    return stage.model_copy(update={"epochs": stage.batch_size / cells, "trainable": trainable})


def _process_peak() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB on Linux


def _forget_device_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _device_peak(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))
