"""The main jobs, each one call: train, evaluate, compare, demo. The command line adds only words around them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemascope.atomic import output_error, write_json, write_text
from hemascope.cells import SPLIT_NAMES, UNLABELLED, CellDataset
from hemascope.config import RunConfig
from hemascope.config_files import dump_config, load_config
from hemascope.content import known_content, save_content
from hemascope.data.load import load
from hemascope.data.splits import Splits, load_splits, make_splits, save_splits
from hemascope.errors import DataError, OutputError, RunError, UsageError
from hemascope.evaluation.comparison import compare as compare_predictions
from hemascope.evaluation.gallery import save_gallery
from hemascope.evaluation.record import (
    build_evaluation,
    load_evaluation,
    load_predictions,
    save_evaluation,
    save_predictions,
)
from hemascope.manifest import evaluation_manifest, familiar, new_manifest, now
from hemascope.names import listed
from hemascope.progress import SILENT, Progress
from hemascope.report import render_report
from hemascope.results import Comparison, Evaluation, Predictions

if TYPE_CHECKING:
    from hemascope.models.bundle import ModelBundle
    from hemascope.models.classifier import Classifier

Data = str | Path | CellDataset


@dataclass(frozen=True)
class Evaluated:
    """A folder with results: ``evaluation.json``, ``predictions/``, ``report.html``."""

    folder: Path
    evaluation: Evaluation
    report: Path


TrainedRun = Evaluated
EvaluatedRun = Evaluated


def train(
    data: Data,
    config: RunConfig | None = None,
    *,
    output: str | Path | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    splits: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    command: str = "",
    progress: Progress = SILENT,
) -> TrainedRun:
    """From labelled cells to a run folder: split, train, bundle, predictions, evaluation, report.

    data     a path of any format ``load`` knows, or cells already prepared as ``config`` says
    output   the run folder; must be empty or absent, unless ``resume`` (go on with an unfinished run) or ``force``
             (replace the run there); left out: ``runs/<date>-<time>``
    splits   a split file to use instead of making a split
    command  how this was called, for the report's "how to reproduce"

    Raises DataError, ConfigError, RunError, TrainingError, OutputError.
    """
    from hemascope.models.bundle import load_bundle, save_bundle
    from hemascope.runtime import barrier, start_runtime, stop_runtime
    from hemascope.training.loop import fit, start_network
    from hemascope.training.samples import save_samples

    began = time.time()
    config = config or RunConfig()
    folder = Path(output) if output is not None else Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    runtime = start_runtime(config.runtime)
    try:
        if runtime.is_main:
            _check_folder(folder, config, resume=resume, force=force)
        else:
            barrier()  # the first process reads the cells into the cache; the others open them there
        started = time.perf_counter()
        cells = _cells(data, config, format=format, class_names=class_names, progress=progress)
        loading = time.perf_counter() - started
        if runtime.is_main:
            barrier()
        assignment = _splits(folder, cells, config, given=splits, resume=resume)
        # All that can be found wrong beforehand has been by now, so a refused run leaves no folder behind.
        network = start_network(config, len(cells.class_names), runtime)
        manifest = new_manifest(folder.name, command, config, cells, assignment, runtime)
        if runtime.is_main:
            _make_folder(folder, config, force=force)
            if not (folder / "splits.json").exists():
                save_splits(folder / "splits.json", assignment, cells)
            write_json(folder / "manifest.json", manifest)
        barrier()

        fitted = fit(cells, assignment, config, folder, runtime, progress, network=network)

        if runtime.is_main:
            provenance = {name: manifest[name] for name in ("created", "command", "versions", "git_commit", "seed")}
            save_bundle(
                folder / "bundle",
                fitted.model,
                config=config.model,
                class_names=cells.class_names,
                preparation=config.data.preparation,
                provenance={**provenance, "data_source": cells.source, "data_fingerprint": cells.fingerprint()},
            )
            save_content(folder, cells, np.flatnonzero(np.isin(assignment.assignment, ("train", "validation"))))
            save_samples(folder / "samples", cells, assignment, config)
            started = time.perf_counter()
            evaluation = _evaluate_parts(
                folder,
                load_bundle(folder / "bundle"),
                cells,
                _part_rows(assignment),
                config,
                progress,
                gallery_of="test",
            )
            measuring = time.perf_counter() - started
            manifest["model"] = _describe_model(fitted.model, config)
            seconds = {"loading": loading, **fitted.seconds, "evaluation": measuring, "total": time.time() - began}
            manifest["timing"] = {name: round(value, 3) for name, value in seconds.items()}
            manifest |= {"price_epochs": round(fitted.price_epochs, 4), "best": fitted.best, "finished": now()}
            write_json(folder / "manifest.json", manifest)
            report = render_report(folder)
            # Last: a run killed before this line goes on from here, not from the first step.
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        barrier()
    finally:
        stop_runtime()
    if not runtime.is_main:
        return Evaluated(folder, Evaluation(class_names=[], splits={}, bootstrap_resamples=0, seed=0), folder)
    return Evaluated(folder, evaluation, report)


def evaluate(
    run: str | Path,
    data: Data,
    *,
    output: str | Path | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    label_pattern: str | None = None,
    progress: Progress = SILENT,
) -> EvaluatedRun:
    """Measure a trained model on other labelled cells; the same numbers, the same report.

    Class names are matched by name; every class of the data must be one of the model's. ``output`` defaults to
    ``RUN/evaluations/<name>-<fingerprint>``. Cells whose pixels the run trained on or chose its epoch with are counted
    and warned of: they make any figure too good. Raises BundleError, DataError, OutputError.
    """
    from hemascope.models.bundle import load_bundle

    folder = Path(run)
    bundle = load_bundle(folder)
    config = load_config(file=folder / "config.toml") if (folder / "config.toml").exists() else RunConfig()
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"preparation": bundle.preparation, "label_pattern": label_pattern}),
            "model": bundle.config,
        }
    )
    cells = _cells(data, config, format=format, class_names=class_names, progress=progress)
    cells = _with_classes_of(bundle.class_names, cells)
    rows = np.flatnonzero(cells.labels != UNLABELLED)
    if not len(rows):
        raise DataError(f"{cells.source}: no cell has a label, so there is nothing to measure. Use predict instead.")
    target = Path(output) if output else folder / "evaluations" / f"{_short_name(data)}-{cells.fingerprint()[:8]}"
    known = known_content(folder, cells)
    if known is not None and known[rows].any():
        progress.warn(familiar(int(known[rows].sum()), len(rows)))
    manifest = evaluation_manifest(folder, bundle.provenance, cells, rows, known)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(target, error) from error
    write_text(target / "config.toml", dump_config(config))
    write_json(target / "manifest.json", manifest)
    evaluation = _evaluate_parts(target, bundle, cells, {"evaluated": rows}, config, progress, gallery_of="evaluated")
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


def demo(output: str | Path, *, progress: Progress = SILENT) -> TrainedRun:
    """Render a small labelled set of synthetic cells and train on it with the recipe ``demo``."""
    from hemascope.data.synthetic import write_synthetic_folder

    folder = Path(output)
    config = load_config(recipe="demo")
    cells = folder / "cells"
    if not cells.exists():
        write_synthetic_folder(cells, DEMO_CELLS_PER_CLASS, seed=config.seed, progress=progress)
    run = folder / "run"
    resumable = run.exists() and not (run / "report.html").exists()
    command = f"hemascope train {cells} -o {run} --recipe demo"
    return train(cells, config, output=run, resume=resumable, force=not resumable, command=command, progress=progress)


DEMO_CELLS_PER_CLASS = 60


def _cells(
    data: Data,
    config: RunConfig,
    *,
    format: str | None,
    class_names: Sequence[str] | None,
    progress: Progress,
) -> CellDataset:
    """The cells of ``data``, prepared as the config says."""
    wanted = config.data.preparation
    if isinstance(data, CellDataset):
        height, width = data.images.shape[1:3]
        if (height, width) != (wanted.size, wanted.size) or data.preparation not in ("", wanted.describe()):
            raise DataError(
                f"the settings ask for cells prepared as {wanted.describe()}; these are {height} × {width}, "
                f"prepared as {data.preparation or 'nobody said'}. Load them with preparation=config.data.preparation."
            )
        return data
    return load(
        data,
        format=format,
        preparation=config.data.preparation,
        class_names=class_names,
        label_pattern=config.data.label_pattern,
        max_unreadable=config.data.max_unreadable,
        progress=progress,
    )


def _check_folder(folder: Path, config: RunConfig, *, resume: bool, force: bool) -> None:
    """Check that the run folder can be made, or that what is there may be gone on with or replaced."""
    if resume and force:
        raise UsageError("--resume goes on with a run and --force replaces it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write the run to {folder}: it is a file, not a folder. Choose another place with -o."
        )
    if folder.is_dir() and any(folder.iterdir()):
        is_run = (folder / "config.toml").exists()
        if resume:
            if not is_run:
                raise RunError(f"{folder} holds no run to resume: it has no config.toml. Leave out --resume.")
            if (folder / "config.toml").read_text(encoding="utf-8") != dump_config(config):
                raise RunError(
                    f"the settings are not those {folder} was started with (its config.toml). Resume with "
                    f"--config {folder / 'config.toml'}, or start again with --force."
                )
            if (folder / "report.html").exists() and not (folder / "checkpoints").exists():
                raise RunError(f"{folder} is finished: there is nothing to resume. Start again with --force.")
        elif not force:
            hint = "Go on with it by --resume, replace it by --force, or" if is_run else "Please"
            raise RunError(f"{folder} is not empty. {hint} choose another folder with -o.")
        elif not is_run:
            raise RunError(
                f"{folder} is not a run folder (it has no config.toml), so --force does not empty it. "
                "Choose another folder with -o."
            )
    elif resume and not folder.exists():
        raise RunError(f"there is no run at {folder} to resume. Leave out --resume to start one.")
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:  # said now, not when the cells have been read
        raise output_error(folder, error) from error


def _make_folder(folder: Path, config: RunConfig, *, force: bool) -> None:
    """The run folder with its config.toml, as ``_check_folder`` allowed it; the run there is removed by ``force``."""
    settings = folder / "config.toml"
    if force and settings.exists():
        shutil.rmtree(folder)
    if not settings.exists():
        write_text(settings, dump_config(config))


def _splits(folder: Path, cells: CellDataset, config: RunConfig, *, given: str | Path | None, resume: bool) -> Splits:
    kept = folder / "splits.json"
    if resume and kept.exists():
        return load_splits(kept, cells)
    return load_splits(Path(given), cells) if given else make_splits(cells, config.data, config.seed)


def _describe_model(model: Classifier, config: RunConfig) -> dict[str, Any]:
    return {
        "backbone": config.model.backbone,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": config.model.weights,
        "notes": list(model.notes),
    }


def _part_rows(splits: Splits) -> dict[str, np.ndarray]:
    return {part: np.flatnonzero(splits.assignment == part) for part in SPLIT_NAMES}


def _evaluate_parts(
    folder: Path,
    bundle: ModelBundle,
    cells: CellDataset,
    parts: dict[str, np.ndarray],
    config: RunConfig,
    progress: Progress,
    *,
    gallery_of: str,
) -> Evaluation:
    """Predict each part with the model as it was saved, write predictions, pictures of mistakes and metrics.

    The calibration part is predicted, because calibration needs it, and not measured.
    """
    from hemascope.predict import Predictor

    predictor = Predictor(
        bundle,
        device=config.runtime.device,
        precision=config.runtime.precision,
        batch_size=config.evaluation.batch_size,
        threads=config.runtime.threads,
    )
    predictions: dict[str, Predictions] = {}
    for part, rows in parts.items():
        if not len(rows):
            continue
        subset: Any = _Rows(cells.images, rows)
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
            _Rows(cells.images, parts[gallery_of]),
            count=config.evaluation.mistakes,
        )
        evaluation = evaluation.model_copy(
            update={"mistakes_of": gallery_of, "worst_mistakes": worst, "certain_mistakes": certain}
        )
    save_evaluation(folder / "evaluation.json", evaluation)
    return evaluation


class _Rows:
    """Some rows of a large array of images, without copying them: index with a number or a slice."""

    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.images.dtype

    def __getitem__(self, index: int | slice) -> np.ndarray:
        chosen: np.ndarray = self.images[self.rows[index]]
        return chosen


def _with_classes_of(class_names: Sequence[str], cells: CellDataset) -> CellDataset:
    """The same cells with labels counted in the model's classes, matched by name."""
    from dataclasses import replace

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
