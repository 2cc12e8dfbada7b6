"""Several networks, or several views of an image, as one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hemascope.errors import UsageError
from hemascope.models.bundle import ModelBundle


class Outputs(NamedTuple):
    """What networks say about N images.

    logits, probs  float32 (N, K)
    features       float32 (N, D), mean over the views
    stages         float32 (N, E), of the image as it is; E = 0 where the network does not show its stages
    agreement      float32 (N,): share of the views that name the most probable class
    """

    logits: Tensor
    probs: Tensor
    features: Tensor
    stages: Tensor
    agreement: Tensor


@dataclass
class Member:
    """One network of an ensemble.

    network  gives logits, features and features of the stages, as ``features.WithFeatures`` does
    views    of the image, the image itself first; their logits are averaged
    order    int64 (K,): this network's column of each class of the first one's list, or None where they are alike
    """

    network: nn.Module
    temperature: float
    views: tuple[Callable[[Tensor], Tensor], ...]
    order: Tensor | None = None

    def outputs(self, images: Tensor) -> Outputs:
        """Of uint8 (B, 3, S, S)."""
        seen = [self.network(view(images)) for view in self.views]
        each = torch.stack([logits.float() for logits, _, _ in seen])
        if self.order is not None:
            each = each[:, :, self.order.to(each.device)]
        logits = each.mean(dim=0)
        agreement = (each.argmax(dim=2) == logits.argmax(dim=1)).float().mean(dim=0)
        features = torch.stack([features.float() for _, features, _ in seen]).mean(dim=0)
        return Outputs(logits, (logits / self.temperature).softmax(dim=1), features, seen[0][2].float(), agreement)


def combined(outputs: Sequence[Outputs]) -> Outputs:
    """The whole: one member's own; of several the mean of the probabilities, and the first one's features.

    Probabilities are averaged over networks (Lakshminarayanan, Pritzel, Blundell 2017); the logits given are then the
    logarithms of that mean, so that their softmax is what was averaged.
    """
    if len(outputs) == 1:
        return outputs[0]
    probs = torch.stack([one.probs for one in outputs]).mean(dim=0)
    agreement = torch.stack([one.agreement for one in outputs]).mean(dim=0)
    return Outputs(probs.clamp_min(1e-12).log(), probs, outputs[0].features, outputs[0].stages, agreement)


def check_members(bundles: Sequence[ModelBundle]) -> None:
    """Raise UsageError unless all know the same classes and want the same images."""
    first = bundles[0]
    for other in bundles[1:]:
        if set(other.class_names) != set(first.class_names):
            missing = sorted(set(first.class_names) ^ set(other.class_names))[0]
            raise UsageError(
                f"models of an ensemble must know the same classes; {missing!r} is known to only one of "
                f"{first.weights.parent} and {other.weights.parent}."
            )
        if other.preparation.describe() != first.preparation.describe():
            raise UsageError(
                f"models of an ensemble must take images prepared alike; {first.weights.parent} takes "
                f"{first.preparation.describe()}, {other.weights.parent} takes {other.preparation.describe()}."
            )


def class_order(own: Sequence[str], wanted: Sequence[str]) -> Tensor | None:
    """Where each of the ``wanted`` classes stands in ``own``, or None where the lists are the same."""
    if tuple(own) == tuple(wanted):
        return None
    return torch.tensor([list(own).index(name) for name in wanted])
