"""Where a study keeps what: one folder for many studies, their runs side by side, so that equal runs are made once.

OUT/runs/STUDY.VARIANT.sSEED.FINGERPRINT/   a run folder like any other, with ``measures/`` and ``costs.json``
OUT/cells/KEY/                              the cells of a study: a packed store and its split
OUT/NAME/                                   study.toml, cells.json, failed.json, and the results made of them
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hemascope.study.plan import MeasurePlan, Trial


def runs_folder(output: Path) -> Path:
    """Where all runs of all studies are."""
    return output / "runs"


def study_folder(output: Path, name: str) -> Path:
    """Where one study's file and results are."""
    return output / name


def find_run(output: Path, trial: Trial) -> Path:
    """The folder of the run with this trial's fingerprint; the one it will have where there is none yet.

    A run made for another study, or under another variant's name, is found as well: a name is for people.
    """
    runs = runs_folder(output)
    return next(iter(sorted(runs.glob(f"*.{trial.fingerprint}"))), runs / trial.folder)


def is_finished(run: Path) -> bool:
    """Whether a run was trained to its end: the last thing training does is to say when."""
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(isinstance(manifest, dict) and manifest.get("finished")) and not (run / "checkpoints").exists()


def measures_folder(run: Path, measure: MeasurePlan) -> Path:
    """Where predictions made for ``measure`` are: clean test cells under views, and stacked ones."""
    views = "-".join(measure.views) or "one-look"
    counts = f"{measure.stacked}.{measure.families}" if measure.families else f"{measure.stacked}"
    return run / "measures" / f"{views}.{counts}"


def predictions_of(run: Path, measure: MeasurePlan, metric: str) -> Path:
    """The file of saved predictions that ``metric`` is measured on."""
    if metric in ("train", "validation") or (metric == "test" and not measure.views):
        return run / "predictions" / f"{metric}.parquet"
    return measures_folder(run, measure) / f"{metric}.parquet"


def is_measured(run: Path, measure: MeasurePlan, metrics: Sequence[str]) -> bool:
    """Whether everything that the study's table needs of this run is there."""
    return all(predictions_of(run, measure, metric).exists() for metric in metrics) and (run / "costs.json").exists()
