"""One RunConfig says everything a run depends on. Parsed once, at the edge; unknown keys are refused by name.

A TOML file mirrors the classes below: ``[data]``, ``[augmentation]``, ``[model]``, ``[[stages]]`` and so on.
``docs/config.md`` is generated from the ``description`` of each field.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hemascope.policies import FAMILIES, Family, Policy

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Width = Annotated[int, Field(ge=1, le=16384)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Resize(_Section):
    """One resize to a square, antialiased whenever it shrinks (Pillow's filters)."""

    size: int = Field(ge=8, le=2048, description="Side of the square, in pixels.")
    filter: Filter = Field("bicubic", description="Pillow's resampling filter.")


class Preparation(_Section):
    """From an image of any size to a square one. Travels in the model bundle: prediction repeats it exactly."""

    name: str = Field("plain", description="A name for people: plain, contest, or your own.")
    crop: int | None = Field(
        None,
        ge=8,
        description="Side in pixels of the centre square cut from the original; none: the largest centre square. "
        "An image smaller than it gives its largest centre square.",
    )
    resizes: tuple[Resize, ...] = Field(
        (Resize(size=96),), min_length=1, max_length=4, description="Resizes, in order; the last gives the size."
    )

    @property
    def size(self) -> int:
        """Side of the prepared image in pixels."""
        return self.resizes[-1].size

    def describe(self) -> str:
        """What is done, in words that differ wherever the pixels would: a name alone can hide another crop."""
        cut = "largest centre square" if self.crop is None else f"centre {self.crop} px"
        return " → ".join([cut, *(f"{step.filter} to {step.size}" for step in self.resizes)])


PREPARATIONS: dict[str, Preparation] = {
    "plain": Preparation(),
    "contest": Preparation(
        name="contest",
        crop=200,
        resizes=(Resize(size=224, filter="bilinear"), Resize(size=96, filter="lanczos")),
    ),
}
"""Preparations by name. ``contest`` is how the images of the 2024 contest were made from the published ones."""


class DataConfig(_Section):
    """Reading and splitting."""

    preparation: Preparation = Field(
        Preparation(), description='How every image is brought to one size; a table, or a name: "plain", "contest".'
    )
    validation: Probability = Field(0.10, description="Share of the cells that choose the best epoch.")
    calibration: Probability = Field(0.05, description="Share kept for calibration alone.")
    test: Probability = Field(0.15, description="Share that only the evaluation reads.")
    max_unreadable: Probability = Field(0.05, description="Stop when more than this share of images cannot be read.")
    label_pattern: str | None = Field(
        None, description="Regular expression with a group named label, matched against file names, to label a folder."
    )

    @model_validator(mode="before")
    @classmethod
    def _named_preparation(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("preparation"), str):
            name = values["preparation"]
            if name not in PREPARATIONS:
                raise ValueError(f"preparation must be a table or one of {', '.join(PREPARATIONS)}, found {name!r}")
            return {**values, "preparation": PREPARATIONS[name]}
        return values

    @model_validator(mode="after")
    def _room_for_training(self) -> DataConfig:
        held_out = self.validation + self.calibration + self.test
        if held_out >= 0.95:
            raise ValueError(
                f"validation, calibration and test must leave cells to train on, found {held_out:.2f} of 1"
            )
        if self.validation == 0 or self.test == 0:
            raise ValueError("validation and test must both be more than 0")
        return self


class AugmentationConfig(_Section):
    """What training images go through, in this order. Everything off is no augmentation."""

    flips: bool = Field(True, description="Mirror at random, left to right and top to bottom.")
    quarter_turns: bool = Field(True, description="Turn by 0, 90, 180 or 270 degrees at random.")
    policy: Policy = Field(
        Policy(name="none"),
        description="What else is done to them: the name of a packaged policy (`hemascope augment policies`), a .toml "
        "file, or a table.",
    )
    without: tuple[Family, ...] = Field(
        (), max_length=len(FAMILIES), description="Families of damage taken out of the policy, to be tested unseen."
    )

    def effective_policy(self) -> Policy:
        """The policy without the families held out."""
        return self.policy.without(self.without)


class HeadConfig(_Section):
    """What sits on the backbone's pooled features."""

    kind: Literal["linear", "deep"] = Field("linear", description="One layer, or hidden layers before it.")
    widths: tuple[Width, ...] = Field((1024, 256), max_length=6, description="Widths of a deep head's hidden layers.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the last layer and after each hidden one.")
    norm: Literal["none", "batch", "layer"] = Field("none", description="Normalisation in a deep head.")
    activation: Literal["relu", "silu", "gelu"] = Field("relu", description="Activation in a deep head.")


class ModelConfig(_Section):
    """Backbone, where its weights come from, and the head."""

    backbone: str = Field("tf_efficientnet_lite0", description="Any timm image model.")
    weights: str = Field(
        "auto",
        description="auto (embedded, else the hub), embedded, hub, random, or a local .safetensors or .pth file.",
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth of the backbone.")
    head: HeadConfig = Field(HeadConfig(), description="The classifier on top.")


class OptimizerConfig(_Section):
    """Which optimiser, and how hard it pulls."""

    name: Literal["adamw", "lion", "sgd"] = Field("adamw", description="AdamW, Lion or SGD with Nesterov momentum.")
    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate of the last layer.")
    weight_decay: float = Field(0.02, ge=0, le=1, description="Decoupled decay; never on biases and norms.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum; the first beta of AdamW and Lion.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor on the rate from each block of layers to the one before it."
    )
    backbone_lr_factor: float = Field(1.0, gt=0, le=1, description="Factor on the rate of the whole backbone.")


class ScheduleConfig(_Section):
    """How the learning rate moves within a stage."""

    name: Literal["constant", "exponential", "plateau", "cosine", "onecycle"] = Field(
        "cosine",
        description="constant; exponential: times decay each epoch; plateau: times factor when validation stalls; "
        "cosine or onecycle: warm up, then down to final_factor.",
    )
    warmup: Probability = Field(0.1, description="Share of the stage that warms up (all but plateau).")
    decay: float = Field(0.9, gt=0, le=1, description="exponential: factor an epoch, exp(-0.03) in the report.")
    factor: float = Field(0.5, gt=0, lt=1, description="Factor at a plateau; also combined with exponential.")
    patience: int = Field(1, ge=0, description="Validations without a better score before the factor applies.")
    halve_on_plateau: bool = Field(False, description="exponential: apply factor at plateaus as well.")
    final_factor: float = Field(0.01, ge=0, le=1, description="cosine and onecycle: last rate over peak rate.")
    min_lr: float = Field(1e-7, ge=0, description="The rate never falls below this.")


class StageConfig(_Section):
    """One stage of training. The default run has two: ``frozen``, then ``finetune``."""

    name: str = Field("finetune", pattern=r"^[A-Za-z0-9_-]{1,40}$", description="A name for logs and plots.")
    kind: Literal["features", "images"] = Field(
        "images",
        description="features: the frozen backbone sees `views` versions of each image once and only the head "
        "trains, on the saved features. images: every epoch sees freshly augmented images.",
    )
    trainable: str = Field(
        "all", description="all, head, last:N (blocks), from:NAME (a named block on), or gradual:N (N more each epoch)."
    )
    freeze_batchnorm: bool = Field(False, description="Keep the running statistics of batch norms as they are.")
    epochs: float = Field(5, gt=0, le=1000, description="Passes over the training part; part of one is allowed.")
    views: int = Field(2, ge=1, le=64, description="features: versions of each image; the first is not augmented.")
    size: int | None = Field(None, ge=16, le=2048, description="Side in pixels the network sees; none: as prepared.")
    batch_size: int = Field(64, ge=2, le=8192, description="Images a step, over all processes.")
    accumulate: int = Field(1, ge=1, le=256, description="Split each batch into this many passes to save memory.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="The optimiser.")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="The learning rate's course.")
    augment: bool = Field(True, description="Apply [augmentation] in this stage.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each label spread over all classes.")
    class_weights: Literal["none", "balanced", "effective"] = Field(
        "none", description="Loss weights: none, inverse frequency, or by effective number (Cui et al. 2019)."
    )
    oversample: bool = Field(False, description="Draw each class equally often.")
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup; 0: off.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of CutMix; 0: off. With both, one is drawn a batch.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient; none: no clipping.")
    ema: float | None = Field(None, gt=0, lt=1, description="Decay a step of the averaged weights; none: no averaging.")
    early_stopping: int | None = Field(None, ge=1, description="Stop after so many validations without a better score.")
    keep: Literal["best", "last"] = Field(
        "best",
        description="Weights handed on: the best validated, or the last. Clean validation cells cannot tell how well "
        "corrupted ones are met, so last suits strong augmentation.",
    )
    validate_every: float = Field(1.0, gt=0, description="Epochs between validations.")


class RuntimeConfig(_Section):
    """Where and how it is computed."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that have it; on CPUs fp32. fp16 scales the loss."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads to compute with; none: all.")
    workers: int | None = Field(None, ge=0, description="Processes that prepare batches; none: chosen for the machine.")
    channels_last: bool = Field(True, description="Channels-last memory layout, faster for convolutions.")
    compile: bool = Field(False, description="torch.compile the network: slower start, faster steps.")
    checkpoint_minutes: float = Field(10.0, gt=0, description="Minutes between checkpoints within an epoch.")


class EvaluationConfig(_Section):
    """How results are measured."""

    bootstrap: int = Field(1000, ge=100, le=100_000, description="Bootstrap resamples behind each interval.")
    mistakes: int = Field(24, ge=0, le=200, description="Pictures in each gallery of mistakes.")
    batch_size: int = Field(256, ge=1, le=8192, description="Images at a time when predicting.")
    calibrate: bool = Field(
        True,
        description="After training, fit on the calibration part what says how far to believe a prediction.",
    )


def default_stages() -> tuple[StageConfig, ...]:
    """A frozen stage on cached features, then fine-tuning of everything."""
    return (
        StageConfig(
            name="frozen",
            kind="features",
            trainable="head",
            views=1,
            epochs=30,
            validate_every=5,
            batch_size=256,
            optimizer=OptimizerConfig(lr=3e-3, weight_decay=0.01),
            schedule=ScheduleConfig(name="cosine"),
        ),
        StageConfig(
            name="finetune",
            epochs=7,
            batch_size=32,
            optimizer=OptimizerConfig(lr=1.5e-3),
            schedule=ScheduleConfig(name="onecycle", warmup=0.2),
            ema=0.99,
        ),
    )


class RunConfig(_Section):
    """Everything a run depends on but the cells themselves."""

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seeds the split, the order, the augmentation and the head.")
    data: DataConfig = Field(DataConfig(), description="Reading and splitting.")
    augmentation: AugmentationConfig = Field(AugmentationConfig(), description="What training images go through.")
    model: ModelConfig = Field(ModelConfig(), description="Backbone, weights, head.")
    stages: tuple[StageConfig, ...] = Field(
        default_factory=default_stages, min_length=1, max_length=12, description="Stages of training, in order."
    )
    runtime: RuntimeConfig = Field(RuntimeConfig(), description="Where and how it is computed.")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="How results are measured.")

    @model_validator(mode="after")
    def _stages_differ(self) -> RunConfig:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages must have different names, found {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _ends_at_the_size_it_predicts_at(self) -> RunConfig:
        last, size = self.stages[-1], self.data.preparation.size
        if last.size not in (None, size):
            raise ValueError(
                f"the last stage, {last.name}, trains at {last.size} pixels, but the model will predict at {size}: its "
                f"best epoch would be chosen at the wrong size; leave out its size or add a stage at {size}"
            )
        return self
