"""Pictures for a stress test's report: one cell at rising severity for each corruption, and cells under stacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.cells import CellDataset
from hemascope.corruptions import LAYERS, STACKS, corrupt, stack
from hemascope.evaluation.stress_measures import Plan
from hemascope.stress_results import Example
from hemascope.workflow.cells import spread

EXAMPLES = 16
"""Pictures under stacks, half of them of each."""


def save_examples(
    folder: Path,
    plan: Plan,
    cells: CellDataset,
    rows: NDArray[np.intp],
    ids: list[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    class_names: tuple[str, ...],
    laid: dict[str, list[tuple[str, ...]]],
    seed: int,
) -> list[Example]:
    """A strip for each corruption, and single pictures under stacks, of cells spread over the classes."""
    index = {condition: number for number, condition in enumerate(plan.conditions)}
    places = spread(labels, seed)
    examples = []
    (folder / "examples").mkdir()

    def add(name: str, pixels: NDArray[np.uint8], caption: str, place: int, numbers: Sequence[int]) -> None:
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "examples" / f"{name}.png")
        said = [class_names[predicted[number, place]] for number in numbers]
        examples.append(
            Example(
                picture=f"{name}.png", caption=caption, true_label=class_names[labels[place]], predicted_labels=said
            )
        )

    for number, one in enumerate(plan.corruptions):
        place = int(places[number % len(places)])
        image = np.asarray(cells.images[rows[place]])
        strip = [image]
        strip += [corrupt(image[None], one.name, s, seed=seed, ids=[ids[place]])[0] for s in plan.severities]
        numbers = [0, *(index[one.name, severity] for severity in plan.severities)]
        add(f"corruption-{one.name}", np.concatenate(strip, axis=1), one.title, place, numbers)
    for name in STACKS:
        for number, place in enumerate(places[: EXAMPLES // 2].tolist()):
            image = np.asarray(cells.images[rows[place]])[None]
            changed, _ = stack(image, name, seed=seed, ids=[ids[place]])
            titles = ", ".join(LAYERS[layer].title for layer in laid[name][place])
            add(f"{name}-{number}", changed[0], titles, place, [index[name, 0]])
    return examples
