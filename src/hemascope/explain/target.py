"""What is explained of a class: how far its logit is above the others'."""

from __future__ import annotations

import torch


def margin(logits: torch.Tensor, target: int) -> torch.Tensor:
    """The logit of a class less the mean of the others': (N,) of (N, K).

    A logit alone also rises with what every class likes, such as contrast; the maps of the margin find the cell better
    (docs/explain.md).
    """
    own = logits[:, target]
    rest = max(1, logits.shape[1] - 1)
    return own - (logits.sum(dim=1) - own) / rest


class MarginTarget:
    """``margin`` in the form grad-cam takes: a function of one image's logits (K,)."""

    def __init__(self, target: int) -> None:
        self.target = target

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """A number of logits (K,)."""
        return margin(output[None], self.target)[0]
