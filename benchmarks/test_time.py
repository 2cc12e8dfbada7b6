"""Test-time augmentation, ensembles and soups: what each gains on clean and on stacked cells, and what it costs.

    python benchmarks/test_time.py RUN DATA [--others RUN RUN ...] [--cells 1000] [--soup-work FOLDER]

RUN's own test part of DATA. Each variant is compared with the plain model on the same cells and the same corrupted
pixels: difference of balanced accuracy with a paired bootstrap interval. Cost is passes through the network, and
seconds relative to plain, measured in turn in this run. The others must be of one network, split and preparation; the
soup of all of them is uniform, and greedy by the validation part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_json_option, publish

from hemascope.corruptions import STACKS, stack
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.errors import UsageError
from hemascope.evaluation.robustness import Resampled, resample
from hemascope.predict import Predictor, load_model
from hemascope.workflow.model_making import make_soup

VIEWS = (
    ("flips",),
    ("dihedral",),
    ("multi_crop",),
    ("colour_constancy",),
    ("dihedral", "multi_crop"),
)
SEED = 20_242
KINDS = ("clean", *STACKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="runs for ensembles and soups")
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--only-others", action="store_true", help="leave the views out")
    add_json_option(parser, "test_time")
    options = parser.parse_args()
    plain = load_model(options.run)
    cells = load(options.data, preparation=plain.bundle.preparation)
    rows = load_splits(options.run / "splits.json", cells).indices("test")
    rows = np.sort(np.random.default_rng(0).permutation(rows)[: options.cells])
    images, ids = np.stack([cells.images[row] for row in rows]), [str(cells.ids[row]) for row in rows]
    pictures = {"clean": images, **{name: stack(images, name, seed=SEED, ids=ids)[0] for name in STACKS}}
    with tempfile.TemporaryDirectory() as folder:
        variants = list(variants_of(options, Path(folder)))
        figures = [measure(name, make(), pictures, ids) for name, make in variants]
    report(figures, cells.labels[rows], len(cells.class_names), options)


def variants_of(options: argparse.Namespace, folder: Path) -> list[tuple[str, Callable[[], Predictor]]]:
    run, others = options.run, options.others
    found: list[tuple[str, Callable[[], Predictor]]] = [("plain", lambda: load_model(run))]
    for views in () if options.only_others else VIEWS:
        try:
            load_model(run, tta=views)
        except UsageError as error:
            print(f"left out {views}: {error}", flush=True)
            continue
        found.append((" + ".join(views), lambda views=views: load_model(run, tta=views)))
    if others:
        found.append((f"ensemble of {len(others) + 1}", lambda: load_model(run, ensemble=others)))
        for kind, greedy in (("uniform", None), ("greedy", options.data)):
            made = make_soup([run, *others], folder / kind, greedy=greedy)
            print(f"{kind} soup: {made.ingredients}, validation {made.score}, best alone {made.best_alone}", flush=True)
            found.append((f"{kind} soup of {len(made.ingredients)}", lambda kind=kind: load_model(folder / kind)))
    return found


def measure(name: str, predictor: Predictor, pictures: dict[str, np.ndarray], ids: list[str]) -> dict[str, Any]:
    predictor.predict_images(pictures["clean"][:256], ids[:256])  # the first batches pay for tracing
    begun = time.process_time()
    predicted = [predictor.predict_images(pictures[kind], ids).predicted for kind in KINDS]
    seconds = time.process_time() - begun
    print(f"{name}: {seconds:.1f} CPU s", flush=True)
    return {"name": name, "passes": predictor.passes, "cpu_seconds": seconds, "predicted": np.array(predicted)}


def report(figures: list[dict[str, Any]], labels: np.ndarray, classes: int, options: argparse.Namespace) -> None:
    """All variants resampled together, so that every difference is paired."""
    together = np.concatenate([one["predicted"] for one in figures])
    found = resample(together, labels, classes, resamples=1000, seed=0)
    rows, records = [], []
    for number, one in enumerate(figures):
        line: list[object] = [one["name"], one["passes"], f"{one['cpu_seconds'] / figures[0]['cpu_seconds']:.1f}"]
        record = {"name": one["name"], "passes": one["passes"], "cpu_seconds": round(one["cpu_seconds"], 2)}
        for place, kind in enumerate(KINDS):
            record[kind] = described(found, number * len(KINDS) + place, place)
            value, low, high = (100 * record[kind][key] for key in ("difference", "low", "high"))
            line.append(
                f"{100 * record[kind]['value']:.2f}" + (f" ({value:+.2f}; {low:+.2f} to {high:+.2f})" if number else "")
            )
        rows.append(line)
        records.append(record)
    publish(
        options.json,
        {"command": "python benchmarks/test_time.py", "cells": len(labels), "variants": records},
        ("variant", "passes", "CPU time, of plain", "clean", "1 or 2 layers", "2 to 4 layers"),
        rows,
    )


def described(found: Resampled, column: int, plain: int) -> dict[str, float]:
    difference = found.samples[:, column] - found.samples[:, plain]
    low, high = np.percentile(difference, [2.5, 97.5])
    return {
        "value": float(found.value[column]),
        "difference": float(found.value[column] - found.value[plain]),
        "low": float(low),
        "high": float(high),
    }


if __name__ == "__main__":
    main()
