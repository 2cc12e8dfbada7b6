"""Transfer learning as a list of stages: read ``fit`` from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemascope.cells import CellDataset
from hemascope.config import RunConfig
from hemascope.data.splits import Splits
from hemascope.errors import SplitError
from hemascope.models.classifier import Classifier, create_classifier
from hemascope.progress import SILENT, Progress
from hemascope.runtime import Runtime, barrier, seed_everything
from hemascope.training.checkpoints import load_checkpoint, without_prefix
from hemascope.training.history import History
from hemascope.training.price import Price, Stopwatch
from hemascope.training.stage import Ledger, StageRun, check_stage
from hemascope.training.tasks import Parts


@dataclass(frozen=True)
class Fitted:
    """A trained network, with its best weights, and what training cost."""

    model: Classifier
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    price_epochs: float
    best: dict[str, Any]


def start_network(config: RunConfig, classes: int, runtime: Runtime) -> Classifier:
    """The network as training starts it, on its device, once every stage is known to be possible on it.

    Raises ConfigError for a backbone or a stage that cannot be, WeightsError for weights that cannot be had.
    """
    seed_everything(config.seed)
    model = create_classifier(config.model, classes, config.seed).to(runtime.device)
    if config.runtime.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
    for stage in config.stages:
        check_stage(stage, model, runtime)
    return model


def fit(
    cells: CellDataset,
    splits: Splits,
    config: RunConfig,
    folder: Path,
    runtime: Runtime,
    progress: Progress = SILENT,
    *,
    network: Classifier | None = None,
) -> Fitted:
    """Train through ``config.stages`` and return the network with the best weights of the last one.

    Each stage hands its best validated weights to the next; the averaged ones where ``ema`` is set. ``folder``
    receives ``history.jsonl`` and ``checkpoints/``; where it holds a checkpoint, training goes on from there and
    ends with the same weights as an unbroken run on the same machine. Only the training and validation parts are
    read. ``network`` is what ``start_network`` gave, where it was called to check before a folder is made. Raises
    NonFiniteLossError, SplitError for fewer validation cells than processes, and what ``start_network`` raises.
    """
    parts = Parts(
        cells, np.flatnonzero(splits.assignment == "train"), np.flatnonzero(splits.assignment == "validation")
    )
    if len(parts.validation) < runtime.world_size:
        raise SplitError(
            f"{len(parts.validation)} validation cells cannot be shared by {runtime.world_size} processes: use fewer "
            "processes or a larger data.validation"
        )
    model = network if network is not None else start_network(config, len(cells.class_names), runtime)
    price = Price(len(parts.train), config.data.preparation.size)
    ledger = Ledger(History(None), price, Stopwatch(), folder, best={})
    saved = load_checkpoint(ledger.checkpoint_path)
    first_stage = 0
    if saved is not None:
        model.load_state_dict(without_prefix("model", saved.tensors))
        first_stage = saved.values["stage"]
        ledger.restore(saved.values)
        progress.note(f"resuming after {price.epochs:.2f} epochs' worth of training")
        if saved.values["stage_done"]:
            saved = None  # between two stages: the next one starts from the model alone
    ledger.history = History(folder / "history.jsonl" if runtime.is_main else None, keep=ledger.history_lines)

    for number in range(first_stage, len(config.stages)):
        StageRun(number, model, parts, config, runtime, ledger, progress).run(resumed=saved)
        saved = None  # the stages after it start from the model
    barrier()
    return Fitted(model.eval(), ledger.history.records, dict(ledger.watch.seconds), price.epochs, ledger.best)
