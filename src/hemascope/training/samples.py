"""A few training cells as pictures: as prepared, and as training sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hemascope.atomic import atomic_folder
from hemascope.augmentation import Augmentation
from hemascope.cells import CellDataset
from hemascope.config import RunConfig
from hemascope.data.splits import Splits

SAMPLES_PER_CLASS = 4


def save_samples(folder: Path, cells: CellDataset, splits: Splits, config: RunConfig) -> None:
    """Write ``<class number>_<i>.png`` and ``augmented_<class number>_<i>.png``, chosen by the run's seed."""
    augmentation = Augmentation(config.augmentation, config.seed)
    generator = np.random.default_rng(config.seed)
    train = np.flatnonzero(splits.assignment == "train")
    with atomic_folder(folder) as temporary:
        for number in range(len(cells.class_names)):
            rows = train[cells.labels[train] == number]
            chosen = generator.permutation(rows)[:SAMPLES_PER_CLASS]
            if not len(chosen):
                continue
            images = np.stack([cells.images[row] for row in chosen])
            first = number * SAMPLES_PER_CLASS
            augmented = augmentation(images, range(first, first + len(images)))
            for place, (plain, changed) in enumerate(zip(images, augmented, strict=True)):
                Image.fromarray(plain).save(temporary / f"{number}_{place}.png")
                Image.fromarray(changed).save(temporary / f"augmented_{number}_{place}.png")
