"""A backbone and a head as one network that takes pixels."""

from __future__ import annotations

import torch
from torch import nn

from hemascope.config import ModelConfig
from hemascope.models.backbones import Backbone, create_backbone
from hemascope.models.heads import create_head
from hemascope.models.weights import load_backbone


class Classifier(nn.Module):
    """Images (N, 3, S, S) with values 0 to 255, uint8 or float, to logits (N, K).

    The network normalises by itself, with the mean and deviation its backbone was trained with, so that no caller
    can forget to. Memory in channels-last order stays so. ``notes`` say what weights it started from.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, head: nn.Module, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.notes = notes
        self.register_buffer("mean", 255 * torch.tensor(backbone.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(backbone.std).reshape(1, 3, 1, 1))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, S, S) in 0 to 255 to pooled features (N, D)."""
        features: torch.Tensor = self.backbone((x.to(self.mean.dtype) - self.mean) / self.std)
        return features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, S, S) in 0 to 255 to logits (N, K)."""
        logits: torch.Tensor = self.head(self.features(x))
        return logits


def create_classifier(config: ModelConfig, classes: int, seed: int) -> Classifier:
    """A classifier for ``classes`` classes, its backbone with the weights ``config`` asks for.

    The head (and a backbone with random weights) depends on ``seed`` alone; the global random state is left as it
    was. Raises WeightsError where the weights cannot be had or do not fit, ConfigError for an unknown backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone, notes = load_backbone(config)
        torch.manual_seed(seed)
        head = create_head(config.head, backbone.num_features, classes)
    return Classifier(backbone, head, notes)


def empty_classifier(config: ModelConfig, classes: int) -> Classifier:
    """A classifier whose weights are to be loaded next; none are looked for, whatever ``config`` names."""
    with torch.random.fork_rng(devices=[]):
        backbone = create_backbone(config)
        return Classifier(backbone, create_head(config.head, backbone.num_features, classes))
