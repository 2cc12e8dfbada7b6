"""The shift card: whether new cells, unlabelled, are still of the kind a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.assessment import Assessor, TrustRecord
from hemascope.atomic import atomic_folder, write_json
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.config import RunConfig
from hemascope.errors import BundleError, DataError, UsageError
from hemascope.manifest import now
from hemascope.progress import SILENT, Progress
from hemascope.report.render_shift import render_shift
from hemascope.results import Predictions
from hemascope.shift.recalibrate import refit
from hemascope.shift.recommend import recommend
from hemascope.shift.reference import MOST, embedding_shift, measure_shifts, measured, read_reference
from hemascope.shift_results import Recalibration, ShiftCard
from hemascope.uncertainty.binomial import proportion
from hemascope.uncertainty.expected_accuracy import expected_accuracy, read_expected_accuracy
from hemascope.workflow.cells import Data, Rows, cells_of, prepared_for, spread
from hemascope.workflow.places import check_free, check_replaceable
from hemascope.workflow.stressing import default_folder

LABELS = 100
"""At most so many labels are used to recalibrate: what a person names in a quarter of an hour."""


@dataclass(frozen=True)
class Shifted:
    """A folder with ``card.json`` and ``report.html``."""

    folder: Path
    card: ShiftCard
    page: Path


def shift(
    run: str | Path,
    data: Data,
    *,
    output: str | Path | None = None,
    recalibrated: str | Path | None = None,
    labels: int = LABELS,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    command: str = "",
    progress: Progress = SILENT,
) -> Shifted:
    """Compare ``data`` with what the model of ``run`` was trained on, and say whether to use it there.

    No labels are needed. ``recalibrated`` is a folder for a copy of the model whose temperature and sets are fitted
    anew on at most ``labels`` labelled cells of ``data``, some of each class; the card then says what that changes, on
    cells left out in turn. Raises BundleError where the model was never calibrated, DataError, UsageError, OutputError.
    """
    from hemascope.models.bundle import copy_bundle
    from hemascope.predict import load_model

    predictor = load_model(run, progress=progress)
    assessor = predictor.assessor
    parts = predictor.bundle.trust
    if assessor is None or parts is None or assessor.record.shift is None:
        raise BundleError(
            f"{predictor.name} does not say what its training cells look like, since it was never calibrated. "
            f"Calibrate it: hemascope calibrate {run} DATA, with the cells it was trained on."
        )
    target = Path(output) if output is not None else default_folder(predictor, "shift")
    check_replaceable(target, "card.json", "a shift card")
    if recalibrated is not None:
        check_free(Path(recalibrated))
        if target.absolute() in (Path(recalibrated).absolute(), *Path(recalibrated).absolute().parents):
            raise UsageError(
                f"--recalibrated {recalibrated} lies in {target}, which the card replaces as a whole. Name another "
                "place for the model."
            )
    cells = cells_of(
        data,
        prepared_for(RunConfig(), predictor.bundle.preparation),
        format=format,
        class_names=class_names,
        progress=progress,
    )
    if not len(cells):
        raise DataError(f"{cells.source} holds no cells to compare.")
    rows = np.arange(len(cells))
    images: Any = Rows(cells.images, rows)
    said = predictor.predict_images(images, [str(name) for name in cells.ids], features=True, progress=progress)
    looked = np.sort(np.random.default_rng(seed).permutation(len(cells))[:MOST])
    reference = read_reference(assessor.record.shift, predictor.folder)
    measures = measure_shifts(reference, measured(np.stack([cells.images[row] for row in looked])), seed=seed)
    assert said.features is not None and said.trust is not None
    distance, usual = embedding_shift(parts.arrays, assessor.detector.project(said.features[looked]), seed=seed)
    accuracy = assessor.record.expected_accuracy
    known = None if accuracy is None else read_expected_accuracy(accuracy, predictor.folder)
    outside = int((~said.trust.in_distribution).sum())
    marked = sum(1 for reason in said.trust.review_reason if reason)
    card = ShiftCard(
        model=predictor.name,
        model_sha256=predictor.bundle.sha256,
        n=len(cells),
        unreadable=len(cells.unreadable),
        measures=measures,
        embedding_distance=distance,
        embedding_usual=usual,
        out_of_distribution=proportion(outside, len(cells)),
        false_alarm=assessor.detector.record.false_alarm,
        expected_accuracy=None if known is None else expected_accuracy(known, said.probs),
        known_accuracy=None if known is None else known.accuracy,
        method="" if known is None else known.method,
        method_error=None if known is None else known.error,
        marked=proportion(marked, len(cells)),
        class_names=predictor.class_names,
        class_shares=_shares(said, assessor),
        recommendation="use",
        reasons=(),
        data_source=cells.source,
        created=now(),
        command=command,
    )
    advice, reasons = recommend(card)
    card = card.model_copy(update={"recommendation": advice, "reasons": reasons})
    record = None
    if recalibrated is not None:
        record, effect = _refitted(assessor, cells, said, labels, seed)
        card = card.model_copy(update={"recalibration": effect, "recalibrated": str(recalibrated)})
    with atomic_folder(target) as temporary:
        write_json(temporary / "card.json", card.model_dump(mode="json"))
        render_shift(card, temporary)
        if record is not None and recalibrated is not None:  # the copy last: a card that fails leaves none behind
            copy_bundle(
                predictor.bundle,
                Path(recalibrated),
                calibration=record.model_dump(mode="json"),
                trust=parts.arrays,
            )
    return Shifted(target, card, target / "report.html")


def _shares(said: Predictions, assessor: Assessor) -> tuple[tuple[float, float], ...]:
    """How often each class is named, and how often it is among the training cells the bundle keeps."""
    classes = len(assessor.class_names)
    named = np.bincount(said.predicted, minlength=classes) / len(said)
    labels = assessor.known_cells().labels
    known = np.bincount(labels[labels >= 0], minlength=classes) / max(1, int((labels >= 0).sum()))
    return tuple((float(a), float(b)) for a, b in zip(named, known, strict=True))


def _refitted(
    assessor: Assessor, cells: CellDataset, said: Predictions, most: int, seed: int
) -> tuple[TrustRecord, Recalibration]:
    """Temperature and sets fitted on at most so many labelled cells, and what that changes."""
    labels = _labels(cells, assessor)
    rows = np.flatnonzero(labels != UNLABELLED)
    if len(rows) < 2:
        raise DataError(
            f"{cells.source} has {len(rows)} labelled cells; recalibration takes some. Put cells into folders named by "
            "class, or leave --recalibrated out."
        )
    if most < 2:
        raise UsageError(f"recalibration takes at least 2 labels, found {most}")
    chosen: NDArray[np.intp] = rows[spread(labels[rows], seed)[:most]]
    return refit(assessor.record, said.logits[chosen], labels[chosen], seed=seed)


def _labels(cells: CellDataset, assessor: Assessor) -> NDArray[np.int64]:
    """Labels as indices into the model's classes; those of classes it does not know are no labels here."""
    own = {name: place for place, name in enumerate(assessor.class_names)}
    table = np.array([*(own.get(name, UNLABELLED) for name in cells.class_names), UNLABELLED], dtype=np.int64)
    return table[cells.labels]
