"""What a network costs: parameters, and floating-point operations of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class NetworkCosts:
    """Of a whole classifier, head included.

    parameters  numbers that can be learnt
    gflops      floating-point operations of one image, forward, in 10^9; a multiplication with its addition counts as 2
    """

    parameters: int
    gflops: float


def network_costs(model: nn.Module, size: int) -> NetworkCosts:
    """The costs of ``model`` on an image of ``size`` pixels a side; counted as torch counts, and the model left alone.

    Convolutions, matrix products and attention are counted; what is done element by element is not, as is usual. A
    model on the meta device is counted without computing anything.
    """
    from torch.utils.flop_counter import FlopCounterMode

    parameters = sum(parameter.numel() for parameter in model.parameters())
    device = next(model.parameters()).device
    training = {module: module.training for module in model.modules()}  # frozen blocks have a mode of their own
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device))
    finally:
        for module, mode in training.items():
            module.training = mode
    return NetworkCosts(parameters, counter.get_total_flops() / 1e9)
