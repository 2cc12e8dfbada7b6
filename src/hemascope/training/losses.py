"""Cross-entropy with class weights, smoothing and mixed labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

EFFECTIVE_NUMBER_BETA = 0.999
"""Beta of the effective number of samples: 0.999 is the middle of the values Cui et al. (2019) tried."""


def class_weights(kind: str, counts: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Weights (K,) with mean 1 over the training images, or None.

    balanced   N / (K n_k), scikit-learn's rule (King and Zeng 2001)
    effective  (1 - beta) / (1 - beta^n_k) (Cui et al. 2019)
    """
    if kind == "none":
        return None
    n = counts.astype(np.float64)
    weights = (
        1 / np.maximum(n, 1)
        if kind == "balanced"
        else (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA ** np.maximum(n, 1))
    )
    mean = float((weights * n).sum() / max(n.sum(), 1))
    return np.asarray(weights / mean, dtype=np.float32)


def classification_loss(logits: Tensor, targets: Tensor, *, weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Cross-entropy, the mean over B images. ``targets`` is int64 (B,), or float (B, K) where images were mixed.

    The weighted sum is divided by B, not by the sum of the weights as torch does: then a batch that is cut into
    pieces, or dealt to several processes, has the loss of the whole.
    """
    total = functional.cross_entropy(
        logits.float(), targets, weight=weights, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / len(logits)


def mixer(mixup: float, cutmix: float, classes: int) -> torch.nn.Module | None:
    """mixup (Zhang et al. 2018), CutMix (Yun et al. 2019), or one of the two drawn for each batch."""
    from hemascope.torchvision_compat import import_torchvision

    import_torchvision()
    from torchvision.transforms import v2

    chosen: list[torch.nn.Module] = []
    if mixup > 0:
        chosen.append(v2.MixUp(alpha=mixup, num_classes=classes))
    if cutmix > 0:
        chosen.append(v2.CutMix(alpha=cutmix, num_classes=classes))
    if not chosen:
        return None
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)


def mix_batch(mixer: torch.nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed inputs as float, of the same shape, and targets float (B, K).

    inputs  images (B, 3, S, S), or features (B, D), which mixup takes as well (Verma et al. 2019)
    """
    images = inputs if inputs.ndim == 4 else inputs[:, :, None, None]
    mixed, targets = mixer(images.float(), labels)
    return mixed if inputs.ndim == 4 else mixed.flatten(1), targets
