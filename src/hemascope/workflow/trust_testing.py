"""The trust test: whether a model's probabilities, sets, warnings and doubts hold, clean and under corruption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from hemascope.assessment import Assessor, described_by
from hemascope.atomic import atomic_folder, write_json
from hemascope.cells import CellDataset
from hemascope.config import RunConfig
from hemascope.content import known_content
from hemascope.corruptions import CORRUPTIONS, SEVERITIES, STACKS, corrupt, stack
from hemascope.data.foreign import FOREIGN, make_foreign
from hemascope.errors import BundleError, DataError, UsageError
from hemascope.evaluation.trust_measures import Seen, measured_trust
from hemascope.manifest import familiar, now
from hemascope.progress import SILENT, Progress
from hemascope.report.render_trust import render_trust
from hemascope.results import Predictions
from hemascope.trust_results import AttributeResult, DetectionResult, Distance, TrustReport
from hemascope.uncertainty.costs import read_costs
from hemascope.uncertainty.detection import measure_detection
from hemascope.workflow.cells import Data, cells_of, prepared_for
from hemascope.workflow.evaluation import with_classes_of
from hemascope.workflow.places import check_replaceable
from hemascope.workflow.stressing import default_folder, fewer, tested_rows

if TYPE_CHECKING:
    from hemascope.predict import Predictor

SEED = 20_260
"""Seed of the corruptions and the foreign images, apart from training's and from the stress test's."""

DAMAGED = 500
"""Cells that each kind of damage is tried on, where nobody asks for another number: intervals of about a point."""

FOREIGN_IMAGES = 300
"""Images of each set that holds no training cells."""

_BATCH = 256


@dataclass(frozen=True)
class TrustTested:
    """A folder with ``trust.json`` and ``report.html``."""

    folder: Path
    report: TrustReport
    page: Path


def trust(
    run: str | Path,
    data: Data,
    *,
    output: str | Path | None = None,
    part: str | None = None,
    limit: int = DAMAGED,
    costs: str | Path | None = None,
    words: str | Path | None = None,
    seed: int = SEED,
    resamples: int = 1000,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> TrustTested:
    """Test what the model of ``run`` says of itself on the labelled cells of ``data``, and write a report.

    run     a run's or bundle's folder, or the name of a shipped model
    part    test, validation, train or all; left out: test where ``data`` is what the run was split from, else all
    limit   at most this many cells under each kind of damage, drawn from the classes in proportion; all are tried clean
    costs   a TOML file of what each confusion costs; left out: ``uncertainty.costs``
    words   a folder of WBCAtt tables, to test the words that describe white cells on the cells they name

    Every kind of MedMNIST-C damage is tried, each cell at a severity drawn for it, and the two stacked tests. Raises
    BundleError where the model was never calibrated, DataError, UsageError, OutputError.
    """
    from hemascope.predict import load_model

    predictor = load_model(run, batch_size=_BATCH, progress=progress)
    assessor = predictor.assessor
    if assessor is None:
        raise BundleError(
            f"{predictor.name} was never calibrated, so there is nothing to test. Calibrate it: hemascope calibrate "
            f"{run} DATA, with the cells it was trained on."
        )
    target = Path(output) if output is not None else default_folder(predictor, "trust")
    check_replaceable(target, "trust.json", "a trust test")
    if seed < 0:
        raise UsageError(f"a seed must be at least 0, found {seed}.")
    bundle = predictor.bundle
    table = None if costs is None else read_costs(Path(costs), bundle.class_names)
    cells = with_classes_of(
        bundle.class_names,
        cells_of(
            data,
            prepared_for(RunConfig(), bundle.preparation),
            format=format,
            class_names=class_names,
            progress=progress,
        ),
    )
    rows, chosen, notes = tested_rows(predictor.folder, cells, part)
    if chosen == "calibration":
        raise UsageError("the calibration part is what the model was calibrated on: test it on another.")
    known = known_content(predictor.folder, cells)
    if known is not None and known[rows].any():
        notes.append(familiar(int(known[rows].sum()), len(rows)))
        progress.warn(notes[-1])
    few = fewer(cells, rows, limit) if limit < len(rows) else rows
    if len(few) < len(rows):
        notes.append(f"Under damage: {len(few):,} of the cells, drawn from the classes in proportion.")

    described = None if words is None else _described(assessor, cells, rows, words)
    conditions = list(_conditions(predictor, cells, rows, few, seed, progress))
    report = measured_trust(conditions, assessor, costs=table, resamples=resamples, seed=seed)
    report = report.model_copy(
        update={
            "model": predictor.name,
            "model_sha256": bundle.sha256,
            "part": chosen,
            "detection": tuple(_detection(predictor, assessor, cells, few, conditions, resamples, seed, progress)),
            "attributes": ()
            if described is None
            else _attributes(assessor, conditions[0], *described, resamples, seed),
            "notes": tuple(notes),
            "data_source": cells.source,
            "data_fingerprint": cells.fingerprint(),
            "created": now(),
            "command": command,
        }
    )
    with atomic_folder(target) as temporary:
        write_json(temporary / "trust.json", report.model_dump(mode="json"))
        render_trust(report, temporary)
    return TrustTested(target, report, target / "report.html")


def _described(
    assessor: Assessor, cells: CellDataset, rows: NDArray[np.intp], words: str | Path
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """The places among ``rows`` of cells that WBCAtt describes, and the values of their attributes."""
    from hemascope.morphology.collect import collect
    from hemascope.morphology.read_wbcatt import read_wbcatt

    if assessor.words is None:
        raise UsageError("this model has no words for cells: calibrate it with --words first, or leave them out here.")
    found = collect(cells, np.full(len(cells), "test"), read_wbcatt(Path(words)))
    mine = np.isin(found.rows, rows)
    if not mine.any():
        raise DataError("none of the cells that are tested is described by WBCAtt.")
    return np.searchsorted(rows, found.rows[mine]), found.values[mine]


def _attributes(
    assessor: Assessor,
    clean: Seen,
    places: NDArray[np.intp],
    values: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> tuple[AttributeResult, ...]:
    """How well each attribute is told of the described cells."""
    from hemascope.morphology.scores import score_attributes

    said = clean.predictions.rows(places)
    assert assessor.words is not None and said.features is not None and said.stages is not None
    features = described_by(said.features, said.stages)
    return tuple(score_attributes(assessor.words, features, values, resamples=resamples, seed=seed))


def _conditions(
    predictor: Predictor,
    cells: CellDataset,
    rows: NDArray[np.intp],
    few: NDArray[np.intp],
    seed: int,
    progress: Progress,
) -> Iterator[Seen]:
    """All cells as they are; then the few under each kind of damage and in each stacked test."""
    from hemascope.predict import joined

    damage = [*CORRUPTIONS, *STACKS]
    with progress.task("trust test", len(rows) + len(damage) * len(few), "predictions") as advance:

        def predicted(name: str, chosen: NDArray[np.intp]) -> Predictions:
            parts = []
            for start in range(0, len(chosen), _BATCH):
                mine = chosen[start : start + _BATCH]
                ids = [str(cells.ids[row]) for row in mine]
                images = damaged(np.stack([cells.images[row] for row in mine]), name, ids, seed)
                parts.append(predictor.predict_images(images, ids, features=True))
                advance(len(mine))
            return joined(parts, predictor.class_names)

        yield Seen("clean", "as they are", cells.labels[rows].astype(np.int64), predicted("clean", rows))
        labels = cells.labels[few].astype(np.int64)
        for name in damage:
            title = CORRUPTIONS[name].title if name in CORRUPTIONS else _STACK_TITLES[name]
            yield Seen(name, title, labels, predicted(name, few))


_STACK_TITLES: Mapping[str, str] = {
    "stacked_1_2": "one or two strong layers",
    "stacked_2_4": "two to four strong layers",
}


def damaged(images: NDArray[np.uint8], name: str, ids: Sequence[str], seed: int) -> NDArray[np.uint8]:
    """Prepared cells under one condition: ``clean``, a stacked test, or a corruption at a severity drawn for each cell.

    images  uint8 (N, S, S, 3)
    ids     N stable names on which, with the seed, the severity and the draws depend
    """
    if name == "clean":
        return images
    if name in STACKS:
        return stack(images, name, seed=seed, ids=ids)[0]
    result = np.empty_like(images)
    severity = np.array([1 + crc32(f"{seed} {name} {one}".encode()) % len(SEVERITIES) for one in ids])
    for one in SEVERITIES:
        mine = np.flatnonzero(severity == one).tolist()
        if mine:
            result[mine] = corrupt(images[mine], name, one, seed=seed, ids=[ids[place] for place in mine])
    return result


def _detection(
    predictor: Predictor,
    assessor: Assessor,
    cells: CellDataset,
    few: NDArray[np.intp],
    conditions: Sequence[Seen],
    resamples: int,
    seed: int,
    progress: Progress,
) -> Iterator[DetectionResult]:
    """Each set of foreign images, and the damaged cells, against the clean cells."""
    clean, *under_damage = conditions
    inside = _scores(assessor, clean.predictions)
    given = np.stack([cells.images[row] for row in few[:FOREIGN_IMAGES]])
    size = predictor.bundle.preparation.size
    with progress.task("foreign images", len(FOREIGN) * FOREIGN_IMAGES, "images") as advance:
        for name, kind in FOREIGN.items():
            images = make_foreign(name, FOREIGN_IMAGES, size=size, seed=seed, cells=given)
            said = predictor.predict_images(images, [f"{name}#{k}" for k in range(len(images))], features=True)
            advance(FOREIGN_IMAGES)
            yield _told(assessor, inside, said, name, kind.title, kind.distance, resamples, seed)
    for seen in under_damage:
        yield _told(assessor, inside, seen.predictions, seen.name, seen.title, "corrupted", resamples, seed)


def _told(
    assessor: Assessor,
    inside: Mapping[str, NDArray[np.float32]],
    said: Predictions,
    name: str,
    title: str,
    distance: Distance,
    resamples: int,
    seed: int,
) -> DetectionResult:
    assert said.trust is not None
    return measure_detection(
        inside,
        _scores(assessor, said),
        ~said.trust.in_distribution,
        name=name,
        title=title,
        distance=distance,
        resamples=resamples,
        seed=seed,
    )


def _scores(assessor: Assessor, said: Predictions) -> dict[str, Any]:
    assert said.features is not None and said.stages is not None
    return assessor.detector.scores(said.features, said.logits, early=assessor.early(said.stages))
