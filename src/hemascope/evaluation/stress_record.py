"""A stress test on disk: its record, its table, the predicted labels behind it, and an earlier one as baseline."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_path
from hemascope.data.sources.npy_member import read_members, read_small
from hemascope.errors import RunError, SourceError
from hemascope.results import Estimate
from hemascope.stress_results import Baseline, StressReport

MAX_BYTES = 64 * 2**20
PACKAGED_BASELINE = "lite0_plain.json"
"""Numbers of a network fine-tuned without augmentation, on real test cells: benchmarks/plain_baseline.toml."""


@dataclass(frozen=True)
class BaselineRuns:
    """A baseline's numbers and, where it saw the same cells in the same conditions, its labels int64 (C, N)."""

    record: Baseline
    predicted: NDArray[np.int64] | None = None


def load_stress(path: Path) -> StressReport:
    """``stress.json``, checked. Raises RunError where it is missing, damaged or of another version."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path} is larger than {MAX_BYTES:,} bytes, which no stress test is.")
        report = StressReport.model_validate_json(path.read_bytes())
        json.dumps(
            report.model_dump(mode="json"), allow_nan=False
        )  # a figure that is no number would spoil what follows
    except OSError as error:
        raise RunError(f"cannot read the stress test {path}: {error.strerror or error}.") from error
    except ValueError as error:  # pydantic's is one
        raise RunError(f"{path} is not the record of a stress test of this version: make the test again.") from error
    return report


def baseline_of(report: StressReport) -> Baseline:
    """A stress test as what others are measured against."""
    return Baseline(
        name=report.model,
        clean_error=1 - (report.clean.balanced_accuracy.value or 0.0),
        errors={one.name: one.error.value or 0.0 for one in report.corruptions},
    )


def read_baseline(
    source: str | Path | None,
    conditions: Sequence[tuple[str, int]],
    ids: Sequence[str],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    seed: int,
) -> BaselineRuns | None:
    """The baseline at ``source`` (a stress test's folder or its stress.json), or the packaged one, if there is one.

    Its labels come along where it was made of the same cells, conditions and draws. Raises RunError.
    """
    if source is None:
        packaged = files("hemascope.evaluation") / "baselines" / PACKAGED_BASELINE
        if not packaged.is_file():
            return None
        return BaselineRuns(Baseline.model_validate(json.loads(packaged.read_text(encoding="utf-8"))))
    folder = Path(source).parent if Path(source).is_file() else Path(source)
    if not (folder / "stress.json").exists() and (folder / "stress" / "stress.json").exists():
        folder = folder / "stress"
    record = baseline_of(load_stress(folder / "stress.json"))
    predicted = _same_cells(folder / "predictions.npz", conditions, ids, labels, class_names, seed)
    return BaselineRuns(record.model_copy(update={"paired": predicted is not None}), predicted)


def save_stress(
    path: Path,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    conditions: Sequence[tuple[str, int]],
    class_names: Sequence[str],
    seed: int,
) -> None:
    """The labels predicted in each condition as npz, so that a later test can be compared cell by cell."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            ids=np.array(ids, dtype=str),
            labels=labels.astype(np.int16),
            predicted=predicted.astype(np.int16),
            conditions=np.array([f"{name} {severity}" for name, severity in conditions], dtype=str),
            class_names=np.array(class_names, dtype=str),
            seed=np.int64(seed),
        )


def _same_cells(
    path: Path,
    conditions: Sequence[tuple[str, int]],
    ids: Sequence[str],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    seed: int,
) -> NDArray[np.int64] | None:
    if not path.exists() or path.stat().st_size > MAX_BYTES:
        return None
    try:
        members = read_members(path)
        if missing := [name for name in _SAVED if name not in members]:
            raise SourceError(f"{path} has no array {missing[0]}")
        saved = {name: read_small(path, members[name]) for name in _SAVED}
    except SourceError as error:
        raise RunError(f"{str(error).rstrip('.')}. {_WITHOUT}") from error
    wanted = [f"{name} {severity}" for name, severity in conditions]
    have, predicted = saved["conditions"].tolist(), saved["predicted"]
    if predicted.shape != (saved["conditions"].size, saved["ids"].size) or predicted.dtype.kind != "i":
        raise RunError(f"{path} does not hold one label for each cell in each condition. {_WITHOUT}")
    same = (
        np.array_equal(saved["seed"], seed)
        and saved["class_names"].tolist() == list(class_names)
        and saved["ids"].tolist() == list(ids)
        and np.array_equal(saved["labels"], labels)
        and set(wanted) <= set(have)
    )
    return np.asarray(predicted[[have.index(name) for name in wanted]], dtype=np.int64) if same else None


_SAVED = ("ids", "labels", "predicted", "conditions", "class_names", "seed")
_WITHOUT = "Make that stress test again, or remove the file to compare by the numbers alone."


def stress_csv(report: StressReport) -> str:
    """One line a condition: corruption, family, severity, exposure, balanced accuracy with interval, accuracy, n."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["corruption", "family", "severity", "exposure", "balanced_accuracy", "low", "high", "accuracy", "n"]
    )
    for one in [report.clean, *report.conditions, *(stack.condition for stack in report.stacks)]:
        estimate: Estimate = one.balanced_accuracy
        writer.writerow(
            [one.name, one.family, one.severity, one.exposure, *(_digits(x) for x in (estimate.value, estimate.low,
             estimate.high, one.accuracy.value)), estimate.n]
        )  # fmt: skip
    return buffer.getvalue()


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
