"""One stage of training: steps, validations, checkpoints, early stopping."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hemascope.config import RunConfig, StageConfig
from hemascope.errors import ConfigError, NonFiniteLossError
from hemascope.models.backbones import blocks
from hemascope.models.classifier import Classifier
from hemascope.progress import Progress
from hemascope.runtime import Runtime, all_reduce_sum, autocast
from hemascope.torchvision_compat import import_torchvision
from hemascope.training.checkpoints import (
    Checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from hemascope.training.freezing import apply_plan, trainable_blocks
from hemascope.training.history import History
from hemascope.training.losses import class_weights, classification_loss, mix_batch, mixer
from hemascope.training.optimizers import create_optimizer, parameter_groups, set_learning_rate
from hemascope.training.pixels import image_seed
from hemascope.training.price import Price, Stopwatch
from hemascope.training.schedules import PlateauTracker, learning_rate
from hemascope.training.scores import validation_scores
from hemascope.training.tasks import FeatureTask, ImageTask, Parts, Task

LOSS_CHECK_STEPS = 20
"""Steps between looks at the loss: each look waits for the device."""


@dataclass
class Ledger:
    """What a run writes down as it goes, kept over all stages."""

    history: History
    price: Price
    watch: Stopwatch
    folder: Path
    best: dict[str, Any]
    history_lines: int = 0

    @property
    def checkpoint_path(self) -> Path:
        """Where the last checkpoint lies."""
        return self.folder / "checkpoints" / "last.safetensors"

    def values(self) -> dict[str, Any]:
        """Its part of a checkpoint."""
        return {
            "history_lines": self.history.lines,
            "passes": [self.price.passes, self.price.validation_passes],
            "seconds": dict(self.watch.seconds),
            "best": self.best,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Take up where a checkpoint's values left off."""
        self.history_lines, self.best = values["history_lines"], values["best"]
        self.price.passes, self.price.validation_passes = values["passes"]
        self.watch.seconds.update(values["seconds"])


@dataclass
class Standing:
    """How far a stage has come; part of every checkpoint."""

    step: int = 0
    validations: int = 0
    without_gain: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    loss_sum: float = 0.0
    loss_steps: int = 0
    seconds: float = 0.0


def check_stage(stage: StageConfig, model: Classifier, runtime: Runtime) -> None:
    """Raise ConfigError for what this network and these processes cannot do, before any work is done."""
    shares = runtime.world_size * stage.accumulate
    if stage.batch_size % shares:
        raise ConfigError(
            f"batch_size of stage {stage.name!r} must be a multiple of processes x accumulate = {shares}, "
            f"found {stage.batch_size}"
        )
    trainable_blocks(stage.trainable, [block.name for block in blocks(model.backbone)], 0)
    if stage.kind == "features" and stage.trainable != "head":
        raise ConfigError(
            f"stage {stage.name!r} works on saved features, so only the head can learn: "
            f'set trainable = "head", found {stage.trainable!r}'
        )
    if stage.kind == "features" and stage.cutmix:
        raise ConfigError(
            f"stage {stage.name!r} works on saved features, which have no regions to cut: use mixup, or set cutmix = 0"
        )


class StageRun:
    """One stage under way. ``run`` is the loop."""

    def __init__(
        self,
        number: int,
        model: Classifier,
        parts: Parts,
        config: RunConfig,
        runtime: Runtime,
        ledger: Ledger,
        progress: Progress,
    ) -> None:
        """``number`` is the stage's place in ``config.stages``; ``check_stage`` has accepted it."""
        self.number, self.model, self.parts, self.config = number, model, parts, config
        self.runtime, self.ledger, self.progress = runtime, ledger, progress
        self.stage = config.stages[number]
        self.seed = image_seed(config.seed, 100 + number)
        self.n = len(parts.train)
        self.total_steps = max(1, round(self.stage.epochs * self.n / self.stage.batch_size))
        self.standing = Standing()
        self.plateau = PlateauTracker(self.stage.schedule)
        self.best_tensors: dict[str, Tensor] = {}

    def run(self, *, resumed: Checkpoint | None) -> None:
        """Train to the end of the stage and leave the best weights in the model."""
        stage, standing = self.stage, self.standing
        self.learning = apply_plan(self.model, stage.trainable, 0, freeze_batchnorm=stage.freeze_batchnorm)
        self.task = self._task()
        network = self.task.network
        self.averaged = self._averaged(network)
        self.optimizer = create_optimizer(parameter_groups(self.model, stage.optimizer), stage.optimizer)
        self.scaler = torch.amp.GradScaler(
            self.runtime.device.partition(":")[0], enabled=self.runtime.precision == "fp16"
        )
        self.weights = self._class_weights()
        self.mix = mixer(stage.mixup, stage.cutmix, len(self.parts.cells.class_names))
        if resumed is not None:
            self._restore(resumed)
            standing = self.standing
        forward = self._forward(network)
        validate_at = self._validation_steps()
        last_checkpoint = time.monotonic()
        pending = torch.zeros((), device=self.runtime.device)
        checked_from = standing.step
        started = time.perf_counter() - standing.seconds

        with self.progress.task(f"stage {stage.name}", self.total_steps * stage.batch_size, "images") as advance:
            advance(standing.step * stage.batch_size)
            for inputs, labels in self.task.batches(standing.step, self.total_steps):
                forward = self._follow_plan(forward)
                rate = self._rate()
                set_learning_rate(self.optimizer, rate)
                torch.manual_seed(image_seed(self.seed, 11, standing.step, self.runtime.rank))
                pending += self._step(forward, inputs, labels)
                standing.step += 1
                if self.averaged is not None:
                    self.averaged.update(network, step=standing.step)
                advance(stage.batch_size)

                validating, full_pass = standing.step in validate_at, self._ends_an_epoch(standing.step)
                if not validating and not full_pass and standing.step - checked_from < LOSS_CHECK_STEPS:
                    continue
                # Checks and checkpoints fall on steps that do not depend on the clock, so that a resumed run sums
                # the same losses; the clock only says which of these steps write a checkpoint.
                self._check_loss(pending, checked_from, rate)
                pending, checked_from = torch.zeros_like(pending), standing.step
                standing.seconds = time.perf_counter() - started
                if validating and self._validate(network, rate):
                    break
                overdue = time.monotonic() - last_checkpoint > self.config.runtime.checkpoint_minutes * 60
                if validating or full_pass or overdue:
                    self._save(stage_done=False)
                    last_checkpoint = time.monotonic()
        network.load_state_dict(self.best_tensors)
        self._save(stage_done=True)

    # ---- a step ----

    def _step(self, forward: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Forward, backward, update. Returns the mean loss of this process's images, on the device."""
        targets = labels
        if self.mix is not None:
            inputs, targets = mix_batch(self.mix, inputs, labels)
        watch, total = self.ledger.watch, torch.zeros((), device=self.runtime.device)
        pieces = list(zip(inputs.chunk(self.stage.accumulate), targets.chunk(self.stage.accumulate), strict=True))
        for number, (piece, target) in enumerate(pieces):
            if isinstance(forward, DistributedDataParallel):
                forward.require_backward_grad_sync = number == len(pieces) - 1
            with watch.measure("forward"), autocast(self.runtime):
                logits = forward(piece)
                loss = classification_loss(
                    logits, target, weights=self.weights, label_smoothing=self.stage.label_smoothing
                ) / len(pieces)
            with watch.measure("backward"):
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        with watch.measure("optimizer"):
            if self.stage.clip_norm is not None:
                self.scaler.unscale_(self.optimizer)
                learning = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
                nn.utils.clip_grad_norm_(learning, self.stage.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return total

    def _rate(self) -> float:
        schedule, step = self.stage.schedule, self.standing.step
        return learning_rate(
            schedule,
            self.stage.optimizer.lr,
            progress=step / self.total_steps,
            epoch=self._epoch(step),
            multiplier=self.plateau.multiplier,
        )

    def _epoch(self, step: int) -> float:
        return step * self.stage.batch_size / self.n

    def _ends_an_epoch(self, step: int) -> bool:
        """Whether a pass over the images ends here: a kill then loses no more than the running one.

        Passes over saved features take seconds, less than writing so many checkpoints would.
        """
        return self.stage.kind == "images" and int(self._epoch(step)) > int(self._epoch(step - 1))

    def _follow_plan(self, forward: nn.Module) -> nn.Module:
        """Put the network into training mode after a validation, and thaw more blocks where the plan says so."""
        stage, epoch = self.stage, self._epoch(self.standing.step)
        before = self.learning
        if self.task.network is self.model.head:
            self.model.head.train()
            return forward
        if not self.model.head.training or stage.trainable.startswith("gradual"):
            self.learning = apply_plan(self.model, stage.trainable, epoch, freeze_batchnorm=stage.freeze_batchnorm)
        return forward if self.learning == before else self._forward(self.task.network)

    def _check_loss(self, pending: Tensor, since: int, rate: float) -> None:
        total, steps = float(all_reduce_sum(pending)) / self.runtime.world_size, self.standing.step - since
        if not math.isfinite(total):
            raise self._not_finite("loss", since + 1, rate)
        self.standing.loss_sum += total
        self.standing.loss_steps += steps
        self.ledger.history.append(
            "step",
            stage=self.stage.name,
            epoch=self._epoch(self.standing.step),
            step=self.standing.step,
            loss=total / max(steps, 1),
            lr=rate,
        )

    def _not_finite(self, what: str, first_step: int, rate: float) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"the {what} stopped being a finite number in stage {self.stage.name!r}, between steps {first_step} and "
            f"{self.standing.step} (learning rate {rate:.2g}). Lower optimizer.lr, set clip_norm, or use fp32."
        )

    # ---- validation ----

    def _validation_steps(self) -> set[int]:
        every = max(1, round(self.stage.validate_every * self.n / self.stage.batch_size))
        # Rounding can put a validation a few steps before the end, where the last one makes it worthless.
        return {*range(every, self.total_steps - every // 2, every), self.total_steps}

    def _validate(self, network: nn.Module, rate: float) -> bool:
        """Measure, remember the best weights, and say whether the stage should stop early."""
        candidate = self.averaged.module if self.averaged is not None else network
        standing, stage = self.standing, self.stage
        self._share_statistics(candidate)
        with self.ledger.watch.measure("validation"):
            logits = self.task.validation_logits(candidate)
        scores = validation_scores(logits, self.parts.cells.labels[self.parts.validation])
        if not math.isfinite(scores["loss"]):
            raise self._not_finite("validation loss", 1, rate)
        self.plateau.update(scores["balanced_accuracy"])
        score = (scores["balanced_accuracy"], -scores["loss"])
        standing.validations += 1
        standing.without_gain += 1
        better = score > standing.best_score
        if better:
            standing.best_score, standing.without_gain = score, 0
        if better or stage.keep == "last":
            self.best_tensors = {name: value.detach().cpu().clone() for name, value in candidate.state_dict().items()}
            self.ledger.best = {"stage": stage.name, "epoch": self._epoch(standing.step), **scores}
        self.ledger.history.append(
            "epoch",
            stage=stage.name,
            epoch=self._epoch(standing.step),
            step=standing.step,
            train_loss=standing.loss_sum / max(standing.loss_steps, 1),
            validation_loss=scores["loss"],
            validation_accuracy=scores["accuracy"],
            validation_balanced_accuracy=scores["balanced_accuracy"],
            lr=rate,
            seconds=standing.seconds,
            images_per_second=standing.step * stage.batch_size / max(standing.seconds, 1e-9),
        )
        self.progress.note(
            f"stage {stage.name}, epoch {self._epoch(standing.step):.3g} of {stage.epochs:.3g}: "
            f"training loss {standing.loss_sum / max(standing.loss_steps, 1):.3f}, "
            f"validation balanced accuracy {scores['balanced_accuracy']:.4f}"
        )
        standing.loss_sum, standing.loss_steps = 0.0, 0
        return stage.early_stopping is not None and standing.without_gain >= stage.early_stopping

    def _share_statistics(self, candidate: nn.Module) -> None:
        """Give every process the first one's running statistics: one network is validated, the one that is saved."""
        if self.runtime.world_size > 1:
            for buffer in candidate.buffers():
                torch.distributed.broadcast(buffer, src=0)

    # ---- building blocks ----

    def _task(self) -> Task:
        ledger = self.ledger
        if self.stage.kind == "features":
            return FeatureTask(
                self.model,
                self.parts,
                self.stage,
                self.config,
                self.seed,
                self.runtime,
                ledger.price,
                ledger.watch,
                self.progress,
            )
        return ImageTask(
            self.model, self.parts, self.stage, self.config, self.seed, self.runtime, ledger.price, ledger.watch
        )

    def _forward(self, network: nn.Module) -> nn.Module:
        """The network as the step calls it: compiled, and synchronised over processes."""
        module = network
        if self.config.runtime.compile and self.stage.kind == "images":
            module = torch.compile(module)  # type: ignore[assignment]
        if self.runtime.world_size > 1:
            device = [torch.device(self.runtime.device)] if self.runtime.device.startswith("cuda") else None
            module = DistributedDataParallel(module, device_ids=device)
        return module

    def _averaged(self, network: nn.Module) -> Any:
        """timm's exponential moving average of weights and statistics, its decay warmed up; or None."""
        if self.stage.ema is None:
            return None
        import_torchvision()
        from timm.utils.model_ema import ModelEmaV3

        return ModelEmaV3(network, decay=self.stage.ema, use_warmup=True)

    def _class_weights(self) -> Tensor | None:
        counts = torch.bincount(
            torch.from_numpy(self.parts.train_labels), minlength=len(self.parts.cells.class_names)
        ).numpy()
        weights = class_weights(self.stage.class_weights, counts)
        return None if weights is None else torch.from_numpy(weights).to(self.runtime.device)

    # ---- checkpoints ----

    def _save(self, *, stage_done: bool) -> None:
        if not self.runtime.is_main:
            return
        tensors = with_prefix("model", self.model.state_dict())
        values: dict[str, Any] = {"stage": self.number, "stage_done": stage_done, **self.ledger.values()}
        if stage_done:
            values["stage"] = self.number + 1
        else:
            tensors |= with_prefix("best", self.best_tensors) | optimizer_tensors(self.optimizer)
            if self.averaged is not None:
                tensors |= with_prefix("averaged", self.averaged.module.state_dict())
            standing = vars(self.standing) | {"best_score": list(self.standing.best_score)}
            if not self.best_tensors:
                standing["best_score"] = None
            values |= {
                "standing": standing,
                "plateau": [self.plateau.best, self.plateau.stalled, self.plateau.multiplier]
                if self.best_tensors
                else None,
                "scaler": self.scaler.state_dict(),
            }
        self.ledger.history.sync()
        save_checkpoint(self.ledger.checkpoint_path, Checkpoint(tensors, values))

    def _restore(self, saved: Checkpoint) -> None:
        standing = saved.values["standing"]
        best = standing["best_score"]
        self.standing = Standing(**{**standing, "best_score": (best[0], best[1]) if best else Standing.best_score})
        # Features are computed anew; the price is what an unbroken run pays.
        self.ledger.price.passes, self.ledger.price.validation_passes = saved.values["passes"]
        if saved.values["plateau"]:
            self.plateau.best, self.plateau.stalled, self.plateau.multiplier = saved.values["plateau"]
        self.best_tensors = without_prefix("best", saved.tensors)
        restore_optimizer(self.optimizer, saved.tensors)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(without_prefix("averaged", saved.tensors))
        if saved.values["scaler"]:
            self.scaler.load_state_dict(saved.values["scaler"])
