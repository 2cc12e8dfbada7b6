"""Several networks, or several views of an image, as one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hemascope.errors import UsageError
from hemascope.models.bundle import ModelBundle


@dataclass
class Member:
    """One network of an ensemble.

    views  of the image, the image itself among them; their logits are averaged
    order  int64 (K,): this network's column of each class of the first one's list, or None where they are alike
    """

    network: nn.Module
    temperature: float
    views: tuple[Callable[[Tensor], Tensor], ...]
    order: Tensor | None = None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, S, S) to logits and probabilities, float32 (B, K)."""
        logits: Tensor = torch.stack([self.network(view(images)).float() for view in self.views]).mean(dim=0)
        if self.order is not None:
            logits = logits[:, self.order.to(logits.device)]
        return logits, (logits / self.temperature).softmax(dim=1)


def combined(outputs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits and probabilities of the whole: one member's own; of several the mean of the probabilities.

    Probabilities are averaged over networks (Lakshminarayanan, Pritzel, Blundell 2017); the logits given are then the
    logarithms of that mean, so that their softmax is what was averaged.
    """
    if len(outputs) == 1:
        return outputs[0]
    probs = torch.stack([probs for _, probs in outputs]).mean(dim=0)
    return probs.clamp_min(1e-12).log(), probs


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
