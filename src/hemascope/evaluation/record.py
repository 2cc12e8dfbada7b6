"""Predictions in, Evaluation out; and both on disk, as JSON and as Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from hemascope.atomic import atomic_path, write_json
from hemascope.cells import UNLABELLED
from hemascope.errors import DataError, RunError
from hemascope.evaluation.table import as_utf8
from hemascope.metrics import bootstrap_estimates
from hemascope.results import ClassEvaluation, Evaluation, Mistake, Predictions, SplitEvaluation

PREDICTIONS_VERSION = 1
_METADATA = b"hemascope"
_LARGEST_JSON = 256 * 1024 * 1024
_FIXED_COLUMNS = ("id", "label_true", "error")


def scorable(predictions: Predictions) -> NDArray[np.bool_]:
    """bool (N,): which images were read and have a true label.

    Raises DataError where no true labels are known at all (``labels`` is None), or a label is no class.
    """
    if predictions.labels is None:
        raise DataError("these predictions have no true labels, so there is nothing to score them against")
    labels = predictions.labels
    if labels.size and (labels.min() < UNLABELLED or labels.max() >= len(predictions.class_names)):
        raise DataError(
            f"true labels must lie in 0 to {len(predictions.class_names) - 1} (or {UNLABELLED}, unlabelled), "
            f"found {labels.min()} to {labels.max()}"
        )
    return np.asarray(predictions.readable & (labels != UNLABELLED))


def evaluate_split(split: str, predictions: Predictions, *, resamples: int = 1000, seed: int = 0) -> SplitEvaluation:
    """All metrics of one split, with bootstrap intervals. Unreadable and unlabelled images do not count.

    A split in which nothing is left has n = 0 and no values. Raises DataError where no labels are known.
    """
    keep = scorable(predictions)
    assert predictions.labels is not None  # scorable() has checked
    labels = predictions.labels[keep]
    measured = bootstrap_estimates(predictions.probs[keep], labels, resamples=resamples, seed=seed)
    support = measured.confusion.sum(axis=1)
    return SplitEvaluation(
        split=split,
        n=len(labels),
        metrics=measured.metrics,
        per_class=[
            ClassEvaluation(name=as_utf8(name), support=int(support[k]), **measured.per_class[k])
            for k, name in enumerate(predictions.class_names)
        ],
        confusion=measured.confusion.tolist(),
    )


def build_evaluation(
    predictions_by_split: Mapping[str, Predictions],
    *,
    resamples: int = 1000,
    seed: int = 0,
    data_source: str = "",
    data_fingerprint: str = "",
) -> Evaluation:
    """The Evaluation of one or more splits, without galleries.

    ``left_out`` counts, over all splits, images that could not be read or have no label. Raises DataError where
    there is no split, or two splits disagree about the classes.
    """
    if not predictions_by_split:
        raise DataError("there is no split to evaluate")
    class_names = next(iter(predictions_by_split.values())).class_names
    for split, predictions in predictions_by_split.items():
        if predictions.class_names != class_names:
            raise DataError(
                f"the splits disagree about the classes: {split} has {', '.join(predictions.class_names)}, "
                f"the first has {', '.join(class_names)}"
            )
    return Evaluation(
        class_names=[as_utf8(name) for name in class_names],
        splits={
            split: evaluate_split(split, predictions, resamples=resamples, seed=seed)
            for split, predictions in predictions_by_split.items()
        },
        left_out=sum(int((~scorable(predictions)).sum()) for predictions in predictions_by_split.values()),
        bootstrap_resamples=resamples,
        seed=seed,
        data_source=as_utf8(data_source),
        data_fingerprint=data_fingerprint,
    )


def save_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write ``evaluation`` as JSON, atomically. Raises OutputError where that fails."""
    write_json(path, evaluation.model_dump(mode="json"))


def load_evaluation(path: Path) -> Evaluation:
    """Read what ``save_evaluation`` wrote. Raises RunError where it is missing, damaged or of another version."""
    redo = "Run hemascope evaluate again."
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise RunError(f"{path} is larger than any evaluation: {path.stat().st_size} bytes. {redo}")
        value = from_json(path.read_bytes(), allow_inf_nan=False)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist: this run has not been evaluated yet. {redo}") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}. {redo}") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: it is not JSON ({error}). {redo}") from error
    known = Evaluation.model_fields["version"].default
    version = value.get("version") if isinstance(value, dict) else None
    if version is not None and version != known:
        raise RunError(f"{path} has version {version!r}, this hemascope reads version {known}. {redo}")
    try:
        evaluation = Evaluation.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise RunError(f"{path} is damaged: {first['msg']} at {place}. {redo}") from error
    contradiction = _contradiction(evaluation)
    if contradiction:
        raise RunError(f"{path} is damaged: {contradiction}. {redo}")
    return evaluation


def _contradiction(evaluation: Evaluation) -> str:
    """What cannot be true in an Evaluation whose types are right, or ""."""
    classes = len(evaluation.class_names)
    for name, split in evaluation.splits.items():
        if [one.name for one in split.per_class] != evaluation.class_names:
            return f"the classes of split {name} are not those of the run"
        if len(split.confusion) != classes or any(len(row) != classes for row in split.confusion):
            return f"the confusion matrix of split {name} is not {classes} by {classes}"
    for mistake in (*evaluation.worst_mistakes, *evaluation.certain_mistakes):
        if not _stays_below(mistake):
            return f"the picture {mistake.picture!r} does not lie beside the file"
    return ""


def _stays_below(mistake: Mistake) -> bool:
    """Whether the picture's name cannot lead out of the folder, on any system."""
    posix, windows = PurePosixPath(mistake.picture), PureWindowsPath(mistake.picture)
    return bool(mistake.picture) and not (
        posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts or ".." in windows.parts
    )


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write ``predictions`` as Parquet, atomically and without loss, for a run's ``predictions/<split>.parquet``.

    Columns: id, label_true (the class's name, null where unknown), error, then logit_<class> and p_<class> for each
    class, float32. Class names and the layout's version stand in the file's metadata. Raises OutputError.
    """
    names = predictions.class_names
    n = len(predictions)
    labels = predictions.labels
    known = np.zeros(n, dtype=bool) if labels is None else labels != UNLABELLED
    index = np.zeros(n, dtype=np.int64) if labels is None else np.where(known, labels, 0)
    columns = [
        pa.array([as_utf8(name) for name in predictions.ids], pa.string()),
        pa.DictionaryArray.from_arrays(
            pa.array(index, pa.int32(), mask=~known), pa.array([as_utf8(name) for name in names], pa.string())
        ),
        pa.array([as_utf8(error) for error in predictions.errors] or [""] * n, pa.string()),
    ]
    columns += [pa.array(np.ascontiguousarray(predictions.logits[:, k])) for k in range(len(names))]
    columns += [pa.array(np.ascontiguousarray(predictions.probs[:, k])) for k in range(len(names))]
    about = {"version": PREDICTIONS_VERSION, "class_names": list(names), "labelled": labels is not None}
    table = pa.table(columns, names=_columns(names)).replace_schema_metadata({_METADATA: json.dumps(about).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def load_predictions(path: Path) -> Predictions:
    """Read what ``save_predictions`` wrote. Raises RunError where it is missing, damaged or of another version."""
    redo = "Run hemascope evaluate again."
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist: these predictions were not saved. {redo}") from error
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path} cannot be read as Parquet: it is damaged or something else. {redo}") from error
    damaged = RunError(f"{path} is not a file of saved predictions, or it is damaged. {redo}")
    try:
        about = json.loads((table.schema.metadata or {})[_METADATA])
        version, names, labelled = about["version"], tuple(about["class_names"]), about["labelled"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged from error
    if version != PREDICTIONS_VERSION:
        raise RunError(f"{path} has version {version!r}, this hemascope reads version {PREDICTIONS_VERSION}. {redo}")
    if not all(isinstance(name, str) for name in names) or table.column_names != _columns(names):
        raise damaged
    first = len(_FIXED_COLUMNS)
    try:
        ids, true, errors = (table.column(k).cast(pa.string()).to_pylist() for k in range(first))
        values = np.zeros((len(ids), 2 * len(names)), dtype=np.float32)
        for k in range(values.shape[1]):
            column = table.column(first + k)
            if column.type != pa.float32() or column.null_count:
                raise damaged
            values[:, k] = column.to_numpy()
        position = {as_utf8(name): k for k, name in enumerate(names)} | {None: UNLABELLED}
        labels = np.array([position[name] for name in true], dtype=np.int64)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise damaged from error
    if None in ids or None in errors:
        raise damaged
    return Predictions(
        ids=ids,
        class_names=names,
        logits=np.ascontiguousarray(values[:, : len(names)]),
        probs=np.ascontiguousarray(values[:, len(names) :]),
        labels=labels if labelled else None,
        errors=errors if any(errors) else (),
    )


def _columns(class_names: tuple[str, ...]) -> list[str]:
    names = [as_utf8(name) for name in class_names]
    return [*_FIXED_COLUMNS, *(f"logit_{name}" for name in names), *(f"p_{name}" for name in names)]
