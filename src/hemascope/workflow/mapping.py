"""A picture of the embeddings: of a data set, or before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.cells import UNUSED, CellDataset
from hemascope.config import RunConfig
from hemascope.data.splits import load_splits
from hemascope.embeddings import FINAL, Embedder, embed
from hemascope.errors import DataError, SplitError, UsageError
from hemascope.findings import MapPoints
from hemascope.models.shipped import hiding, locate
from hemascope.progress import SILENT, Progress
from hemascope.workflow.cells import Data, cells_of, prepared_for

POINTS = 5000
"""Cells on a map, as in the report of the team that won the contest this project started from."""


@dataclass(frozen=True)
class DrawnMap:
    """A page with one map, or two side by side: ``maps`` in the order shown, ``part`` of which cells."""

    page: Path
    maps: tuple[MapPoints, ...]
    part: str


def draw_map(
    data: Data,
    config: RunConfig | None = None,
    *,
    output: str | Path,
    run: str | Path | None = None,
    part: str = "test",
    points: int = POINTS,
    views: int = 1,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> DrawnMap:
    """Draw the cells of ``data`` where a frozen backbone puts them, as one self-contained page.

    run     with a run's folder or a shipped model's name, two maps of the same cells: its backbone as it was before
            training, and after it. Only cells of ``part`` of the run's split are drawn: a network has seen the others,
            and flatters itself on them
    part    train, validation, calibration, test or all; without a run always all
    points  the largest number of cells drawn, chosen by ``config.seed``

    Beside each map stand two numbers measured on the vectors themselves, silhouette and the balanced accuracy of their
    nearest neighbours, so that the eye is not the judge. Raises DataError, BundleError, SplitError, OutputError.
    """
    from hemascope.projection import choose_rows
    from hemascope.report import render_map

    if points < 10:
        raise UsageError(f"a map needs at least 10 points, found {points}")
    config = config or RunConfig()
    located = None if run is None else locate(run)
    folder = None if located is None else located.folder
    embedders, titles = _embedders(config, folder, views)
    if located is not None:
        from hemascope.models.bundle import load_bundle

        if located.hides_shipped:
            progress.note(hiding(located))
        config = prepared_for(config, load_bundle(located.folder).preparation)
    cells = cells_of(data, config, format=format, class_names=class_names, progress=progress)
    rows = np.arange(len(cells)) if folder is None or part == "all" else _rows_of(folder, cells, part)
    if len(rows) < 10:
        raise DataError(f"a map needs at least 10 cells, found {len(rows)} in the part {part!r}")
    chosen = rows[choose_rows(cells.labels[rows], points, seed=config.seed)]
    drawn = cells.subset(chosen)
    maps = tuple(
        map_of(
            drawn,
            embed(drawn, embedder, progress=progress).level(FINAL),
            np.arange(len(drawn)),
            title,
            config.seed,
            progress,
        )
        for embedder, title in zip(embedders, titles, strict=True)
    )
    page = render_map(drawn, maps, Path(output), title=f"{Path(cells.source).name or 'cells'}")
    return DrawnMap(page, maps, part if run is not None else "all")


def map_of(
    cells: CellDataset,
    vectors: NDArray[np.floating],
    rows: NDArray[np.int64],
    title: str,
    seed: int,
    progress: Progress,
) -> MapPoints:
    """The map of some rows with its two numbers. vectors (M, D) belong to ``rows``."""
    from hemascope.projection import project, separation

    found = separation(vectors, cells.labels[rows], seed=seed)
    position = project(vectors, seed=seed, progress=progress)
    return MapPoints(rows, position, found.silhouette, found.knn_accuracy, title)


def _embedders(config: RunConfig, run: Path | None, views: int) -> tuple[list[Embedder], list[str]]:
    device = config.runtime.device
    if run is None:
        size = config.data.preparation.size
        return [Embedder(model=config.model, size=size, views=views, device=device)], [config.model.backbone]
    from hemascope.models.bundle import load_bundle

    bundle = load_bundle(run)
    size = bundle.preparation.size
    before = Embedder(model=bundle.config, size=size, views=views, device=device)
    after = Embedder(run=run, views=views, device=device)
    return [before, after], ["before training", "after training"]


def _rows_of(run: Path, cells: CellDataset, part: str) -> NDArray[np.int64]:
    if not (run / "splits.json").exists():
        raise SplitError(f"{run} has no splits.json, so its {part} part is not known. Draw all cells with --part all")
    splits = load_splits(run / "splits.json", cells)
    known = sorted(set(splits.assignment.tolist()) - {UNUSED})
    if part not in known:
        raise SplitError(f"the split of {run} has no part {part!r}; it has {', '.join(known)}; or say all")
    return splits.indices(part)
