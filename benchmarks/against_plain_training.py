"""Seconds to the same validation accuracy: ``hemascope train`` against a plain timm and torch script.

Both train on the same cells and are judged on the same validation cells: those of the split hemascope makes with the
recipe's settings and seed, given to the plain script as folders of links to the very files. The calibration and test
cells are seen by neither. The two run one after the other, never together; ``--repeat`` alternates them, the order
swapped each time. Time is the parent's clock from just before a process is started: importing torch counts, and so
does hemascope's first reading of the files, for its cache starts empty. One untimed reading before all that (to make
the split, into a cache that is thrown away) leaves the files in the system's memory for both alike.

Targets are the plain script's best validation accuracy over its epochs (the lowest of its runs' bests, where
repeated) and a few fixed ones. Reported is when each first reached them; the ratio is plain seconds over hemascope's,
from medians over the repeats. A target that one of them never reached has no ratio.

    python benchmarks/against_plain_training.py DATA --epochs 10 --recipe fast

The plain script's validation ends an epoch; hemascope's ends an epoch or a part of one, as the recipe says. Whole
curves of both are in the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from figures import add_json_option, publish

Curve = list[dict[str, Any]]
METRICS = ("accuracy", "balanced_accuracy")
HERE = Path(__file__).parent


def link_split(data: str, folder: Path, recipe: str | None, overrides: list[str], cache: Path) -> dict[str, int]:
    """Links to hemascope's training and validation cells as folder/train/<class>/ and folder/val/<class>/."""
    os.environ["HEMASCOPE_CACHE"] = str(cache)
    import numpy as np

    from hemascope.config_files import load_config
    from hemascope.data.load import load
    from hemascope.data.splits import make_splits

    config = load_config(recipe=recipe, overrides=overrides)
    cells = load(
        data,
        preparation=config.data.preparation,
        label_pattern=config.data.label_pattern,
        max_unreadable=config.data.max_unreadable,
    )
    splits = make_splits(cells, config.data, config.seed)
    counts = {}
    for part, name in (("train", "train"), ("validation", "val")):
        rows = np.flatnonzero(splits.assignment == part)
        counts[part] = len(rows)
        for class_name in cells.class_names:
            (folder / name / class_name).mkdir(parents=True)
        for row in rows:
            original = Path(data) / cells.ids[row]
            if not original.is_file():
                sys.exit(f"{original} is not a file: this benchmark needs images in files, such as a folder a class.")
            link = folder / name / cells.class_names[cells.labels[row]] / f"{row:07d}{original.suffix.lower()}"
            link.symlink_to(original.resolve())
    return counts


def run_plain(folder: Path, epochs: int, options: list[str]) -> Curve:
    """The plain script's curve: seconds on this process's clock since it was started, and both accuracies."""
    command = [sys.executable, str(HERE / "plain_training.py"), str(folder), "--epochs", str(epochs), *options]
    started = time.perf_counter()
    curve: Curve = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seconds = time.perf_counter() - started
            said = json.loads(line)
            curve.append(
                {
                    "seconds": round(seconds, 3),
                    "stage": "plain",
                    "epoch": said["epoch"],
                    "accuracy": said["val_accuracy"],
                    "balanced_accuracy": said["val_balanced_accuracy"],
                }
            )
            _tell("plain", curve[-1])
    if process.returncode:
        sys.exit(f"the plain script failed with status {process.returncode}")
    return curve


def run_hemascope(data: str, output: Path, recipe: str | None, overrides: list[str], cache: Path) -> tuple[Curve, Any]:
    """hemascope's curve, from the growth of its history file, and what its manifest says of time and price."""
    command = [sys.executable, "-m", "hemascope", "--quiet", "train", data, "-o", str(output)]
    command += ["--recipe", recipe] if recipe else []
    command += [word for override in overrides for word in ("--set", override)]
    curve: Curve = []
    done = threading.Event()
    started = time.perf_counter()
    environment = {**os.environ, "HEMASCOPE_CACHE": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        watcher = threading.Thread(target=_watch, args=(output / "history.jsonl", started, curve, done))
        watcher.start()
        process.wait()
        whole = time.perf_counter() - started
        done.set()
        watcher.join()
    if process.returncode:
        sys.exit(f"hemascope train failed with status {process.returncode}")
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    facts = {name: manifest[name] for name in ("timing", "price_epochs", "best")}
    evaluation = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    test = evaluation["splits"]["test"]["metrics"]
    return curve, {**facts, "whole_seconds": round(whole, 3), "test": {name: test[name] for name in METRICS}}


def _watch(path: Path, started: float, curve: Curve, done: threading.Event) -> None:
    """Stamp each complete line of a growing file with the time it was first seen; look 50 times a second."""
    seen = 0
    while True:
        last_look = done.is_set()
        seconds = time.perf_counter() - started
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        for line in lines[seen:]:
            record = json.loads(line)
            if record["kind"] == "epoch":
                curve.append(
                    {
                        "seconds": round(seconds, 3),
                        "stage": record["stage"],
                        "epoch": record["epoch"],
                        "accuracy": record["validation_accuracy"],
                        "balanced_accuracy": record["validation_balanced_accuracy"],
                    }
                )
                _tell("hemascope", curve[-1])
        seen = max(seen, len(lines))
        if last_look:
            return
        done.wait(0.02)


def seconds_to(curve: Curve, metric: str, target: float) -> float | None:
    """When ``target`` was first reached; None where it never was."""
    return next((point["seconds"] for point in curve if point[metric] >= target - 1e-9), None)


def _tell(who: str, point: dict[str, Any]) -> None:
    print(
        f"{point['seconds']:8.1f} s  {who}: {point['stage']} {point['epoch']:.3g}  accuracy {point['accuracy']:.4f}  "
        f"balanced {point['balanced_accuracy']:.4f}",
        flush=True,
    )


def compare(plain: list[Curve], ours: list[Curve], metric: str, targets: list[float]) -> list[dict[str, Any]]:
    """For each target, the seconds of each run to reach it, and the ratio of their medians."""
    best = min(max(point[metric] for point in curve) for curve in plain)
    compared = []
    reachable = max(point[metric] for curve in [*plain, *ours] for point in curve)
    for target in sorted({*(target for target in targets if target <= reachable), best}):
        found = {
            name: [seconds_to(curve, metric, target) for curve in curves]
            for name, curves in (("plain", plain), ("hemascope", ours))
        }
        medians = {name: None if None in seconds else statistics.median(seconds) for name, seconds in found.items()}
        reached = medians["plain"] is not None and medians["hemascope"] is not None
        compared.append(
            {
                "metric": metric,
                "target": target,
                "plain_best": target == best,
                "seconds": found,
                "median_seconds": medians,
                "ratio": medians["plain"] / medians["hemascope"] if reached else None,
            }
        )
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the same validation accuracy, hemascope and a plain script.")
    parser.add_argument("data", help="a folder a class of image files")
    parser.add_argument("--epochs", type=int, default=10, help="of the plain script")
    parser.add_argument("--recipe", help="of hemascope; left out: the default settings")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="hemascope's")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, in turn")
    parser.add_argument("--targets", type=float, nargs="*", default=[0.90, 0.95, 0.97, 0.975, 0.98, 0.985])
    parser.add_argument("--plain-option", action="append", default=[], metavar="WORD", help="such as --lr=0.0005")
    add_json_option(parser, "against_plain_training")
    arguments = parser.parse_args()

    plain: list[Curve] = []
    ours: list[Curve] = []
    facts = []
    with tempfile.TemporaryDirectory(prefix="hemascope-benchmark-") as name:
        folder = Path(name)
        counts = link_split(
            arguments.data, folder / "plain", arguments.recipe, arguments.overrides, folder / "cache-split"
        )
        print(f"{counts['train']:,} cells to train on, {counts['validation']:,} to validate on", flush=True)
        for number in range(arguments.repeat):
            for who in ("plain", "hemascope") if number % 2 == 0 else ("hemascope", "plain"):
                if who == "plain":
                    plain.append(run_plain(folder / "plain", arguments.epochs, arguments.plain_option))
                else:
                    output, cache = folder / f"run-{number}", folder / f"cache-{number}"
                    curve, fact = run_hemascope(arguments.data, output, arguments.recipe, arguments.overrides, cache)
                    ours.append(curve)
                    facts.append(fact)

    compared = [one for metric in METRICS for one in compare(plain, ours, metric, arguments.targets)]
    rows = [
        (
            one["metric"].replace("_", " ") + (" (the plain script's best)" if one["plain_best"] else ""),
            f"{one['target']:.4f}",
            *(_seconds(one["median_seconds"][who]) for who in ("plain", "hemascope")),
            "–" if one["ratio"] is None else f"{one['ratio']:.2f}",
        )
        for one in compared
    ]
    figures = {
        "recipe": arguments.recipe,
        "overrides": arguments.overrides,
        "plain_epochs": arguments.epochs,
        "plain_options": arguments.plain_option,
        "cells": counts,
        "compared": compared,
        "curves": {"plain": plain, "hemascope": ours},
        "hemascope": facts,
    }
    publish(arguments.json, figures, ("validation", "target", "plain, s", "hemascope, s", "ratio"), rows)


def _seconds(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
