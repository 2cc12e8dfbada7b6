"""For new cells, the training cells that a model sees as most like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder, write_text
from hemascope.cells import CellDataset
from hemascope.config import Preparation, RunConfig
from hemascope.errors import BundleError, DataError
from hemascope.evaluation.table import similar_csv
from hemascope.progress import SILENT, Progress
from hemascope.report.contact_sheet import SheetRow, SheetSection, save_contact_sheet
from hemascope.similar import KnownCells, Neighbours, agreement
from hemascope.workflow.cells import Data, cells_of, prepared_for
from hemascope.workflow.places import check_replaceable

MOST_ROWS = 200
"""Cells on one sheet; the table has all."""

_PAPER = 235
"""Grey of the picture of a training cell whose pixels are not at hand."""


@dataclass(frozen=True)
class SimilarCells:
    """N new cells and the training cells nearest to each.

    ids         N names
    errors      N reasons why an image could not be read, "" where it could; its neighbours are then empty
    named       int64 (N,): the class given, -1 where unreadable
    neighbours  of the readable ones, in order
    known       the training cells they index
    sheet       the picture, or None
    """

    ids: Sequence[str]
    errors: Sequence[str]
    named: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    neighbours: Neighbours
    known: KnownCells
    sheet: Path | None = None

    def agreeing(self, place: int) -> int:
        """How many neighbours of the place-th readable cell have the class it was given."""
        row = int(np.flatnonzero(self.named >= 0)[place])
        return agreement(self.known, self.neighbours.rows[place], int(self.named[row]))


def similar(
    run: str | Path,
    inputs: Sequence[str | Path],
    *,
    k: int = 8,
    data: Data | None = None,
    output: str | Path | None = None,
    progress: Progress = SILENT,
) -> SimilarCells:
    """The ``k`` training cells nearest to each image of ``inputs`` in the features of the model of ``run``.

    data    the cells the model was trained on, whose pictures are then shown; without them there are names alone
    output  a folder for ``similar.csv`` and, if there are pictures, ``similar.png``

    Raises BundleError where the model was never calibrated and so keeps no training cells, DataError where ``data`` are
    other cells, SourceError, UsageError, OutputError.
    """
    from hemascope.data.stream import stream_images
    from hemascope.predict import joined, load_model

    target = None if output is None else Path(output)
    if target is not None:
        check_replaceable(target, "similar.csv", "a list of similar cells")
    predictor = load_model(run, progress=progress)
    assessor = predictor.assessor
    if assessor is None:
        raise BundleError(
            f"{predictor.name} keeps no training cells to compare with, since it was never calibrated. Calibrate it: "
            f"hemascope calibrate {run} DATA, with the cells it was trained on."
        )
    known = assessor.known_cells()
    pictures = None if data is None else _pictures(data, known, predictor.bundle.preparation, progress)
    ids: list[str] = []
    errors: list[str] = []
    shown: list[NDArray[np.uint8]] = []
    parts = []
    for batch in stream_images(inputs, predictor.bundle.preparation, progress=progress):
        readable = np.array([not error for error in batch.errors], dtype=bool)
        ids += batch.ids
        errors += batch.errors
        images = batch.images[readable]
        room = max(0, MOST_ROWS - len(shown)) if pictures is not None and target is not None else 0
        shown += [image.copy() for image in images[:room]]
        parts.append(predictor.predict_images(images, [str(k) for k in range(len(images))], features=True))
    said = joined(parts, predictor.class_names)
    if not len(said):
        raise DataError(
            f"none of the {len(ids):,} images could be read, so nothing can be compared: {ids[0]}: {errors[0]}"
        )
    assert said.features is not None
    neighbours = known.nearest(assessor.detector.project(said.features), k)
    named = np.full(len(ids), -1, dtype=np.int64)
    named[[place for place, error in enumerate(errors) if not error]] = said.predicted
    found = SimilarCells(ids, errors, named, said.probs.max(axis=1), neighbours, known)
    if target is None:
        return found
    with atomic_folder(target) as temporary:
        write_text(temporary / "similar.csv", similar_csv(_table(found)))
        if pictures is not None:
            save_contact_sheet(temporary / "similar.png", [_sheet(found, shown, pictures)])
    return SimilarCells(
        ids, errors, named, found.probabilities, neighbours, known, None if pictures is None else target / "similar.png"
    )


def _pictures(
    data: Data, known: KnownCells, preparation: Preparation, progress: Progress
) -> dict[str, NDArray[np.uint8]]:
    """The prepared pictures of known cells, by id."""
    cells: CellDataset = cells_of(
        data, prepared_for(RunConfig(), preparation), format=None, class_names=None, progress=progress
    )
    wanted = set(known.ids)
    rows = {str(name): row for row, name in enumerate(cells.ids) if str(name) in wanted}
    if not rows:
        raise DataError(
            f"none of the model's training cells is in {cells.source}: give the cells it was trained on, or leave "
            "--data out."
        )
    return _Pictures(cells, rows)


class _Pictures(dict[str, NDArray[np.uint8]]):
    """Pictures read when they are asked for, so that a set larger than memory can be given."""

    def __init__(self, cells: CellDataset, rows: dict[str, int]) -> None:
        super().__init__()
        self._cells, self._rows = cells, rows

    def __missing__(self, name: str) -> NDArray[np.uint8]:
        size = self._cells.images.shape[1]
        if name not in self._rows:
            return np.full((size, size, 3), _PAPER, dtype=np.uint8)
        return np.asarray(self._cells.images[self._rows[name]])


def _table(found: SimilarCells) -> list[tuple[str, str, int, str, str, float]]:
    """(path, label, rank, id, its label, distance) of every neighbour."""
    rows = []
    for place, row in enumerate(np.flatnonzero(found.named >= 0).tolist()):
        label = found.known.class_names[found.named[row]]
        for rank, (cell, distance) in enumerate(
            zip(found.neighbours.rows[place].tolist(), found.neighbours.distances[place].tolist(), strict=True), start=1
        ):
            rows.append((found.ids[row], label, rank, found.known.ids[cell], found.known.label(cell), distance))
    return rows


def _sheet(
    found: SimilarCells, shown: Sequence[NDArray[np.uint8]], pictures: dict[str, NDArray[np.uint8]]
) -> SheetSection:
    rows = []
    readable = np.flatnonzero(found.named >= 0).tolist()
    for place, (picture, row) in enumerate(zip(shown, readable, strict=False)):
        cells = found.neighbours.rows[place].tolist()
        label = found.known.class_names[found.named[row]]
        rows.append(
            SheetRow(
                (
                    Path(found.ids[row]).name[:32],
                    f"{label}, {100 * found.probabilities[place]:.0f} %",
                    f"{found.agreeing(place)} of {len(cells)} neighbours agree",
                ),
                [picture, *(pictures[found.known.ids[cell]] for cell in cells)],
                (
                    "",
                    *(
                        f"{found.known.label(cell)[:10]} {distance:.3f}"
                        for cell, distance in zip(cells, found.neighbours.distances[place].tolist(), strict=True)
                    ),
                ),
            )
        )
    more = len(readable) - len(rows)
    return SheetSection(
        "Most similar training cells",
        "The new cell first, then the training cells the model sees as most like it, nearest first, with their label "
        "and distance." + (f" {more:,} more are in the table." if more else ""),
        rows,
    )
