"""Accuracy against training minutes: the checkpoints a run left behind, measured on validation cells.

    while sleep 300; do cp RUN/checkpoints/last.safetensors COPIES/$(date +%s).safetensors || break; done &
    python benchmarks/training_curve.py RUN DATA COPIES [--cells 500]

Of each copy the averaged weights are measured where the stage averages, else the weights as they are; clean and under
the stacked layers. Minutes are those of the steps, validation included, as the run's history has them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_json_option, publish

from hemascope.config_files import load_config
from hemascope.corruptions import STACKS, stack
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.models.bundle_files import write_bundle_files
from hemascope.predict import load_model
from hemascope.training.checkpoints import load_checkpoint, without_prefix

SEED = 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--cells", type=int, default=500)
    add_json_option(parser, "training_curve")
    options = parser.parse_args()
    config = load_config(file=options.run / "config.toml")
    cells = load(options.data, preparation=config.data.preparation)
    rows = load_splits(options.run / "splits.json", cells).indices("validation")
    rows = np.random.default_rng(0).permutation(rows)[: options.cells]
    images, ids = np.stack([cells.images[row] for row in rows]), [str(cells.ids[row]) for row in rows]
    labels, classes = cells.labels[rows], len(cells.class_names)
    pictures = {"clean": images, **{name: stack(images, name, seed=SEED, ids=ids)[0] for name in STACKS}}
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(options.copies.glob("*.safetensors")):
            found = load_checkpoint(path)
            assert found is not None
            state = without_prefix("averaged", found.tensors) or without_prefix("model", found.tensors)
            bundle = Path(folder) / path.stem
            write_bundle_files(
                bundle,
                {name.removeprefix("module."): value for name, value in state.items()},
                config=config.model,
                class_names=cells.class_names,
                preparation=config.data.preparation,
                calibration=None,
                provenance={},
            )
            predictor = load_model(bundle)
            point: dict[str, Any] = {"stage": found.values["stage"], "minutes": round(seconds_of(found.values) / 60, 1)}
            for name, pixels in pictures.items():
                predicted = predictor.predict_images(pixels, ids).predicted
                point[name] = float(balanced_accuracy(confusion_matrix(labels, predicted, classes)))
            print(point, flush=True)
            points.append(point)
    publish(
        options.json,
        {"command": "python benchmarks/training_curve.py", "cells": len(rows), "points": points},
        ("training, minutes", "clean", "1 or 2 layers", "2 to 4 layers"),
        [[point["minutes"], *(point[name] for name in pictures)] for point in points],
    )


def seconds_of(values: dict[str, Any]) -> float:
    """Seconds of training behind a checkpoint: forward, backward, optimiser and validation."""
    return float(
        sum(values["seconds"].get(name, 0.0) for name in ("features", "forward", "backward", "optimizer", "validation"))
    )


if __name__ == "__main__":
    main()
