"""Labels that disagree with what the picture looks like: confident learning on out-of-fold probabilities.

Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021). The package
cleanlab has the same method under Apache-2.0; the few lines it takes are written here because it would bring pandas.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemascope.audit.material import Material
from hemascope.audit.out_of_fold import FOLDS, out_of_fold_probabilities
from hemascope.cells import UNLABELLED
from hemascope.data.split_clusters import clusters, cut
from hemascope.errors import DataError
from hemascope.findings import CheckResult, Finding
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.progress import SILENT, Progress

FEWEST = FOLDS
"""Images a class needs to be judged."""

CLEAR = 0.9
"""Probability of another class from which on that class is suggested; below, a person is asked to look. With 3 % of the
labels of one half of the real cells flipped, 98 % of such suggestions named the true class; with 1 %, 72 %: the fewer
labels are wrong, the more of what stands out are cells on the border of two classes."""

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

_WARNING = (
    "The network was trained on these very labels. It may remember wrong ones, and they are then missed: "
    "audit with the backbone as it was before training."
)


def check_label_errors(
    material: Material,
    *,
    ignore: NDArray[np.bool_] | None = None,
    trained_on_these: bool = False,
    progress: Progress = SILENT,
) -> CheckResult:
    """``label_error``: labels that a model which never saw the image finds wrong, with the class it would give.

    ignore            bool (N,), images that are no cells: nothing is learnt from them and nothing said of them
    trained_on_these  the embeddings are of a run that was trained on these labels. They remember labels, wrong ones
                      too, so the model is not blind to them however the folds are cut: ``summary`` then warns

    Probabilities come from five folds (``out_of_fold``); equal pictures and images of one group lie in one fold, and
    copies of a picture teach as one, so that no picture vouches for its own label. The score is p / (p + q), p the
    probability of the given label and q that of the likeliest other class. Findings are as many images as confident
    learning estimates to be wrong (``confident_joint``), those with the lowest scores, all below 0.5. Classes of fewer
    than five images, or all of whose images are copies or of one group, are left out and named; the score is NaN for
    their images and for unlabelled and ignored ones. Not applicable with fewer than two classes left.

    ``summary`` holds ``classes`` (K names: the order of the matrices), ``images`` judged, ``estimated_errors`` and
    ``estimated_share_of_errors``, ``joint`` (K x K, label given by true class, summing to 1), ``noise_matrix`` (K x K,
    row i: how images truly of class i are labelled, summing to 1), ``out_of_fold_accuracy`` and
    ``out_of_fold_balanced_accuracy`` (of the given labels), ``confusion`` (K x K, label given by class named, counts),
    ``classes_left_out`` (name to reason), ``shrinkage``, ``doubted`` and, where it applies, ``warning``.

    Natural confusions count: of clean sets about as many images are found as lie far on the wrong side of a border
    between classes. Raises DataError where ``ignore`` is not bool (N,).
    """
    began = time.perf_counter()
    cells = material.cells
    asked = _asked(material, ignore)
    if len(asked.classes) < 2:
        return CheckResult("label_error", not_applicable=_too_few(asked.left_out))
    told = out_of_fold_probabilities(
        material.embeddings.vectors,
        asked.labels,
        asked.fold,
        seed=material.seed,
        rows=asked.rows,
        weights=asked.weights,
        progress=progress,
    )
    scores = np.full(len(cells), np.nan, dtype=np.float32)
    scores[asked.rows] = label_score(told.probabilities, asked.labels)
    said = scores[asked.rows]
    joint = confident_joint(told.probabilities, asked.labels)
    estimated = round((1 - float(np.trace(joint))) * len(said))
    worst = _worst(said, estimated)
    names = [cells.class_names[index] for index in asked.classes]
    confusion = confusion_matrix(asked.labels, told.probabilities.argmax(axis=1).astype(np.int64), len(names))
    summary: dict[str, Any] = {
        "classes": names,
        "images": len(said),
        "estimated_errors": estimated,
        "estimated_share_of_errors": round(1 - float(np.trace(joint)), 5),
        "joint": np.round(joint, 6).tolist(),
        "noise_matrix": np.round(noise_matrix(joint), 5).tolist(),
        "out_of_fold_accuracy": round(float(np.trace(confusion)) / len(said), 4),
        "out_of_fold_balanced_accuracy": round(float(balanced_accuracy(confusion)), 4),
        "confusion": confusion.tolist(),
        "classes_left_out": asked.left_out,
        "shrinkage": told.shrinkage,
        "doubted": round(told.doubted, 5),
    }
    if trained_on_these:
        summary["warning"] = _WARNING
    return CheckResult(
        "label_error",
        scores=scores,
        cut=float(said[worst].max()) if len(worst) else 0.0,
        cut_rule=(
            f"Confident learning estimates that {estimated:,} of {len(said):,} labels are wrong: as many images, those "
            "with the lowest scores, are findings. The score sets the probability of the given label against that of "
            "the likeliest other class; 0.5 is where both are equal, and above it nothing is a finding."
        ),
        findings=[
            _finding(material, int(asked.rows[i]), told.probabilities[i], names, int(asked.labels[i]), float(said[i]))
            for i in worst.tolist()
        ],
        summary=summary,
        seconds=time.perf_counter() - began,
    )


def label_score(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """p / (p + q): given label against the likeliest other, 0 to 1, lower is worse. (n, K) and (n,) to (n,)."""
    index = np.arange(len(labels))
    given = probabilities[index, labels].astype(np.float64)
    other = _best_other(probabilities, labels)
    likeliest = probabilities[index, other].astype(np.float64)
    both = given + likeliest
    return np.asarray(np.divide(given, both, out=np.full(len(labels), 0.5), where=both > 0))


def confident_joint(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """The estimated joint distribution of given label (row) and true class (column): (K, K), summing to 1.

    The threshold of a class is the mean probability it has among the images that carry its label. An image counts for
    the likeliest class whose threshold it reaches, if any. Rows are then scaled to the number of images with each
    label. ``probabilities`` (n, K), ``labels`` int64 (n,), every class given at least once.
    """
    held = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.array([probabilities[labels == k, k].mean(dtype=np.float64) for k in range(len(held))])
    confident = probabilities >= thresholds - 1e-6  # a mean of equal numbers may come out just above them
    likeliest = np.where(confident, probabilities, -1).argmax(axis=1)
    counted = confident.any(axis=1)
    joint = confusion_matrix(labels[counted], likeliest[counted].astype(np.int64), len(held)).astype(np.float64)
    diagonal = np.diag_indices_from(joint)
    joint[diagonal] = np.maximum(joint[diagonal], 1)  # a class of whom nobody is confident still has its own images
    joint *= (held / joint.sum(axis=1))[:, None]
    return np.asarray(joint / joint.sum())


def noise_matrix(joint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row i: the shares of labels that images truly of class i are given, summing to 1. From the joint (K, K)."""
    return np.asarray((joint / joint.sum(axis=0)).T)


class _Asked(NamedTuple):
    """What is judged: n of N rows (rising), labels among the ``classes`` (K indices), folds, how much each teaches."""

    rows: Ints
    labels: Ints
    fold: Ints
    weights: NDArray[np.float64]
    classes: Ints
    left_out: dict[str, str]


def _asked(material: Material, ignore: NDArray[np.bool_] | None) -> _Asked:
    cells = material.cells
    count, classes = len(cells), len(cells.class_names)
    if ignore is not None and (ignore.dtype != np.bool_ or ignore.shape != (count,)):
        raise DataError(f"ignore must be bool of shape ({count},), found {ignore.dtype} {ignore.shape}")
    there = cells.labels != UNLABELLED
    if ignore is not None:
        there = there & ~ignore
    held = np.bincount(cells.labels[there], minlength=classes)
    enough = held >= FEWEST
    rows = np.flatnonzero(there & enough[np.maximum(cells.labels, 0)])
    labels = cells.labels[rows]
    fold, weights = np.zeros(len(rows), dtype=np.int64), np.ones(len(rows))
    if len(rows):
        # An unknown hash is equal to no other.
        hashes = [cells.content_hash[row] or f"unknown {row}" for row in rows.tolist()]
        content, together = clusters(hashes, None if cells.groups is None else cells.groups[rows])
        weights = 1 / np.bincount(content)[content]
        rng = np.random.default_rng(material.seed)
        fold = cut(labels, together, [1 / FOLDS] * FOLDS, [True] * FOLDS, rng)
    table = np.bincount(labels * FOLDS + fold, minlength=classes * FOLDS).reshape(classes, FOLDS)
    judged = (table > 0).sum(axis=1) >= 2
    left_out = {
        cells.class_names[k]: f"{held[k]} of {FEWEST} images" if not enough[k] else "all are copies or of one group"
        for k in np.flatnonzero(~judged & (held > 0)).tolist()
    }
    kept = judged[labels]
    number = np.cumsum(judged) - 1
    return _Asked(rows[kept], number[labels[kept]], fold[kept], weights[kept], np.flatnonzero(judged), left_out)


def _too_few(left_out: dict[str, str]) -> str:
    reason = f"it takes two classes of at least {FEWEST} labelled images that are neither copies nor of one group"
    named = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:5])
    return f"{reason} ({named})" if named else reason


def _worst(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the ``count`` lowest scores below 0.5, lowest first, and of those equal to the last of them."""
    order = np.argsort(scores, kind="stable")
    count = min(count, int(np.searchsorted(scores[order], 0.5)))
    if not count:
        return order[:0]
    return order[: np.searchsorted(scores[order], min(scores[order[count - 1]], np.nextafter(0.5, 0)), side="right")]


def _best_other(probabilities: Floats, labels: Ints) -> NDArray[np.intp]:
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    return np.asarray(others.argmax(axis=1))


def _finding(material: Material, row: int, chances: Floats, names: Sequence[str], given: int, score: float) -> Finding:
    other = int(_best_other(chances[None], np.array([given]))[0])
    clear = bool(chances[other] >= CLEAR)
    return Finding(
        "label_error",
        material.cells.ids[row],
        material.cells.content_hash[row],
        score,
        "relabel" if clear else "review",
        f"Labelled {names[given]}; {_percent(chances[other])} {names[other]} by a model that never saw it "
        f"({names[given]} {_percent(chances[given])}).",
        label=names[given],
        new_label=names[other] if clear else "",
    )


def _percent(share: float) -> str:
    """Never 0% or 100%: no model is that sure."""
    if share < 0.005:
        return "under 1%"
    return "over 99%" if share >= 0.995 else f"{share:.0%}"
