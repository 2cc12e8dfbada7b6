"""What a classifier and its stages see on the way to their answer, pooled over space."""

from __future__ import annotations

import torch
from torch import nn

from hemascope.models.classifier import Classifier
from hemascope.models.inference import inference_copy

EARLY_STAGES = 3
"""Stages whose pooled maps show stain, sharpness and overlays, which later ones learn to look past."""


class WithFeatures(nn.Module):
    """A classifier that gives, from one pass, its logits and what it has them from.

    classifier  an inference copy
    size        side of the images, which tells whether the stages can be had

    ``staged`` says whether the network shows its stages; without them there are none of their features (E = 0).
    ``early`` counts the columns of the first EARLY_STAGES stages among them.
    """

    def __init__(self, classifier: Classifier, size: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.train(classifier.training)
        self.early = 0
        self.staged = callable(getattr(classifier.backbone.net, "forward_intermediates", None))
        if self.staged:
            with torch.inference_mode():
                probe = torch.arange(3 * size * size, device=classifier.mean.device).remainder(251).to(torch.uint8)
                self.staged = self._shows_stages(probe.reshape(1, 3, size, size))

    def _shows_stages(self, probe: torch.Tensor) -> bool:
        """Whether the way over the stages gives the features of the plain one."""
        expected = self.classifier.features(probe)
        try:
            maps, pooled = self._passed(probe)
            self.early = sum(_pooled(stage).shape[1] for stage in maps[:EARLY_STAGES])
        except (RuntimeError, AssertionError, TypeError, AttributeError, ValueError):
            return False  # a family that offers stages but not for its pooled, classifier-less form
        return pooled.shape == expected.shape and torch.allclose(pooled, expected, rtol=1e-3, atol=1e-4, equal_nan=True)

    def _passed(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        classifier = self.classifier
        net = classifier.backbone.net
        x = (images.to(classifier.mean.dtype) - classifier.mean) / classifier.std
        final, maps = net.forward_intermediates(x)  # type: ignore[operator]
        return maps, net.forward_head(final, pre_logits=True)  # type: ignore[operator]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """uint8 (N, 3, S, S) to logits (N, K), features (N, D) and features of the stages (N, E).

        Of each stage the means of its maps over the picture, then their deviations; the first stage first.
        """
        if not self.staged:
            features = self.classifier.features(images)
            return self.classifier.head(features), features, features.new_zeros((len(features), 0))
        maps, features = self._passed(images)
        stages = torch.cat([_pooled(stage) for stage in maps], dim=1)
        return self.classifier.head(features), features, stages


def _pooled(stage: torch.Tensor) -> torch.Tensor:
    """Maps (N, C, H, W) to means, then deviations, over space: (N, 2 C), float32."""
    # One position has no deviation; the unbiased estimate would be NaN there.
    return torch.cat([stage.mean((2, 3)), stage.std((2, 3), correction=0)], dim=1).float()


class StageFeatures(nn.Module):
    """Images (N, 3, S, S), uint8, to features (N, D), float32: mean and deviation over space of each stage's maps.

    widths  of the parts of D: one a stage (means, then deviations), then the pooled features a head is given

    The stages are timm's own (``forward_intermediates``); a network without them gives its pooled features alone.
    Early stages see colour, grain and edges, which tell blurred and overlaid images; late ones see cells.
    """

    def __init__(self, classifier: Classifier, size: int) -> None:
        super().__init__()
        self.classifier = inference_copy(classifier, size)
        self.size = size
        net = self.classifier.backbone.net
        self._staged = callable(getattr(net, "forward_intermediates", None))
        with torch.inference_mode():
            probe = torch.zeros((1, 3, size, size), dtype=torch.uint8, device=self.classifier.mean.device)
            try:
                parts = self._parts(probe)
            except (RuntimeError, AssertionError, TypeError, AttributeError):
                self._staged = False  # a family that offers stages but not for its pooled, classifier-less form
                parts = self._parts(probe)
        self.widths = [part.shape[1] for part in parts]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) to (N, D)."""
        return torch.cat(self._parts(images), dim=1)

    def _parts(self, images: torch.Tensor) -> list[torch.Tensor]:
        classifier = self.classifier
        if not self._staged:
            return [classifier.features(images).float()]
        net = classifier.backbone.net
        x = (images.to(classifier.mean.dtype) - classifier.mean) / classifier.std
        final, maps = net.forward_intermediates(x)  # type: ignore[operator]
        pooled = net.forward_head(final, pre_logits=True)  # type: ignore[operator]
        return [*(_pooled(stage) for stage in maps), pooled.float()]
