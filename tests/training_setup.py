"""What the tests of training share: tiny cells, a tiny network with random weights, and one call that fits it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemascope.cells import CellDataset
from hemascope.config import (
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Preparation,
    Resize,
    RunConfig,
    RuntimeConfig,
    StageConfig,
)
from hemascope.data.splits import Splits
from hemascope.data.synthetic import render_cells
from hemascope.models.classifier import Classifier, create_classifier
from hemascope.progress import SILENT, Progress
from hemascope.runtime import Runtime
from hemascope.training.loop import Fitted, fit

torch.set_num_threads(1)

SIZE = 32
PER_CLASS = 10
PARTS = ("train",) * 6 + ("validation",) * 2 + ("calibration", "test")
"""The parts of the cells of each class: 48 to train on in all, 16 to validate, 8 and 8."""
TRAIN, VALIDATION = 48, 16
CPU = Runtime("cpu", "fp32")
JITTER = {
    "policy": {
        "steps": [
            {"operation": "brightness", "strength": [0.7, 1.3]},
            {"operation": "rotate", "strength": [-15, 15]},
        ]
    }
}
"""An [augmentation] that is cheap and different for every image."""


@lru_cache
def tiny_cells() -> CellDataset:
    """80 cells of 8 classes."""
    return render_cells(PER_CLASS, size=SIZE, seed=3)


def tiny_splits(cells: CellDataset) -> Splits:
    """The same part for the same place in every class."""
    return Splits(np.array(PARTS * len(cells.class_names)), cells.fingerprint())


def features_stage(**changes: Any) -> StageConfig:
    """Two epochs, 6 steps."""
    return StageConfig(
        **{"name": "frozen", "kind": "features", "trainable": "head", "epochs": 2, "batch_size": 16} | changes
    )


def image_stage(**changes: Any) -> StageConfig:
    """Two epochs, 12 steps."""
    return StageConfig(**{"name": "finetune", "epochs": 2, "batch_size": 8} | changes)


def tiny_config(*stages: StageConfig, seed: int = 0, backbone: str = "test_efficientnet", **sections: Any) -> RunConfig:
    """Everything small; ``sections`` replace or change those of RunConfig."""
    runtime = {"threads": 1, "workers": 0, "device": "cpu"} | sections.pop("runtime", {})
    model = {"backbone": backbone, "weights": "random"} | sections.pop("model", {})
    return RunConfig(
        seed=seed,
        stages=stages,
        data=DataConfig(preparation=Preparation(resizes=(Resize(size=SIZE),))),
        model=ModelConfig(**model),
        runtime=RuntimeConfig(**runtime),
        evaluation=EvaluationConfig(bootstrap=100, mistakes=2, batch_size=16),
        augmentation=AugmentationConfig(**sections.pop("augmentation", {})),
        **sections,
    )


def tiny_fit(config: RunConfig, folder: Path, progress: Progress = SILENT, cells: CellDataset | None = None) -> Fitted:
    """``fit`` on the tiny cells."""
    cells = cells or tiny_cells()
    return fit(cells, tiny_splits(cells), config, folder, CPU, progress)


def start_model(config: RunConfig) -> Classifier:
    """The network as ``fit`` starts it."""
    return create_classifier(config.model, 8, config.seed)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether all parameters and statistics are equal, bit for bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def without_clock(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A history without what depends on how fast the machine was."""
    return [{name: value for name, value in record.items() if name not in CLOCK} for record in records]


CLOCK = ("seconds", "images_per_second")


def with_images(cells: CellDataset, images: Any) -> CellDataset:
    """The same cells with other pixels, or with pixels behind a proxy."""
    return replace(cells, images=images)
