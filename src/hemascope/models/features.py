"""What the stages of a frozen backbone see, pooled over space."""

from __future__ import annotations

import torch
from torch import nn

from hemascope.models.classifier import Classifier
from hemascope.models.inference import inference_copy


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
        parts = []
        for stage in maps:
            # One position has no deviation; the unbiased estimate would be NaN there.
            parts.append(torch.cat([stage.mean((2, 3)), stage.std((2, 3), correction=0)], dim=1).float())
        pooled = net.forward_head(final, pre_logits=True)  # type: ignore[operator]
        return [*parts, pooled.float()]
