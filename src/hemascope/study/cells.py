"""The cells of a study: a stated part of a data set with one split, the same for every variant and seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder
from hemascope.cells import SPLIT_NAMES, UNUSED, CellDataset
from hemascope.config import Preparation, RunConfig
from hemascope.data.load import load
from hemascope.data.splits import Splits, load_splits, make_splits, save_splits
from hemascope.data.store import StoreRow, open_store, write_store
from hemascope.progress import Progress
from hemascope.study.plan import CellPlan
from hemascope.workflow.cells import spread


@dataclass(frozen=True)
class StudyCells:
    """Where a study's cells are, and what they are.

    folder       holds ``store`` (a packed store) and ``splits.json``
    fingerprint  of the cells and of the part each is in
    counts       number of cells by part
    """

    folder: Path
    fingerprint: str
    counts: dict[str, int]
    class_names: tuple[str, ...]
    source: str

    @property
    def store(self) -> Path:
        """The packed store."""
        return self.folder / "store"

    @property
    def splits(self) -> Path:
        """The split file."""
        return self.folder / "splits.json"


def study_cells(
    data: str | Path,
    config: RunConfig,
    plan: CellPlan,
    output: Path,
    *,
    format: str | None = None,
    class_names: tuple[str, ...] | None = None,
    progress: Progress,
) -> StudyCells:
    """Read ``data`` as ``config`` prepares it, split it by the plan's seed, cut it down, and keep it in ``output``.

    Cells of a study done before with the same plan are opened, not made again. Each part keeps its classes'
    proportions, and at least one cell of each. Raises SourceError, StoreError, SplitError, OutputError.
    """
    preparation = config.data.preparation
    cells = load(
        data,
        format=format,
        preparation=preparation,
        class_names=class_names,
        label_pattern=config.data.label_pattern,
        max_unreadable=config.data.max_unreadable,
        progress=progress,
    )
    shares = (config.data.validation, config.data.calibration, config.data.test)
    key = f"{cells.fingerprint()} {preparation.describe()} {plan.model_dump_json()} {shares}"
    folder = output / "cells" / hashlib.sha256(key.encode()).hexdigest()[:12]
    with _locked(folder):
        if not (folder / "splits.json").exists():
            assignment = cut_down(cells, make_splits(cells, config.data, plan.seed).assignment, plan)
            _write(folder, cells, assignment, preparation, progress)
    kept = open_store(folder / "store")
    splits = load_splits(folder / "splits.json", kept)
    parts = "\n".join(splits.assignment.tolist())
    fingerprint = hashlib.sha256(f"{kept.fingerprint()} {kept.preparation} {parts}".encode()).hexdigest()
    counts = {part: len(splits.indices(part)) for part in SPLIT_NAMES}
    return StudyCells(folder, fingerprint, counts, kept.class_names, cells.source)


def cut_down(cells: CellDataset, assignment: NDArray[np.str_], plan: CellPlan) -> NDArray[np.str_]:
    """``assignment`` (N,) with the cells beyond the plan's numbers unused, classes in their own proportions."""
    result = assignment.copy()
    for part, limit in (("train", plan.train), ("validation", plan.validation), ("test", plan.test)):
        rows = np.flatnonzero(assignment == part)
        if limit is None or limit >= len(rows):
            continue
        labels = cells.labels[rows]
        rng = np.random.default_rng((plan.seed, SPLIT_NAMES.index(part)))
        # Walk the classes' cells at even steps of their own length: any beginning of the walk has their proportions.
        place = np.empty(len(rows))
        for label in np.unique(labels):
            mine = rng.permutation(np.flatnonzero(labels == label))
            place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        first = spread(labels, plan.seed)[: len(np.unique(labels))]  # one of each class, however rare
        place[first] = -1
        chosen = np.argsort(place, kind="stable")[:limit]
        result[rows] = UNUSED
        result[rows[chosen]] = part
    return result


def _write(
    folder: Path, cells: CellDataset, assignment: NDArray[np.str_], preparation: Preparation, progress: Progress
) -> None:
    rows = np.flatnonzero(assignment != UNUSED)
    with (
        atomic_folder(folder) as temporary,
        progress.task("cells of the study", len(rows), "images") as advance,
    ):

        def stored() -> list[StoreRow]:
            return [_row(cells, int(row)) for row in rows]

        kept = write_store(
            temporary / "store",
            stored(),
            class_names=cells.class_names,
            preparation=preparation,
            source=cells.source,
        )
        save_splits(temporary / "splits.json", Splits(assignment[rows], kept.fingerprint()), kept)
        advance(len(rows))


def _row(cells: CellDataset, row: int) -> StoreRow:
    height, width = (0, 0) if cells.original_size is None else cells.original_size[row].tolist()
    return StoreRow(
        id=str(cells.ids[row]),
        label=int(cells.labels[row]),
        image=np.asarray(cells.images[row]),
        content_hash=cells.content_hash[row],
        height=height,
        width=width,
        group=None if cells.groups is None else str(cells.groups[row]),
    )


def _locked(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.parent / f"{folder.name}.lock")
