"""Measuring a model on labelled cells, and comparing two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemascope.atomic import output_error, write_json, write_text
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.config import RunConfig
from hemascope.config_files import dump_config, load_config
from hemascope.content import known_content
from hemascope.errors import DataError, RunError, UsageError
from hemascope.evaluation.comparison import compare as compare_predictions
from hemascope.evaluation.gallery import save_gallery
from hemascope.evaluation.record import (
    build_evaluation,
    load_evaluation,
    load_predictions,
    save_evaluation,
    save_predictions,
)
from hemascope.evaluation.trust_measures import Seen, measured_trust
from hemascope.manifest import evaluation_manifest, familiar, now
from hemascope.names import listed
from hemascope.progress import SILENT, Progress
from hemascope.report import render_report
from hemascope.report.render_trust import render_trust
from hemascope.results import Comparison, Evaluation, Predictions
from hemascope.workflow.cells import Data, Rows, cells_of
from hemascope.workflow.places import check_no_run, check_replaceable

if TYPE_CHECKING:
    from hemascope.predict import Predictor


@dataclass(frozen=True)
class Evaluated:
    """A folder with results: ``evaluation.json``, ``predictions/``, ``report.html``."""

    folder: Path
    evaluation: Evaluation
    report: Path


EvaluatedRun = Evaluated


def evaluate(
    run: str | Path,
    data: Data,
    *,
    output: str | Path | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
    tta: Sequence[str] | None = None,
    ensemble: Sequence[str | Path] = (),
    progress: Progress = SILENT,
) -> EvaluatedRun:
    """Measure a trained model on other labelled cells; the same numbers, the same report.

    Class names are matched by name; every class of the data must be one of the model's. ``output`` defaults to
    ``RUN/evaluations/<name>-<fingerprint>``; with a shipped model's name for ``run``, with views or an ensemble it must
    be given. ``tta`` and ``ensemble`` as in ``load_model``. Cells whose pixels the run trained on or chose its epoch
    with are counted and warned of: they make any figure too good. Raises BundleError, DataError, OutputError.
    """
    from hemascope.models.shipped import locate
    from hemascope.predict import load_model

    located = locate(run)
    folder = located.folder
    if output is None and (located.shipped or tta or ensemble):
        what = (
            f"{located.name} comes with hemascope" if located.shipped else "views and ensembles are not the run itself"
        )
        raise UsageError(f"{what}: name a folder for the results with -o.")
    if output is not None:
        check_no_run(Path(output), "an evaluation")
        check_replaceable(Path(output), "config.toml", "an evaluation")
    config = load_config(file=folder / "config.toml") if (folder / "config.toml").exists() else RunConfig()
    predictor = load_model(
        run,
        tta=tta,
        ensemble=ensemble,
        device=config.runtime.device,
        precision=config.runtime.precision,
        batch_size=config.evaluation.batch_size,
        threads=config.runtime.threads,
        progress=progress,
    )
    bundle = predictor.bundle
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"preparation": bundle.preparation, "label_pattern": label_pattern}),
            "model": bundle.config,
        }
    )
    cells = cells_of(data, config, format=format, class_names=class_names, progress=progress)
    cells = with_classes_of(bundle.class_names, cells)
    rows = np.flatnonzero(cells.labels != UNLABELLED)
    if not len(rows):
        raise DataError(f"{cells.source}: no cell has a label, so there is nothing to measure. Use predict instead.")
    target = Path(output) if output else folder / "evaluations" / f"{_short_name(data)}-{cells.fingerprint()[:8]}"
    known = known_content(folder, cells)
    if known is not None and known[rows].any():
        progress.warn(familiar(int(known[rows].sum()), len(rows)))
    manifest = evaluation_manifest(folder, bundle.provenance, cells, rows, known)
    if predictor.passes > 1:
        manifest["prediction"] = predictor.describe()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(target, error) from error
    write_text(target / "config.toml", dump_config(config))
    write_json(target / "manifest.json", manifest)
    evaluation = evaluate_parts(target, predictor, cells, {"evaluated": rows}, config, progress, gallery_of="evaluated")
    return Evaluated(target, evaluation, render_report(target))


def compare(first: str | Path, second: str | Path, *, split: str = "test", progress: Progress = SILENT) -> Comparison:
    """Two runs on the cells both have predicted, paired. Raises RunError where predictions are missing."""
    loaded = []
    for run in (Path(first), Path(second)):
        path = run / "predictions" / f"{split}.parquet"
        if not path.exists():
            found = sorted(file.stem for file in path.parent.glob("*.parquet"))
            advice = f"Name one of {', '.join(found)} with --split" if found else "Finish the run with --resume first"
            raise RunError(f"{run} has no predictions of the {split} part. {advice}.")
        loaded.append(load_predictions(path))
    fingerprints = {
        load_evaluation(Path(run) / "evaluation.json").data_fingerprint
        for run in (first, second)
        if (Path(run) / "evaluation.json").exists()
    }
    if len(fingerprints) > 1:
        progress.warn("The two runs were measured on different sets of cells; those of the same name are compared.")
    with progress.task("comparing", 1, "pair") as advance:
        result = compare_predictions(loaded[0], loaded[1], first_name=str(first), second_name=str(second))
        advance(1)
    return result


def evaluate_parts(
    folder: Path,
    predictor: Predictor,
    cells: CellDataset,
    parts: dict[str, np.ndarray],
    config: RunConfig,
    progress: Progress,
    *,
    gallery_of: str,
) -> Evaluation:
    """Predict each part, write predictions, pictures of mistakes and metrics.

    The calibration part is predicted, because calibration needs it, and not measured.
    """
    predictions: dict[str, Predictions] = {}
    for part, rows in parts.items():
        if not len(rows):
            continue
        subset: Any = Rows(cells.images, rows)
        predictions[part] = predictor.predict_images(
            subset, [cells.ids[row] for row in rows], labels=cells.labels[rows], progress=progress
        )
        save_predictions(folder / "predictions" / f"{part}.parquet", predictions[part])
    evaluation = build_evaluation(
        {part: found for part, found in predictions.items() if part != "calibration"},
        resamples=config.evaluation.bootstrap,
        seed=config.seed,
        data_source=cells.source,
        data_fingerprint=cells.fingerprint(),
    )
    if gallery_of in predictions and config.evaluation.mistakes:
        worst, certain = save_gallery(
            folder / "predictions" / "gallery",
            predictions[gallery_of],
            Rows(cells.images, parts[gallery_of]),
            count=config.evaluation.mistakes,
        )
        evaluation = evaluation.model_copy(
            update={"mistakes_of": gallery_of, "worst_mistakes": worst, "certain_mistakes": certain}
        )
    save_evaluation(folder / "evaluation.json", evaluation)
    _save_trust(folder, predictor, predictions.get(gallery_of), gallery_of, cells, config)
    return evaluation


def _save_trust(
    folder: Path,
    predictor: Predictor,
    predictions: Predictions | None,
    part: str,
    cells: CellDataset,
    config: RunConfig,
) -> None:
    """Write ``trust/``: what the model says of itself, measured on the labelled cells of one part, and its page."""
    target = folder / "trust"
    # An older one would be of another model or other cells. What else somebody put there stays.
    for name in ("trust.json", "report.html"):
        (target / name).unlink(missing_ok=True)
    if predictor.assessor is None or predictions is None or predictions.labels is None:
        return
    rows = np.flatnonzero(predictions.labels != UNLABELLED)
    if not len(rows):
        return
    seen = Seen("clean", "as they are", predictions.labels[rows], predictions.rows(rows))
    report = measured_trust([seen], predictor.assessor, resamples=config.evaluation.bootstrap, seed=config.seed)
    report = report.model_copy(
        update={
            "model": predictor.name,
            "model_sha256": predictor.bundle.sha256,
            "part": part,
            "data_source": cells.source,
            "data_fingerprint": cells.fingerprint(),
            "created": now(),
        }
    )
    write_json(target / "trust.json", report.model_dump(mode="json"))
    render_trust(report, target)


def with_classes_of(class_names: Sequence[str], cells: CellDataset) -> CellDataset:
    """The same cells with labels counted in the model's classes, matched by name."""
    unknown = [name for name in cells.class_names if name not in class_names]
    if unknown:
        raise DataError(
            f"{cells.source} has a class {unknown[0]!r} that the model does not know. The model's classes are "
            f"{listed(class_names)}. Name the data's classes with --names, in the order of their numbers."
        )
    numbers = np.array([class_names.index(name) for name in cells.class_names] + [UNLABELLED], dtype=np.int64)
    return replace(cells, labels=numbers[cells.labels], class_names=tuple(class_names))


def _short_name(data: Data) -> str:
    return "cells" if isinstance(data, CellDataset) else Path(data).resolve().stem or "cells"
