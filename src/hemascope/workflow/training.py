"""From labelled cells to a run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemascope.atomic import write_json
from hemascope.cells import SPLIT_NAMES, CellDataset
from hemascope.config import RunConfig
from hemascope.config_files import load_config
from hemascope.content import save_content
from hemascope.data.splits import Splits, load_splits, make_splits, save_splits
from hemascope.manifest import new_manifest, now
from hemascope.progress import SILENT, Progress
from hemascope.report import render_report
from hemascope.results import Evaluation
from hemascope.workflow.calibrating import fit_trust
from hemascope.workflow.cells import Data, cells_of, sampled
from hemascope.workflow.evaluation import Evaluated, evaluate_parts
from hemascope.workflow.run_folder import check_folder, make_folder

if TYPE_CHECKING:
    from hemascope.models.classifier import Classifier

TrainedRun = Evaluated


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
    from hemascope.models.bundle import save_bundle
    from hemascope.runtime import barrier, start_runtime, stop_runtime
    from hemascope.training.loop import fit, start_network
    from hemascope.training.samples import save_samples

    began = time.time()
    config = config or RunConfig()
    folder = Path(output) if output is not None else Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    runtime = start_runtime(config.runtime)
    try:
        if runtime.is_main:
            check_folder(folder, config, resume=resume, force=force)
        else:
            barrier()  # the first process reads the cells into the cache; the others open them there
        started = time.perf_counter()
        cells = cells_of(data, config, format=format, class_names=class_names, progress=progress)
        loading = time.perf_counter() - started
        if runtime.is_main:
            barrier()
        assignment = _splits(folder, cells, config, given=splits, resume=resume)
        # All that can be found wrong beforehand has been by now, so a refused run leaves no folder behind.
        network = start_network(config, len(cells.class_names), runtime)
        manifest = new_manifest(folder.name, command, config, cells, assignment, runtime)
        if runtime.is_main:
            make_folder(folder, config, force=force)
            if not (folder / "splits.json").exists():
                save_splits(folder / "splits.json", assignment, cells)
            write_json(folder / "manifest.json", manifest)
        barrier()

        fitted = fit(cells, assignment, config, folder, runtime, progress, network=network)

        if runtime.is_main:
            save_bundle(
                folder / "bundle",
                fitted.model,
                config=config.model,
                class_names=cells.class_names,
                preparation=config.data.preparation,
                provenance=_provenance(manifest, cells, assignment, config),
            )
            save_content(folder, cells, np.flatnonzero(np.isin(assignment.assignment, ("train", "validation"))))
            save_samples(folder / "samples", cells, assignment, config)
            calibrating, measuring, evaluation = _judged(folder, cells, assignment, config, progress)
            manifest["model"] = _describe_model(fitted.model, config)
            seconds = {
                "loading": loading,
                **fitted.seconds,
                "calibration": calibrating,
                "evaluation": measuring,
                "total": time.time() - began,
            }
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


def _judged(
    folder: Path, cells: CellDataset, assignment: Splits, config: RunConfig, progress: Progress
) -> tuple[float, float, Evaluation]:
    """Calibrate the saved bundle and measure it as it was saved; the seconds of both, and what was measured."""
    from hemascope.models.bundle import load_bundle
    from hemascope.predict import Predictor

    device, batch_size = config.runtime.device, config.evaluation.batch_size
    started = time.perf_counter()
    if config.evaluation.calibrate:
        fit_trust(
            load_bundle(folder / "bundle"),
            cells,
            assignment,
            device=device,
            batch_size=batch_size,
            seed=config.seed,
            progress=progress,
        )
    calibrated = time.perf_counter()
    predictor = Predictor(
        load_bundle(folder / "bundle"),
        device=device,
        precision=config.runtime.precision,
        batch_size=batch_size,
        threads=config.runtime.threads,
    )
    evaluation = evaluate_parts(folder, predictor, cells, _part_rows(assignment), config, progress, gallery_of="test")
    return calibrated - started, time.perf_counter() - calibrated, evaluation


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


def _splits(folder: Path, cells: CellDataset, config: RunConfig, *, given: str | Path | None, resume: bool) -> Splits:
    kept = folder / "splits.json"
    if resume and kept.exists():
        return load_splits(kept, cells)
    return load_splits(Path(given), cells) if given else make_splits(cells, config.data, config.seed)


def _provenance(manifest: dict[str, Any], cells: CellDataset, splits: Splits, config: RunConfig) -> dict[str, Any]:
    """What the bundle says of where its model came from."""
    from hemascope.test_time import illuminant

    return {
        **{name: manifest[name] for name in ("created", "command", "versions", "git_commit", "seed")},
        "data_source": cells.source,
        "data_fingerprint": cells.fingerprint(),
        "data_cleaning": cells.cleaning,
        **_augmentation_families(config),
        "illuminant": illuminant(sampled(cells, splits.indices("train"))),
    }


def _augmentation_families(config: RunConfig) -> dict[str, Any]:
    """What kinds of damage training has shown the model, so that a stress test can tell seen from unseen."""
    used = any(stage.augment for stage in config.stages)
    policy = config.augmentation.effective_policy()
    return {
        "augmentation_policy": policy.name if used else "none",
        "augmentation_families": list(policy.families()) if used else [],
        "held_out_families": list(config.augmentation.without),
    }


def _describe_model(model: Classifier, config: RunConfig) -> dict[str, Any]:
    return {
        "backbone": config.model.backbone,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": config.model.weights,
        "notes": list(model.notes),
    }


def _part_rows(splits: Splits) -> dict[str, np.ndarray]:
    return {part: np.flatnonzero(splits.assignment == part) for part in SPLIT_NAMES}
