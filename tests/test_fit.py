"""Training as a whole: reproducible, economical with what it reads, and plain about what went wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_setup import (
    CPU,
    JITTER,
    SIZE,
    TRAIN,
    VALIDATION,
    features_stage,
    image_stage,
    same_weights,
    start_model,
    tiny_cells,
    tiny_config,
    tiny_fit,
    tiny_splits,
    with_images,
)

from hemascope.config import HeadConfig, OptimizerConfig, ScheduleConfig
from hemascope.errors import ConfigError, NonFiniteLossError
from hemascope.progress import SILENT
from hemascope.runtime import Runtime
from hemascope.training import loop
from hemascope.training import stage as stage_module
from hemascope.training.price import Price, Stopwatch
from hemascope.training.stage import StageRun
from hemascope.training.tasks import FeatureTask, ImageTask, Parts

DROPOUT = {"head": HeadConfig(dropout=0.3)}


def short(seed: int = 0, **sections: Any) -> Any:
    stages = features_stage(epochs=1), image_stage(epochs=0.5, mixup=0.2)
    return tiny_config(*stages, seed=seed, augmentation=JITTER, model=DROPOUT, **sections)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> loop.Fitted:
    return tiny_fit(short(), tmp_path_factory.mktemp("first"))


def test_the_same_seed_gives_the_same_weights(first: loop.Fitted, tmp_path: Path) -> None:
    """Fitted again, whatever the global random state, the weights are bit-identical."""
    torch.manual_seed(99)
    np.random.seed(99)
    assert same_weights(first.model, tiny_fit(short(), tmp_path).model)


def test_another_seed_gives_other_weights(first: loop.Fitted, tmp_path: Path) -> None:
    """The seed reaches the head, the order and the augmentation."""
    assert not same_weights(first.model, tiny_fit(short(seed=1), tmp_path).model)


def test_worker_processes_do_not_change_the_result(first: loop.Fitted, tmp_path: Path) -> None:
    """Batches prepared by a worker process give bit-identical weights."""
    assert same_weights(first.model, tiny_fit(short(runtime={"workers": 1}), tmp_path).model)


def test_the_records_say_what_happened(first: loop.Fitted) -> None:
    """The history has a record of each validation with rate, losses and scores; price and seconds are filled in."""
    epochs = [record for record in first.history if record["kind"] == "epoch"]
    assert [record["stage"] for record in epochs] == ["frozen", "finetune"]
    assert epochs[1]["step"] == 3
    assert epochs[1]["epoch"] == 0.5
    assert first.best["stage"] == "finetune"
    assert first.best["balanced_accuracy"] == pytest.approx(epochs[1]["validation_balanced_accuracy"])
    assert {"features", "reading", "augmenting", "forward", "backward", "validation"} <= first.seconds.keys()


class Watched:
    """Images that remember which rows were read."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.shape, self.dtype = images, images.shape, images.dtype
        self.read: set[int] = set()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> np.ndarray:
        self.read.update(np.atleast_1d(np.arange(len(self))[index]).tolist())
        return self.images[index]


def test_only_training_and_validation_images_are_read(tmp_path: Path) -> None:
    """Every training and validation image is read, and not one of the test and calibration parts."""
    cells = tiny_cells()
    images = Watched(cells.images)
    tiny_fit(tiny_config(features_stage(epochs=1), image_stage(epochs=1)), tmp_path, cells=with_images(cells, images))
    splits = tiny_splits(cells)
    assert images.read == {*splits.indices("train").tolist(), *splits.indices("validation").tolist()}


def feature_task(**stage: Any) -> tuple[FeatureTask, Any, Parts, Price]:
    config = tiny_config(features_stage(views=3, **stage), augmentation=JITTER)
    cells, splits = tiny_cells(), tiny_splits(tiny_cells())
    parts = Parts(cells, splits.indices("train"), splits.indices("validation"))
    model, price = start_model(config).eval(), Price(TRAIN, SIZE)
    task = FeatureTask(model, parts, config.stages[0], config, 5, CPU, price, Stopwatch(), SILENT)
    return task, model, parts, price


def test_the_first_view_is_not_augmented() -> None:
    """View 0 holds the features of the images as they are, views 1 and 2 others; without augmentation all agree."""
    task, model, parts, price = feature_task()
    images = torch.from_numpy(parts.cells.images[parts.train]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        clean = model.features(images)
    assert task.features.shape == (3, TRAIN, clean.shape[1])
    assert torch.allclose(task.features[0], clean, atol=1e-4)
    assert not torch.allclose(task.features[1], clean, atol=1e-3)
    assert not torch.allclose(task.features[1], task.features[2], atol=1e-3)
    assert price.passes == 3 * TRAIN
    assert price.validation_passes == VALIDATION
    plain, *_ = feature_task(augment=False)
    assert torch.equal(plain.features[0], plain.features[2])


def test_features_do_not_depend_on_how_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another batch size while computing features gives the same augmented views."""
    task, *_ = feature_task()
    other = tiny_config(features_stage(views=3), augmentation=JITTER)
    other = other.model_copy(update={"evaluation": other.evaluation.model_copy(update={"batch_size": 7})})
    monkeypatch.setattr(sys.modules[__name__], "tiny_config", lambda *a, **k: other)
    again, *_ = feature_task()
    assert torch.allclose(task.features, again.features, atol=1e-4)


def test_the_price_by_hand(tmp_path: Path) -> None:
    """Two views of 48 cost 96, validated for 16; 6 steps of 8 at half the size 48 x 3 / 4, for 4; at full size all."""
    small, full = image_stage(name="small", epochs=1, size=16), image_stage(epochs=1)
    fitted = tiny_fit(tiny_config(features_stage(epochs=5), small, full), tmp_path)
    passes = 2 * TRAIN + VALIDATION + 6 * 8 * 3 / 4 + VALIDATION / 4 + 6 * 8 * 3 + VALIDATION
    assert fitted.price_epochs == pytest.approx(passes / (3 * TRAIN))


def test_a_full_epoch_costs_one(tmp_path: Path) -> None:
    """One epoch of fine-tuning at the prepared size costs 1, and its validation a third of its share of images."""
    fitted = tiny_fit(tiny_config(image_stage(epochs=1)), tmp_path)
    assert fitted.price_epochs == pytest.approx(1 + VALIDATION / (3 * TRAIN))


def scores_in_turn(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, Tensor]]:
    """Make validations score ``scores`` in turn; returns the weights each of them was given."""
    seen: list[dict[str, Tensor]] = []
    original = ImageTask.validation_logits

    def watched(self: ImageTask, network: nn.Module) -> Tensor:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return original(self, network)

    def scored(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
        return {"loss": 1.0, "accuracy": 0.5, "balanced_accuracy": scores[len(seen) - 1]}

    monkeypatch.setattr(ImageTask, "validation_logits", watched)
    monkeypatch.setattr(stage_module, "validation_scores", scored)
    return seen


def test_early_stopping_stops_and_the_best_weights_are_returned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Best at the second of ten validations, patience 2: the stage ends after the fourth with the second's weights."""
    seen = scores_in_turn(monkeypatch, [0.5, 0.9, 0.4, 0.9, 0.99])
    fitted = tiny_fit(tiny_config(image_stage(epochs=2, validate_every=0.2, early_stopping=2)), tmp_path)
    assert len(seen) == 4
    found = fitted.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in seen[1].items())
    assert not all(torch.equal(found[name], value) for name, value in seen[3].items())
    assert fitted.best["balanced_accuracy"] == 0.9


def test_averaged_weights_are_validated_and_returned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With ema the network that is validated, and returned, is the average and not the last step's."""
    seen = scores_in_turn(monkeypatch, [0.5] * 9)
    averaged = tiny_fit(tiny_config(image_stage(epochs=1, ema=0.9)), tmp_path / "ema").model.state_dict()
    tiny_fit(tiny_config(image_stage(epochs=1)), tmp_path / "plain")
    assert all(torch.equal(averaged[name], value) for name, value in seen[0].items())
    assert not all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_a_plateau_halves_the_recorded_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With patience 0 each validation without a gain halves the rate of the steps after it."""
    scores_in_turn(monkeypatch, [0.5, 0.5, 0.6, 0.6])
    schedule = ScheduleConfig(name="plateau", patience=0)
    stage = image_stage(epochs=4 / 6, validate_every=1 / 6, schedule=schedule, optimizer=OptimizerConfig(lr=1e-3))
    fitted = tiny_fit(tiny_config(stage), tmp_path)
    assert [record["lr"] for record in fitted.history if record["kind"] == "epoch"] == [1e-3, 1e-3, 5e-4, 5e-4]


def test_accumulation_gives_the_whole_batchs_step(tmp_path: Path) -> None:
    """A batch in four pieces moves the weights as the whole batch does, class weights and clipping included."""
    settings = {"epochs": 0.5, "freeze_batchnorm": True, "class_weights": "balanced", "clip_norm": 0.5}
    settings["optimizer"] = OptimizerConfig(name="sgd", lr=0.05)
    one = tiny_fit(tiny_config(image_stage(**settings)), tmp_path / "one").model.state_dict()
    four = tiny_fit(tiny_config(image_stage(**settings, accumulate=4)), tmp_path / "four").model.state_dict()
    assert all(torch.allclose(one[name].float(), four[name].float(), atol=1e-5) for name in one)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With SGD, rate 1 and norm 1e-3 clipped, one step moves all weights together by no more than that."""
    optimizer = OptimizerConfig(name="sgd", lr=1, momentum=0, weight_decay=0)
    schedule = ScheduleConfig(name="constant", warmup=0)
    stage = image_stage(epochs=1 / 6, clip_norm=1e-3, optimizer=optimizer, schedule=schedule)
    config = tiny_config(stage)
    before, after = start_model(config), tiny_fit(config, tmp_path).model
    change = sum(
        float((a.detach() - b.detach()).square().sum())
        for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )
    assert 0.5e-3 < change**0.5 < 1.01e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"cutmix": 1.0, "mixup": 0.2},
        {"oversample": True, "class_weights": "effective"},
        {"accumulate": 2, "clip_norm": 1.0},
    ],
)
def test_other_settings_train_to_finite_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Mixing, oversampling and another size run through both kinds of stage where they apply."""
    for_features = {name: value for name, value in settings.items() if name != "cutmix"}
    stages = features_stage(epochs=1, **for_features), image_stage(epochs=0.5, **settings)
    fitted = tiny_fit(tiny_config(*stages), tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in fitted.model.state_dict().values())


def test_a_poisoned_weight_ends_the_run_with_stage_and_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A loss that is no number is a NonFiniteLossError naming the stage and the range of steps."""

    def poisoned(*arguments: Any) -> Any:
        model = start_model(tiny_config(image_stage()))
        with torch.no_grad():
            model.head[-1].weight[0, 0] = torch.nan
        return model

    monkeypatch.setattr(loop, "create_classifier", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"stage 'finetune', between steps 1 and 6 "):
        tiny_fit(tiny_config(image_stage(epochs=2)), tmp_path)


def test_weights_that_break_in_the_last_step_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Finite training losses followed by weights that are no numbers are found by the validation."""
    original = StageRun._step

    def breaking(self: StageRun, *arguments: Any) -> Tensor:
        loss = original(self, *arguments)
        with torch.no_grad():
            self.model.head[-1].bias[0] = torch.nan
        return loss

    monkeypatch.setattr(StageRun, "_step", breaking)
    with pytest.raises(NonFiniteLossError, match=r"validation loss .* stage 'finetune'"):
        tiny_fit(tiny_config(image_stage(epochs=1 / 6)), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (image_stage(batch_size=8, accumulate=3), "multiple of processes x accumulate = 3, found 8"),
        (image_stage(trainable="from:nowhere"), "no block 'nowhere'"),
        (features_stage(name="second", trainable="all"), "only the head can learn"),
        (features_stage(name="second", cutmix=1.0), "use mixup"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: Any, words: str
) -> None:
    """A mistake in the second stage is a ConfigError before the first one starts."""
    monkeypatch.setattr(StageRun, "run", lambda *a, **k: pytest.fail("work was done"))
    with pytest.raises(ConfigError, match=words):
        tiny_fit(tiny_config(features_stage(), stage), tmp_path)


def test_a_batch_must_divide_over_processes(tmp_path: Path) -> None:
    """Three processes cannot share a batch of 8."""
    config = tiny_config(image_stage())
    with pytest.raises(ConfigError, match="processes x accumulate = 3"):
        loop.fit(tiny_cells(), tiny_splits(tiny_cells()), config, tmp_path, Runtime("cpu", "fp32", world_size=3))
