"""Augmentation policies against each other: clean, stacked, by family, and with families held out.

    python benchmarks/augmentation_policies.py PATH_TO_CELLS --work FOLDER [--seeds 0 1 2] [--cells 600] [--no-train]

Every row is one network of the default backbone, trained on the same cells for the same number of steps from the same
start (augmentation_policies.toml: 64 pixels, two epochs), and stressed on the same test cells. ``none`` goes without
mirroring as well; every other policy has mirroring and quarter turns. ``held out`` rows are ``robust`` without some
families: what counts is their balanced accuracy under layers of exactly these families, beside that of ``robust``.

Runs that are finished in FOLDER are used as they are, an unfinished one goes on where it was; --no-train makes the
table of what is there. Two epochs are short for strong augmentation, so the table ranks policies at this price only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_json_option, publish

from hemascope.config_files import load_config
from hemascope.corruptions import LAYERS, STACKS
from hemascope.data.load import load
from hemascope.data.splits import load_splits
from hemascope.evaluation.stress_record import load_stress
from hemascope.manifest import read_manifest
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.predict import load_model
from hemascope.stress_results import StressReport
from hemascope.workflow import train
from hemascope.workflow.stressing import stress

CONFIG = Path(__file__).with_suffix(".toml")
POLICIES = ("none", "flips", "randaugment", "winners", "trivialaugment", "augmix", "robust")
HELD_OUT = {
    "detail": ("blur", "resolution", "compression"),
    "colour": ("colour", "stain"),
    "light": ("brightness", "contrast", "illumination"),
    "tone": ("tone",),
    "noise": ("noise",),
    "occlusion": ("occlusion",),
    "geometry": ("geometry",),
    "slide": ("deposit", "bubble"),
}
SEED_OF_LAYERS = 20_241


def settings(name: str, seed: int) -> list[str]:
    """``--set`` words of a row."""
    words = [f"seed={seed}"]
    if name == "none":
        words += ["augmentation.flips=false", "augmentation.quarter_turns=false"]
    elif name.startswith("held_"):
        families = ", ".join(f'"{family}"' for family in HELD_OUT[name.removeprefix("held_")])
        words += ["augmentation.policy=robust", f"augmentation.without=[{families}]"]
    elif name != "flips":
        words.append(f"augmentation.policy={name}")
    return words


def finished(folder: Path) -> bool:
    return (folder / "report.html").exists()


def by_family(run: Path, data: Path, cells: int) -> dict[str, float]:
    """Balanced accuracy with one layer of each group of families alone on every cell."""
    predictor = load_model(run)
    found = load(data, preparation=predictor.bundle.preparation)
    rows = load_splits(run / "splits.json", found).indices("test")
    rows = np.random.default_rng(0).permutation(rows)[:cells]
    images, ids = np.stack([found.images[row] for row in rows]), [str(found.ids[row]) for row in rows]
    labels = found.labels[rows]
    scores = {}
    for group, families in HELD_OUT.items():
        layers = [layer for layer in LAYERS.values() if layer.family in families]
        changed = np.stack(
            [
                layers[place % len(layers)].function(image, np.random.default_rng((SEED_OF_LAYERS, place)))
                for place, image in enumerate(images)
            ]
        )
        predicted = predictor.predict_images(changed, ids).predicted
        scores[group] = float(balanced_accuracy(confusion_matrix(labels, predicted, len(found.class_names))))
    return scores


def one_row(name: str, seed: int, data: Path, work: Path, cells: int, *, may_train: bool) -> dict[str, Any] | None:
    run = work / f"{name}_{seed}"
    if not finished(run):
        if not may_train:
            return None
        print(f"{time.strftime('%H:%M:%S')} training {run.name}", flush=True)
        train(data, load_config(file=CONFIG, overrides=settings(name, seed)), output=run, resume=run.exists())
    if not (run / "stress" / "stress.json").exists():
        print(f"{time.strftime('%H:%M:%S')} stressing {run.name}", flush=True)
        stress(run, data, limit=cells)
    report = load_stress(run / "stress" / "stress.json")
    manifest = read_manifest(run)
    seconds = manifest["timing"]
    return {
        "policy": name,
        "seed": seed,
        "cells": report.n,
        **headline(report),
        "layers": by_family(run, data, cells),
        "augmenting_share": round(seconds.get("augmenting", 0) / max(seconds["total"], 1), 4),
        "training_seconds_busy": round(seconds["forward"] + seconds["backward"] + seconds["optimizer"], 1),
    }


def headline(report: StressReport) -> dict[str, float | None]:
    stacks = {one.condition.name: one.condition.balanced_accuracy.value for one in report.stacks}
    return {
        "clean": report.clean.balanced_accuracy.value,
        "medmnist_c": report.means["mean_balanced_accuracy"].value,
        **{name: stacks[name] for name in STACKS},
    }


def spread(rows: list[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cells, or a packed store prepared as augmentation_policies.toml says")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=int, default=600, help="test cells stressed")
    parser.add_argument("--no-train", action="store_true", help="make the table of the runs that are there")
    add_json_option(parser, "augmentation_policies")
    options = parser.parse_args()
    work = [(name, seed) for seed in options.seeds for name in POLICIES]
    work += [(f"held_{name}", options.seeds[0]) for name in HELD_OUT]
    found = [
        row
        for name, seed in work
        if (row := one_row(name, seed, options.data, options.work, options.cells, may_train=not options.no_train))
    ]
    table = []
    for name in POLICIES:
        rows = [row for row in found if row["policy"] == name]
        if rows:
            keys = ("clean", "medmnist_c", *STACKS)
            seconds = np.mean([row["training_seconds_busy"] for row in rows]) / 2
            table.append([name, len(rows), *(spread(rows, key) for key in keys), f"{seconds:.0f}"])
    publish(
        options.json,
        {"command": "python benchmarks/augmentation_policies.py", "rows": found},
        ("policy", "seeds", "clean", "MedMNIST-C mean", "1 or 2 layers", "2 to 4 layers", "busy s an epoch"),
        table,
    )
    layered(found)


def layered(found: list[dict[str, Any]]) -> None:
    """Print the tables by family: every policy, then robust beside robust without the family."""
    from figures import markdown_table

    first = [row for row in found if row["seed"] == found[0]["seed"]]
    plain = [row for row in first if not row["policy"].startswith("held_")]
    print("\n" + markdown_table(("policy", *HELD_OUT), [[row["policy"], *row["layers"].values()] for row in plain]))
    robust = next((row for row in plain if row["policy"] == "robust"), None)
    held = [row for row in first if row["policy"].startswith("held_")]
    if robust and held:
        names = [row["policy"].removeprefix("held_") for row in held]
        print(
            "\n"
            + markdown_table(
                ("family held out", "robust", "robust without it", "flips"),
                [
                    [name, robust["layers"][name], row["layers"][name], next(
                        (one["layers"][name] for one in plain if one["policy"] == "flips"), None)]
                    for name, row in zip(names, held, strict=True)
                ],
            )
        )  # fmt: skip


if __name__ == "__main__":
    main()
