"""Are the classes of about equal size? A question about the whole set, so no image is a finding."""

from __future__ import annotations

import time

import numpy as np

from hemascope.audit.material import Material
from hemascope.cells import UNLABELLED
from hemascope.data.inspection import FEW_IMAGES, IMBALANCE_WORTH_SAYING
from hemascope.findings import CheckResult


def check_imbalance(material: Material) -> CheckResult:
    """``class_imbalance``: largest class over smallest, and how many classes of equal size would be as uneven.

    A check of the whole set: no scores, no findings. ``summary`` holds ``verdict`` ("passed" or "found"), ``sentence``,
    ``counts`` by class, ``ratio``, ``effective_classes`` (exp of the entropy of the class shares, 1 to K: Hill 1973,
    Diversity and evenness, Ecology 54, 427-432), ``few`` (classes of fewer than 30 images), ``empty``, ``unlabelled``.
    """
    began = time.perf_counter()
    cells = material.cells
    counts = cells.class_counts()
    present = np.flatnonzero(counts)
    if len(present) < 2:
        said = "no image has a label" if not len(present) else "all labelled images are of one class"
        return CheckResult("class_imbalance", not_applicable=said)
    share = counts[present] / counts.sum()
    effective = float(np.exp(-(share * np.log(share)).sum()))
    largest, smallest = int(counts.argmax()), int(present[counts[present].argmin()])
    ratio = float(counts[largest] / counts[smallest])
    few = [cells.class_names[k] for k in present.tolist() if counts[k] < FEW_IMAGES]
    empty = [cells.class_names[k] for k in np.flatnonzero(counts == 0).tolist()]
    found = ratio >= IMBALANCE_WORTH_SAYING or bool(few) or bool(empty)
    sentence = (
        f"The largest class, {cells.class_names[largest]} ({counts[largest]:,} images), is {ratio:.1f} times the "
        f"smallest, {cells.class_names[smallest]} ({counts[smallest]:,}); {len(present):,} classes are as uneven as "
        f"{effective:.1f} classes of one size."
    )
    if few:
        sentence += f" Classes of fewer than {FEW_IMAGES} images: {len(few):,}."
    if empty:
        sentence += f" Classes without an image: {len(empty):,}."
    return CheckResult(
        "class_imbalance",
        cut_rule=(
            f"found where the largest class has at least {IMBALANCE_WORTH_SAYING:g} times the images of the smallest, "
            f"or a class has fewer than {FEW_IMAGES}"
        ),
        summary={
            "verdict": "found" if found else "passed",
            "sentence": sentence,
            "counts": dict(zip(cells.class_names, counts.tolist(), strict=True)),
            "ratio": round(ratio, 3),
            "effective_classes": round(effective, 3),
            "few": few,
            "empty": empty,
            "unlabelled": int(np.count_nonzero(cells.labels == UNLABELLED)),
        },
        seconds=time.perf_counter() - began,
    )
