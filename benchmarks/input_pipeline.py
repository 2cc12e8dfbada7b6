"""Is the input ever the brake? Training with real input against ready batches, a second start, and a step's parts.

``training``    Images a second of training steps (forward, loss, backward, AdamW, as the last default stage has them,
                without its averaging of weights) on batches read and augmented as ``hemascope train`` does it,
                against the same step on one batch that is already in memory. The two take turns; every turn begins
                with steps that are not timed, so that workers have started and their queue is in its steady state.
                Once for the default augmentation and once for a strong one (the policy robust, which blood8 was
                trained with). The ratio of the medians is the share of the possible speed that is kept.
``starts``      Seconds of ``hemascope.load(DATA)`` in a fresh process: first with an empty cache (the first reading),
                then with that cache, several times: the call alone, and the whole process.
``step``        Where a step's time goes by hemascope's own stopwatch: reading, augmenting (both in the workers, where
                there are any, so they overlap with the rest), forward, backward, optimizer, and waiting for a batch.

    python benchmarks/input_pipeline.py DATA
    python benchmarks/input_pipeline.py DATA --only training --rounds 5 --steps 30
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from figures import add_json_option, publish

if TYPE_CHECKING:
    from torch import Tensor

    from hemascope.cells import CellDataset

AHEAD = 8
"""Batches a worker is given beyond those that are used: more than it can prefetch."""

PARTS = ("training", "starts", "step")
STRONG = {"policy": "robust"}
START = """
import json, sys, time
import hemascope
begun = time.perf_counter()
load = hemascope.load  # imports what loading needs
imported = time.perf_counter()
cells = load(sys.argv[1])
cells.images[0].sum(), cells.images[-1].sum()
done = time.perf_counter()
print(json.dumps({"images": len(cells), "import_seconds": imported - begun, "load_seconds": done - imported}))
"""


class Bench:
    """One network, optimiser and augmentation, with batches from hemascope's own pipeline."""

    def __init__(self, cells: CellDataset, augmentation: dict[str, Any], batch_size: int, workers: int | None) -> None:
        import numpy as np
        import torch

        from hemascope.config import AugmentationConfig, RunConfig, RuntimeConfig
        from hemascope.models.classifier import create_classifier
        from hemascope.runtime import start_runtime
        from hemascope.training.freezing import apply_plan
        from hemascope.training.optimizers import create_optimizer, parameter_groups
        from hemascope.training.price import Price, Stopwatch
        from hemascope.training.tasks import ImageTask, Parts

        config = RunConfig(augmentation=AugmentationConfig(**augmentation), runtime=RuntimeConfig(workers=workers))
        self.stage = config.stages[-1].model_copy(update={"batch_size": batch_size, "kind": "images"})
        self.runtime = start_runtime(config.runtime)
        torch.manual_seed(0)
        self.model = create_classifier(config.model, len(cells.class_names), 0).to(self.runtime.device)
        if config.runtime.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        apply_plan(self.model, self.stage.trainable, 0, freeze_batchnorm=self.stage.freeze_batchnorm)
        self.optimizer = create_optimizer(parameter_groups(self.model, self.stage.optimizer), self.stage.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] *= 1e-3  # many steps on one batch should not drive the weights anywhere
        self.watch = Stopwatch()
        train = np.arange(len(cells))
        price = Price(len(cells), config.data.preparation.size)
        parts = Parts(cells, train, train[:0])
        self.task = ImageTask(self.model, parts, self.stage, config, 0, self.runtime, price, self.watch)
        self.position = 0

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Forward, backward, update."""
        from hemascope.runtime import autocast
        from hemascope.training.losses import classification_loss

        with self.watch.measure("forward"), autocast(self.runtime):
            logits = self.model(images)
            loss = classification_loss(logits, labels, weights=None, label_smoothing=self.stage.label_smoothing)
        with self.watch.measure("backward"):
            loss.backward()
        with self.watch.measure("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def real_turn(self, warmup: int, steps: int) -> float:
        """Seconds of ``steps`` steps on batches from the pipeline, after ``warmup`` steps of the same kind."""
        last = self.position + warmup + steps
        # The workers must have more to do until the last timed step: idle ones would leave it all processors.
        batches = self.task.batches(self.position, last + AHEAD * max(1, self.task.workers))
        self.position = last
        for _ in range(warmup):
            self.step(*next(batches))
        self.synchronize()
        self.watch.seconds.clear()
        started = time.perf_counter()
        for _ in range(steps):
            with self.watch.measure("waiting for a batch"):
                batch = next(batches)
            self.step(*batch)
        self.synchronize()
        seconds = time.perf_counter() - started
        close = getattr(batches, "close", None)
        if close is not None:
            close()
        return seconds

    def ready_turn(self, warmup: int, steps: int, batch: tuple[Tensor, Tensor]) -> float:
        """Seconds of ``steps`` steps on one batch in memory, after ``warmup`` such steps."""
        for _ in range(warmup):
            self.step(*batch)
        self.synchronize()
        started = time.perf_counter()
        for _ in range(steps):
            self.step(*batch)
        self.synchronize()
        return time.perf_counter() - started

    def one_batch(self) -> tuple[Tensor, Tensor]:
        """A batch as the pipeline gives it, to be kept."""
        batches: Iterator[tuple[Tensor, Tensor]] = self.task.batches(0, 1)
        return next(batches)

    def synchronize(self) -> None:
        """Wait for the device, where it works behind the program's back."""
        import torch

        if self.runtime.device.startswith("cuda"):
            torch.cuda.synchronize()


def measure_training(cells: CellDataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both augmentations: seconds of each turn, images a second, the ratio, and the parts of a real step."""
    found = {}
    for name, augmentation in (("default", {}), ("strong", STRONG)):
        bench = Bench(cells, augmentation, arguments.batch_size, arguments.workers)
        batch = bench.one_batch()
        turns: dict[str, list[float]] = {"real": [], "ready": []}
        parts: dict[str, float] = {}
        for number in range(arguments.rounds):
            for kind in ("real", "ready") if number % 2 == 0 else ("ready", "real"):
                if kind == "real":
                    turns[kind].append(bench.real_turn(arguments.warmup, arguments.steps))
                    for part, seconds in bench.watch.seconds.items():
                        parts[part] = parts.get(part, 0.0) + seconds
                else:
                    turns[kind].append(bench.ready_turn(arguments.warmup, arguments.steps, batch))
            print(
                f"{name}, round {number + 1}: real {turns['real'][-1]:.1f} s, ready {turns['ready'][-1]:.1f} s",
                flush=True,
            )
        images = arguments.steps * arguments.batch_size
        median = {kind: statistics.median(seconds) for kind, seconds in turns.items()}
        found[name] = {
            "augmentation": augmentation,
            "workers": bench.task.workers,
            "device": bench.runtime.device,
            "precision": bench.runtime.precision,
            "seconds_of_turns": turns,
            "images_per_second": {kind: images / seconds for kind, seconds in median.items()},
            "ratio": median["ready"] / median["real"],
            "milliseconds_a_step": {
                part: 1000 * seconds / (arguments.rounds * arguments.steps) for part, seconds in parts.items()
            },
        }
    return found


def measure_starts(data: str, runs: int) -> dict[str, Any]:
    """The first reading into an empty cache, and later starts from it, each in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="hemascope-benchmark-") as cache:
        environment = {**os.environ, "HEMASCOPE_CACHE": cache}
        starts = []
        for number in range(runs + 1):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", START, data], stdout=subprocess.PIPE, text=True, env=environment, check=True
            )
            starts.append({**json.loads(done.stdout), "process_seconds": time.perf_counter() - started})
            print(f"start {number + 1}: {starts[-1]['load_seconds']:.2f} s", flush=True)
    first, later = starts[0], starts[1:]
    return {
        "images": first["images"],
        "first": {**first, "images_per_second": first["images"] / first["load_seconds"]},
        "later": later,
        "median_later": {
            kind: statistics.median(start[kind] for start in later)
            for kind in ("import_seconds", "load_seconds", "process_seconds")
        },
    }


def table_rows(figures: dict[str, Any], wanted: set[str]) -> list[tuple[str, str]]:
    """What was measured, one figure a row."""
    rows: list[tuple[str, str]] = []
    if starts := figures.get("starts"):
        later = starts["median_later"]
        rows += [
            (f"first reading of {starts['images']:,} images, images/s", f"{starts['first']['images_per_second']:.0f}"),
            ("second start: hemascope.load, s", f"{later['load_seconds']:.2f}"),
            ("second start: whole process, s", f"{later['process_seconds']:.2f}"),
        ]
    for name, found in figures.get("training", {}).items():
        if "training" in wanted:
            rate = found["images_per_second"]
            rows += [
                (f"{name} augmentation: training with real input, images/s", f"{rate['real']:.1f}"),
                (f"{name} augmentation: on a ready batch, images/s", f"{rate['ready']:.1f}"),
                (f"{name} augmentation: ratio", f"{found['ratio']:.3f}"),
            ]
        if "step" in wanted:
            rows += [
                (f"{name} augmentation: {part}, ms a step", f"{value:.1f}")
                for part, value in found["milliseconds_a_step"].items()
            ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether input slows training, and how fast data are there again.")
    parser.add_argument("data", help="any source hemascope reads")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each kind")
    parser.add_argument("--steps", type=int, default=30, help="timed steps a turn")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, help="left out: hemascope's own choice")
    parser.add_argument("--starts", type=int, default=5, help="starts with the cache filled")
    add_json_option(parser, "input_pipeline")
    arguments = parser.parse_args()
    wanted = set(arguments.only or PARTS)

    figures: dict[str, Any] = {name: getattr(arguments, name) for name in ("rounds", "steps", "warmup", "batch_size")}
    if "starts" in wanted:
        figures["starts"] = measure_starts(arguments.data, arguments.starts)
    if wanted & {"training", "step"}:
        from hemascope.data.load import load

        figures["training"] = measure_training(load(arguments.data), arguments)
    publish(arguments.json, figures, ("measured", "value"), table_rows(figures, wanted))


if __name__ == "__main__":
    main()
