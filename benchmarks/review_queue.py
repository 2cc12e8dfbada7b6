"""What to sort a review queue by: doubts compared on the validation part, the chosen one stated on the test part.

    python benchmarks/review_queue.py RUN CELLS [--json FILE]

RUN is a run's or bundle's folder or a shipped model's name, CELLS what it was split from. Each candidate is a number
of a cell's calibrated probabilities and of how its views (see ``hemascope predict --tta``) differ. The smallest area
under the risk-coverage curve (AURC) of the clean validation cells decides. They hold few errors, so candidates within
5 % of the smallest count as equal, and of those the one with the smallest area on the same cells under one or two
strong layers of damage is taken. The test part is looked at afterwards, once. Intervals are 95 %, over the cells.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from figures import add_json_option, publish
from numpy.typing import NDArray

from hemascope.cells import CellDataset
from hemascope.corruptions import stack
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.predict import Predictor, load_model
from hemascope.uncertainty.selective import doubt_of, measure_selective

Array = NDArray[np.float64]
BATCH = 128
CHOSEN = "margin"
"""What ``doubt_of`` computes."""

EQUAL = 1.05
DAMAGE, SEED = "stacked_1_2", 20_262


def view_logits(predictor: Predictor, cells: CellDataset, damage: str | None = None) -> Array:
    """Logits of every view and cell, (V, N, K), the image as it is first."""
    (member,) = predictor._members
    parts: list[Array] = []
    with torch.inference_mode():
        for start in range(0, len(cells), BATCH):
            pixels = np.array(cells.images[start : start + BATCH])
            if damage is not None:
                pixels = stack(pixels, damage, seed=SEED, ids=list(cells.ids[start : start + BATCH]))[0]
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            said = [member.network(view(images)) for view in member.views]
            logits = [one[0] if isinstance(one, tuple) else one for one in said]
            parts.append(torch.stack(logits).double().numpy())
    return np.concatenate(parts, axis=1)


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def entropy(probs: Array) -> Array:
    """Over the last axis, in units of the largest possible."""
    return np.asarray(-(probs * np.log(np.maximum(probs, 1e-30))).sum(axis=-1) / np.log(probs.shape[-1]))


class Seen:
    """What is known of N cells: probabilities of the mean logits, and of each view."""

    def __init__(self, logits: Array, temperature: float) -> None:
        self.views = softmax(logits / temperature)
        mean = logits.mean(axis=0)
        self.probs = softmax(mean / temperature)
        self.logits = mean
        self.predicted = mean.argmax(axis=1)
        self.agreement = (logits.argmax(axis=2) == self.predicted).mean(axis=0)
        rows = np.arange(len(mean))
        others = self.probs.copy()
        others[rows, self.predicted] = 0
        self.risk = others.sum(axis=1)
        self.margin = 1 - (self.probs[rows, self.predicted] - others.max(axis=1))
        self.entropy = entropy(self.probs)
        self.mean_view_risk = 1 - self.views[:, rows, self.predicted].mean(axis=0)
        self.worst_view_risk = 1 - self.views[:, rows, self.predicted].min(axis=0)


CANDIDATES: Mapping[str, Callable[[Seen], Array]] = {
    "risk": lambda seen: seen.risk,
    "margin": lambda seen: seen.margin,
    "entropy": lambda seen: seen.entropy,
    "minus largest logit": lambda seen: -seen.logits.max(axis=1),
    "disagreement": lambda seen: 1 - seen.agreement,
    "risk + half disagreement": lambda seen: seen.risk + 0.5 * (1 - seen.agreement),
    "risk + disagreement": lambda seen: seen.risk + 1 - seen.agreement,
    "risk + twice disagreement": lambda seen: seen.risk + 2 * (1 - seen.agreement),
    "margin + half disagreement": lambda seen: seen.margin + 0.5 * (1 - seen.agreement),
    "margin + disagreement": lambda seen: seen.margin + 1 - seen.agreement,
    "entropy + disagreement": lambda seen: seen.entropy + 1 - seen.agreement,
    "mean risk of the views": lambda seen: seen.mean_view_risk,
    "worst risk of the views": lambda seen: seen.worst_view_risk,
    "entropy of the views' mean": lambda seen: entropy(seen.views.mean(axis=0)),
    "mutual information of the views": lambda seen: entropy(seen.views.mean(axis=0)) - entropy(seen.views).mean(axis=0),
}
"""The last four need every view's probabilities, which a prediction does not keep: they are never chosen."""

AVAILABLE = list(CANDIDATES)[:-4]


def main() -> None:
    """Compare, choose, state."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run or bundle folder, or a shipped model's name")
    parser.add_argument("cells", type=Path, help="what it was split from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file (npz) to keep the views' logits in, and to read them from")
    add_json_option(parser, "review_queue")
    given = parser.parse_args()

    predictor = load_model(given.run, threads=given.threads, device="cpu", precision="fp32")
    cells = load(given.cells, preparation=predictor.bundle.preparation)
    splits = load_splits(predictor.folder / "splits.json", cells)
    temperature = float((predictor.bundle.calibration or {}).get("temperature", 1.0))
    logits = {} if given.keep is None or not given.keep.is_file() else dict(np.load(given.keep, allow_pickle=False))
    parts, labels = {}, {}
    for part, damage in (("validation", None), ("damaged", DAMAGE), ("test", None)):
        rows = np.flatnonzero(splits.assignment == (part if damage is None else "validation"))
        labels[part] = cells.labels[rows]
        if part not in logits:
            logits[part] = view_logits(predictor, cells.subset(rows), damage)
        parts[part] = Seen(logits[part], temperature)
    if given.keep is not None:
        np.savez(given.keep, **logits)

    figures, table, areas = [], [], {}
    for name, doubt in CANDIDATES.items():
        found = {}
        for part in ("validation", "damaged"):
            seen = parts[part]
            found[part] = measure_selective(
                doubt(seen), seen.predicted != labels[part], condition=part, title=part, shares=(0.02,), resamples=200
            )
        clean, damaged = found["validation"], found["damaged"]
        areas[name] = (clean.aurc.value or 0.0, damaged.aurc.value or 0.0)
        figures.append({"doubt": name, **{part: one.model_dump(exclude={"curve"}) for part, one in found.items()}})
        table.append(
            [name, 1e4 * areas[name][0], clean.rows[0].caught.value, 1e4 * areas[name][1], damaged.rows[0].caught.value]
        )
    smallest = min(areas[name][0] for name in AVAILABLE)
    best = min((name for name in AVAILABLE if areas[name][0] <= EQUAL * smallest), key=lambda name: areas[name][1])
    seen = parts["test"]
    chosen = doubt_of(seen.probs)
    assert np.allclose(chosen, CANDIDATES[CHOSEN](seen), atol=1e-6), "CHOSEN is not what doubt_of computes"
    test = measure_selective(chosen, seen.predicted != labels["test"], condition="clean", title="test part")
    header = ["doubt", "validation AURC × 10⁴", "caught at 2 %", "damaged AURC × 10⁴", "caught at 2 %"]
    publish(
        given.json,
        {
            "run": predictor.name,
            "sha256": predictor.bundle.sha256,
            "temperature": temperature,
            "candidates": figures,
            "best_for_this_model": best,
            "chosen": CHOSEN,
            "test": test.model_dump(exclude={"curve"}),
        },
        header,
        table,
    )
    print(f"\nBest for this model: {best}. What doubt_of computes: {CHOSEN}.")
    print(f"Test part, {CHOSEN}: {test.n} cells, {test.errors} errors, AURC {test.aurc.value:.6f}")
    for row in test.rows:
        caught = row.caught
        print(
            f"  {row.share:.1%} reviewed ({row.reviewed}): {row.errors_caught} caught, "
            f"{caught.value} [{caught.low}, {caught.high}]"
        )


if __name__ == "__main__":
    main()
