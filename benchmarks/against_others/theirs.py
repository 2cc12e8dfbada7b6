"""The other tools, each run as a process of its own by the Python that has them; answers come back as npz."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.embeddings import FINAL, Embeddings

SCRIPTS = Path(__file__).parent.parent / "others"
VERSIONS = (
    "import json; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in ('cleanvision', 'imagededup', 'cleanlab', 'scikit-learn')}))"
)
Answer = dict[str, NDArray[Any]]


class Theirs:
    """Where the tools are, and where their answers and logs go."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        folder.mkdir(parents=True, exist_ok=True)

    def ask(self, script: str, label: str, *arguments: str | Path) -> Answer:
        """Run ``script`` with (input, output, further arguments); its arrays by name. Ends the benchmark on failure."""
        output = self.folder / f"{label}.npz"
        log = self.folder / f"{label}.log"
        first, *rest = map(str, arguments)
        command = [str(self.python), "-W", "ignore", str(SCRIPTS / script), first, str(output), *rest]
        with log.open("w", encoding="utf-8") as file:
            status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if status:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
            sys.exit(f"{script} failed with status {status}; the end of {log}:\n" + "\n".join(tail))
        with np.load(output, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def cleanvision(self, label: str, folder: Path, issues: Sequence[str], *more: str) -> Answer:
        """Scores of a folder of images."""
        return self.ask("cleanvision_checks.py", label, folder, "--issues", *issues, *more)

    def imagededup(self, label: str, folder: Path, *more: str) -> Answer:
        """Hashes and pairs of a folder of images."""
        return self.ask("imagededup_checks.py", label, folder, *more)

    def cleanlab(self, label: str, features: Path, check: str, *more: str | Path) -> Answer:
        """Answers from embeddings."""
        return self.ask("cleanlab_checks.py", label, features, "--check", check, *more)

    def versions(self) -> str:
        """JSON of what is installed there."""
        command = [str(self.python), "-c", VERSIONS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{self.python} has not all of cleanvision, imagededup and cleanlab: {done.stderr.strip()[-300:]}")
        return done.stdout


def feature_files(work: Path, label: str, embeddings: Embeddings) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Our embeddings as files for cleanlab, and the options that go with each, by what it is in words.

    The last level as it is, what its users take from a network; and all levels, each column scaled, which is better.
    """
    last, whole = work / f"{label}_last.npy", work / f"{label}_levels.npy"
    np.save(last, embeddings.level(FINAL))
    np.save(whole, embeddings.vectors)
    return {"last level (its recipe)": (last, ()), "all levels, scaled": (whole, ("--scaled",))}


def in_order(answer: Answer, name: str, names: Sequence[str], *, missing: float = np.nan) -> NDArray[Any]:
    """The array ``name`` of an answer, in the order of ``names``; ``missing`` for images the tool could not read."""
    row = {each: number for number, each in enumerate(answer["names"].tolist())}
    values = answer[name]
    return np.array([values[row[each]] if each in row else missing for each in names])


def renumbered(answer: Answer, pairs: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
    """Pairs of a tool's rows as pairs of rows of ``names``."""
    row = {each: number for number, each in enumerate(names)}
    place = np.array([row[each] for each in answer["names"].tolist()], dtype=np.int64)
    return place[pairs]
