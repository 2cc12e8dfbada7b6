"""Time, memory and recall of the audit's nearest neighbours at 10,000 to 1,000,000 embeddings, and of reducing them.

    .venv/bin/python benchmarks/audit_scale.py

The vectors are made here: float32 of 128 dimensions in 200 classes of uneven size, variance falling with the dimension
as in principal components of cell embeddings. Every hundredth vector is a planted neighbour: another vector plus noise
of a tenth to a half of the distance at which two vectors of one class lie. It is found where the vector it was made
from is among its ten nearest. The recall of all ten nearest is taken on 1,000 vectors whose true ones are computed.

Each size runs in a process of its own: time is that of ``neighbours.nearest`` alone, memory the peak of the whole
process by then, the vectors and the answer included. ``neighbours.reduce`` takes float16 vectors of 2304 dimensions,
as the embedder writes them, from a memory-mapped file to 128. The exponent e of growth says that time went as N to the
power of e since the size before; 1 is linear. Up to ``neighbours.EXACT_UP_TO`` all distances are computed, so that the
first exponent compares two methods. No setting of ``neighbours`` was chosen on these vectors.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from figures import add_json_option, publish
from numpy.typing import NDArray

from hemascope import neighbours

SIZES = (10_000, 100_000, 1_000_000)
REDUCED_SIZES = (10_000, 30_000, 100_000)
DIMENSIONS, EMBEDDED = 128, 2304
CLASSES = 200
PLANTED_EVERY = 100
K = 10
CHECKED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, memory and recall of nearest neighbours at scale.")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of vectors to find neighbours of")
    parser.add_argument("--reduced", type=int, nargs="*", default=REDUCED_SIZES, help="numbers of vectors to reduce")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("WORK", "N"), help=argparse.SUPPRESS)
    add_json_option(parser, "audit_scale")
    args = parser.parse_args()
    if args.one:
        work = {"nearest": measure_nearest, "reduce": measure_reduce}[args.one[0]]
        print(json.dumps(work(int(args.one[1]), args.seed)))
        return
    runs = [("nearest", n) for n in sorted(args.sizes)] + [("reduce", n) for n in sorted(args.reduced)]
    measured = [in_own_process(work, n, args.seed) for work, n in runs]
    for before, after in pairwise(measured):
        if before["work"] == after["work"]:
            grown = math.log(after["cpu_seconds"] / before["cpu_seconds"])
            after["exponent"] = grown / math.log(after["n"] / before["n"])
    columns = {
        "work": "work",
        "N": "n",
        "wall s": "seconds",
        "CPU s": "cpu_seconds",
        "µs a vector": "microseconds_each",
        "peak GiB": "peak_gib",
        "planted found": "planted_recall",
        f"{K} nearest found": "recall",
        "exponent": "exponent",
    }
    rows = [[one.get(key) for key in columns.values()] for one in measured]
    publish(args.json, {"seed": args.seed, "k": K, "runs": measured}, list(columns), rows)


def in_own_process(work: str, n: int, seed: int) -> dict[str, Any]:
    """The figures of one size; a process that ran before would leave its peak memory behind."""
    command = [sys.executable, __file__, "--seed", str(seed), "--one", work, str(n)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    figures: dict[str, Any] = json.loads(answer.splitlines()[-1])
    print(figures, flush=True)
    return figures


def measure_nearest(n: int, seed: int) -> dict[str, Any]:
    """Find the K nearest others of n vectors, and count how many of the planted and of the true ones were found."""
    vectors, planted, made_from = vectors_with_planted(n, seed)
    before = peak_gib()
    clock = Clock()
    _, rows = neighbours.nearest(vectors, K, seed=seed)
    figures = clock.figures("nearest", n) | {"memory_before_gib": before, "peak_gib": peak_gib()}
    figures["planted"] = len(planted)
    figures["planted_recall"] = float((rows[planted] == made_from[:, None]).any(axis=1).mean())
    checked = np.sort(np.random.default_rng(seed).choice(n, min(n, CHECKED), replace=False))
    true = true_nearest(vectors, checked)
    found = [len(np.intersect1d(a, b)) / K for a, b in zip(rows[checked], true, strict=True)]
    return figures | {"recall": float(np.mean(found))}


def vectors_with_planted(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Vectors (n, DIMENSIONS), the rows that are planted, and the row that each of them was made from."""
    rng = np.random.default_rng(seed)
    spread = (np.arange(1, DIMENSIONS + 1) ** -0.5).astype(np.float32)
    centres = rng.normal(size=(CLASSES, DIMENSIONS)).astype(np.float32)
    shares = rng.dirichlet(np.full(CLASSES, 2.0))
    vectors = rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
    vectors += centres[rng.choice(CLASSES, n, p=shares)]
    vectors *= spread
    rows = rng.permutation(n)
    planted, made_from = rows[: n // PLANTED_EVERY], rows[n // PLANTED_EVERY :][: n // PLANTED_EVERY]
    apart = math.sqrt(2) * np.linalg.norm(spread)  # two vectors of one class
    noise = rng.standard_normal((len(planted), DIMENSIONS), dtype=np.float32) * spread
    noise *= (rng.uniform(0.1, 0.5, len(planted)) * apart / np.linalg.norm(noise, axis=1))[:, None].astype(np.float32)
    vectors[planted] = vectors[made_from] + noise
    return vectors, planted, made_from


def true_nearest(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The K nearest others of a few rows, (M, K), by all distances."""
    true = []
    squares = np.square(vectors).sum(axis=1)
    for some in np.array_split(rows, max(1, len(rows) // 50)):
        order = squares - 2 * (vectors[some] @ vectors.T)
        order[np.arange(len(some)), some] = np.inf
        true.append(np.argpartition(order, K, axis=1)[:, :K])
    return np.concatenate(true)


def measure_reduce(n: int, seed: int) -> dict[str, Any]:
    """Reduce n float16 vectors of EMBEDDED dimensions, memory-mapped, to DIMENSIONS."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, EMBEDDED))
        mix = rng.standard_normal((DIMENSIONS, EMBEDDED), dtype=np.float32) / DIMENSIONS**0.5
        for start in range(0, n, 5000):
            block = rng.standard_normal((min(5000, n - start), DIMENSIONS), dtype=np.float32) @ mix
            stored[start : start + 5000] = block + 0.1 * rng.standard_normal(block.shape, dtype=np.float32)
        del stored
        opened = np.load(path, mmap_mode="r")
        before = peak_gib()
        clock = Clock()
        neighbours.reduce(opened, DIMENSIONS, seed=seed)
        return clock.figures("reduce", n) | {"memory_before_gib": before, "peak_gib": peak_gib()}


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def figures(self, work: str, n: int) -> dict[str, Any]:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {
            "work": work,
            "n": n,
            "seconds": wall,
            "cpu_seconds": cpu,
            "microseconds_each": 1e6 * wall / n,
        }


def peak_gib() -> float:
    """The most memory this process has held, mapped files that were read included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main()
