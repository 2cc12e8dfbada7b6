"""What a validation measures: just enough to choose the best epoch. The evaluation measures the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.nn import functional

from hemascope.metrics import accuracy, balanced_accuracy, confusion_matrix


def validation_scores(logits: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    """loss (cross-entropy), accuracy and balanced_accuracy of logits (n, K) against labels (n,)."""
    confusion = confusion_matrix(labels, logits.argmax(dim=1).numpy(), logits.shape[1])
    return {
        "loss": float(functional.cross_entropy(logits, from_numpy(labels))),
        "accuracy": float(accuracy(confusion)),
        "balanced_accuracy": float(balanced_accuracy(confusion)),
    }
