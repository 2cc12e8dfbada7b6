"""The libraries side by side: a process each, asked in turn, and whether they mean the same by an operation."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from against_others.augmentation_strengths import EVERYTHING, Check

BENCHMARKS = Path(__file__).parent.parent
OURS = "hemascope"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


class Worker:
    """One library in its process. Use as a context manager."""

    def __init__(self, library: str, python: Path, images: Path, seed: int) -> None:
        command = [str(python), "-W", "ignore", "-m", "against_others.augmentation_worker"]
        self.library = library
        self._process = subprocess.Popen(
            [*command, library, str(images.resolve()), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=BENCHMARKS,
            env={**os.environ, **ONE_THREAD},
        )
        said = self._answer()
        self.names: list[str] = said["names"]
        self.failed: dict[str, str] = said["failed"]
        self.versions: dict[str, str] = said["versions"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def seconds(self, name: str, size: int, least: float) -> float:
        """CPU seconds an image."""
        return float(self._ask({"name": name, "size": size, "seconds": least})["seconds_an_image"])

    def pictures(self, name: str, size: int, path: Path) -> NDArray[np.uint8]:
        """What comes of the images, uint8 (N, S, S, 3)."""
        self._ask({"name": name, "size": size, "save": str(path.resolve())})
        found: NDArray[np.uint8] = np.load(path, allow_pickle=False)
        return found

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of {self.library} ended with status {self._process.wait()}; its words are above")
        found: dict[str, Any] = json.loads(line)
        return found


Times = dict[tuple[str, int], dict[str, list[float]]]
"""CPU seconds an image of every round, by (operation, size) and library."""


def measured(workers: Sequence[Worker], sizes: Iterable[int], rounds: int, least: float) -> Times:
    """All libraries one after the other for each operation, another one first in each round."""
    sizes = list(sizes)
    times: Times = {}
    for number in range(rounds):
        shift = number % len(workers)
        order = [*workers[shift:], *workers[:shift]]
        for asked in EVERYTHING:
            for size in sizes:
                for worker in order:
                    if asked.name in worker.names:
                        found = times.setdefault((asked.name, size), {}).setdefault(worker.library, [])
                        found.append(worker.seconds(asked.name, size, least))
        print(f"round {number + 1} of {rounds}", flush=True)
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as many images hemascope does: median, least and most of the rounds."""
    of_rounds = [other / own for own, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(of_rounds), "least": min(of_rounds), "most": max(of_rounds)}


def agreement(
    check: Check, before: NDArray[np.uint8], ours: NDArray[np.uint8], theirs: NDArray[np.uint8]
) -> dict[str, float | bool]:
    """Whether two libraries did the same to ``before``, all uint8 (N, S, S, 3); means are of absolute grey levels.

    same    what lies between both is at most a third of what hemascope changed (borders are treated differently, and
            resampling is by other rounding)
    alike   drawn at random: theirs changed between half and twice as much as ours
    """
    start = before.astype(np.float32)
    changed, their_change = float(np.abs(ours - start).mean()), float(np.abs(theirs - start).mean())
    apart = float(np.abs(ours.astype(np.float32) - theirs).mean())
    fits = apart <= max(changed / 3, 0.5) if check == "same" else changed / 2 <= their_change <= 2 * changed
    return {"changed_by_ours": changed, "changed_by_theirs": their_change, "apart": apart, "fits": fits}
