"""What a training run would need of a GPU, found without one, and without weights or cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemascope.config import RunConfig
from hemascope.errors import ConfigError, UsageError
from hemascope.progress import SILENT, Progress
from hemascope.training.estimate import GIB, USABLE, Device, StageEstimate, estimate_stage
from hemascope.training.gpus import Gpu, find_gpu

if TYPE_CHECKING:
    from hemascope.runtime import Precision


@dataclass(frozen=True)
class Estimated:
    """What a run needs, stage by stage.

    gpu        None where none was named: then nothing is said of hours and of what fits
    precision  what products are computed in there
    tflops     that GPU's peak in it
    gflops     of one image, forward, at the size the model predicts at, in 10^9
    """

    backbone: str
    parameters: int
    gflops: float
    size: int
    train: int
    validation: int
    precision: Precision
    gpu: Gpu | None
    tflops: float | None
    stages: tuple[StageEstimate, ...]

    @property
    def usable(self) -> float | None:
        """Bytes of the GPU's memory that a run may have."""
        return None if self.gpu is None else _usable(self.gpu)

    @property
    def hours(self) -> tuple[float, float, float] | None:
        """Of the whole run: slow, expected, fast; only what the GPU does, and not what it waits for."""
        if self.gpu is None:
            return None
        slow, expected, fast = (sum(stage.seconds[pace] for stage in self.stages if stage.seconds) for pace in range(3))
        return slow / 3600, expected / 3600, fast / 3600


def estimate(
    config: RunConfig | None = None,
    *,
    cells: int = 10_000,
    classes: int = 8,
    gpu: str | None = None,
    gpu_gib: float | None = None,
    gpu_tflops: float | None = None,
    gpu_gbs: float | None = None,
    batch: int | None = None,
    progress: Progress = SILENT,
) -> Estimated:
    """Memory, computing and hours of a run on ``cells`` labelled cells, split as ``config.data`` says.

    gpu                  its name, one of ``training.gpus.GPUS``
    gpu_gib, gpu_tflops  its memory in GiB and its peak, for another GPU
    gpu_gbs              its memory's speed in GB a second, without which moving tensors counts as no time
    batch                this batch size in every stage that sees images

    The network is built from shapes alone: nothing is downloaded, and nothing computed. Raises ConfigError, UsageError.
    """
    from hemascope.models.costs import network_costs
    from hemascope.training.footprint import shapes_of, stage_costs

    config = config or RunConfig()
    if batch is not None:
        config = with_batch(config, batch)
    if cells < 10 or classes < 2:
        raise UsageError(f"an estimate needs at least 10 cells and 2 classes, found {cells:,} and {classes}")
    chosen = _gpu(gpu, gpu_gib, gpu_tflops, gpu_gbs)
    precision = _precision(config, chosen)
    tflops = None if chosen is None else chosen.fp32 if precision == "fp32" else chosen.half
    device = None
    if chosen is not None and tflops is not None:
        device = Device(_usable(chosen), tflops * 1e12, None if chosen.gbs is None else chosen.gbs * 1e9)
    validation = round(cells * config.data.validation)
    train = cells - validation - round(cells * config.data.calibration) - round(cells * config.data.test)
    model = shapes_of(config.model, classes)
    size = config.data.preparation.size
    stages = []
    with progress.task("taking a step of each stage, without its contents", len(config.stages), "stages") as advance:
        for stage in config.stages:
            costs = stage_costs(model, stage, stage.size or size, precision)
            stages.append(estimate_stage(stage, costs, config, train=train, validation=validation, device=device))
            advance(1)
    network = network_costs(model, size)  # of the size the last stage trains at, so known to be possible
    return Estimated(
        backbone=config.model.backbone,
        parameters=network.parameters,
        gflops=network.gflops,
        size=size,
        train=train,
        validation=validation,
        precision=precision,
        gpu=chosen,
        tflops=tflops,
        stages=tuple(stages),
    )


def with_batch(config: RunConfig, batch: int) -> RunConfig:
    """``config`` with this batch size in every stage that sees images. Raises UsageError."""
    if not 2 <= batch <= 8192:
        raise UsageError(f"--batch must be from 2 to 8192, found {batch}")
    stages = tuple(
        stage.model_copy(update={"batch_size": batch}) if stage.kind == "images" else stage for stage in config.stages
    )
    return config.model_copy(update={"stages": stages})


def _usable(gpu: Gpu) -> float:
    return gpu.gib * USABLE * GIB


def _gpu(name: str | None, gib: float | None, tflops: float | None, gbs: float | None) -> Gpu | None:
    given = [value for value in (gib, tflops, gbs) if value is not None]
    if name is not None:
        if given:
            raise UsageError("--gpu names a known GPU; --gpu-gib, --gpu-tflops and --gpu-gbs describe another.")
        return find_gpu(name)
    if not given:
        return None
    if gib is None or tflops is None:
        raise UsageError("a GPU is described by both its memory (--gpu-gib) and its peak (--gpu-tflops).")
    if not all(0 < value < 1e9 for value in given):
        raise UsageError("--gpu-gib, --gpu-tflops and --gpu-gbs must be numbers above 0.")
    return Gpu("your GPU", gib, tflops, tflops, gbs, True, "as given")


def _precision(config: RunConfig, gpu: Gpu | None) -> Precision:
    """What training would choose on that GPU; see ``runtime.choose_precision``."""
    asked = config.runtime.precision
    if asked == "auto":
        return "bf16" if gpu is not None and gpu.bf16 else "fp32"
    if asked == "bf16" and gpu is not None and not gpu.bf16:
        raise ConfigError(f"the {gpu.name} does not compute bf16 itself: set runtime.precision to fp16 or fp32.")
    return asked
