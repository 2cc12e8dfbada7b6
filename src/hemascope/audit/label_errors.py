"""Labels that disagree with what the picture looks like: confident learning on out-of-fold probabilities.

Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021). The package
cleanlab has the same method under Apache-2.0; the few lines it takes are written here because it would bring pandas.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.material import Material
from hemascope.audit.out_of_fold import FOLDS, out_of_fold_probabilities
from hemascope.cells import UNLABELLED
from hemascope.findings import CheckResult, Finding
from hemascope.progress import SILENT, Progress

CLEAR = 0.7
"""Probability of another class from which on that class is suggested; below, a person is asked to look."""

Probabilities = NDArray[np.float64]


def check_label_errors(
    material: Material,
    *,
    ignore: NDArray[np.bool_] | None = None,
    trained_on_these: bool = False,
    progress: Progress = SILENT,
) -> CheckResult:
    """Labels that a model which never saw the image finds wrong, with the class it would give.

    ignore            bool (N,), images that are no cells: nothing is learnt from them and nothing said of them
    trained_on_these  the embeddings are those of a run that was trained with these labels and may remember them

    The score is p / (p + q), where p is the probability of the given label and q that of the likeliest other class:
    0.5 where both are alike. Findings are what confident learning counts as errors; classes with fewer images than
    there are folds are left out and named.
    """
    began = time.perf_counter()
    cells = material.cells
    counts = cells.class_counts()
    judged = np.flatnonzero(counts >= FOLDS)
    rows = np.flatnonzero((cells.labels != UNLABELLED) & np.isin(cells.labels, judged))
    if ignore is not None:
        rows = rows[~ignore[rows]]
    labels = np.searchsorted(judged, cells.labels[rows])
    if len(judged) < 2 or len(rows) < 10 * len(judged) or np.bincount(labels, minlength=len(judged)).min() < FOLDS:
        reason = f"it takes two classes with at least {FOLDS} images each and ten a class in all; there are"
        return CheckResult("label_error", not_applicable=f"{reason} {len(judged)} such classes, {len(rows)} images")
    together = _together(material, rows)
    vectors = _rows_of(material.embeddings.vectors, rows)
    probabilities = out_of_fold_probabilities(vectors, labels, together, seed=material.seed, progress=progress)
    scores = np.full(len(cells), np.nan, dtype=np.float32)
    scores[rows] = label_score(probabilities, labels)
    noise, wrong = confident_errors(probabilities, labels)
    names = [cells.class_names[index] for index in judged]
    order = np.flatnonzero(wrong)[np.argsort(scores[rows[wrong]], kind="stable")]
    findings = [_finding(material, int(rows[i]), probabilities[i], names, int(labels[i]), scores) for i in order]
    summary: dict[str, Any] = {
        "classes": names,
        "noise_matrix": np.round(noise, 5).tolist(),
        "estimated_share_of_errors": round(float(noise.sum() - np.trace(noise)), 5),
        "out_of_fold_balanced_accuracy": round(_balanced_accuracy(probabilities, labels), 4),
        "classes_left_out": [cells.class_names[i] for i in np.flatnonzero((counts > 0) & (counts < FOLDS))],
    }
    if trained_on_these:
        summary["warning"] = (
            "The network was trained with these very labels and may remember wrong ones: use the embedded default."
        )
    return CheckResult(
        "label_error",
        scores=scores,
        cut=0.5,
        cut_rule=(
            "Confident learning: an image whose probability of another class is above the mean probability that class "
            "has among the images that carry its label, and above that of the label it carries. "
            "A score of 0.5 means that label and other class are equally likely; not all below it are called errors."
        ),
        findings=findings,
        summary=summary,
        seconds=time.perf_counter() - began,
    )


def label_score(probabilities: Probabilities, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """p / (p + q): given label against the likeliest other, 0 to 1, lower is worse. (N, K) and (N,) to (N,)."""
    index = np.arange(len(labels))
    given = probabilities[index, labels]
    others = probabilities.copy()
    others[index, labels] = -1
    score: NDArray[np.float64] = given / np.maximum(given + others.max(1), 1e-300)
    return score


def confident_errors(
    probabilities: Probabilities, labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The estimated joint of given label and true class (K, K), summing to 1, and who is off its diagonal: bool (N,).

    The threshold of a class is the mean probability it has among the images that carry it. An image counts for the
    likeliest class it is confident of. Rows of the joint are then scaled to the number of images with each label.
    """
    classes = probabilities.shape[1]
    thresholds = np.array([probabilities[labels == k, k].mean() for k in range(classes)])
    confident = probabilities >= thresholds
    best = np.where(confident, probabilities, -1).argmax(1)
    counted = confident.any(1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], best[counted]), 1)
    held = np.bincount(labels, minlength=classes)
    empty = joint.sum(1) == 0
    joint[empty, empty] = 1  # nobody confident: the labels are taken as they are
    joint *= (held / joint.sum(1))[:, None]
    given = probabilities[np.arange(len(labels)), labels]
    wrong = counted & (best != labels) & (probabilities[np.arange(len(labels)), best] > given)
    return joint / joint.sum(), wrong


def _finding(
    material: Material,
    row: int,
    chances: NDArray[np.float64],
    names: list[str],
    given: int,
    scores: NDArray[np.float32],
) -> Finding:
    best = int(chances.argmax())
    clear = chances[best] >= CLEAR
    why = (
        f"Labelled {names[given]}; {chances[best]:.0%} {names[best]} by a model that never saw it "
        f"({names[given]} {chances[given]:.1%})."
    )
    return Finding(
        "label_error",
        material.cells.ids[row],
        material.cells.content_hash[row],
        float(scores[row]),
        "relabel" if clear else "review",
        why,
        label=names[given],
        new_label=names[best] if clear else "",
    )


def _together(material: Material, rows: NDArray[np.intp]) -> list[str]:
    """What keeps images in one fold: the group where there is one, else the pixels."""
    cells = material.cells
    if cells.groups is None:
        return [cells.content_hash[row] for row in rows]
    return [str(cells.groups[row]) or cells.content_hash[row] for row in rows]


def _rows_of(vectors: NDArray[np.float16], rows: NDArray[np.intp]) -> NDArray[np.float16]:
    """All rows without copying a memory map where all are wanted."""
    return vectors if len(rows) == len(vectors) else vectors[rows]


def _balanced_accuracy(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    right = probabilities.argmax(1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))
