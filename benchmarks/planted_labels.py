"""Wrong labels, planted: uniformly, or between the classes that even people confuse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONFUSABLE = {
    "basophil": ("eosinophil", "ig"),
    "eosinophil": ("basophil", "neutrophil"),
    "erythroblast": ("lymphocyte", "ig"),
    "ig": ("neutrophil", "monocyte", "basophil"),
    "lymphocyte": ("erythroblast", "monocyte"),
    "monocyte": ("ig", "lymphocyte"),
    "neutrophil": ("ig", "eosinophil"),
    "platelet": ("erythroblast",),
}
"""What a cell of each class is taken for: neighbours in maturation (ig is granulocytes before the band) or in look.

Chosen from haematology before any figure was seen. Of the labels as published, models that never saw them confuse
ig with monocyte, neutrophil and basophil most, and erythroblast with lymphocyte and ig.
"""


def flip_labels(
    labels: NDArray[np.int64], classes: tuple[str, ...] | int, share: float, seed: int, *, kind: str = "uniform"
) -> NDArray[np.int64]:
    """The labels with ``share`` of them changed to another class: int64 (N,).

    classes  the class names; their number is enough for ``uniform``
    kind     uniform: any other class; confusable: one of CONFUSABLE of the true class
    """
    rng = np.random.default_rng([seed, 71])
    flipped = labels.copy()
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    if kind == "uniform":
        count = classes if isinstance(classes, int) else len(classes)
        flipped[chosen] = (labels[chosen] + rng.integers(1, count, len(chosen))) % count
        return flipped
    if kind != "confusable" or isinstance(classes, int) or not set(classes) <= set(CONFUSABLE):
        raise ValueError(f"kind is uniform, or confusable with class names among {', '.join(CONFUSABLE)}")
    for row in chosen:
        options = CONFUSABLE[classes[labels[row]]]
        flipped[row] = classes.index(options[rng.integers(len(options))])
    return flipped
