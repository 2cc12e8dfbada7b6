"""``manifest.json``: where a run came from, with what, on what, and what it cost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import hemascope
from hemascope.cells import SPLIT_NAMES, UNLABELLED, UNUSED, CellDataset
from hemascope.config import RunConfig
from hemascope.errors import RunError

if TYPE_CHECKING:
    from hemascope.data.splits import Splits
    from hemascope.runtime import Runtime

VERSION = 1
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")


def new_manifest(
    name: str, command: str, config: RunConfig, cells: CellDataset, splits: Splits, runtime: Runtime
) -> dict[str, Any]:
    """What is known before training; ``finished`` stays None until the run is complete."""
    rows = {part: np.flatnonzero(splits.assignment == part) for part in (*SPLIT_NAMES, UNUSED)}
    data = describe_data(cells, {part: found for part, found in rows.items() if len(found)})
    return {
        "version": VERSION,
        "name": name,
        "command": command,
        "created": now(),
        "finished": None,
        "seed": config.seed,
        "versions": versions(),
        "git_commit": git_commit(),
        "platform": {
            "machine": platform.machine(),
            "system": platform.system(),
            "cpu_count": os.cpu_count(),
            "device": runtime.device,
            "precision": runtime.precision,
            "processes": runtime.world_size,
        },
        "data": {**data, "split_fingerprint": splits.fingerprint, "split_notes": list(splits.notes)},
    }


def evaluation_manifest(
    run: Path,
    provenance: Mapping[str, Any],
    cells: CellDataset,
    rows: NDArray[np.intp],
    known: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """The record of measuring ``run`` on other cells: today's date and versions, those cells, the run's network.

    known  bool (N,) which cells the run learnt from, or None where that is not known
    """
    trained = read_manifest(run) if (run / "manifest.json").exists() else {}
    notes = [] if known is None or not known[rows].any() else [familiar(int(known[rows].sum()), len(rows))]
    return {
        "version": VERSION,
        "name": f"{run.name} on {Path(cells.source).name or 'cells'}",
        "created": now(),
        "finished": now(),
        "seed": provenance.get("seed", 0),
        "versions": versions(),
        "git_commit": git_commit(),
        "data": {**describe_data(cells, {"evaluated": rows}), "split_notes": notes},
        **({"model": trained["model"]} if "model" in trained else {}),
    }


def now() -> str:
    """The local time with its offset, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def familiar(count: int, total: int) -> str:
    """The sentence for cells an evaluation has in common with training."""
    return (
        f"{count:,} of these {total:,} cells have the very pixels of cells the run learnt from: "
        "the figures are too good by what it remembers."
    )


def describe_data(cells: CellDataset, parts: Mapping[str, NDArray[np.intp]]) -> dict[str, Any]:
    """Composition of a set of cells, whole and by part."""
    k = len(cells.class_names)
    counts = {}
    for part, rows in parts.items():
        labels = cells.labels[rows]
        counts[part] = np.bincount(labels[labels != UNLABELLED], minlength=k).tolist()
    return {
        "source": cells.source,
        "fingerprint": cells.fingerprint(),
        "cleaning": cells.cleaning,
        "preparation": cells.preparation,
        "n": len(cells),
        "class_names": list(cells.class_names),
        "class_counts": cells.class_counts().tolist(),
        "grouped": cells.groups is not None and bool((cells.groups != "").any()),
        "split_counts": counts,
        "split_notes": [],
        "unreadable": [{"id": image.id, "reason": image.reason} for image in cells.unreadable],
        "notes": dict(cells.notes),
    }


def read_manifest(run: Path) -> dict[str, Any]:
    """A run's manifest. Raises RunError where there is none or it is damaged."""
    path = run / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{run} is not a run folder: it has no manifest.json") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): the run folder is damaged") from error
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise RunError(f"{path} is of another version of hemascope")
    return manifest


def versions() -> dict[str, str]:
    """Versions of Python, hemascope and what the numbers depend on."""
    found = {"hemascope": hemascope.__version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit hemascope itself was run from, "+changes" where files differ from it; None outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "--no-optional-locks", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    if not git("ls-files", "manifest.py"):
        return None  # installed into some other project's checkout
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--", ".") else commit
