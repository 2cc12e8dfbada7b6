"""How much memory and time training takes on a GPU: arithmetic over what a step holds and computes."""

from __future__ import annotations

from dataclasses import dataclass

from hemascope.config import RunConfig, StageConfig
from hemascope.training.step_costs import Pass, StageCosts

GIB = 2**30
FULL_BYTES = 4
"""Weights, gradients and moments are float32, whatever the products are computed in."""

MOMENTS = {"adamw": 2, "lion": 1, "sgd": 1}
"""Running averages an optimiser keeps for each number that learns."""

STEP_COPIES = 1
"""Further copies of what learns, while the optimiser updates all layers together."""

USABLE = 0.92
"""Share of a GPU's memory that a run can have: driver, CUDA context, error correction and gaps have the rest."""

ARITHMETIC = (0.30, 0.45, 0.65)
"""Share of the peak that products and convolutions reach: slow, expected, fast.

Large transformers, almost all of whose time is large products, reach 0.46 of the peak over whole steps (Chowdhery et
al. 2022, PaLM); small batches and depthwise convolutions fall short of it, float32 without tensor cores exceeds it.
"""

TRAFFIC = (0.50, 0.70, 0.85)
"""Share of the memory's data-sheet speed that operations reach, each of which reads and writes its tensors."""

LAUNCH = (15e-6, 10e-6, 5e-6)
"""Seconds from one operation to the next however small they are: Python, torch and the driver have to start each."""

STEP_TRAFFIC = 8
"""Times an optimiser reads or writes as many bytes as learn: weights, gradients, averages, copies on the way."""

LARGEST_BATCH = 8192
"""The largest batch the settings allow."""


@dataclass(frozen=True)
class Device:
    """What is reckoned with of a GPU: usable bytes, peak operations a second, peak bytes a second where known."""

    budget: float
    peak: float
    traffic: float | None


@dataclass(frozen=True)
class Memory:
    """Bytes on the GPU at a stage's three heaviest moments, and what they are made of.

    batch       what a batch's pass holds beyond weights and gradients: activations and their gradients
    step        at the peak of forward, backward and the optimiser's update
    validation  at the peak of a validation, or of the features being computed
    """

    weights: int
    gradients: int
    optimizer: int
    averaged: int
    batch: int
    step: int
    validation: int

    @property
    def peak(self) -> int:
        """The largest of them."""
        return max(self.step, self.validation)


@dataclass(frozen=True)
class StageEstimate:
    """What a stage needs.

    learning       numbers that learn
    size           side in pixels of what the network sees
    flops          floating-point operations of the whole stage; ``flops_epoch`` of an epoch, validation included
    seconds        of the whole stage: slow, expected, fast; None without a GPU
    largest_batch  that fits; 0 where not even two images do, None without a GPU
    """

    name: str
    kind: str
    trainable: str
    size: int
    epochs: float
    batch_size: int
    learning: int
    memory: Memory
    flops_epoch: float
    flops: float
    seconds: tuple[float, float, float] | None
    largest_batch: int | None

    def fits(self, budget: float) -> bool:
        """Whether the stage runs in ``budget`` bytes as it is."""
        return self.memory.peak <= budget


def estimate_stage(
    stage: StageConfig, costs: StageCosts, config: RunConfig, *, train: int, validation: int, device: Device | None
) -> StageEstimate:
    """Memory, computing and time of a stage that trains on ``train`` cells and is validated on ``validation``."""
    on_features = stage.kind == "features"
    looked = max(1, min(config.evaluation.batch_size, train if on_features else validation))
    validations = max(1, round(stage.epochs / stage.validate_every))
    seen = train * stage.views + validation if on_features else validation * validations
    learnt = train * stage.epochs
    flops = float(costs.learning.flops * learnt + costs.looking.flops * seen)
    once = costs.looking.flops * seen if on_features else 0
    seconds = None
    if device is not None:
        piece = -(-stage.batch_size // stage.accumulate)
        slow, expected, fast = (
            learnt / piece * _seconds(costs.learning, piece, device, pace)
            + learnt / stage.batch_size * _step_seconds(costs.trainable, device, pace)
            + seen / looked * _seconds(costs.looking, looked, device, pace)
            for pace in range(3)
        )
        seconds = slow, expected, fast
    return StageEstimate(
        name=stage.name,
        kind=stage.kind,
        trainable=stage.trainable,
        size=stage.size or config.data.preparation.size,
        epochs=stage.epochs,
        batch_size=stage.batch_size,
        learning=costs.trainable,
        memory=stage_memory(stage, costs, stage.batch_size, looked),
        flops_epoch=(flops - once) / stage.epochs,
        flops=flops,
        seconds=seconds,
        largest_batch=None if device is None else _largest_batch(stage, costs, looked, device.budget),
    )


def _seconds(one: Pass, images: int, device: Device, pace: int) -> float:
    """Of one pass: computing and moving follow each other, and no operation starts before it is sent off."""
    working = one.flops * images / (device.peak * ARITHMETIC[pace])
    if device.traffic is not None:
        working += one.moved(images) / (device.traffic * TRAFFIC[pace])
    return max(working, one.operations * LAUNCH[pace])


def _step_seconds(trainable: int, device: Device, pace: int) -> float:
    """Of one update of the weights."""
    return 0.0 if device.traffic is None else STEP_TRAFFIC * FULL_BYTES * trainable / (device.traffic * TRAFFIC[pace])


def stage_memory(stage: StageConfig, costs: StageCosts, batch_size: int, looked: int) -> Memory:
    """Bytes for batches of ``batch_size``, where ``looked`` images are looked at together when nothing learns."""
    weights = FULL_BYTES * costs.parameters
    gradients = FULL_BYTES * costs.trainable
    moments = MOMENTS[stage.optimizer.name] if stage.optimizer.name != "sgd" or stage.optimizer.momentum else 0
    optimizer = moments * gradients
    averaged = FULL_BYTES * costs.network if stage.ema is not None else 0
    kept = weights + optimizer + averaged
    held = costs.learning.bytes(-(-batch_size // stage.accumulate))
    if stage.accumulate > 1:
        held += gradients  # those of the passes before
    step = kept + max(held, (1 + STEP_COPIES) * gradients)
    # A validation looks through a copy of the network, and makes two to choose from.
    validation = kept + max(2 * weights, weights + costs.looking.bytes(looked))
    return Memory(weights, gradients, optimizer, averaged, max(0, held - gradients), step, validation)


def _largest_batch(stage: StageConfig, costs: StageCosts, looked: int, budget: float) -> int:
    """The largest multiple of ``accumulate`` that fits into ``budget``; 0 where not even the smallest does."""

    def fits(count: int) -> bool:
        return stage_memory(stage, costs, count * stage.accumulate, looked).peak <= budget

    low, high = 0, LARGEST_BATCH // stage.accumulate
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low * stage.accumulate if low * stage.accumulate > 1 else 0
