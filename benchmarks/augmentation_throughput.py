"""How fast images are augmented, beside torchvision v2, timm and albumentations, and whether training waits for it.

``libraries``  Images a second of one core for the same operations and policies, at 96 and 224 pixels. Each library
               runs in a process of its own with one thread, and keeps its images in its own type (arrays, uint8
               tensors or Pillow images): turning one into the other is not timed, except within hemascope, which goes
               through Pillow for some operations. torchvision and timm are called by their functions, the least they
               can cost; hemascope and albumentations by what draws a strength and calls the function. The libraries
               take turns for every operation, another one first in each round; CPU seconds are counted, so that other
               programs on the machine take little away. Reported is the median over rounds of the ratio within a
               round (above 1: hemascope is faster), with its least and most. Before the clock starts, pictures are
               compared: what does not mean the same is marked ``≠``.
``training``   A batch of 32 augmented with no policy, mirroring and turning, ``winners`` and ``robust``, in CPU seconds
               beside a forward and backward pass of the default backbone on one thread; and images a second of whole
               training steps with one worker process and two threads, beside the same without augmentation.

    python benchmarks/augmentation_throughput.py DATA --others-python OTHER_ENV/bin/python
    python benchmarks/augmentation_throughput.py --only libraries        # synthetic cells, without albumentations

albumentations (2.0.8, the last under the MIT licence) lives in an environment of its own: see README.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from against_others.augmentation_processes import OURS, Worker, agreement, measured, ratio
from against_others.augmentation_strengths import EVERYTHING
from figures import add_json_option, markdown_table, publish
from PIL import Image

if TYPE_CHECKING:
    from hemascope.cells import CellDataset

PARTS = ("libraries", "training")
OTHERS = ("torchvision_tensor", "torchvision_pillow", "timm")
POLICIES: dict[str, dict[str, Any]] = {
    "none": {"flips": False, "quarter_turns": False},
    "flips": {},
    "winners": {"policy": "winners"},
    "robust": {"policy": "robust"},
}
BATCH, SIZE = 32, 96


def source(data: str | None, preparation: str) -> CellDataset:
    """The cells named, or synthetic ones."""
    if data is None:
        from hemascope.data.synthetic import render_cells

        return render_cells(16, size=SIZE, seed=0)
    from hemascope.config import PREPARATIONS
    from hemascope.data.load import load

    return load(data, preparation=PREPARATIONS[preparation])


def write_images(cells: CellDataset, sizes: list[int], count: int, path: Path) -> None:
    """``count`` cells by lot, at each size (Lanczos where it is another one), for the workers."""
    rows = np.sort(np.random.default_rng(0).permutation(len(cells))[:count])
    found = {}
    for size in sizes:
        pictures = [Image.fromarray(cells.images[row]).resize((size, size), Image.Resampling.LANCZOS) for row in rows]
        found[str(size)] = np.stack([np.asarray(picture) for picture in pictures])
    np.savez(path, **found)


def measure_libraries(cells: CellDataset, options: argparse.Namespace) -> dict[str, Any]:
    """Times, ratios and whether they mean the same, for every library."""
    with tempfile.TemporaryDirectory(prefix="hemascope-benchmark-") as name, ExitStack() as stack:
        images = Path(name) / "images.npz"
        write_images(cells, options.sizes, options.images, images)
        pythons = {OURS: Path(sys.executable), **dict.fromkeys(OTHERS, Path(sys.executable))}
        if options.others_python:
            pythons["albumentations"] = options.others_python
        workers = [stack.enter_context(Worker(library, python, images, 0)) for library, python in pythons.items()]
        meant = compare_pictures(workers, images, max(options.sizes), Path(name) / "pictures.npy")
        times = measured(workers, options.sizes, options.rounds, options.seconds)
        facts = {worker.library: {"versions": worker.versions, "failed": worker.failed} for worker in workers}
    rows = [
        {
            "operation": name,
            "size": size,
            "images_a_second": {library: 1 / statistics.median(found) for library, found in by_library.items()},
            "ratio": {
                library: ratio(by_library[OURS], found) for library, found in by_library.items() if library != OURS
            },
        }
        for (name, size), by_library in times.items()
    ]
    return {"libraries": facts, "pictures": meant, "rows": rows}


def compare_pictures(workers: list[Worker], images: Path, size: int, path: Path) -> dict[str, dict[str, Any]]:
    """``agreement`` of every library's pictures with ours, by operation and library."""
    with np.load(images, allow_pickle=False) as arrays:
        before = arrays[str(size)]
    ours = next(worker for worker in workers if worker.library == OURS)
    found: dict[str, dict[str, Any]] = {}
    for asked in EVERYTHING:
        theirs = [worker for worker in workers if worker is not ours and asked.name in worker.names]
        if asked.name in ours.names and theirs:
            made = ours.pictures(asked.name, size, path)
            found[asked.name] = {
                worker.library: agreement(asked.check, before, made, worker.pictures(asked.name, size, path))
                for worker in theirs
            }
    return found


def library_tables(figures: dict[str, Any]) -> list[str]:
    """A Markdown table for each size."""
    libraries = list(figures["libraries"])
    tables = []
    for size in sorted({row["size"] for row in figures["rows"]}):
        rows = []
        for asked in EVERYTHING:
            row = next(one for one in figures["rows"] if one["operation"] == asked.name and one["size"] == size)
            cells = [shown_ratio(row, figures["pictures"], library) for library in libraries if library != OURS]
            rows.append([asked.title, f"{row['images_a_second'][OURS]:,.0f}", *cells])
        header = [f"{size} × {size}", "hemascope, images/s", *(name for name in libraries if name != OURS)]
        tables.append(markdown_table(header, rows))
    return tables


def shown_ratio(row: dict[str, Any], meant: dict[str, dict[str, Any]], library: str) -> str:
    """``1.52 (1.40 to 1.60)``, or – where the library has not the operation."""
    if library not in row["ratio"]:
        return "–"
    found = row["ratio"][library]
    mark = "" if meant[row["operation"]][library]["fits"] else " ≠"
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f}){mark}"


def summary_rows(figures: dict[str, Any], sizes: list[int]) -> list[tuple[str, ...]]:
    """For each other library: the geometric mean of the ratios at each size, and where hemascope is ahead.

    Only operations that mean the same count.
    """
    rows: list[tuple[str, ...]] = []
    for library in (name for name in figures["libraries"] if name != OURS):
        cells = []
        for size in sizes:
            ratios = [
                row["ratio"][library]["median"]
                for row in figures["rows"]
                if row["size"] == size
                and library in row["ratio"]
                and row["operation"] != "nothing"
                and figures["pictures"][row["operation"]][library]["fits"]
            ]
            ahead = sum(found > 1 for found in ratios)
            cells.append(f"{statistics.geometric_mean(ratios):.2f}; {ahead} of {len(ratios)}")
        rows.append((library, *cells))
    return rows


def measure_batches(cells: CellDataset, rounds: int) -> dict[str, Any]:
    """CPU milliseconds of a batch augmented, by policy, and of a forward and backward pass on one thread."""
    import torch
    from input_pipeline import Bench

    from hemascope.augmentation import Augmentation
    from hemascope.config import AugmentationConfig
    from hemascope.training.losses import classification_loss

    bench = Bench(cells, POLICIES["none"], BATCH, 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images, labels = bench.one_batch()
    stages = {name: Augmentation(AugmentationConfig(**settings), 0) for name, settings in POLICIES.items()}
    spent: dict[str, list[float]] = {"step": [], **{name: [] for name in stages}}
    for number in range(-1, rounds):  # the first one warms up
        started = time.process_time()
        loss = classification_loss(
            bench.model(images), labels, weights=None, label_smoothing=bench.stage.label_smoothing
        )
        loss.backward()
        spent["step"].append(time.process_time() - started)
        bench.optimizer.zero_grad(set_to_none=True)
        rows = np.random.default_rng(number + 1).permutation(len(cells))[:BATCH]
        batch = np.stack([cells.images[row] for row in rows])
        for name, stage in stages.items():
            started = time.process_time()
            stage(batch, range((number + 1) * BATCH, (number + 2) * BATCH))
            spent[name].append(time.process_time() - started)
    torch.set_num_threads(threads)
    kept = {name: seconds[1:] for name, seconds in spent.items()}
    return {
        name: {
            "milliseconds": 1000 * statistics.median(seconds),
            # Batches differ in what is drawn, steps do not: the share is of all batches in the time of all steps.
            "share_of_a_step": sum(seconds) / sum(kept["step"]),
            "rounds": seconds,
        }
        for name, seconds in kept.items()
    }


def measure_training(cells: CellDataset, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds of whole training steps with each policy, in turn; one worker process, two threads."""
    import torch
    from input_pipeline import Bench

    benches = {name: Bench(cells, settings, BATCH, 1) for name, settings in POLICIES.items()}
    torch.set_num_threads(2)
    turns: dict[str, list[float]] = {name: [] for name in benches}
    waiting: dict[str, list[float]] = {name: [] for name in benches}
    for number in range(rounds):
        order = list(benches)[number % len(benches) :] + list(benches)[: number % len(benches)]
        for name in order:
            turns[name].append(benches[name].real_turn(3, steps))
            waiting[name].append(benches[name].watch.seconds.get("waiting for a batch", 0.0))
        print(f"training, round {number + 1} of {rounds}", flush=True)
    return {
        name: {
            "images_a_second": steps * BATCH / statistics.median(seconds),
            "of_without": ratio(seconds, turns["none"]),
            "waiting_share": sum(waiting[name]) / sum(seconds),
            "rounds": seconds,
        }
        for name, seconds in turns.items()
    }


def training_rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name in POLICIES:
        batch, run = figures["batches"][name], figures["training"][name]
        kept = run["of_without"]
        rows.append(
            (
                name,
                f"{batch['milliseconds']:.1f}",
                f"{batch['share_of_a_step']:.3f}",
                f"{run['images_a_second']:.1f}",
                f"{kept['median']:.2f} ({kept['least']:.2f} to {kept['most']:.2f})",
                f"{run['waiting_share']:.3f}",
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="any source hemascope reads; left out: synthetic cells")
    parser.add_argument("--preparation", default="contest", choices=("plain", "contest"), help="of DATA")
    parser.add_argument("--others-python", type=Path, help="the Python that has albumentations; left out: without it")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--images", type=int, default=32, help="different images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.03, help="CPU seconds of one measurement, at least")
    parser.add_argument("--steps", type=int, default=4, help="training steps of a turn")
    parser.add_argument("--note", default="", help="kept with the figures, such as what else the machine did")
    add_json_option(parser, "augmentation_throughput")
    options = parser.parse_args()
    if options.others_python and not options.others_python.is_file():
        parser.error(f"there is no Python at {options.others_python}")
    wanted = set(options.only or PARTS)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > 0.5
    if busy:
        print(f"The machine is busy (load {load:.1f}): CPU seconds are upper limits, wall-clock rates not reliable.")

    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # waiting threads would be counted as work
    cells = source(options.data, options.preparation)
    figures: dict[str, Any] = {
        "cells": "synthetic" if options.data is None else "real",
        "busy": busy,
        "note": options.note,
        **{name: getattr(options, name) for name in ("images", "rounds", "seconds", "steps")},
    }
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    if "libraries" in wanted:
        figures["libraries"] = measure_libraries(cells, options)
        for table in library_tables(figures["libraries"]):
            print("\n" + table)
        for library, fact in figures["libraries"]["libraries"].items():
            for name, reason in fact["failed"].items():
                print(f"{library} has no {name} here: {reason}")
        header = ("hemascope beside", *(f"{size} px: mean ratio; ahead in" for size in options.sizes))
        rows = summary_rows(figures["libraries"], options.sizes)
    if "training" in wanted:
        if rows:
            print("\n" + markdown_table(header, rows))
        figures["batches"] = measure_batches(cells, options.rounds)
        figures["training"] = measure_training(cells, max(3, options.rounds // 2), options.steps)
        step = figures["batches"]["step"]["milliseconds"]
        print(f"\nA forward and backward pass of {BATCH} images: {step:.0f} ms of one core")
        header = ("policy", "augmenting a batch, ms", "of a step", "training, images/s", "of that without", "waiting")
        rows = training_rows(figures)
    publish(options.json, figures, header, rows)


if __name__ == "__main__":
    main()
