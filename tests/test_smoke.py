"""A smoke run goes through the real loop with one batch of every stage, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from training_setup import features_stage, image_stage, tiny_cells, tiny_config, tiny_splits

from hemascope.cli import main
from hemascope.config import StageConfig
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import NonFiniteLossError, WeightsError
from hemascope.models import weights
from hemascope.models.classifier import create_classifier
from hemascope.training import stage as stage_module
from hemascope.workflow.smoke import one_batch, one_step, smoke


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders are made here, where a test can see whether they are gone."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each step that is taken from now on."""
    steps: list[int] = []
    step = stage_module.StageRun._step

    def watched(self: Any, forward: Any, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        steps.append(len(inputs))
        return step(self, forward, inputs, labels)

    monkeypatch.setattr(stage_module.StageRun, "_step", watched)
    return steps


def test_each_stage_takes_one_step_of_its_whole_batch(monkeypatch: pytest.MonkeyPatch, temporary: Path):
    """Features and images alike: one optimiser step, one validation, finite losses, and no file is left."""
    steps = counted(monkeypatch)
    stages = features_stage(epochs=30, views=2, batch_size=24), image_stage(epochs=9, batch_size=8, early_stopping=1)
    found = smoke(tiny_cells(), tiny_config(*stages))
    assert steps == [24, 8]
    assert [(one.name, one.images, one.validated) for one in found.stages] == [("frozen", 24, 8), ("finetune", 8, 8)]
    assert all(math.isfinite(one.loss) and math.isfinite(one.validation) and one.seconds > 0 for one in found.stages)
    assert all(one.peak is None or one.peak > 2**26 for one in found.stages)
    assert list(temporary.glob("hemascope-*")) == []


def test_a_batch_larger_than_the_cells_is_still_whole(monkeypatch: pytest.MonkeyPatch):
    """Of 56 cells to train on, a batch of 100 takes some twice, as an epoch of training would."""
    steps = counted(monkeypatch)
    smoke(tiny_cells(), tiny_config(image_stage(batch_size=100)))
    assert steps == [100]


def test_the_second_stage_goes_on_from_the_first(monkeypatch: pytest.MonkeyPatch):
    """One network passes through all stages, and the weights it starts from have changed in between."""
    seen: list[torch.Tensor] = []
    run = stage_module.StageRun.run

    def watched(self: Any, **kwargs: Any) -> None:
        seen.append(next(self.model.head.parameters()).detach().clone())
        run(self, **kwargs)

    monkeypatch.setattr(stage_module.StageRun, "run", watched)
    smoke(tiny_cells(), tiny_config(features_stage(), image_stage()))
    assert len(seen) == 2
    assert not torch.equal(*seen)


def test_a_loss_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch, temporary: Path):
    """What would stop a run stops its smoke run, and the temporary folder is removed all the same."""

    def lost(logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return logits.sum() * math.nan

    monkeypatch.setattr(stage_module, "classification_loss", lost)
    with pytest.raises(NonFiniteLossError, match="stage 'finetune'"):
        smoke(tiny_cells(), tiny_config(image_stage()))
    assert list(temporary.glob("hemascope-*")) == []


def test_weights_that_cannot_be_had_are_not_needed(monkeypatch: pytest.MonkeyPatch):
    """The sentence says that random weights are enough for a smoke run."""

    def unreachable(name: str) -> None:
        raise WeightsError(f"the weights of {name} could not be fetched from the hub.")

    monkeypatch.setattr(weights, "_hub", unreachable)
    config = tiny_config(image_stage(), backbone="test_convnext", model={"weights": "hub"})
    with pytest.raises(WeightsError, match=r"could not be fetched.*--set model\.weights=random is enough"):
        smoke(tiny_cells(), config)


def test_a_batch_holds_every_class_and_no_cell_of_another_part():
    """Eight cells of eight classes, taken from the part they are in; all others are unused."""
    cells, whole = tiny_cells(), tiny_splits(tiny_cells())
    cut = one_batch(whole, cells, 8, seed=1)
    for part in ("train", "validation"):
        rows = cut.indices(part)
        assert sorted(cells.labels[rows]) == list(range(8))
        assert set(rows) <= set(whole.indices(part))
    assert np.count_nonzero(cut.assignment != "unused") == 16


@pytest.mark.parametrize(("epochs", "plan"), [(1, "head"), (2, "last:1"), (2.5, "last:2")])
def test_a_gradual_stage_is_tried_where_it_needs_most(epochs: float, plan: str):
    """The blocks that learn in its last epoch learn in the step; other plans stay as they are."""
    network = create_classifier(tiny_config(image_stage()).model, 8, 0)
    stage = StageConfig(trainable="gradual:1", epochs=epochs, batch_size=8)
    assert one_step(stage, network, 32).trainable == plan
    assert one_step(stage, network, 32).epochs == 0.25
    assert one_step(image_stage(trainable="last:2"), network, 8).trainable == "last:2"


# ---- the command line ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("cells") / "cells")


def write_folder(place: Path, write: Callable[..., Any] = write_synthetic_folder) -> Path:
    write(place, 6, seed=1)
    return place


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["--quiet", "train", *(str(word) for word in words)])


SMALL = ("--recipe", "demo", "--set", "model.backbone=test_convnext", "--set", "model.weights=random", "--smoke")


def test_train_smoke_needs_no_output_and_touches_none(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It prints a line a stage; with -o given, the folder there stays as it was."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = invoke(folder, *SMALL, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result.stdout.count(" passed: one step of ") == 2
    assert "Nothing was kept." in result.stdout
    assert sorted(tmp_path.rglob("*")) == before
    found = json.loads(invoke(folder, *SMALL, "--json").stdout)
    assert [stage["name"] for stage in found["stages"]] == ["frozen", "finetune"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--smoke", "--resume"], "leave out --resume and --force"),
        (["--smoke", "--force"], "leave out --resume and --force"),
        ([], "Missing option '-o'"),
    ],
)
def test_calls_that_contradict_themselves(folder: Path, words: list[str], sentence: str):
    """A smoke run writes no run to go on with, and a real one needs its place."""
    result = invoke(folder, *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
