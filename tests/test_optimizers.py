"""Optimisers, their parameter groups, and which parameters a freezing plan lets move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from training_setup import image_stage, start_model, tiny_config, tiny_fit

from hemascope.config import OptimizerConfig
from hemascope.errors import ConfigError
from hemascope.models.backbones import blocks
from hemascope.models.classifier import Classifier
from hemascope.training.checkpoints import optimizer_tensors, restore_optimizer
from hemascope.training.freezing import apply_plan, trainable_blocks
from hemascope.training.optimizers import create_optimizer, parameter_groups, set_learning_rate

NAMES = ["stem", "one", "two", "three"]


@pytest.mark.parametrize(
    ("plan", "epoch", "expected"),
    [
        ("all", 0, NAMES),
        ("head", 5, []),
        ("last:1", 0, ["three"]),
        ("last:4", 0, NAMES),
        ("from:two", 0, ["two", "three"]),
        ("gradual:1", 0.99, []),
        ("gradual:1", 1.0, ["three"]),
        ("gradual:2", 1.5, ["two", "three"]),
        ("gradual:2", 9, NAMES),
    ],
)
def test_plans_name_the_blocks_that_learn(plan: str, epoch: float, expected: list[str]) -> None:
    """Each plan lets exactly the blocks it says learn."""
    assert trainable_blocks(plan, NAMES, epoch) == set(expected)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("from:too", "did you mean 'two'"),
        ("last:5", "has 4"),
        ("last:0", "found 'last:0'"),
        ("last:", "found 'last:'"),
        ("some", "found 'some'"),
        ("all:2", "found 'all:2'"),
        ("from:", "found 'from:'"),
        ("gradual:x", "gradual:N"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(plan: str, words: str) -> None:
    """A wrong plan is a ConfigError that says what was found or which block was meant."""
    with pytest.raises(ConfigError, match=words):
        trainable_blocks(plan, NAMES, 0)


@pytest.fixture
def model() -> Classifier:
    return start_model(tiny_config(image_stage()))


def test_every_parameter_is_in_one_group_and_vectors_are_not_decayed(model: Classifier) -> None:
    """The groups hold each parameter once; weights of one dimension have no decay, the others the one asked for."""
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.1))
    held = [parameter for group in groups for parameter in group["params"]]  # type: ignore[attr-defined]
    assert len(held) == len({id(parameter) for parameter in held}) == len(list(model.parameters()))
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)


def test_layer_decay_slows_each_block_more_than_the_one_behind_it(model: Classifier) -> None:
    """With a decay of 0.5 and a factor of 0.2 the head has 1, the last block 0.1, the one before it 0.05."""
    groups = parameter_groups(model, OptimizerConfig(layer_decay=0.5, backbone_lr_factor=0.2))
    by_parameter = {id(p): group["lr_factor"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    assert {by_parameter[id(p)] for p in model.head.parameters()} == {1.0}
    parts = blocks(model.backbone)
    assert len(parts) > 3
    for place, part in enumerate(reversed(parts)):
        assert {by_parameter[id(p)] for p in part.parameters()} == {0.2 * 0.5 ** (place + 1)}


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_groups_get_their_share_of_the_rate(model: Classifier, name: str) -> None:
    """set_learning_rate gives the head the rate itself and the backbone its factor of it."""
    config = OptimizerConfig(name=name, backbone_lr_factor=0.25)  # type: ignore[arg-type]
    optimizer = create_optimizer(parameter_groups(model, config), config)
    set_learning_rate(optimizer, 0.08)
    assert {group["lr"] for group in optimizer.param_groups} == {0.08, 0.02}


def one_weight(name: str, **settings: float) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.full((1, 1), 2.0))
    config = OptimizerConfig(name=name, **settings)  # type: ignore[arg-type]
    group = {"params": [weight], "lr_factor": 1.0, "weight_decay": config.weight_decay, "lr": config.lr}
    return weight, create_optimizer([group], config)


@pytest.mark.parametrize(
    ("name", "expected"),
    # decay: 2 x (1 - 0.1 x 0.5) = 1.9; then AdamW and Lion step by the rate, Nesterov by 0.1 x 4 x (1 + 0.9)
    [("adamw", 1.9 - 0.1), ("lion", 1.9 - 0.1), ("sgd", 1.9 - 0.1 * 4 * 1.9)],
)
def test_the_first_step_by_hand(name: str, expected: float) -> None:
    """One step from 2 with gradient 4, rate 0.1 and a decoupled decay of 0.5 lands where the papers say."""
    weight, optimizer = one_weight(name, lr=0.1, weight_decay=0.5)
    weight.grad = torch.full((1, 1), 4.0)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_the_decay_does_not_pass_through_the_gradient(name: str) -> None:
    """With a gradient of 0 every optimiser shrinks the weight by rate times decay and nothing else."""
    weight, optimizer = one_weight(name, lr=0.1, weight_decay=0.5)
    for _ in range(3):
        weight.grad = torch.zeros(1, 1)
        optimizer.step()
    assert float(weight.detach()) == pytest.approx(2 * 0.95**3, rel=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_an_optimiser_goes_on_from_its_tensors(name: str) -> None:
    """Saved after two steps and restored into a new one, an optimiser takes the same third step, bit for bit."""

    def steps(layer: nn.Conv2d, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for number in range(first, last):
            torch.manual_seed(number)
            layer(torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    def create() -> tuple[nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        config = OptimizerConfig(name=name, lr=0.01)  # type: ignore[arg-type]
        group = {"params": list(layer.parameters()), "lr_factor": 1.0, "weight_decay": 0.1}
        return layer, create_optimizer([group], config)

    unbroken, optimizer = create()
    steps(unbroken, optimizer, 0, 2)
    kept = {key: value.contiguous().clone() for key, value in optimizer_tensors(optimizer).items()}
    weights = {key: value.clone() for key, value in unbroken.state_dict().items()}
    steps(unbroken, optimizer, 2, 3)

    resumed, optimizer = create()
    resumed.load_state_dict(weights)
    restore_optimizer(optimizer, kept)
    order = [value.stride() for value in optimizer.state[resumed.weight].values() if value.ndim == 4]
    assert order == [resumed.weight.stride()] * len(order)
    assert order
    steps(resumed, optimizer, 2, 3)
    assert torch.equal(unbroken.weight, resumed.weight)
    assert torch.equal(unbroken.bias, resumed.bias)


def moved(folder: Path, *, backbone: str = "test_efficientnet", **stage: object) -> tuple[set[str], set[str]]:
    """The blocks whose parameters moved in a short stage, and those whose batch-norm statistics did."""
    config = tiny_config(image_stage(epochs=0.5, **stage), backbone=backbone)
    before, after = start_model(config), tiny_fit(config, folder).model
    assert not torch.equal(before.head[-1].weight, after.head[-1].weight)
    weights, statistics = set(), set()
    for old, new in zip(blocks(before.backbone), blocks(after.backbone), strict=True):
        if any(not torch.equal(one, two) for one, two in zip(old.parameters(), new.parameters(), strict=True)):
            weights.add(old.name)
        for one, two in zip(old.modules, new.modules, strict=True):
            if any(not torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True)):
                statistics.add(old.name)
    return weights, statistics


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("plan", ["all", "head", "last:2", "from"])
def test_the_right_parameters_move(tmp_path: Path, backbone: str, plan: str) -> None:
    """Blocks that learn move, with their statistics; all others stay bit-identical, batch-norm statistics included."""
    names = [part.name for part in blocks(start_model(tiny_config(image_stage(), backbone=backbone)).backbone)]
    plan = f"from:{names[1]}" if plan == "from" else plan
    weights, statistics = moved(tmp_path, backbone=backbone, trainable=plan, optimizer=OptimizerConfig(name="lion"))
    assert weights == trainable_blocks(plan, names, 0)
    assert statistics <= weights
    assert bool(statistics) == bool(weights)


def test_frozen_batch_norms_keep_their_statistics(tmp_path: Path) -> None:
    """freeze_batchnorm lets all weights learn and no running statistic move."""
    weights, statistics = moved(tmp_path, freeze_batchnorm=True)
    assert weights
    assert not statistics


def test_gradual_thaws_from_the_end(model: Classifier) -> None:
    """gradual:1 starts with the head and adds one block an epoch; frozen blocks are in evaluation mode."""
    names = [part.name for part in blocks(model.backbone)]
    for epoch in range(len(names) + 2):
        learning = apply_plan(model, "gradual:1", epoch, freeze_batchnorm=False)
        assert learning == tuple(names[max(len(names) - epoch, 0) :])
        for part in blocks(model.backbone):
            assert all(p.requires_grad == (part.name in learning) for p in part.parameters())
            assert all(module.training == (part.name in learning) for module in part.modules)


def test_a_gradual_stage_leaves_the_first_blocks_alone(tmp_path: Path) -> None:
    """Two epochs of gradual:1 move the last block alone, and it does not move in the first epoch."""
    config = tiny_config(image_stage(epochs=2, trainable="gradual:1"))
    before, after = start_model(config), tiny_fit(config, tmp_path / "two").model
    parts = list(zip(blocks(before.backbone), blocks(after.backbone), strict=True))
    unmoved = [
        all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True)) for old, new in parts
    ]
    assert all(unmoved[:-1])
    assert moved(tmp_path / "half", trainable="gradual:1")[0] == set()
