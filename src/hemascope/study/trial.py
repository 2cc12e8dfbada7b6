"""One run of a study from beginning to end: train it or go on with it, then predict what the table needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from filelock import FileLock

from hemascope.atomic import write_json
from hemascope.data.splits import load_splits
from hemascope.data.store import open_store
from hemascope.evaluation.record import save_predictions
from hemascope.progress import SILENT, Progress
from hemascope.study.places import find_run, is_finished, is_measured, predictions_of
from hemascope.study.plan import FAMILY, Trial

SEED_OF_LAYERS = 20_613
"""Of the stacked layers: neither a seed anyone trains with nor that of ``hemascope stress``."""

_BATCH = 128


def run_trial(
    trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str = "", progress: Progress = SILENT
) -> Path:
    """The finished and measured run folder of ``trial``.

    cells    folder of a StudyCells
    metrics  keys of ``plan.metric_titles``

    What is there is kept: a finished run is only measured, an unfinished one goes on at its last checkpoint. Two
    processes never work on the same run. Raises what ``workflow.train`` raises.
    """
    from hemascope.workflow import train

    run = find_run(output, trial)
    run.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(run.parent / f".{trial.fingerprint}.lock"):
        run = find_run(output, trial)
        if not is_finished(run):
            begun = (run / "config.toml").exists()
            train(
                cells / "store",
                trial.config,
                output=run,
                splits=cells / "splits.json",
                resume=begun,
                command=command,
                progress=progress,
            )
        if not is_measured(run, trial.measure, metrics):
            _measure(run, trial, cells, metrics)
    return run


def _measure(run: Path, trial: Trial, cells: Path, metrics: tuple[str, ...]) -> None:
    """Save predictions of the test cells under views, and under stacks of layers; and what the network costs."""
    from hemascope.corruptions import STACKS, one_layer, stack
    from hemascope.models.costs import network_costs
    from hemascope.predict import load_model
    from hemascope.workflow.stressing import fewer

    measure = trial.measure
    predictor = load_model(run, tta=measure.views, batch_size=_BATCH)
    if not (run / "costs.json").exists():
        costs = network_costs(predictor.bundle.build(), predictor.bundle.preparation.size)
        write_json(run / "costs.json", {"parameters": costs.parameters, "gflops": costs.gflops})
    found = open_store(cells / "store")
    rows = load_splits(cells / "splits.json", found).indices("test")
    for metric in metrics:
        path = predictions_of(run, measure, metric)
        if path.exists():
            continue
        limit = measure.stacked if metric in STACKS else measure.families if metric.startswith(FAMILY) else len(rows)
        chosen = rows if limit >= len(rows) else fewer(found, rows, limit)
        images, ids = np.stack([found.images[row] for row in chosen]), [str(found.ids[row]) for row in chosen]
        if metric in STACKS:
            images, _ = stack(images, metric, seed=SEED_OF_LAYERS, ids=ids)
        elif metric.startswith(FAMILY):
            images = one_layer(images, metric.removeprefix(FAMILY), seed=SEED_OF_LAYERS, ids=ids)
        save_predictions(path, predictor.predict_images(images, ids, labels=found.labels[chosen]))
