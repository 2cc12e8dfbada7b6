"""Optimisers with the right parameters in the right groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hemascope.config import OptimizerConfig
from hemascope.torchvision_compat import import_torchvision

if TYPE_CHECKING:
    from hemascope.models.classifier import Classifier


def parameter_groups(model: Classifier, config: OptimizerConfig) -> list[dict[str, object]]:
    """Groups with their own ``lr_factor`` and ``weight_decay``.

    The head has factor 1, the backbone's last block ``backbone_lr_factor`` times ``layer_decay``, and each block
    before it ``layer_decay`` times the one behind it (Howard and Ruder 2018, Clark et al. 2020). Biases, norms
    and other vectors are not decayed.
    """
    from hemascope.models.backbones import blocks

    parts = blocks(model.backbone)
    scaled: list[tuple[list[nn.Parameter], float]] = [(list(model.head.parameters()), 1.0)]
    factor = config.backbone_lr_factor
    for part in reversed(parts):
        factor *= config.layer_decay
        scaled.append((list(part.parameters()), factor))
    by_key: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameters, lr_factor in scaled:
        for parameter in parameters:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            by_key.setdefault((lr_factor, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_factor": lr_factor, "weight_decay": decay, "lr": config.lr * lr_factor}
        for (lr_factor, decay), parameters in by_key.items()
    ]


def create_optimizer(groups: list[dict[str, object]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW, SGD with Nesterov momentum (both Loshchilov and Hutter 2019) or Lion (Chen et al. 2023).

    All three decay the weights directly and not through the gradient; so SGD is timm's SGDW, not torch's.
    """
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
    import_torchvision()
    from timm.optim.lion import Lion
    from timm.optim.sgdw import SGDW

    optimizer: torch.optim.Optimizer
    if config.name == "sgd":
        optimizer = SGDW(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    else:
        optimizer = Lion(groups, lr=config.lr, betas=(config.momentum, 0.99))
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate of the last layer."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
